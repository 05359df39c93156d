"""The pages on which one verb is done to many messages: how many there are, the button, how far it came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import administration, bulk, finding, liveness
from ..selection import Selection
from ..told import Told
from .parts import Parts, number
from .refusals import NO_ACTION, Refusal

TITLE = "Many messages at once"
REFRESHED = 3  # seconds
OTHER_VARIABLES = frozenset({"below", "shown", "_signature", "_formkey"})
LABELS = {"retry": "Retry", "cancel": "Cancel", "delete": "Delete"}
OFFERS = {
    "retry": "Retry {number} messages",
    "cancel": "Cancel {number} messages",
    "delete": "Delete {number} messages",
}
TOLD = {
    "retry": "{n} messages are back in the queue.",
    "cancel": "{n} messages are cancelled.",
    "delete": "{n} messages are deleted.",
}
STATES = {bulk.RUNNING: "running", bulk.DONE: "done", bulk.STOPPED: "stopped"}
MEANINGS = {
    "retry": "Send again to whomever it was not sent.",
    "cancel": "Stop what is still waiting.",
    "delete": "Remove for good what has ended: text, recipients, attempts. This cannot be undone.",
}
_NO_WORK = Refusal(404, "Nothing is known under this number of what was done to many messages at once.")


class Bulk:
    """Many messages at once.

    Args:
        parts: what the pages are put together from.
    """

    def __init__(self, parts: Parts):
        self._parts, self._mail = parts, parts.mail

    # --- before --------------------------------------------------------------------------

    def page(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """What can be done to the messages of a selection, and to how many of them.

        Args:
            asked: the variables of the URL, here and below.
        """
        chosen = self.chosen(asked)
        below = number(asked.get("below")) or finding.newest(self._mail.db) + 1
        return {
            "title": TITLE,
            "chosen": chosen,
            "offers": [self._offer(verb, chosen, below) for verb in bulk.VERBS],
            "back": self._parts.link(**chosen.query()),
            "latest": [(row, self._parts.link("progress", row["id"])) for row in bulk.latest(self._mail.db)],
            "labels": LABELS,
            "states": STATES,
        }

    def chosen(self, asked: Mapping[str, str]) -> Selection:
        """What is asked for; more than that must never be meant.

        Raises:
            Exception: Parts.refusal(): it is not understood.
        """
        if misread := Selection.misread(asked, OTHER_VARIABLES):
            told = Told("This filter is not understood: {parts}", parts=", ".join(misread))
            raise self._parts.refusal(Refusal(400, told, "Choose the messages anew, on the list."))
        return Selection.of(asked)

    def _offer(self, verb: str, chosen: Selection, below: int) -> dict[str, Any]:
        meant = bulk.count(self._mail.db, verb, chosen, below)
        say = self._parts.say
        none = meant.complete and not meant.number
        told = str(meant.number) if meant.complete else say("at least {number}", number=meant.number)
        shown = meant.number if meant.complete else None
        url = self._parts.signed("bulk", verb, **chosen.query(), below=below, shown=shown)
        name = say(OFFERS[verb], number=told, n=meant.number)
        return {
            "label": LABELS[verb],
            "meaning": MEANINGS[verb],
            "number": told,
            "button": "" if none else self._parts.button(name, name, url, verb),
        }

    # --- doing it --------------------------------------------------------------------------

    def begin(self, verb: str, asked: Mapping[str, str]) -> str:
        """Begin it. What is soon done leads back to the list; for the rest, there is a page.

        Returns:
            The URL to go on with.

        Raises:
            Exception: Parts.refusal(): there is no such verb, or the selection is not understood.
        """
        below = number(asked.get("below"))
        if verb not in bulk.VERBS or below is None:
            raise self._parts.refusal(NO_ACTION)
        chosen = self.chosen(asked)
        if self._are_more(verb, chosen, below, number(asked.get("shown"))):
            self._parts.flash("Meanwhile there are more of them: look again.", False)
            return self._parts.link("bulk", **chosen.query(), below=below)
        row = administration.begin_bulk(self._mail, verb, chosen, below, self._parts.whose())
        if row["status"] == bulk.RUNNING:
            return self._parts.link("progress", row["id"])
        self._parts.flash(self._parts.say(TOLD[verb], n=row["changed"]), bool(row["changed"]))
        return self._parts.link(**chosen.query())

    def _are_more(self, verb: str, chosen: Selection, below: int, shown: int | None) -> bool:
        """Whether more messages would be met than there were when the button was shown."""
        return shown is not None and bulk.count(self._mail.db, verb, chosen, below).number > shown

    # --- meanwhile and after ---------------------------------------------------------------

    def progress(self, bulk_id: int) -> dict[str, Any]:
        """How far one of them came. While it is "running" the page comes anew after REFRESHED.

        Raises:
            Exception: Parts.refusal(): there is none of this number.
        """
        row = bulk.found(self._mail.db, bulk_id)
        if row is None:
            raise self._parts.refusal(_NO_WORK)
        running = row["status"] == bulk.RUNNING
        url, say = self._parts.signed("progress", bulk_id, "stop"), self._parts.say
        so_far, expected = row["changed"], row["expected"]
        return {
            "title": TITLE,
            "row": row,
            "label": LABELS.get(row["action_name"], ""),
            "state": STATES.get(row["status"], ""),
            "running": running,
            "so_far": so_far if expected is None else say("{n} of {number}", n=so_far, number=expected),
            "share": 1 - row["next_below"] / max(row["first_below"] or 1, 1),
            "last_seen": liveness.last_seen(self._mail.db),
            "button": self._parts.button("Stop", "Stop", url) if running else "",
            "back": self._parts.link(**row["selection"].query()),
        }

    def stop(self, bulk_id: int) -> tuple[bool, str]:
        """Do no more of it. Whether it changed anything, and what to tell."""
        return administration.stop_bulk(self._mail, bulk_id, self._parts.whose())
