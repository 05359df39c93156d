"""The providers whose APIs Anymail speaks: what each wants of a URL, and what it does to a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Where a provider takes an idempotency key.
HTTP_HEADER = "Idempotency-Key"  # a field of the HTTP request
MAIL_HEADER = "idempotencyKey"  # one of the mail's own fields, which it takes out

MOST_RECIPIENTS = 50  # in one request: the least that a provider takes


@dataclass(frozen=True)
class ApiProvider:
    """One provider.

    Args:
        title: its name, for people.
        module: of Anymail's backend of it.
        credentials: what the backend calls the parts of the login; of one part the URL holds the key alone.
        options: what the URL may say besides, as the backend calls it.
        needed: the options without which nothing can be sent.
        regions: the address of the API in each region, the usual one first.
        keeps_message_id: whether the message keeps its Message-ID, and so is to bring it.
        beside_message_id: what that takes besides.
        withheld: header fields, in lower case, that it refuses or has for its own.
        idempotency: HTTP_HEADER, MAIL_HEADER or None.
        most_recipients: of one request.
    """

    title: str
    module: str
    credentials: tuple[str, ...] = ("api_key",)
    options: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    regions: Mapping[str, str] = field(default_factory=dict)
    keeps_message_id: bool = False
    beside_message_id: Mapping[str, str] = field(default_factory=dict)
    withheld: frozenset[str] = frozenset()
    idempotency: str | None = None
    most_recipients: int = MOST_RECIPIENTS


# What their own documentation says.
API_PROVIDERS = {
    # It takes "idempotencyKey" out of the fields, must be a UUID, and remembers it for 15 minutes at least.
    "brevo": ApiProvider("Brevo", "brevo", idempotency=MAIL_HEADER),
    # Fields of one's own are for enterprise accounts only, and it takes 10 blind copies.
    "mailersend": ApiProvider(
        "MailerSend",
        "mailersend",
        credentials=("api_token",),
        withheld=frozenset({"auto-submitted"}),
        most_recipients=10,
    ),
    "mailgun": ApiProvider(
        "Mailgun",
        "mailgun",
        options=("sender_domain",),
        regions={"us": "https://api.mailgun.net/v3/", "eu": "https://api.eu.mailgun.net/v3/"},
        keeps_message_id=True,
    ),
    "mailjet": ApiProvider(
        "Mailjet",
        "mailjet",
        credentials=("api_key", "secret_key"),
        withheld=frozenset({"list-id", "user-agent", "x-mailer"}),
    ),
    "mailtrap": ApiProvider("Mailtrap", "mailtrap", credentials=("api_token",), options=("sandbox_id",)),
    "mandrill": ApiProvider("Mandrill", "mandrill", keeps_message_id=True),
    "postal": ApiProvider("Postal", "postal", needed=("api_url",)),
    "postmark": ApiProvider(
        "Postmark",
        "postmark",
        credentials=("server_token",),
        options=("message_stream",),
        keeps_message_id=True,
        beside_message_id={"X-PM-KeepID": "true"},
    ),
    # It remembers the key for 24 hours.
    "resend": ApiProvider("Resend", "resend", idempotency=HTTP_HEADER),
    "scaleway": ApiProvider(
        "Scaleway",
        "scaleway",
        credentials=("secret_key",),
        options=("project_id", "region"),
        needed=("project_id",),
    ),
    "sendgrid": ApiProvider(
        "SendGrid",
        "sendgrid",
        regions={"global": "https://api.sendgrid.com/v3/", "eu": "https://api.eu.sendgrid.com/v3/"},
        keeps_message_id=True,
    ),
    # Of several recipients it tells how many were refused, and not which.
    "sparkpost": ApiProvider(
        "SparkPost",
        "sparkpost",
        options=("subaccount",),
        regions={"us": "https://api.sparkpost.com/api/v1/", "eu": "https://api.eu.sparkpost.com/api/v1/"},
        keeps_message_id=True,
        most_recipients=1,
    ),
    "unisender-go": ApiProvider("Unisender Go", "unisender_go", needed=("api_url",)),
}
