"""Delivery over SMTP (RFC 5321): one server, and a session with it that is kept between messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple

from .. import words
from ..classify import Failure, classify_reply
from ..errors import MailQueueError
from ..rounds import Steps
from .base import Answer, Letter, Rest, Series, Transport
from .smtp_auth import Login
from .smtp_dialogue import Dialogue, OnceMore
from .smtp_message import Prepared, prepare
from .smtp_series import SmtpSeries
from .smtp_session import IMPLICIT, OPPORTUNISTIC, PLAIN, STARTTLS, Server, Session, Timeouts
from .smtp_tls import Trust, context_of, read_pin
from .smtp_wear import Wear

__all__ = ["IMPLICIT", "OPPORTUNISTIC", "PLAIN", "STARTTLS", "SmtpTransport", "Timeouts"]

_SCHEMES = {PLAIN: "smtp", STARTTLS: "smtp+starttls", IMPLICIT: "smtps", OPPORTUNISTIC: "smtp+opportunistic"}


def _told(login: Login | None) -> tuple[str, str] | None:
    """A login, the same in every process."""
    if login is None or isinstance(login[1], str):
        return login
    return login[0], f"{login[1].__module__}.{login[1].__qualname__}"


class SmtpTransport(Transport):
    """One SMTP server, over one connection that is kept between messages.

    Where the server offers PIPELINING (RFC 2920), the commands of a message go out together, and those
    of the next one, if it is known, with the final dot of the one before.

    Args:
        host: its name or address.
        port: its port.
        security: PLAIN, STARTTLS, IMPLICIT or OPPORTUNISTIC. With STARTTLS and IMPLICIT the certificate is
            verified, always; OPPORTUNISTIC helps against who only listens, and takes no login.
        login: user and password, or user and a function that gives a token for XOAUTH2, or None.
        ca_file: path of the certificates to trust (PEM), instead of the system's.
        pin: SHA-256 of the server's own certificate, which is trusted instead; see smtp_tls.read_pin().
        cert_file: path of a client certificate (PEM).
        key_file: path of its key, where that is in another file.
        source: this host's address that the server is to see.
        hostname: what to say in EHLO; by default this host's name, or its address.
        label: tells it from another one at the same host and port.
        timeouts: seconds for each stage.

    Raises:
        ValueError: a login with OPPORTUNISTIC, a pin that is none, or a key without its certificate.
    """

    hello = "EHLO"
    protocol = "smtp"

    def __init__(
        self,
        host: str,
        port: int,
        *,
        security: str = STARTTLS,
        login: Login | None = None,
        ca_file: str | None = None,
        pin: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        source: str | None = None,
        hostname: str | None = None,
        label: str | None = None,
        timeouts: Timeouts | None = None,
    ):
        if login and security == OPPORTUNISTIC:
            raise ValueError("with opportunistic TLS a login could be read by whoever takes STARTTLS away")
        if key_file and not cert_file:
            raise ValueError("key_file is the key of a client certificate: cert_file is missing")
        trust = Trust(ca_file, read_pin(pin) if pin else None, cert_file, key_file)
        self._server = Server(host, port, security, login, trust, hostname, source, self.hello)
        self._label = f"#{label}" if label else ""
        self._timeouts = timeouts or Timeouts()
        self._session: Session | None = None
        self._distrusted: set[str] = set()
        self._wear = Wear()
        self._answers_soon = True

    @property
    def name(self) -> str:
        """Scheme, host, port and label. Not the user: some providers' user names are secrets."""
        server = self._server
        scheme = _SCHEMES[server.security].replace("smtp", self.protocol)
        if server.host.startswith("/"):
            return f"{scheme}://{server.host}{self._label}"
        host = f"[{server.host}]" if ":" in server.host else server.host
        return f"{scheme}://{host}:{server.port}{self._label}"

    def settings(self) -> tuple[object, ...]:
        """Everything that was configured, the password included."""
        server = self._server
        trust = server.trust
        usual = (self.name, _told(server.login), trust.ca_file, server.hostname, *astuple(self._timeouts))
        rare = (trust.pin, trust.cert_file, trust.key_file, server.source)
        return (*usual, *rare) if any(rare) else usual

    def check_files(self) -> None:
        """See whether certificates and key can be used."""
        server = self._server
        if server.security != PLAIN and (server.trust.ca_file or server.trust.cert_file):
            context_of(server.trust, verified=server.security != OPPORTUNISTIC)

    def approach(self) -> None:
        """Connect and secure the connection, or find the kept one still alive."""
        self.stage = words.CONNECT
        if self._session is not None and self._goes_on(self._session):
            return
        self._drop()
        self._session = Session(self._server, self._timeouts, self._at, self._distrusted)
        self._wear.renewed()

    def open(self) -> None:
        """Connect, secure the connection, log in; or find the kept connection still alive."""
        self.approach()
        self._connected().log_in()

    def _goes_on(self, session: Session) -> bool:
        """Whether the session can take another message, as far as that can be told."""
        if session.is_over or session.awaits_replies:
            return not session.is_over  # what the server said, deliver() will read
        if self._wear.worn_out:
            session.quit()
            return False
        if session.wire.has_unread():
            self._wear.ended()
            return False
        return True

    def deliver(
        self,
        sender: str,
        recipients: Sequence[str],
        mime: bytes,
        *,
        smtputf8: bool,
        before_dot: Callable[[list[str]], None],
    ) -> list[Answer]:
        """Hand one message over; see Transport.deliver()."""
        letter = Letter(sender, tuple(recipients), mime, smtputf8)
        try:
            while True:  # each reason to try again comes once at most
                try:
                    return self._converse(letter, before_dot)
                except OnceMore:
                    self._wear.ended()
                    self.open()
        except MailQueueError:
            raise
        except BaseException:
            self._drop()  # in the middle of a dialogue; nothing more may be said on this connection
            raise

    def _converse(self, letter: Letter, before_dot: Callable[[list[str]], None]) -> list[Answer]:
        prepared = self._prepared(letter)
        dialogue = Dialogue(self._connected(), prepared, self._at)
        # Where answers come late, an announced message would cost a connection each time.
        announces = self._wear.takes_another and self._answers_soon and not self._connected().answers_each
        answers = dialogue.run(before_dot, self.following if announces else None)
        self._answers_soon = not dialogue.was_late
        self._wear.used()
        return answers

    def go_on(self, series: Series) -> Steps[Rest]:
        """Hand over the messages behind the one that was just delivered; see Transport.go_on()."""
        session = self._session
        if session is None or session.is_over or session.ahead is None:
            return list
        run = SmtpSeries(session, self._wear, series, self.following, self._at)
        yield from run.steps()
        return lambda: self._concluded(run)

    def _concluded(self, run: SmtpSeries) -> list[Answer]:
        answers = run.conclude()
        self._answers_soon = not run.was_late
        return answers

    def _prepared(self, letter: Letter) -> Prepared:
        """The message as this session needs it: what went out ahead, if it is the same one."""
        ahead = self._connected().ahead
        if ahead and ahead.letter == letter:
            return ahead
        if ahead:  # something else is to be sent after all; the server waits for that text
            self._drop()
            self.open()
        self.stage = words.MAIL
        return prepare(letter, self._connected().extensions)

    # --- for whoever looks at the server ------------------------------------------------------

    @property
    def extensions(self) -> Mapping[str, str]:
        """What the server of the open session offers, by keyword."""
        return self._connected().extensions

    @property
    def peer_certificate(self) -> bytes | None:
        """The certificate that the server of the open session has shown, in DER; None: there is no TLS."""
        return self._connected().wire.peer_certificate

    @property
    def host(self) -> str:
        """The server's name or address, or the path of its socket."""
        return self._server.host

    def try_sender(self, sender: str, recipient: str) -> Failure | None:
        """Ask whether the server would take a message, and take it back. None: it would.

        Raises:
            OSError: the connection is lost.
        """
        session, patience = self._connected(), self._timeouts.greeting
        for stage, line in ((words.MAIL, f"MAIL FROM:<{sender}>"), (words.RCPT, f"RCPT TO:<{recipient}>")):
            self.stage = stage
            reply = session.ask(f"{line}\r\n".encode(), patience)
            if not reply.positive:
                session.reset()
                return classify_reply(stage, reply.code, reply.text)
        session.reset()
        return None

    def close(self) -> None:
        """Say goodbye and close the connection."""
        self.stage = words.QUIT
        if self._session is not None:
            self._session.quit()
        self._drop()

    def _at(self, stage: str) -> None:
        self.stage = stage

    def _connected(self) -> Session:
        if self._session is None or self._session.is_over:
            raise ConnectionResetError("the connection is closed")
        return self._session

    def _drop(self) -> None:
        if self._session is not None:
            self._session.cut()
            self._session = None
