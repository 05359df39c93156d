"""The faults of the fault matrix, by name: what the scripted server does for each."""

from __future__ import annotations

from dataclasses import replace

from .smtp_client import Drip
from .smtp_faults import Close, Fault, Hang, Late, Raw, Reply, Reset

# The yes of each command (RFC 5321 section 4.3.2, RFC 3207, RFC 4954); TLS has none in words.
_YES = {
    "banner": 220, "ehlo": 250, "starttls": 220, "tls": 220, "auth": 235, "mail": 250, "rcpt": 250,
    "data": 354, "dot": 250, "rset": 250, "quit": 221,
}  # fmt: skip

_LONG = "x" * 10_000
_NOT_ASCII = b"gr\xfc\xdfe \xff\xfe"

_NO_YES: dict[str, Fault] = {
    "no code": Raw(b"hello, nice to meet you\r\n"),
    "empty line": Raw(b"\r\n"),
    "code 999": Raw(b"999 9.9.9 what\r\n"),
    "code 199": Raw(b"199 wait\r\n"),
    "code 399": Raw(b"399 go on\r\n"),
    "yes and no mixed": Raw(b"250-2.0.0 yes\r\n550 5.7.1 no\r\n"),
    "no and yes mixed": Raw(b"550-5.7.1 no\r\n250 2.0.0 yes\r\n"),
    "endless": Raw(b"250-and more\r\n" * 100_000),
    "multi-line 451": Reply(451, "not now\nnot now\nlater"),
    "multi-line 550 5.7.1": Reply(550, "5.7.1 no\n5.7.1 no\n5.7.1 never"),
    "over-long 451": Reply(451, _LONG),
    "non-ASCII 451": Reply(451, _NOT_ASCII),
    "451 without text": Raw(b"451\r\n"),
    "451 ended by LF": Raw(b"451 not now\n"),
    "421 then closed": Reply(421, "4.3.2 closing", then=Close()),
    "half a code": Raw(b"45", then=Close()),
    "half a reply": Raw(b"250-2.0.0 first line\r\n", then=Close()),
    "closed": Close(),
    "reset": Reset(),
    "hangs": Hang(),
    "drips": Drip(),
    "late": Late(),
}


def fault_named(name: str, stage: str, *, taken: bool = False) -> Fault:
    """What the server does.

    Args:
        name: one of the matrix: a reply as it stands, or a shape.
        stage: the script's stage, whose usual answer some shapes are made of.
        taken: whether the server keeps the message though it does not say so; for the dot.
    """
    yes = _YES[stage]
    shapes = _NO_YES | {
        "code 299": Reply(299, "fine"),
        "multi-line yes": Reply(yes, "yes\nyes\nof course"),
        "over-long yes": Reply(yes, _LONG),
        "non-ASCII yes": Reply(yes, _NOT_ASCII),
        "twice": Reply(yes, "yes", times=2),
    }
    fault = shapes.get(name) or Raw(name.encode("ascii") + b"\r\n")
    return replace(fault, taken=taken)
