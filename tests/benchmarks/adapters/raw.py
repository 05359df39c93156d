"""smtplib: one connection, ready-made bytes, sendmail() in a loop."""

from __future__ import annotations

import smtplib

import messages

from .base import Raw


class Adapter(Raw):
    """The limit of a simple loop."""

    def drain(self) -> None:
        with smtplib.SMTP(self.host, self.port) as client:
            for address, wire in self.ready:
                client.sendmail(messages.SENDER_ADDRESS, [address], wire)
