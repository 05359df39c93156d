"""django-post_office: mail.send(), then send_queued_mail_until_done().

Options, where they are not its defaults: batch (100), threads (5), loglevel (2).
"""

from __future__ import annotations

import messages

from .base import Contender
from .django_site import configure

_SETTINGS = {"batch": "BATCH_SIZE", "threads": "THREADS_PER_PROCESS", "loglevel": "LOG_LEVEL"}


class Adapter(Contender):
    """Batches, several threads, statuses written after each batch."""

    def set_up(self) -> None:
        given = {_SETTINGS[name]: int(value) for name, value in self.options.items()}
        backends = {"default": "django.core.mail.backends.smtp.EmailBackend"}
        configure(
            self,
            ["post_office"],
            EMAIL_BACKEND="post_office.EmailBackend",
            POST_OFFICE={"BACKENDS": backends, **given},
        )

    def enqueue(self, n: int) -> None:
        from post_office import mail

        for number in range(n):
            message = messages.make(number)
            mail.send(
                message["to"],
                message["sender"],
                subject=message["subject"],
                message=message["text"],
                html_message=message["html"],
            )

    def drain(self) -> None:
        from post_office.mail import send_queued_mail_until_done

        send_queued_mail_until_done(str(self.folder / "post_office"))
