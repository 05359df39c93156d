"""The fault matrix: for every stage of SMTP and every fault, what it means and what must follow.

Data only. tests/test_fault_matrix.py runs each cell over real SMTP; docs/fault-matrix.md is made of it:

    python tests/fault_matrix.py > docs/fault-matrix.md

In each cell message A, to three recipients, meets the fault once (at the stages up to AUTH: until the
server is repaired), and message B to somebody else waits behind it. The server has worked before.
It offers PIPELINING, but for the cells in IN_TURN. Where nothing pauses the transport, B goes out in the
same run of the queue, else after the repair.
"""

from __future__ import annotations

from support.smtp_cells import AT_ONCE, IF_IT_LASTS, NEVER, Fate, Row, Situation

# --- the stages ------------------------------------------------------------------------------
STAGES = {
    "banner": "The greeting.",
    "EHLO": "The answer to EHLO, and to the HELO that follows where EHLO is not known.",
    "STARTTLS": "The answer to STARTTLS.",
    "TLS": "The handshake: whatever is sent here, is sent instead of it.",
    "AUTH": "The answer to AUTH.",
    "MAIL": "The answer to MAIL FROM, the first on a new connection.",
    "kept MAIL": "The answer to MAIL FROM on a connection that has served a message before.",
    "RCPT 1": "The answer to RCPT TO for the first of three recipients.",
    "RCPT 2": "The answer to RCPT TO for the second of three recipients.",
    "RCPT 3": "The answer to RCPT TO for the last of three recipients.",
    "every RCPT": "The answers to RCPT TO for all three recipients.",
    "DATA": "The answer to DATA.",
    "dot": "The answer to the final dot.",
    "RSET": "The answer to RSET, after each recipient was put off with 450.",
    "QUIT": "The answer to QUIT, after both messages.",
}
_WAY = "banner | EHLO | STARTTLS | AUTH"
_ONE = "RCPT 1 | RCPT 2 | RCPT 3"
_RCPT = f"{_ONE} | every RCPT"
_MAIL = "MAIL | kept MAIL"
_TEXT = "DATA | dot"
_MESSAGE = f"{_MAIL} | {_RCPT} | {_TEXT}"
_EVERYBODY = f"{_MAIL} | every RCPT | {_TEXT}"  # no recipient has another answer

# --- the faults ------------------------------------------------------------------------------
# A reply is sent as it stands here.
REPLIES = (
    "421",
    "421 4.3.2",
    "432 4.7.12",
    "450",
    "450 4.7.1",
    "450 5.1.1",
    "451",
    "451 4.7.1",
    "452",
    "452 4.2.2",
    "452 4.3.1",
    "452 4.3.4",
    "452 4.5.3",
    "452 Too many recipients",
    "454",
    "454 4.7.0",
    "454 4.7.12",
    "455",
    "500 5.5.2",
    "501",
    "501 5.1.7",
    "502",
    "503",
    "504",
    "521",
    "530",
    "530 5.7.0",
    "530 Must issue a STARTTLS command first",
    "534 5.7.9",
    "535 5.7.8",
    "538 5.7.11",
    "550",
    "550 4.7.1",
    "550 5.1.1",
    "550 5.2.1",
    "550 5.4.5",
    "550 5.7.1",
    "550 5.7.1 Relaying denied",
    "550 5.7.25",
    "550 5.7.26",
    "550 Authentication required",
    "550 No such user",
    "551",
    "552",
    "552 5.2.2",
    "552 5.3.4",
    "553",
    "553 5.1.8",
    "554",
    "554 5.6.0",
    "554 5.7.1",
    "554 5.7.1 Client host [192.0.2.1] blocked",
    "555",
    "556 5.1.10",
)
SHAPES = {
    "no code": "A line of words without a code.",
    "empty line": "A line end and nothing else.",
    "code 999": "A code that SMTP does not have.",
    "code 199": "A code of the class 1yz, which SMTP does not use.",
    "code 299": "Another yes (2yz) than the usual one.",
    "code 399": "Another 3yz than the usual one.",
    "yes and no mixed": "One reply of two lines: 250, then 550 5.7.1.",
    "no and yes mixed": "One reply of two lines: 550 5.7.1, then 250.",
    "endless": "A hundred thousand lines of one reply.",
    "multi-line 451": "451 on each of three lines.",
    "multi-line 550 5.7.1": "550 5.7.1 on each of three lines.",
    "multi-line yes": "The usual answer on three lines.",
    "over-long 451": "451 and ten thousand letters on one line.",
    "over-long yes": "The usual answer and ten thousand letters on one line.",
    "non-ASCII 451": "451 and octets that are neither ASCII nor UTF-8.",
    "non-ASCII yes": "The usual answer and octets that are neither ASCII nor UTF-8.",
    "451 without text": "The three digits and the line end.",
    "451 ended by LF": "451 and a line feed alone.",
    "421 then closed": "421 and the end of the connection.",
    "twice": "The usual answer, two times at once.",
    "late": "The usual answer, late but within the time-out.",
    "half a code": "Two octets and the end of the connection.",
    "half a reply": "The first line of two and the end of the connection.",
    "closed": "The end of the connection instead of an answer.",
    "reset": "A TCP reset instead of an answer.",
    "hangs": "No answer within the time-out.",
    "drips": "An octet now and then, and no line within the time-out.",
}
FAULTS = (*REPLIES, *SHAPES)

# --- what follows ----------------------------------------------------------------------------
# what becomes of those it meets, attempts spent on each of them, transport paused, problem entry
GOES_OUT = Fate("sent", 0, False, NEVER)
WAY_WAITS = Fate("waits", 0, True, IF_IT_LASTS)
REPORTED = Fate("waits", 0, True, AT_ONCE)
HELD = Fate("waits", 0, False, AT_ONCE)  # nobody but them waits for the administrator
SPLIT = Fate("again", 0, False, NEVER)  # at once, in a transaction of their own
AGAIN = Fate("again", 1, False, NEVER)
ALL_AGAIN = Fate("again", 1, False, NEVER, all_met=True)
FAILED = Fate("failed", 1, False, NEVER)
DEAD = Fate("failed", 1, False, NEVER, dead=True)
IN_DOUBT = Fate("in doubt", 1, False, NEVER)

# --- the matrix ------------------------------------------------------------------------------
_CODE_451 = "multi-line 451 | over-long 451 | non-ASCII 451 | 451 without text | 451 ended by LF"
_CODE_421 = "421 | 421 4.3.2 | 421 then closed"
_YES = "code 299 | multi-line yes | over-long yes | non-ASCII yes | late"
_NO_REPLY = "no code | empty line | code 999 | code 199 | yes and no mixed | no and yes mixed | endless"
_BROKEN = "half a code | half a reply | closed | reset"

# stages, kind, rule, what follows, faults
ROWS = (
    # An answer that says yes is a yes, whatever it looks like.
    Row(f"{_WAY} | {_MAIL} | {_RCPT} | dot", "", "", GOES_OUT, _YES),
    # RFC 5321 section 4.3.2: 354 is the only yes to DATA
    Row("DATA", "", "", GOES_OUT, "multi-line yes | over-long yes | non-ASCII yes | late"),
    # PIPELINING, offered and then refused: one command after the other
    Row("DATA", "", "", GOES_OUT, "503"),
    # --- the way to the server: it costs no message an attempt
    Row(_WAY, "T", "service-closing", WAY_WAITS, _CODE_421),
    Row(_WAY, "T", "senseless-reply", WAY_WAITS, f"{_NO_REPLY} | code 399"),
    Row(_WAY, "T", "connection-lost", WAY_WAITS, _BROKEN),
    Row(_WAY, "T", "timed-out", WAY_WAITS, "hangs | drips"),
    Row("banner | EHLO | AUTH", "T", "connection-lost", WAY_WAITS, "twice"),
    # RFC 3207 section 4.2: what was said before TLS is forgotten
    Row("STARTTLS", "", "", GOES_OUT, "twice"),
    Row("banner | EHLO | STARTTLS", "T", "server-deferred", WAY_WAITS, "any other 4xx"),
    Row(_WAY, "C", "sender-not-authenticated", REPORTED, "550 5.7.25 | 550 5.7.26"),
    Row(_WAY, "C", "tls-required", REPORTED, "538 5.7.11 | 530 Must issue a STARTTLS command first"),
    Row("banner | EHLO | STARTTLS", "C", "auth-required", REPORTED, "530 | 530 5.7.0"),
    Row("banner | EHLO", "C", "host-blocked", REPORTED, "554 5.7.1 Client host [192.0.2.1] blocked"),
    Row("banner", "T", "banner-refused", WAY_WAITS, "any other 5xx"),
    Row("EHLO", "C", "ehlo-rejected", REPORTED, "any other 5xx"),
    Row("STARTTLS", "C", "starttls-refused", REPORTED, "any other 5xx"),
    Row("AUTH", "C", "password-transition", REPORTED, "432 4.7.12 | 454 4.7.12"),
    Row("AUTH", "T", "server-deferred", WAY_WAITS, "any other 4xx"),
    Row("AUTH", "C", "auth-rejected", REPORTED, "any other 5xx"),
    # --- the handshake
    Row("TLS", "", "", GOES_OUT, "late"),
    Row("TLS", "T", "timed-out", WAY_WAITS, "hangs"),
    Row("TLS", "T", "tls-error", WAY_WAITS, "closed | half a code | empty line"),
    Row("TLS", "T", "connection-lost", WAY_WAITS, "reset"),
    Row("TLS", "C", "not-tls", REPORTED, "anything else"),
    # --- a message's own stages: nobody has it yet, so that another try harms nobody
    Row(f"MAIL | {_RCPT} | {_TEXT}", "T", "service-closing", ALL_AGAIN, _CODE_421),
    Row(f"{_MAIL} | {_RCPT} | DATA", "T", "senseless-reply", ALL_AGAIN, _NO_REPLY),
    Row(f"{_MAIL} | {_RCPT}", "T", "senseless-reply", AGAIN, "code 399"),
    Row("DATA", "T", "senseless-reply", AGAIN, "code 299 | code 399 | twice"),
    Row(f"MAIL | {_RCPT} | DATA", "T", "connection-lost", ALL_AGAIN, _BROKEN),
    Row(f"{_MAIL} | {_RCPT} | DATA", "T", "timed-out", ALL_AGAIN, "hangs | drips"),
    # With PIPELINING it shows at DATA only, where a yes stands in the place of 354.
    Row(f"MAIL | {_RCPT}", "T", "senseless-reply", ALL_AGAIN, "twice"),
    Row(f"{_MAIL} | {_RCPT} | DATA", "T", "server-deferred", AGAIN, "any other 4xx"),
    # A connection that was kept and is over now is no fault of the message: it gets a new one at once.
    Row("kept MAIL", "", "", GOES_OUT, f"{_CODE_421} | {_BROKEN} | twice"),
    # the site's DNS, TLS, login: at every stage
    Row(_EVERYBODY, "C", "sender-not-authenticated", REPORTED, "550 5.7.25 | 550 5.7.26"),
    Row(_EVERYBODY, "C", "tls-required", REPORTED, "538 5.7.11 | 530 Must issue a STARTTLS command first"),
    Row(_EVERYBODY, "C", "auth-required", REPORTED, "530 | 530 5.7.0 | 534 5.7.9 | 535 5.7.8"),
    Row(f"{_MAIL} | every RCPT | DATA", "C", "auth-required", REPORTED, "550 Authentication required"),
    # where the server takes the others, it is nobody else's fault, and nobody else waits
    Row(_ONE, "C", "sender-not-authenticated", HELD, "550 5.7.25 | 550 5.7.26"),
    Row(_ONE, "C", "tls-required", HELD, "538 5.7.11 | 530 Must issue a STARTTLS command first"),
    Row(_ONE, "C", "auth-required", HELD, "530 | 530 5.7.0 | 534 5.7.9 | 535 5.7.8"),
    Row(_ONE, "C", "auth-required", HELD, "550 Authentication required"),
    # the account's own limit
    Row(_MESSAGE, "T", "sending-limit", AGAIN, "550 5.4.5"),
    # too big now is too big for ever, even where the server says 4xx
    Row(_MESSAGE, "M", "too-big", FAILED, "452 4.3.4 | 552 5.3.4"),
    # --- MAIL: what is refused here is the sender
    Row(_MAIL, "T", "bad-sequence", AGAIN, "500 5.5.2 | 502"),
    Row(_MAIL, "M", "too-big", FAILED, "552"),
    Row(_MAIL, "M", "content-refused", FAILED, "554 5.6.0"),
    # the parameter SIZE, or PIPELINING, offered and then refused: MAIL is said again without it
    Row(_MAIL, "", "", GOES_OUT, "503 | 504 | 555"),
    Row(_MAIL, "C", "host-blocked", REPORTED, "554 5.7.1 Client host [192.0.2.1] blocked"),
    Row(_MAIL, "C", "sender-rejected", REPORTED, "any other 5xx"),
    # --- RCPT
    Row(_ONE, "T", "too-many-recipients", SPLIT, "452 4.5.3 | 452 Too many recipients"),
    Row("every RCPT", "T", "too-many-recipients", AGAIN, "452 4.5.3 | 452 Too many recipients"),
    Row(_RCPT, "T", "mailbox-full", AGAIN, "452 4.2.2 | 552 5.2.2"),
    Row(_RCPT, "T", "storage-full", AGAIN, "552"),
    Row(_RCPT, "T", "bad-sequence", AGAIN, "500 5.5.2 | 502 | 503"),
    Row(_RCPT, "C", "relay-denied", HELD, "550 5.7.1 Relaying denied"),
    Row(f"{_RCPT} | DATA", "C", "host-blocked", HELD, "554 5.7.1 Client host [192.0.2.1] blocked"),
    Row(_ONE, "C", "sender-rejected", HELD, "501 5.1.7 | 553 5.1.8"),
    Row("every RCPT", "C", "sender-rejected", REPORTED, "501 5.1.7 | 553 5.1.8"),
    Row(_RCPT, "R", "unknown-address", DEAD, "450 5.1.1 | 550 5.1.1 | 550 5.2.1 | 556 5.1.10"),
    Row(_RCPT, "R", "unknown-address", DEAD, "550 No such user | 551 | 553"),
    Row(_RCPT, "R", "recipient-policy", FAILED, "550 5.7.1 | 554 5.7.1 | multi-line 550 5.7.1"),
    Row(_RCPT, "R", "recipient-refused", FAILED, "any other 5xx"),
    # --- DATA and the dot: one answer for all
    Row(_TEXT, "T", "mailbox-full", AGAIN, "452 4.2.2 | 552 5.2.2"),
    Row(_TEXT, "C", "sender-rejected", REPORTED, "501 5.1.7 | 553 5.1.8"),
    Row(_TEXT, "M", "too-big", FAILED, "552"),
    Row(_TEXT, "M", "content-refused", FAILED, "550 5.7.1 | 550 5.7.1 Relaying denied | 554 5.7.1"),
    Row(_TEXT, "M", "content-refused", FAILED, "multi-line 550 5.7.1 | 554 5.6.0"),
    Row("dot", "M", "content-refused", FAILED, "554 5.7.1 Client host [192.0.2.1] blocked"),
    Row(_TEXT, "M", "message-refused", FAILED, "any other 5xx"),
    # --- the dot: without a clear answer nobody knows
    Row("dot", "T", "deferred-after-dot", AGAIN, "any other 4xx"),
    Row("dot", "D", "no-reply-to-dot", IN_DOUBT, f"{_BROKEN} | hangs | drips"),
    Row("dot", "D", "senseless-reply-to-dot", IN_DOUBT, f"{_NO_REPLY} | code 399"),
    Row("dot", "", "", GOES_OUT, "twice"),
    # --- between messages and after the last: nobody's mail depends on it
    Row("RSET", "T", "server-deferred", AGAIN, "anything else"),
    Row("QUIT", "", "", GOES_OUT, "anything else"),
)

# --- without PIPELINING ----------------------------------------------------------------------
# The server above offers PIPELINING. These cells differ where it does not.
IN_TURN = (
    Row(f"{_MAIL} | {_RCPT}", "T", "connection-lost", ALL_AGAIN, "twice"),
    Row(_MAIL, "T", "bad-sequence", AGAIN, "503"),
    Row("DATA", "M", "message-refused", FAILED, "503"),
)
# What is tried without it, too: every shape, and of the codes those that change what is said next.
IN_TURN_FAULTS = (*SHAPES, "421", "451", "503", "504", "550 5.1.1", "554 5.7.1")
IN_TURN_STAGES = (*_MESSAGE.split(" | "), "RSET")

# --- extensions and certificates -------------------------------------------------------------
# kind, rule, what follows, situation; each lasts until the repair
SITUATIONS = (
    Situation("C", "starttls-not-offered", REPORTED, "STARTTLS is configured and not offered"),
    Situation("C", "starttls-refused", REPORTED, "STARTTLS is offered and then refused"),
    Situation("T", "server-deferred", WAY_WAITS, "STARTTLS is not available for now (454)"),
    Situation("C", "certificate", REPORTED, "the certificate is signed by nobody"),
    Situation("C", "certificate", REPORTED, "the certificate is another host's"),
    Situation("C", "certificate", REPORTED, "the certificate is too old"),
    Situation("C", "not-tls", REPORTED, "TLS is spoken on connecting and the server does not"),
    Situation("C", "certificate", REPORTED, "the certificate on connecting is signed by nobody"),
    Situation("T", "tls-error", WAY_WAITS, "the handshake on connecting is closed"),
    Situation("T", "timed-out", WAY_WAITS, "the handshake on connecting hangs"),
    Situation("C", "auth-not-offered", REPORTED, "a login is configured and AUTH is not offered"),
    Situation("C", "auth-not-offered", REPORTED, "AUTH is offered with methods that nobody knows"),
    Situation("C", "auth-rejected", REPORTED, "AUTH is offered and then not known (504)"),
    Situation("C", "auth-rejected", REPORTED, "the password is wrong"),
    Situation("C", "auth-required", REPORTED, "a login is needed and none is configured"),
    Situation("", "", GOES_OUT, "EHLO is not known, HELO is"),
    Situation("M", "too-big", FAILED, "SIZE is offered with less than the message has"),
    Situation("", "", GOES_OUT, "SIZE is offered and then refused each time"),
    Situation("R", "smtputf8-not-offered", FAILED, "SMTPUTF8 is needed and not offered"),
    Situation("M", "message-refused", FAILED, "SMTPUTF8 is offered and then refused (555)"),
    Situation("M", "content-refused", FAILED, "SMTPUTF8 is offered and then refused (553 5.6.7)"),
    Situation("", "", GOES_OUT, "PIPELINING is offered and then refused"),
)

if __name__ == "__main__":
    from support.smtp_fault_page import page

    print(page(), end="")
