"""Who may see the administrator's pages, who may act there, and in which language they are."""

from __future__ import annotations

from typing import Any

from py4web import HTTP, response
from py4web.core import Fixture
from py4web.utils.url_signer import URLVerifier
from pydal.tools.tags import Tags

from ...console.refusals import MAY_NOT_ACT, NO_MEMBER, NOT_SIGNED
from .access import let_act, may_act
from .parts import Parts
from .refusals import answer


class MembersOnly(Fixture):  # type: ignore[misc]  # py4web has no type hints
    """Lets the members of groups pass, sends anonymous visitors to the login page, refuses others.

    Args:
        mq: what tells them.
        auth: the host's Auth.
        role: the name of the group whose members may act; membership in a group below it does not count.
        readers: the name of the group whose members may only look; None: there is none.
    """

    def __init__(self, mq: Parts, auth: Any, role: str, readers: str | None):
        self.__prerequisites__ = [auth.user]
        self._mq, self._auth = mq, auth
        self._role, self._readers = role, readers

    def on_request(self, context: Any) -> None:
        """Refuse whoever is not a member.

        Raises:
            HTTP: 403.
        """
        groups = self._groups()
        let_act(self._role in groups)
        if not {self._role, self._readers} & groups:
            raise answer(self._mq, NO_MEMBER)

    def _groups(self) -> set[str]:
        # Looked up now: the host may make its groups after it has enabled the pages.
        db = self._auth.db
        table = f"{db.auth_user}_tag_groups"
        if table not in db.tables:
            return set()
        return set(Tags(db.auth_user, "groups", tag_table=db[table]).get(self._auth.user_id))


class ActingOnly(Fixture):  # type: ignore[misc]
    """Behind MembersOnly: refuses those who may only look.

    Args:
        mq: what tells them.
        members: what lets pass before.
    """

    def __init__(self, mq: Parts, members: MembersOnly):
        self.__prerequisites__ = [members]
        self._mq = mq

    def on_request(self, context: Any) -> None:
        """Refuse whoever may not act.

        Raises:
            HTTP: 403.
        """
        if not may_act():
            raise answer(self._mq, MAY_NOT_ACT)


class SignedOnly(URLVerifier):  # type: ignore[misc]
    """Refuses URLs without a signature that holds.

    Args:
        mq: what signed them, and tells whoever is refused.
    """

    def __init__(self, mq: Parts):
        super().__init__(mq.signer)
        self._mq = mq

    def on_request(self, context: Any) -> None:
        """Look at the signature.

        Raises:
            HTTP: 403.
        """
        try:
            super().on_request(context)
        except HTTP:
            raise answer(self._mq, NOT_SIGNED) from None


class Spoken(Fixture):  # type: ignore[misc]
    """Says in the answer's header which language the pages are in, before the host's Translator says its own.

    Args:
        mq: what translates the pages.
    """

    def __init__(self, mq: Parts):
        self._mq = mq

    def on_request(self, context: Any) -> None:
        """Set the header (RFC 9110 section 8.5)."""
        response.headers["Content-Language"] = self._mq.language_tag
