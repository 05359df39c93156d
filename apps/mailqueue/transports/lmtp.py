"""Delivery over LMTP (RFC 2033): to a mail store that answers for each recipient."""

from __future__ import annotations

from .smtp import SmtpTransport


class LmtpTransport(SmtpTransport):
    """One LMTP server; `host` may be the path of its socket on this host. Else as SmtpTransport."""

    hello = "LHLO"
    protocol = "lmtp"
