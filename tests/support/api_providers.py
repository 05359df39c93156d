"""Stand-ins for the APIs of providers: how each reads a message, and how it says that it took it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from email.utils import getaddresses
from typing import Any

from mailqueue.transports.anymail import AnymailTransport
from mailqueue.transports.anymail_providers import API_PROVIDERS

from .api_server import Reply, Request

SECRET = "top-secret-key"


@dataclass
class Received:
    """A message as a provider understood it. Addresses are bare."""

    sender: str = ""
    to: list[str] = field(default_factory=list)
    cc: list[str] = field(default_factory=list)
    bcc: list[str] = field(default_factory=list)
    reply_to: list[str] = field(default_factory=list)
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)  # by name
    images: dict[str, bytes] = field(default_factory=dict)  # by Content-ID
    tags: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def everybody(self) -> list[str]:
        return [*self.to, *self.cc, *self.bcc]


def _bare(written: Iterable[str] | str | None) -> list[str]:
    texts = [written] if isinstance(written, str) else list(written or [])
    return [address for _, address in getaddresses(texts)]


def _objects(found: Iterable[dict[str, str]] | None, key: str = "email") -> list[str]:
    return [each[key] for each in found or []]


def _files(found: Iterable[dict[str, Any]] | None, name: str, content: str) -> dict[str, bytes]:
    return {each[name]: base64.b64decode(each[content]) for each in found or []}


def _split(found: Any, name: str, content: str, cid: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Files and inline images of one list, where the images have a Content-ID."""
    images = [each for each in found or [] if each.get(cid)]
    others = [each for each in found or [] if not each.get(cid)]
    return _files(others, name, content), {
        key.removeprefix("cid:"): data for key, data in _files(images, cid, content).items()
    }


def _brevo(request: Request) -> Received:
    data = request.json
    return Received(
        sender=data["sender"]["email"],
        to=_objects(data.get("to")),
        cc=_objects(data.get("cc")),
        bcc=_objects(data.get("bcc")),
        reply_to=[data["replyTo"]["email"]] if "replyTo" in data else [],
        subject=data.get("subject", ""),
        text=data.get("textContent"),
        html=data.get("htmlContent"),
        headers=data.get("headers", {}),
        files=_files(data.get("attachment"), "name", "content"),
        tags=data.get("tags", []),
        metadata=json.loads(data.get("headers", {}).get("X-Mailin-custom", "{}")),
    )


def _mailersend(request: Request) -> Received:
    data = request.json
    files, images = _split(data.get("attachments"), "filename", "content", "id")
    return Received(
        sender=data["from"]["email"],
        to=_objects(data.get("to")),
        cc=_objects(data.get("cc")),
        bcc=_objects(data.get("bcc")),
        reply_to=[data["reply_to"]["email"]] if "reply_to" in data else [],
        subject=data["subject"],
        text=data.get("text"),
        html=data.get("html"),
        headers={each["name"]: each["value"] for each in data.get("headers", [])},
        files=files,
        images=images,
        tags=data.get("tags", []),
    )


def _mailgun(request: Request) -> Received:
    fields, files, images = _form_of(request)
    return Received(
        sender=_bare(fields["from"])[0],
        to=_bare(fields.get("to")),
        cc=_bare(fields.get("cc")),
        bcc=_bare(fields.get("bcc")),
        reply_to=_bare(fields.get("h:Reply-To")),
        subject=fields["subject"][0],
        text=fields.get("text", [None])[0],
        html=fields.get("html", [None])[0],
        headers={name[2:]: values[0] for name, values in fields.items() if name.startswith("h:")},
        files=files,
        images=images,
        tags=fields.get("o:tag", []),
        metadata={name[2:]: values[0] for name, values in fields.items() if name.startswith("v:")},
    )


def _form_of(request: Request) -> tuple[dict[str, list[Any]], dict[str, bytes], dict[str, bytes]]:
    """A form in either of its two encodings: fields, attachments, inline images."""
    if "multipart/form-data" not in request.headers["content-type"]:
        return {**request.form}, {}, {}
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    fields: dict[str, list[Any]] = {}
    files: dict[str, dict[str, bytes]] = {"attachment": {}, "inline": {}}
    for part in message_from_bytes(head + request.body, policy=default).iter_parts():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        if name in files:
            files[name][part.get_filename()] = data
        else:
            fields.setdefault(name, []).append(data.decode())
    return fields, files["attachment"], files["inline"]


def _mailjet(request: Request) -> Received:
    data = request.json
    common, (message,) = data["Globals"], data["Messages"]
    return Received(
        sender=common["From"]["Email"],
        to=_objects(message.get("To"), "Email"),
        cc=_objects(common.get("Cc"), "Email"),
        bcc=_objects(common.get("Bcc"), "Email"),
        reply_to=[common["ReplyTo"]["Email"]] if "ReplyTo" in common else [],
        subject=common["Subject"],
        text=common.get("TextPart"),
        html=common.get("HTMLPart"),
        headers=common.get("Headers", {}),
        files=_files(common.get("Attachments"), "Filename", "Base64Content"),
        images=_files(common.get("InlinedAttachments"), "ContentID", "Base64Content"),
        tags=[common["CustomCampaign"]] if "CustomCampaign" in common else [],
        metadata=json.loads(common.get("EventPayload", "{}")),
    )


def _mailtrap(request: Request) -> Received:
    data = request.json
    files, images = _split(data.get("attachments"), "filename", "content", "content_id")
    return Received(
        sender=data["from"]["email"],
        to=_objects(data.get("to")),
        cc=_objects(data.get("cc")),
        bcc=_objects(data.get("bcc")),
        reply_to=[data["reply_to"]["email"]] if "reply_to" in data else [],
        subject=data["subject"],
        text=data.get("text"),
        html=data.get("html"),
        headers=data.get("headers", {}),
        files=files,
        images=images,
        tags=[data["category"]] if "category" in data else [],
        metadata=data.get("custom_variables", {}),
    )


def _mandrill(request: Request) -> Received:
    data = request.json["message"]
    of_kind = {
        kind: [each["email"] for each in data["to"] if each["type"] == kind] for kind in ("to", "cc", "bcc")
    }
    return Received(
        sender=data["from_email"],
        **of_kind,
        reply_to=_bare(data.get("headers", {}).get("Reply-To")),
        subject=data["subject"],
        text=data.get("text"),
        html=data.get("html"),
        headers=data.get("headers", {}),
        files=_files(data.get("attachments"), "name", "content"),
        images=_files(data.get("images"), "name", "content"),
        tags=data.get("tags", []),
        metadata=data.get("metadata", {}),
    )


def _postal(request: Request) -> Received:
    data = request.json
    return Received(
        sender=_bare(data["from"])[0],
        to=_bare(data.get("to")),
        cc=_bare(data.get("cc")),
        bcc=_bare(data.get("bcc")),
        reply_to=_bare(data.get("reply_to")),
        subject=data["subject"],
        text=data.get("plain_body"),
        html=data.get("html_body"),
        headers=data.get("headers", {}),
        files=_files(data.get("attachments"), "name", "data"),
        tags=[data["tag"]] if "tag" in data else [],
    )


def _postmark(request: Request) -> Received:
    data = request.json
    files, images = _split(data.get("Attachments"), "Name", "Content", "ContentID")
    return Received(
        sender=_bare(data["From"])[0],
        to=_bare(data.get("To")),
        cc=_bare(data.get("Cc")),
        bcc=_bare(data.get("Bcc")),
        reply_to=_bare(data.get("ReplyTo")),
        subject=data["Subject"],
        text=data.get("TextBody"),
        html=data.get("HtmlBody"),
        headers={each["Name"]: each["Value"] for each in data.get("Headers", [])},
        files=files,
        images=images,
        tags=[data["Tag"]] if "Tag" in data else [],
        metadata=data.get("Metadata", {}),
    )


def _resend(request: Request) -> Received:
    data = request.json
    headers = data.get("headers", {})
    files, images = _split(data.get("attachments"), "filename", "content", "content_id")
    return Received(
        sender=_bare(data["from"])[0],
        to=_bare(data.get("to")),
        cc=_bare(data.get("cc")),
        bcc=_bare(data.get("bcc")),
        reply_to=_bare(data.get("reply_to")),
        subject=data["subject"],
        text=data.get("text"),
        html=data.get("html"),
        headers=headers,
        files=files,
        images=images,
        tags=json.loads(headers.get("X-Tags", "[]")),
        metadata=json.loads(headers.get("X-Metadata", "{}")),
    )


def _scaleway(request: Request) -> Received:
    data = request.json
    headers = {each["key"]: each["value"] for each in data.get("additional_headers", [])}
    return Received(
        sender=data["from"]["email"],
        to=_objects(data.get("to")),
        cc=_objects(data.get("cc")),
        bcc=_objects(data.get("bcc")),
        reply_to=_bare(headers.get("Reply-To")),
        subject=data["subject"],
        text=data.get("text"),
        html=data.get("html"),
        headers=headers,
        files=_files(data.get("attachments"), "name", "content"),
        tags=json.loads(headers.get("X-Tags", "[]")),
        metadata=json.loads(headers.get("X-Metadata", "{}")),
    )


def _sendgrid(request: Request) -> Received:
    data = request.json
    (envelope,) = data["personalizations"]
    texts = {each["type"]: each["value"] for each in data["content"]}
    files, images = _split(data.get("attachments"), "filename", "content", "content_id")
    return Received(
        sender=data["from"]["email"],
        to=_objects(envelope["to"]),
        cc=_objects(envelope.get("cc")),
        bcc=_objects(envelope.get("bcc")),
        reply_to=_objects(data.get("reply_to_list")),
        subject=data["subject"],
        text=texts.get("text/plain"),
        html=texts.get("text/html"),
        headers=data.get("headers", {}),
        files=files,
        images=images,
        tags=data.get("categories", []),
        metadata=data.get("custom_args", {}),
    )


def _sparkpost(request: Request) -> Received:
    data = request.json
    content = data["content"]
    addresses = [each["address"] for each in data["recipients"]]
    shown = {
        "to": {one for each in addresses for one in _bare(each["header_to"])},
        "cc": set(_bare(content.get("headers", {}).get("Cc"))),
    }
    specs = [each["email"] for each in addresses]
    return Received(
        sender=_bare(content["from"])[0],
        to=[spec for spec in specs if spec in shown["to"]],
        cc=[spec for spec in specs if spec in shown["cc"]],
        bcc=[spec for spec in specs if spec not in shown["to"] | shown["cc"]],
        reply_to=_bare(content.get("reply_to")),
        subject=content["subject"],
        text=content.get("text"),
        html=content.get("html"),
        headers=content.get("headers", {}),
        files=_files(content.get("attachments"), "name", "data"),
        images=_files(content.get("inline_images"), "name", "data"),
        tags=[data["campaign_id"]] if "campaign_id" in data else [],
        metadata=data.get("metadata", {}),
    )


def _unisender(request: Request) -> Received:
    data = request.json["message"]
    headers = data.get("headers", {})
    specs = [each["email"] for each in data["recipients"]]
    shown = {kind: _bare(headers.get(kind)) for kind in ("to", "cc")}
    return Received(
        sender=data["from_email"],
        to=[spec for spec in specs if spec in shown["to"]],
        cc=[spec for spec in specs if spec in shown["cc"]],
        bcc=[spec for spec in specs if spec not in shown["to"] + shown["cc"]],
        reply_to=[data["reply_to"]] if "reply_to" in data else [],
        subject=data["subject"],
        text=data["body"].get("plaintext"),
        html=data["body"].get("html"),
        headers=headers,
        files=_files(data.get("attachments"), "name", "content"),
        images=_files(data.get("inline_attachments"), "name", "content"),
        tags=data.get("tags", []),
        metadata=data.get("global_metadata", {}),
    )


@dataclass(frozen=True)
class FakeProvider:
    """One provider.

    Args:
        read: a request as it understands it.
        took: what it answers to that.
        options: what a transport needs besides the address.
        refuses: what it has no place for: "images", "metadata".
    """

    read: Callable[[Request], Received]
    took: Callable[[Received], Any]
    options: dict[str, str] = field(default_factory=dict)
    refuses: frozenset[str] = frozenset()
    headers: dict[str, str] = field(default_factory=dict)

    def accept(self, request: Request) -> Reply:
        return Reply(200, self.took(self.read(request)), self.headers)


def _ids(received: Received) -> list[tuple[str, str]]:
    return [(address, f"id-of-{address}") for address in received.everybody]


FAKES = {
    "brevo": FakeProvider(_brevo, lambda _: {"messageId": "<1@smtp>"}, refuses=frozenset({"images"})),
    "mailersend": FakeProvider(
        _mailersend,
        lambda _: "",
        refuses=frozenset({"metadata"}),
        headers={"Content-Type": "text/html", "X-Message-Id": "ms-1"},
    ),
    "mailgun": FakeProvider(_mailgun, lambda _: {"id": "<1@mailgun>", "message": "Queued. Thank you."}),
    "mailjet": FakeProvider(
        _mailjet,
        lambda got: {
            "Messages": [
                {
                    "Status": "success",
                    **{
                        kind: [{"Email": one, "MessageID": 7, "MessageUUID": "u"} for one in some]
                        for kind, some in (("To", got.to), ("Cc", got.cc), ("Bcc", got.bcc))
                    },
                }
            ]
        },
    ),
    "mailtrap": FakeProvider(
        _mailtrap, lambda got: {"success": True, "message_ids": [one for _, one in _ids(got)]}
    ),
    "mandrill": FakeProvider(
        _mandrill,
        lambda got: [
            {"email": address, "status": "queued", "_id": one, "reject_reason": None}
            for address, one in _ids(got)
        ],
    ),
    "postal": FakeProvider(
        _postal,
        lambda got: {
            "status": "success",
            "data": {"message_id": "m", "messages": {a: {"id": 1, "token": "t"} for a in got.everybody}},
        },
        refuses=frozenset({"images", "metadata"}),
    ),
    "postmark": FakeProvider(
        _postmark,
        lambda got: {"To": ", ".join(got.to), "MessageID": "pm-1", "ErrorCode": 0, "Message": "OK"},
    ),
    "resend": FakeProvider(_resend, lambda _: {"id": "re-1"}),
    "scaleway": FakeProvider(
        _scaleway,
        lambda got: {
            "emails": [
                {"id": one, "message_id": "m", "mail_rcpt": address, "status": "sending"}
                for address, one in _ids(got)
            ]
        },
        options={"project_id": "p-1"},
        refuses=frozenset({"images"}),
    ),
    "sendgrid": FakeProvider(_sendgrid, lambda _: ""),
    "sparkpost": FakeProvider(
        _sparkpost,
        lambda got: {
            "results": {
                "total_accepted_recipients": len(got.everybody),
                "total_rejected_recipients": 0,
                "id": "sp-1",
            }
        },
    ),
    "unisender-go": FakeProvider(
        _unisender, lambda got: {"status": "success", "job_id": "j-1", "emails": got.everybody}
    ),
}


def api_transport(provider: str, url: str, *, key: str = SECRET, **options: Any) -> AnymailTransport:
    """A transport to a stand-in."""
    parts = len(API_PROVIDERS[provider].credentials)
    login = ["public-key", key][-parts:]
    settings = {**FAKES[provider].options, "api_url": url}
    return AnymailTransport(provider, login, settings, **{"timeout": 20.0, **options})
