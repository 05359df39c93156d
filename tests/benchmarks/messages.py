"""The one message that every contender sends.

About 2 KB on the wire, text and HTML, with a link of the recipient's own. Plain ASCII in short
lines, so that no contender is slowed by, or escapes through, its choice of a transfer encoding.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from email import policy
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

SENDER = "Accounts <accounts@site.test>"
SENDER_ADDRESS = "accounts@site.test"

_TEXT = """Hello {name},

thank you for registering. To finish, please confirm that this
address belongs to you by opening the link below within 24 hours:

{link}

If you did not ask for an account, ignore this message: nothing
will happen and the address is removed from our records.

Why we ask: a confirmed address lets you reset your password, and
keeps other people from signing up with an address that is yours.

Regards,
the accounts team
--
Site Ltd, 1 Main Street, Sometown. https://site.test/
"""

_HTML = """<!DOCTYPE html>
<html><head><meta charset="utf-8">
<title>{subject}</title></head>
<body style="font-family:sans-serif;color:#222;margin:0;padding:24px">
<table role="presentation" width="560" cellpadding="0" cellspacing="0">
<tr><td style="padding:16px;background:#f4f6f8">
<h1 style="font-size:20px;margin:0 0 12px">Hello {name},</h1>
<p>thank you for registering. To finish, please confirm that this
address belongs to you within 24 hours:</p>
<p><a href="{link}"
style="background:#06c;color:#fff;padding:10px 18px">Confirm address</a></p>
<p style="font-size:12px;color:#667">If the button does not work, open
this link: {link}</p>
<p style="font-size:12px;color:#667">If you did not ask for an account,
ignore this message.</p>
</td></tr></table>
</body></html>
"""

_boundaries = itertools.count()


def token(number: int) -> str:
    """The secret in the link of one recipient."""
    return hashlib.sha256(f"bench-{number}".encode()).hexdigest()[:32]


def make(number: int) -> dict[str, str]:
    """One message: to, sender, subject, text, html."""
    name = f"User{number:06d}"
    subject = f"Please confirm your address ({number})"
    link = f"https://site.test/verify?t={token(number)}"
    return {
        "to": f"user{number:06d}@site.test",
        "sender": SENDER,
        "subject": subject,
        "text": _TEXT.format(name=name, link=link),
        "html": _HTML.format(name=name, link=link, subject=subject),
    }


def by_email_message(message: dict[str, str]) -> bytes:
    """What goes over the wire, made by email.message.EmailMessage."""
    made = EmailMessage()
    made["Subject"] = message["subject"]
    made["From"] = message["sender"]
    made["To"] = message["to"]
    made["Date"] = formatdate()
    made["Message-ID"] = make_msgid(domain="site.test")
    made.set_content(message["text"])
    made.add_alternative(message["html"], subtype="html")
    return made.as_bytes(policy=policy.SMTP)


def ready_made(message: dict[str, str]) -> bytes:
    """What goes over the wire, put together by hand: right for this message alone."""
    boundary = f"=_{os.getpid():x}_{next(_boundaries):x}"
    head = (
        f"Subject: {message['subject']}\nFrom: {message['sender']}\nTo: {message['to']}\n"
        f"Date: {formatdate()}\nMessage-ID: <{boundary}@site.test>\nMIME-Version: 1.0\n"
        f'Content-Type: multipart/alternative; boundary="{boundary}"\n'
    )
    parts = "".join(
        f'\n--{boundary}\nContent-Type: text/{kind}; charset="utf-8"\n'
        f"Content-Transfer-Encoding: 7bit\n\n{text}"
        for kind, text in (("plain", message["text"]), ("html", message["html"]))
    )
    return f"{head}{parts}\n--{boundary}--\n".replace("\n", "\r\n").encode("ascii")
