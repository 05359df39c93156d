"""Keys in subjects are hidden, and little else."""

from __future__ import annotations

import pytest
from mailqueue.classify import classify_reply
from mailqueue.masking import masked, without_keys


@pytest.mark.parametrize(
    ("subject", "category", "shown"),
    [
        ("123456 is your code", "auth", "•••• is your code"),
        ("Your code: 123 456", "auth", "Your code: ••••"),
        ("Your code: 123-456.", "auth", "Your code: ••••."),
        ("Invoice 2026001234", "site", "Invoice 2026001234"),
        ("Reset: 9f86d081884c7d659a2feaa0", "site", "Reset: ••••"),
        ("Donaudampfschifffahrtsgesellschaft", "auth", "Donaudampfschifffahrtsgesellschaft"),
        ("Room 12, 3 people", "auth", "Room 12, 3 people"),
        ("", "auth", ""),
        ("plain", None, "plain"),
    ],
)
def test_a_subject_is_shown_without_what_may_be_a_key(subject: str, category: str, shown: str) -> None:
    assert masked(subject, category) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "spam: https://x.test/auth/reset?token=abc123def&x=1 no",
            "spam: https://x.test/auth/reset?token=••••&x=1 no",
        ),
        ("<http://x.test/r/9f86d081884c7d659a2feaa0/go>", "<http://x.test/r/••••/go>"),
        ("see https://support.google.com/mail/?p=NoSuchUser a7-20020a05640s12si", None),
        ("queued as 4XyZ9f86d081884c7d659a", None),
    ],
)
def test_links_that_servers_quote_are_kept_without_their_keys(said: str, shown: str | None) -> None:
    assert without_keys(said) == (shown or said)
    assert classify_reply("dot", 554, said).text == (shown or said)
