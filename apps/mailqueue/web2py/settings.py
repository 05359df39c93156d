"""The settings of web2py's Mail, of which the server is always there."""

from __future__ import annotations

from typing import Any

from gluon.storage import Settings, Storage

NOT_SET = "(not set)"


class MailSettings(Settings):  # type: ignore[misc]  # web2py has no type hints
    """Settings whose `server` is true even where nothing is configured.

    Sites, Sahana Eden among them, ask `mail.settings.server` whether they can send at all. With a queue
    they always can: that no server is configured is the administrator's business, not the visitor's.

    Args:
        settings: those of web2py's Mail.
    """

    def __init__(self, settings: Settings):
        super().__init__()
        for key, value in settings.items():
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, (value or NOT_SET) if key == "server" else value)

    def update(self, *given: Any, **settings: Any) -> None:
        """Set several at once, which dict's own update() does past __setitem__()."""
        for key, value in dict(*given, **settings).items():
            self[key] = value

    def add(self, **settings: Any) -> None:
        """Add settings that web2py's Mail does not have; its own are locked against that."""
        for key, value in settings.items():
            self[key] = value

    def configured(self) -> Storage:
        """The settings as they were made, a server that is not set being None."""
        return Storage(self, server=None if self.server == NOT_SET else self.server)
