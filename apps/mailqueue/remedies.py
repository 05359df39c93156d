"""What to tell a site's administrator: for each rule of classify.py a summary and a remedy."""

from __future__ import annotations

from typing import NamedTuple

from . import words
from .classify import Failure


class Advice(NamedTuple):
    """Plain words for one cause: what is wrong, and what to do."""

    summary: str
    remedy: str


NO_MAIL_LOST = "Nothing is lost: the mail waits, and goes out by itself once this is repaired."
# The same in the words of the log, where there are several transports: it does not know what they do.
_NONE_OF_SEVERAL_LOST = (
    "Nothing is lost: mail that no other transport takes waits, and goes out by itself once this is repaired."
)
NO_WORKER = Advice(
    "Mail is due, and nobody sends it.",
    "See that the site's scheduler is running (py4web: USE_SCHEDULER in settings.py; web2py: web2py.py"
    " -K yourapp) and has mail.enable_scheduler, or the process or cron job that sends the mail instead.",
)

_ADVICE = {
    "no-server": Advice(
        "No mail server is configured.",
        "Set the server of the mailer (py4web: SMTP_SERVER in settings.py) to host:port of your mail server,"
        " for example mail.your-domain.org:587.",
    ),
    "no-sender": Advice(
        "No sender address is configured.",
        "Set the sender of the mailer (py4web: SMTP_SENDER in settings.py) to an address that your mail"
        " server lets you send from.",
    ),
    "example-sender": Advice(
        "The sender address is still the example that the site's template came with.",
        "Set the sender of the mailer (py4web: SMTP_SENDER in settings.py) to an address of your own.",
    ),
    "bad-sender": Advice(
        "The configured sender is not an e-mail address.",
        "Correct the sender of the mailer (py4web: SMTP_SENDER in settings.py): name@domain, or"
        " Site Name <name@domain>.",
    ),
    "bad-login": Advice(
        "The configured login cannot be right.",
        "Set the login of the mailer (py4web: SMTP_LOGIN in settings.py) to user:password, or to None.",
    ),
    "unknown-server": Advice(
        "The configured mail server is of a kind that this version cannot use.",
        "Set the server of the mailer (py4web: SMTP_SERVER in settings.py) to host:port, or to logging.",
    ),
    "bad-server-address": Advice(
        "The address of the mail server cannot be right.",
        "Correct the server of the mailer (py4web: SMTP_SERVER in settings.py): host:port, the port a"
        " number.",
    ),
    "bad-transport": Advice(
        "One of the configured transports cannot be used.",
        "Correct what is wrong with it, in transports= or routes= of the mailer.",
    ),
    "missing-extra": Advice(
        "One of the configured transports needs a package that is not installed.",
        "Install it with the command shown, in the site's own Python environment, and restart the site.",
    ),
    "bad-ca-file": Advice(
        "The file of trusted certificates for the mail server cannot be read.",
        "Set ca_file to a readable file in PEM format, or leave it out to trust the system's.",
    ),
    "bad-client-certificate": Advice(
        "The certificate with which this site shows itself to the mail server cannot be read.",
        "Set cert_file and key_file to readable files in PEM format that belong together, the key without a"
        " password.",
    ),
    "dkim-key": Advice(
        "A key for DKIM cannot be used, so mail that is to be signed with it is not sent.",
        "Correct what is wrong with the key, in dkim= of the mailer or its file.",
    ),
    "dkim-extra": Advice(
        "DKIM is configured, and a package that it needs is not installed.",
        "Install it with the command shown, in the site's own Python environment, and restart the site.",
    ),
    "cipher-settings": Advice(
        "Mail is to be signed or encrypted, but the settings do not say how.",
        "Set mail.settings.cipher_type to 'gpg' or 'x509', and sign, encrypt or both to True.",
    ),
    "cipher-extra": Advice(
        "Mail is to be signed or encrypted, and a package that this needs is not installed.",
        "Install it with the command shown, in the site's own Python environment, and restart the site.",
    ),
    "smime-key": Advice(
        "Mail cannot be signed or encrypted by S/MIME, so it is not sent.",
        "Correct mail.settings.x509_sign_keyfile and what belongs to it, or the files.",
    ),
    "pgp-key": Advice(
        "Mail cannot be signed or encrypted by OpenPGP, so it is not sent.",
        "See that gpg is installed, that mail.settings.sign_passphrase is that of the key that signs, and"
        " that the keyring in mail.settings.gpg_home holds the keys of the sender and of all recipients,"
        " valid and not expired.",
    ),
    "journal-not-writable": Advice(
        "The disk of the workers' journals is full, or the journals cannot be written there.",
        "Make room on that disk, or let the user that runs the site write to the folder of the journals;"
        " another folder can be given to the mailer as journals=.",
    ),
    "name-lookup-failed": Advice(
        "The name of the mail server cannot be looked up at the moment.",
        "If this lasts, check the name server (DNS) that this machine uses.",
    ),
    "name-not-known": Advice(
        "There is no host with the name of the configured mail server.",
        "Check the spelling of the server (py4web: SMTP_SERVER in settings.py).",
    ),
    "connect-refused": Advice(
        "The mail server refuses the connection.",
        "Check host and port of the server (py4web: SMTP_SERVER in settings.py; 587 is usual with"
        " tls=True, 465 with ssl=True), and that the mail server is running.",
    ),
    "connect-timeout": Advice(
        "The mail server cannot be reached: no answer to the connection.",
        "Check host and port of the server (py4web: SMTP_SERVER in settings.py), and whether a firewall"
        " or your hosting company blocks outgoing mail ports.",
    ),
    "unreachable": Advice(
        "The mail server cannot be reached.",
        "Check host and port of the server (py4web: SMTP_SERVER in settings.py) and this machine's network.",
    ),
    "timed-out": Advice(
        "The mail server takes the connection but does not answer.",
        "Check that host and port belong to a mail server, and that tls/ssl fit the port: 587 is usual with"
        " tls=True, 465 with ssl=True. Otherwise ask whoever runs that server.",
    ),
    "connection-lost": Advice(
        "The mail server breaks the connection off.",
        "Check that tls/ssl fit the port: 587 is usual with tls=True, 465 with ssl=True. Otherwise ask"
        " whoever runs that server.",
    ),
    "certificate": Advice(
        "The certificate of the mail server cannot be verified, so nothing was sent to it.",
        "Use the host name that is in the certificate; for a server with a certificate of your own"
        " authority give its file as ca_file=. Verification cannot be switched off.",
    ),
    "not-tls": Advice(
        "The mail server does not speak TLS on this port.",
        "Use tls=True and ssl=False for a port with STARTTLS (587), ssl=True for one with TLS from the start"
        " (465).",
    ),
    "tls-error": Advice(
        "The encrypted connection to the mail server fails.",
        "Check that tls/ssl fit the port, and that the server supports TLS 1.2 or later.",
    ),
    "banner-refused": Advice(
        "The mail server turns this machine away before anything is said.",
        "Ask whoever runs the mail server why it refuses this machine; its own words may tell.",
    ),
    "ehlo-rejected": Advice(
        "The mail server does not accept the name with which this machine introduces itself.",
        "Set mail.settings.hostname to this machine's public host name.",
    ),
    "starttls-not-offered": Advice(
        "Encryption (STARTTLS) is configured, but the mail server does not offer it.",
        "Use the port on which it does (usually 587), ssl=True for port 465, or tls=False for a server on"
        " this very machine.",
    ),
    "starttls-refused": Advice(
        "The mail server offers encryption (STARTTLS) and then refuses it.",
        "Ask whoever runs the mail server; its certificate may be missing.",
    ),
    "tls-required": Advice(
        "The mail server insists on an encrypted connection.",
        "Set tls=True (py4web: SMTP_TLS in settings.py), or ssl=True for port 465.",
    ),
    "auth-not-offered": Advice(
        "A login is configured, but the mail server does not offer one.",
        "Many servers offer it only on an encrypted connection: set tls=True (py4web: SMTP_TLS in"
        " settings.py). If the server needs none, set the login to None.",
    ),
    "auth-rejected": Advice(
        "The mail server rejects user name or password.",
        "Correct the login of the mailer (py4web: SMTP_LOGIN in settings.py), user:password. Some"
        " providers want a password made for this application.",
    ),
    "password-transition": Advice(
        "The mail server wants the password of this account to be changed.",
        "Follow the provider's instructions, then correct the login (py4web: SMTP_LOGIN in settings.py).",
    ),
    "login-not-ascii": Advice(
        "User name or password hold a character that this login cannot carry.",
        "Correct the login of the mailer (py4web: SMTP_LOGIN in settings.py).",
    ),
    "auth-required": Advice(
        "The mail server wants a login before it takes mail.",
        "Set the login of the mailer (py4web: SMTP_LOGIN in settings.py) to user:password.",
    ),
    "relay-denied": Advice(
        "The mail server does not pass mail on to some of the recipients' servers.",
        "Usually a login is missing (py4web: SMTP_LOGIN in settings.py), or this machine must be allowed"
        " to relay.",
    ),
    "relay-denied-for-now": Advice(
        "The mail server does not pass mail on to some of the recipients' servers at the moment.",
        "Usually a login is missing (py4web: SMTP_LOGIN in settings.py), or this machine must be allowed"
        " to relay.",
    ),
    "host-blocked": Advice(
        "The mail server refuses this machine, because its address is on a block list.",
        "The recipients are not to blame. Have the address removed from the list, which the server's own"
        " words may name, or send by a provider's mail server with a login.",
    ),
    "sender-rejected": Advice(
        "The mail server does not let this site send with this sender address.",
        "Set the sender (py4web: SMTP_SENDER in settings.py) to an address that belongs to the login, or"
        " have it verified with your provider.",
    ),
    "sending-paused": Advice(
        "The provider has stopped all sending of this account.",
        "Log in there to see why, and have it allowed again.",
    ),
    "sender-not-ascii": Advice(
        "The sender address holds a character that this mail server cannot take.",
        "Set the sender (py4web: SMTP_SENDER in settings.py) to an address of plain letters.",
    ),
    "sender-not-authenticated": Advice(
        "Mail of this site is refused because its sender's domain does not vouch for it (SPF, DKIM, or the"
        " name of the sending machine).",
        "Correct the DNS records of the sender's domain; the server's own words say which.",
    ),
    "no-worker": NO_WORKER,
    "auth-mail-not-queued": Advice(
        "A mail of the login system could not be put into the queue and was given up.",
        "The person concerned did not get it. Correct the account's address or the text of the mail, as the"
        " reason says.",
    ),
    "no-base-url": Advice(
        "A mail with a link was not sent, because the address of this site is not configured.",
        "Give the app's address, such as https://your-domain.org/yourapp, to mail.enable_auth as base_url, or"
        " its domain to the server as PY4WEB_DOMAINS. Whoever did not get a mail can ask for it again then.",
    ),
    "no-approvers": Advice(
        "An account waits for approval, and there is nobody to ask.",
        "See which approvers mail.enable_approval was given, and that the group has active members. Accounts"
        " that wait are on the page Pending accounts.",
    ),
    "bad-approver": Advice(
        "What stands among the approvers of accounts is no e-mail address, so nobody is asked there.",
        "Correct what the function given to mail.enable_approval as approvers returns, or the address of the"
        " group's member. All others are asked.",
    ),
    "too-many-account-mails": Advice(
        "Mails about accounts were not sent, because there were too many for one address or one visitor.",
        "Somebody may be flooding an address with mail from this site, and nothing is to be done. If it hits"
        " visitors who mean well, raise mails_per_address or mails_per_client of mail.enable_auth; behind a"
        " proxy see that it tells the visitor's address in X-Forwarded-For.",
    ),
    "template-broken": Advice(
        "A mail template of this site cannot be used; the shipped one is used in its place.",
        "Correct what is wrong with the template, its layout or its translation, in templates/mail or"
        " translations of the app.",
    ),
    "greylisted": Advice(
        "The mail server puts off senders that it does not know yet (greylisting).",
        "Nothing is to be done: it takes the mail when it comes again after some minutes.",
    ),
    "unknown-exception": Advice(
        "Sending met an error that mailqueue does not know.",
        "The message is tried again. If it stays, report the error to the authors.",
    ),
}

# Where the stage shows that what the rule's own words tell to check has worked.
_OF_A_STAGE = {
    ("timed-out", words.AUTH): Advice(
        "The mail server stopped answering at the login.",
        "It was reached, and greeted this machine. Ask whoever runs that server why it does not answer the"
        " login.",
    ),
}
_OF_A_KIND = {
    words.MESSAGE: Advice(
        "A message was refused, or could not be made.", "Correct what the reason names, and send it again."
    ),
    words.RECIPIENT: Advice(
        "A recipient was refused.", "Correct the address; the server's own words say why."
    ),
}
_OTHERWISE = Advice(
    "The mail server does not take mail at the moment.", "Its own words say why, as far as it tells."
)


# What to do where the site has transports instead of a server, a login, tls and ssl.
_ADDRESS = (
    "Check {transport} in {place} of the mailer: its host and port, that tls= fits the port (587 is usual"
    " with STARTTLS, 465 with smtps://), that the server is running, and that no firewall or hosting company"
    " blocks outgoing mail ports."
)
_TLS = (
    "Correct {transport} in {place} of the mailer: STARTTLS (tls=required) is usual on port 587, smtps:// on"
    " port 465; tls=none is for a server on this very machine."
)
_LOGIN = (
    "Correct user name and password, or the key, of {transport} in {place} of the mailer. Some providers want"
    " a password made for this application; many servers offer a login only on an encrypted connection."
)
_RELAY = (
    "Usually a login is missing in {transport} in {place} of the mailer, or this machine must be allowed to"
    " relay."
)
_OF_A_TRANSPORT = {
    "bad-server-address": _ADDRESS,
    "name-not-known": _ADDRESS,
    "connect-refused": _ADDRESS,
    "connect-timeout": _ADDRESS,
    "unreachable": _ADDRESS,
    "timed-out": _ADDRESS,
    "connection-lost": _ADDRESS,
    "not-tls": _TLS,
    "tls-error": _TLS,
    "starttls-not-offered": _TLS,
    "tls-required": _TLS,
    "bad-login": _LOGIN,
    "auth-not-offered": _LOGIN,
    "auth-rejected": _LOGIN,
    "password-transition": _LOGIN,
    "login-not-ascii": _LOGIN,
    "auth-required": _LOGIN,
    "relay-denied": _RELAY,
    "relay-denied-for-now": _RELAY,
}
OF_TRANSPORTS = tuple(dict.fromkeys(_OF_A_TRANSPORT.values()))  # as they are stored, for Told.read


def advice(failure: Failure, transport: str = "", place: str = "") -> Advice:
    """Plain words for a failure; where it stops mail, they say that none is lost.

    Args:
        transport: the name of the one that it met.
        place: which setting of the mailer describes that, such as "transports="; "" is the server.
    """
    at_stage = _OF_A_STAGE.get((failure.rule, failure.stage))
    found = at_stage or _ADVICE.get(failure.rule) or _OF_A_KIND.get(failure.kind, _OTHERWISE)
    remedy = found.remedy
    if place and not at_stage and failure.rule in _OF_A_TRANSPORT:
        remedy = _OF_A_TRANSPORT[failure.rule].format(transport=transport, place=place)
    waits = failure.kind == words.CONFIGURATION or failure.stage in words.TRANSPORT_STAGES
    none_lost = _NONE_OF_SEVERAL_LOST if place else NO_MAIL_LOST
    return Advice(found.summary, f"{remedy} {none_lost}" if waits else remedy)


def without_waiting(remedy: str) -> str:
    """A remedy without the assurance for mail that waits."""
    return remedy.removesuffix(f" {NO_MAIL_LOST}").removesuffix(f" {_NONE_OF_SEVERAL_LOST}")
