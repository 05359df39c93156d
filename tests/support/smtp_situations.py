"""The situations of the fault matrix, by name: a server that works, and how it is spoilt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .certificates import Certificate, Certificates
from .smtp_faults import Close, Fault, Hang, Raw, Reply, Step

if TYPE_CHECKING:
    from .smtp_session import Session

LOGIN = {"site": "secret"}
PLAIN_PEOPLE = ("one@a.test", "two@a.test", "three@a.test")
BEYOND_ASCII = ("j\u00f6rg@a.test", "j\u00fcrg@a.test", "\u00e4nne@a.test")


@dataclass(frozen=True)
class Spoilt:
    """How to come to a situation.

    Args:
        tls, auth: the server's, from the start.
        login: whether the site has one.
        script: what the server does when it is spoilt.
        changes: attributes that the server has while it is spoilt.
        certificate: the name of the one that it shows while it is spoilt.
        recipients: whom message A goes to.
        brief: the stages at which the site waits for a short time only.
    """

    tls: str = "none"
    auth: Mapping[str, str] | None = None
    login: bool = False
    script: Mapping[str, Step] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    certificate: str = ""
    recipients: tuple[str, ...] = PLAIN_PEOPLE
    brief: tuple[str, ...] = ()

    def settings(self, certificates: Certificates) -> dict[str, Any]:
        """The settings of the site's mailer."""
        secure = {"tls": self.tls == "starttls", "ssl": self.tls == "implicit"}
        login = {"login": "site:secret"} if self.login else {}
        return {**secure, **login, "ca_file": str(certificates.ca_file)}

    def changes_with(self, certificates: Certificates) -> dict[str, Any]:
        """The attributes to give the server."""
        if not self.certificate:
            return dict(self.changes)
        shown: Certificate = getattr(certificates, self.certificate)
        return {**self.changes, "context": shown.server_context()}


def _says(*offers: str) -> dict[str, Step]:
    return {"ehlo": Reply(250, "\n".join(["scripted.test", *offers]))}


def _refusing(word: str, stage: str, reply: Reply) -> dict[str, Step]:
    def refuse(_session: Session, line: str) -> Fault | None:
        return reply if word in line else None

    return {stage: refuse}


SPOILT = {
    "STARTTLS is configured and not offered": Spoilt("starttls", script=_says("SIZE 1000")),
    "STARTTLS is offered and then refused": Spoilt("starttls", script={"starttls": Reply(502, "5.5.1 no")}),
    "STARTTLS is not available for now (454)": Spoilt(
        "starttls", script={"starttls": Reply(454, "4.7.0 no")}
    ),
    "the certificate is signed by nobody": Spoilt("starttls", certificate="self_signed"),
    "the certificate is another host's": Spoilt("starttls", certificate="wrong_host"),
    "the certificate is too old": Spoilt("starttls", certificate="expired"),
    "TLS is spoken on connecting and the server does not": Spoilt(
        "implicit", script={"tls": Raw(b"220 scripted.test ESMTP\r\n")}
    ),
    "the certificate on connecting is signed by nobody": Spoilt("implicit", certificate="self_signed"),
    "the handshake on connecting is closed": Spoilt("implicit", script={"tls": Close()}),
    "the handshake on connecting hangs": Spoilt("implicit", script={"tls": Hang()}, brief=("tls",)),
    "a login is configured and AUTH is not offered": Spoilt(
        auth=LOGIN, login=True, script=_says("SIZE 1000")
    ),
    "AUTH is offered with methods that nobody knows": Spoilt(
        auth=LOGIN, login=True, script=_says("AUTH GSSAPI NTLM")
    ),
    "AUTH is offered and then not known (504)": Spoilt(
        auth=LOGIN, login=True, script={"auth": Reply(504, "5.5.4 what is AUTH")}
    ),
    "the password is wrong": Spoilt(auth=LOGIN, login=True, changes={"auth": {"site": "another"}}),
    "a login is needed and none is configured": Spoilt(changes={"auth": LOGIN}),
    "EHLO is not known, HELO is": Spoilt(script=_refusing("EHLO", "ehlo", Reply(502, "5.5.1 what is EHLO"))),
    "SIZE is offered with less than the message has": Spoilt(changes={"size_limit": 3000}),
    "SIZE is offered and then refused each time": Spoilt(
        script=_refusing("SIZE", "mail", Reply(555, "5.5.4 what is SIZE"))
    ),
    "SMTPUTF8 is needed and not offered": Spoilt(
        changes={"extensions": ("SIZE", "8BITMIME")}, recipients=BEYOND_ASCII
    ),
    "SMTPUTF8 is offered and then refused (555)": Spoilt(
        script=_refusing("SMTPUTF8", "mail", Reply(555, "5.5.4 what is SMTPUTF8")), recipients=BEYOND_ASCII
    ),
    "SMTPUTF8 is offered and then refused (553 5.6.7)": Spoilt(
        script=_refusing("SMTPUTF8", "mail", Reply(553, "5.6.7 ASCII only")), recipients=BEYOND_ASCII
    ),
    "PIPELINING is offered and then refused": Spoilt(
        script=_says("PIPELINING", "SIZE 10000000"), changes={"extensions": ("SIZE",)}
    ),
}
