"""Figures as bars: SVG made at the server, without a script, in colours of the style sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yatl.helpers import XML

from ..administration import relative
from ..statistics import SHOWN, Counts

_WIDTH, _HEIGHT, _GAP = 300.0, 80.0, 2.0


@dataclass(frozen=True)
class Chart:
    """The figures of a span as bars, with what stands around them.

    Attributes:
        counts: the figures.
        told: the same in words, for those who do not see the bars.
    """

    counts: Counts
    told: str

    @property
    def most(self) -> int:
        """Where the scale ends: what the highest bar stands for."""
        return highest(self.counts)

    @property
    def begin(self) -> str:
        """When the span began, as seen from now."""
        return relative(-self.counts.span.length)

    @property
    def bars(self) -> Any:
        """A bar for each part of the span, its attempts by their outcomes one upon the other."""
        parts = self.counts.parts
        step, unit = _WIDTH / len(parts), _HEIGHT / max(self.most, 1)
        drawn = [
            rectangle
            for place, part in enumerate(parts)
            for rectangle in _bar(part, place * step, step - _GAP, unit)
        ]
        # Stretched to its place, so that it holds no text.
        frame = f'viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none"'
        return XML(f'<svg class="mq-bars" aria-hidden="true" {frame}>{"".join(drawn)}</svg>')


def highest(counts: Counts) -> int:
    """How many attempts there are in the part of a span that has the most of them."""
    return max((sum(part.get(status, 0) for status in SHOWN) for part in counts.parts), default=0)


def _bar(part: dict[str, int], left: float, width: float, unit: float) -> list[str]:
    drawn, top = [], _HEIGHT
    for status in SHOWN:
        height = part.get(status, 0) * unit
        if height:
            top -= height
            place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'
            drawn.append(f'<rect class="mq-bar-{status}" {place}/>')
    return drawn
