"""django-mailer with its defaults: send_html_mail(), then the engine's send_all()."""

from __future__ import annotations

import messages

from .base import Contender
from .django_site import configure


class Adapter(Contender):
    """One transaction and one connection for each message."""

    def set_up(self) -> None:
        configure(
            self,
            ["mailer"],
            EMAIL_BACKEND="mailer.backend.DbBackend",
            MAILER_EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
            MAILER_LOCK_PATH=str(self.folder / "send_mail"),
        )

    def enqueue(self, n: int) -> None:
        from mailer import send_html_mail

        for number in range(n):
            message = messages.make(number)
            send_html_mail(
                message["subject"], message["text"], message["html"], message["sender"], [message["to"]]
            )

    def drain(self) -> None:
        from mailer.engine import send_all

        send_all()
