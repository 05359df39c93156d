"""What is wrong with a key is the site's fault: no message is sent without, and none is lost."""

from __future__ import annotations

from ..classify import DeliveryError, Failure
from ..words import BUILD, CONFIGURATION

# These stop the messages that are to be signed or encrypted, and none of the others.
OF_A_PROTECTED_MESSAGE = frozenset({"cipher-settings", "cipher-extra", "smime-key", "pgp-key"})
# Nothing that another transport could put right.
OF_KEYS = OF_A_PROTECTED_MESSAGE | {"dkim-key", "dkim-extra"}


def key_fault(rule: str, text: str) -> DeliveryError:
    """The exception for a message that cannot be signed or encrypted as configured.

    Args:
        rule: one of OF_KEYS.
        text: what is wrong, without secrets.
    """
    return DeliveryError(Failure(CONFIGURATION, BUILD, rule, text))
