"""Charts as SVG, written where the page is, so that they are there before any script runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from reports.training_curves import Curve

WIDTH, HEIGHT = 480, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 26


class Axis(NamedTuple):
    """From values to places along a line; `ticks` are values."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        """The place of a value."""
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return round(self.start + share * (self.end - self.start), 2)


def density_chart(log_densities: Sequence[float], log_dense_above: float) -> str:
    """How many latents fire how often: of log₁₀ of densities, those of dead latents left out."""
    if not log_densities:
        return ""
    low, high, step = math.floor(min(log_densities)), 0, 0.25
    counts = [0] * round((high - low) / step or 1)
    for value in log_densities:
        counts[min(int((value - low) / step), len(counts) - 1)] += 1
    across = Axis(low, high, LEFT, WIDTH - RIGHT, range(low, high + 1))
    up = Axis(0, max(counts), HEIGHT - BOTTOM, TOP, _ticks(0, max(counts), 3))
    bars = [
        f'<rect x="{across.at(low + at * step) + 0.5}" width="{(across.end - across.start) / len(counts) - 1:.2f}" '
        f'y="{up.at(count)}" height="{HEIGHT - BOTTOM - up.at(count):.2f}">'
        f"<title>{count:,} latents on {_percent(10 ** (low + at * step))} to {_percent(10 ** (low + (at + 1) * step))}"
        " of the tokens</title></rect>"
        for at, count in enumerate(counts)
        if count
    ]
    border = across.at(log_dense_above)
    mark = f'<path class="border" d="M{border} {TOP}V{HEIGHT - BOTTOM}"/>' if low < log_dense_above < high else ""
    words = f"Histogram of how often {len(log_densities):,} latents fire"
    return _svg(words, "".join(bars) + mark, across, up, _percent_of_log)


def curve_chart(curves: Sequence[Curve], words: str, from_zero: bool = False) -> str:
    """Metrics of one kind over steps, the first of them in front."""
    points = [(step, value) for curve in curves for step, value in zip(curve.steps, curve.values, strict=True)]
    if not points:
        return ""
    values = sorted(value for _, value in points)
    # the first steps of a training are far off and would make a line at the bottom of all others
    high = values[min(len(values) - 1, int(0.97 * len(values)))]
    low = 0.0 if from_zero else values[0]
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    last = max(step for step, _ in points)
    across = Axis(0, last, LEFT, WIDTH - RIGHT, _ticks(0, last, 4))
    up = Axis(low if from_zero else low - margin, high + margin, HEIGHT - BOTTOM, TOP, _ticks(low, high + margin, 3))
    lines = []
    for at, curve in reversed(list(enumerate(curves))):
        path = "L".join(
            f"{across.at(step)} {max(TOP, up.at(value))}" for step, value in zip(curve.steps, curve.values, strict=True)
        )
        dots = "".join(
            f'<circle class="curve-{at}" cx="{across.at(step)}" cy="{max(TOP, up.at(value))}" r="3"/>'
            for step, value in zip(curve.steps, curve.values, strict=True)
            if len(curve.steps) <= 12
        )
        lines.append(f'<path class="curve-{at}" d="M{path}"/>{dots}')
    return _svg(words, "".join(lines), across, up, lambda value: f"{value:,.0f}")


def _svg(words: str, body: str, across: Axis, up: Axis, across_text: Callable[[float], str]) -> str:
    grid = "".join(
        f'<path class="grid" d="M{LEFT} {up.at(tick)}H{WIDTH - RIGHT}"/>'
        f'<text class="tick-up" x="{LEFT - 6}" y="{up.at(tick) + 3.5}">{escape(_short(tick))}</text>'
        for tick in up.ticks
    )
    below = "".join(
        f'<text class="tick-across" x="{across.at(tick)}" y="{HEIGHT - 8}">{escape(across_text(tick))}</text>'
        for tick in across.ticks
    )
    return (
        f'<svg class="plot" role="img" aria-label="{escape(words)}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{grid}{body}{below}</svg>"
    )


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from low to high."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _percent_of_log(value: float) -> str:
    return _percent(10.0**value)
