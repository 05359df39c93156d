"""A mail server that delivers nowhere, and a page in the browser that shows what it caught.

For the demo and for development: it listens on this machine only and keeps mail in memory.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .errors import MissingExtra

_LINK = re.compile(r"https?://[^\s<>\"]+")
_STYLE = """
:root { color-scheme: light dark; }
body { font-family: system-ui, sans-serif; line-height: 1.5; max-width: 50rem;
       margin: 0 auto; padding: 1.5rem 1rem; }
ul { list-style: none; padding: 0; }
li { border-top: 1px solid rgb(128 128 128 / .4); padding: .75rem 0; }
small { opacity: .75; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; padding: 1rem;
      background: rgb(128 128 128 / .12); }
dt { font-weight: 600; }
dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
iframe { width: 100%; height: 24rem; border: 1px solid rgb(128 128 128 / .4); background: white; }
"""


@dataclass(frozen=True)
class Caught:
    """A message as it came."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes

    @property
    def parsed(self) -> EmailMessage:
        """The message, read by the standard library."""
        return message_from_bytes(self.data, policy=policy.default)

    @property
    def text(self) -> str:
        """Its plain text, "" if it has none."""
        return _content(self.parsed, "plain")

    @property
    def html(self) -> str:
        """Its HTML, "" if it has none."""
        return _content(self.parsed, "html")


def _content(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    if part is None:
        return ""
    try:
        return str(part.get_content())
    except LookupError:  # a character set that Python does not know
        return bytes(part.get_payload(decode=True) or b"").decode("utf-8", "replace")


class Catcher:
    """The SMTP server and the inbox, as a context manager.

    Args:
        smtp_port: 0 for any free one; known as `smtp_port` afterwards.
        inbox_port: the same for the page.

    Raises:
        MissingExtra: aiosmtpd is not installed.
        OSError: a port is taken.
    """

    def __init__(self, smtp_port: int = 0, inbox_port: int = 0):
        try:
            from aiosmtpd.controller import Controller
        except ImportError as error:
            raise MissingExtra("demo", "the mail catcher") from error
        self.messages: list[Caught] = []
        self._inbox = ThreadingHTTPServer(("127.0.0.1", inbox_port), _handler(self.messages))
        self.inbox_port = int(self._inbox.server_address[1])
        self.inbox_url = f"http://127.0.0.1:{self.inbox_port}/"
        self.smtp_port = smtp_port or _free_port()
        self._smtp = Controller(self, hostname="127.0.0.1", port=self.smtp_port, enable_SMTPUTF8=True)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Take a message (called by aiosmtpd)."""
        self.messages.append(Caught(envelope.mail_from, tuple(envelope.rcpt_tos), envelope.original_content))
        return f"250 2.0.0 caught as number {len(self.messages)}"

    def __enter__(self) -> Catcher:
        self._smtp.start()
        threading.Thread(target=self._inbox.serve_forever, name="mail catcher's inbox", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._smtp.stop()
        self._inbox.shutdown()
        self._inbox.server_close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _handler(messages: list[Caught]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content_type, body = _answer(self.path, messages)
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
            self.end_headers()
            self.wfile.write((body or "There is no such message.").encode("utf-8"))

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing: the demo's own words are enough."""

    return Handler


def _answer(path: str, messages: list[Caught]) -> tuple[str, str]:
    html = "text/html; charset=utf-8"
    if path == "/messages.json":
        listed = [{"to": m.recipients, "subject": str(m.parsed["Subject"]), "text": m.text} for m in messages]
        return "application/json", json.dumps(listed)
    if path == "/":
        return html, _list_page(messages)
    number = path.removeprefix("/")
    if number.isdecimal() and 0 < int(number) <= len(messages):
        return html, _message_page(messages[int(number) - 1])
    return "text/plain; charset=utf-8", ""


def _list_page(messages: list[Caught]) -> str:
    items = [
        f'<li><a href="/{number}">{escape(str(message.parsed["Subject"]))}</a><br>'
        f"<small>to {escape(', '.join(message.recipients))}</small></li>"
        for number, message in enumerate(messages, 1)
    ]
    listed = f"<ul>{''.join(reversed(items))}</ul>" if items else "<p>No mail has arrived yet.</p>"
    refresh = '<meta http-equiv="refresh" content="2">'
    return _page("Inbox", f"<h1>Inbox</h1>{listed}", refresh)


def _message_page(message: Caught) -> str:
    head = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in message.parsed.items()
    )
    html = message.html
    frame = f'<iframe sandbox title="HTML" srcdoc="{escape(html)}"></iframe>' if html else ""
    body = f'<p><a href="/">Inbox</a></p><dl>{head}</dl><pre>{_linked(message.text)}</pre>{frame}'
    return _page(escape(str(message.parsed["Subject"])), body)


def _page(title: str, body: str, head: str = "") -> str:
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>{head}<style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _linked(text: str) -> str:
    """The text, escaped, its links to be clicked."""
    pieces, end = [], 0
    for link in _LINK.finditer(text):
        target = escape(link[0])
        pieces += [escape(text[end : link.start()]), f'<a href="{target}">{target}</a>']
        end = link.end()
    return "".join(pieces) + escape(text[end:])
