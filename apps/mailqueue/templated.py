"""What both frameworks' mailers share of mails made of templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import words
from .classify import Failure
from .compose import parse_address
from .errors import BadMessage
from .rendering import Rendered, Templates


class TemplateMailer:
    """Fills in templates and sends them by its send(), for a class that also is a MailQueue.

    Attributes:
        templates: where the templates and translations are.
        settings: `site` is what mails call the site, `language` the site's own; both may be None.
    """

    settings: Any
    templates: Templates
    send: Callable[..., bool]
    note_problem: Callable[[Failure, str], None]
    own_domain: Callable[[], str]

    def send_template(
        self,
        to: Any,
        template: str,
        /,
        language: str | None = None,
        options: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> bool:
        """Queue a mail made of a template, in the recipient's language.

        Args:
            to: one address or several, as for send().
            template: its name, such as "verify_email".
            language: the recipient's, such as "de" or "de-AT"; "": the site's. By default that of the visitor
                whose request this is: give it for mail to anybody else.
            options: other arguments of send(), such as {"priority": …, "expires_after": …}.
            variables: what the template asks for.

        Returns:
            What send() does.

        Raises:
            BadMessage: there is no such template, it lacks a variable, or send() raises it.
        """
        mail = self.rendered(template, language, variables)
        return self.send(to, mail.subject, (mail.text, mail.html), **(options or {}))

    def rendered(self, template: str, language: str | None, variables: Mapping[str, Any]) -> Rendered:
        """Fill in a template. The variable `site` need not be given.

        Where the site's own template is broken, the shipped one is used and that is entered in the problem
        log.

        Args:
            template, language, variables: as for send_template().

        Raises:
            BadTemplate: there is no such template, or it lacks a variable.
        """
        recipients = self.visitor_languages() if language is None else language
        chosen = self.templates.best_language(recipients, str(self.settings.language or ""))
        mail = self.templates.render(template, chosen, {"site": self.site_name(), **variables})
        if mail.fault:
            self.note_problem(Failure(words.MESSAGE, words.BUILD, "template-broken", mail.fault), "")
        return mail

    def visitor_languages(self) -> str:
        """What the request at hand says in Accept-Language; "" where there is no request."""
        return ""

    def site_name(self) -> str:
        """What mails call the site: settings.site, else the sender's name, else own_domain()."""
        if self.settings.site:
            return str(self.settings.site)
        try:
            return parse_address(self.settings.sender).name or self.own_domain()
        except BadMessage:
            return self.own_domain()
