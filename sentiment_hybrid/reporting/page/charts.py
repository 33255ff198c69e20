"""Line and dot charts as inline SVG, in colours that follow the page: light, dark or printed.

Series differ in dash and marker as well as in colour. Each chart has a title and a description for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 300
#: Room for tick labels at the left, above, at the right and below.
_LEFT, _TOP, _RIGHT, _BOTTOM = 66, 12, 24, 44
#: Characters of a line left of a chart of intervals; a head and a run fit on two.
_LONGEST_NAME = 30
#: Series beyond these repeat; styles of them are in the page's style sheet.
STYLES = 6


@dataclass(frozen=True)
class Series:
    """Points from left to right; ``line`` joins them, ``dots`` marks them."""

    name: str
    points: Sequence[tuple[float, float]]
    line: bool = True
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """What is shown along an axis; without a range, that of the data."""

    name: str
    low: float | None = None
    high: float | None = None
    percent: bool = True
    whole: bool = False

    def label(self, value: float) -> str:
        """A tick label."""
        return f"{100 * value:.4g} %" if self.percent else f"{value:.4g}"


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series], *, diagonal: bool = False) -> Markup:
    """A chart with a legend below it; points that are not numbers are left out. Empty without any point."""
    shown = [(one, [point for point in one.points if all(map(math.isfinite, point))]) for one in series]
    shown = [(one, points) for one, points in shown if points]
    if not shown:
        return Markup("")
    points = [point for _, some in shown for point in some]
    across = _Scale.of(x, (point[0] for point in points), _LEFT, WIDTH - _RIGHT)
    upward = _Scale.of(y, (point[1] for point in points), HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(x, y, across, upward)]
    if diagonal:
        ends = (across(max(across.low, upward.low)), upward(max(across.low, upward.low)),
                across(min(across.high, upward.high)), upward(min(across.high, upward.high)))  # fmt: skip
        parts.append(Markup('<path class="diagonal" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(*ends))
    for number, (one, some) in enumerate(shown):
        parts.append(_drawn(one, [(across(a), upward(b)) for a, b in some], number % STYLES))
    says = "; ".join(f"{one.name}: {_ends(x, y, some)}" for one, some in shown)
    legend = Markup("").join(
        Markup('<li><svg viewBox="0 0 34 12" aria-hidden="true">{}</svg>{}</li>').format(
            _drawn(one, [(2, 6), (32, 6)] if one.line else [(17, 6)], number % STYLES, once=True), one.name
        )
        for number, (one, _) in enumerate(shown)
    )
    return Markup(
        '<figure class="chart"><figcaption>{title}</figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{parts}</svg>'
        '<ul class="legend">{legend}</ul></figure>'
    ).format(
        title=title, width=WIDTH, height=HEIGHT, label=f"{title}. {says}", parts=Markup("").join(parts), legend=legend
    )


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, axis: Axis, values: Iterable[float], start: float, end: float) -> _Scale:
        some = list(values)
        low = min(some) if axis.low is None else axis.low
        high = max(some) if axis.high is None else axis.high
        if high <= low:
            low, high = low - 0.05 * (abs(low) or 1.0), high + 0.05 * (abs(high) or 1.0)
        step = _step(high - low, whole=axis.whole)
        if axis.low is None:
            low = math.floor(low / step + 1e-9) * step
        if axis.high is None:
            high = math.ceil(high / step - 1e-9) * step
        first = math.ceil(low / step - 1e-9)
        ticks = tuple(number * step for number in range(first, math.floor(high / step + 1e-9) + 1))
        return cls(low, high, start, end, ticks)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _step(span: float, *, whole: bool) -> float:
    """Between ticks: 1, 2 or 5 times a power of ten, so that there are about five."""
    power = 10.0 ** math.floor(math.log10(span / 5.0))
    step = next(power * factor for factor in (1.0, 2.0, 5.0, 10.0) if power * factor >= span / 5.0 - 1e-12)
    return max(1.0, step) if whole else step


def _grid(x: Axis, y: Axis, across: _Scale, upward: _Scale) -> Markup:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    line = Markup('<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" class="left">{}</text>')
    below = Markup('<text x="{:.1f}" y="{}" class="below name">{}</text>')
    beside = Markup('<text class="below name" transform="translate(12 {:.1f}) rotate(-90)">{}</text>')
    parts = [line.format(_LEFT, upward(at), right, _LEFT - 6, upward(at) + 4, y.label(at)) for at in upward.ticks]
    parts += _upright(x, across, bottom, bottom + 16)
    parts.append(below.format((_LEFT + right) / 2, HEIGHT - 6, x.name))
    parts.append(beside.format((_TOP + bottom) / 2, y.name))
    return Markup("").join(parts)


def _upright(axis: Axis, scale: _Scale, bottom: int, label: int) -> list[Markup]:
    """Grid lines from the top to the bottom, with the labels of their ticks at this height."""
    line = Markup('<path class="grid" d="M{:.1f} {}V{}"/><text x="{:.1f}" y="{}" class="below">{}</text>')
    return [line.format(scale(at), _TOP, bottom, scale(at), label, axis.label(at)) for at in scale.ticks]


def _drawn(one: Series, points: Sequence[tuple[float, float]], style: int, *, once: bool = False) -> Markup:
    parts = []
    if one.line:
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        parts.append(Markup('<path class="line s{}" d="M{}"/>').format(style, path))
    if one.dots or len(points) == 1:
        marked = [(sum(a for a, _ in points) / len(points), points[0][1])] if once else points
        parts += [_dot(a, b, style) for a, b in marked]
    return Markup("").join(parts)


#: Circle, square, triangle, diamond, cross and plus around a point.
_MARKERS = (
    "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0",
    "m-3 -3h6v6h-6z",
    "m0 -4l4 7h-8z",
    "m0 -4.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
    "m-3 -3l6 6m0 -6l-6 6",
    "m-4 0h8m-4 -4v8",
)


def _dot(a: float, b: float, style: int) -> Markup:
    shape = Markup(_MARKERS[style % len(_MARKERS)])
    return Markup('<path class="dot s{}" d="M{:.1f} {:.1f}{}"/>').format(style, a, b, shape)


def _ends(x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> str:
    ends = dict.fromkeys((points[0], points[-1]))
    return " to ".join(f"{y.label(value)} at {x.label(place)}" for place, value in ends)


def intervals(title: str, figures: Sequence[tuple[str, float, float, float]]) -> Markup:
    """Figures (name, value, low, high) in percent, one row each; empty without any that is a number."""
    shown = [figure for figure in figures if all(map(math.isfinite, figure[1:]))]
    if not shown:
        return Markup("")
    row, left = 30, 200
    height = _TOP + row * len(shown) + 34
    axis = Axis("", percent=True)
    scale = _Scale.of(axis, (end for _, _, *ends in shown for end in ends), left, WIDTH - 40)
    parts = _upright(axis, scale, height - 30, height - 12)
    for number, (name, value, low, high) in enumerate(shown):
        y = _TOP + row * (number + 0.5)
        lines = wrap(name, _LONGEST_NAME, break_on_hyphens=False, max_lines=2, placeholder="…")
        for place, line in enumerate(lines):
            below = y + 4 + 12 * (place - (len(lines) - 1) / 2)
            parts.append(Markup('<text x="{}" y="{:.1f}" class="left">{}</text>').format(left - 10, below, line))
        parts.append(
            Markup('<path class="line s0" d="M{:.1f} {:.1f}H{:.1f}"/>{}').format(
                scale(low), y, scale(high), _dot(scale(value), y, 0)
            )
        )
    says = "; ".join(
        f"{name}: {100 * value:.1f} % from {100 * low:.1f} to {100 * high:.1f}" for name, value, low, high in shown
    )
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        "</figure>"
    ).format(title, WIDTH, height, escape(f"{title}. {says}"), Markup("").join(parts))
