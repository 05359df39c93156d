"""Tokens of links, which say themselves until when they hold.

Whoever keeps a token, or a hash of it, compares the whole text, so nobody can change the time in it.
"""

from __future__ import annotations

import hashlib
import math
import secrets


def issue(until: float, told: str = "") -> str:
    """A token that nobody can guess.

    Args:
        until: when it ends, epoch seconds.
        told: a text that goes along, readable for everybody.
    """
    return ending(f"{secrets.token_urlsafe(24)}{told}", until)


def ending(text: str, until: float) -> str:
    """A text that is hard to guess as a token that ends at a moment, epoch seconds."""
    return f"{text}.{math.ceil(until)}"


def end(token: str) -> float | None:
    """When a token ends, epoch seconds; None where it does not say."""
    moment = token.rpartition(".")[2] if "." in token else ""
    return float(moment) if moment.isascii() and moment.isdigit() and len(moment) < 15 else None


def hashed(text: str) -> str:
    """What to keep instead of a text that is to stay secret, 64 characters."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
