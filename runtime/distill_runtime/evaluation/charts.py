"""Line charts as plain numbers: what the page's template draws as inline SVG.

Places are parts of the plot in percent: x from the left, y from the top. The page stretches the plot to its width and
keeps strokes and letters as they are, so that a chart reads well on a phone too.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from distill_runtime.evaluation import formatting

MOST_POINTS = 300
"""Points of a drawn line; longer series are averaged over stretches of steps."""
MOST_BANDS = 60
"""Stretches of a chart that have a tooltip."""
SMOOTHING_FROM = 40
"""Series of at least so many points are drawn smoothed too."""
LOGARITHMIC_FROM = 100.0
"""Greatest over smallest value from which the axis is logarithmic."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """What is to be drawn: (step, value) by rising step."""

    label: str
    style: str
    """Class of its colour: `one`, `two`, `three`."""
    points: list[Point]
    smooth: bool = False
    marks: bool = False
    """Draw a dot at each point."""


@dataclass(frozen=True)
class Line:
    """A drawn line."""

    label: str
    style: str
    path: str
    faint: str
    """Path of the values behind a smoothed line; empty without."""
    dots: str
    last: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    place: float
    label: str


@dataclass(frozen=True)
class Band:
    """A stretch of steps with a tooltip."""

    left: float
    width: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A drawn chart."""

    title: str
    note: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    bands: list[Band]
    logarithmic: bool
    summary: str
    """One sentence for who can't see the lines."""


def draw(title: str, note: str, series: Iterable[Series], *, may_be_logarithmic: bool = True) -> Chart | None:
    """A chart of the series that have points; None where none has."""
    label = formatting.number
    shown = [
        Series(s.label, s.style, finite, s.smooth, s.marks)
        for s in series
        if (finite := [(x, y) for x, y in s.points if math.isfinite(y)])
    ]
    if not shown:
        return None
    xs = [x for s in shown for x, _ in s.points]
    ys = [y for s in shown for _, y in s.points]
    logarithmic = may_be_logarithmic and min(ys) > 0 and max(ys) / min(ys) >= LOGARITHMIC_FROM
    x_scale = _Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, logarithmic=False)
    y_ticks = _logarithmic_ticks(min(ys), max(ys)) if logarithmic else _linear_ticks(min(ys), max(ys))
    y_scale = _Scale(y_ticks[0], y_ticks[-1], logarithmic=logarithmic)
    steps = [t for t in MaxNLocator(5, integer=True).tick_values(min(xs), max(xs)) if x_scale.low <= t <= x_scale.high]
    return Chart(
        title=title,
        note=note,
        lines=[_line(s, x_scale, y_scale) for s in shown],
        x_ticks=[Tick(x_scale.percent(t), formatting.count(t)) for t in steps],
        y_ticks=[Tick(round(100 - y_scale.percent(t), 2), f"{t:.4g}") for t in y_ticks],
        bands=_bands(shown, x_scale),
        logarithmic=logarithmic,
        summary=f"{title}. "
        + " ".join(
            f"{s.label}: {label(s.points[0][1])} at step {s.points[0][0]:.0f}, "
            f"{label(s.points[-1][1])} at step {s.points[-1][0]:.0f}."
            for s in shown
        ),
    )


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    logarithmic: bool

    def percent(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(100 * (value - low) / (high - low), 2)


def _linear_ticks(low: float, high: float) -> list[float]:
    if 0 < low < 0.6 * high:
        low = 0.0
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        spread = max(abs(high) * 0.1, 1e-12)
        low, high = low - spread, high + spread
    return [float(tick) for tick in MaxNLocator(5).tick_values(low, high)]


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    ticks = [float(tick) for tick in LogLocator(10, numticks=6).tick_values(low, high)]
    below = max((tick for tick in ticks if tick <= low), default=ticks[0])
    above = min((tick for tick in ticks if tick >= high), default=ticks[-1])
    return [tick for tick in ticks if below <= tick <= above]


def averaged(points: list[Point], most: int) -> list[Point]:
    """At most `most` points: the means of stretches of equal length."""
    if len(points) <= most:
        return points
    edges = [round(number * len(points) / most) for number in range(most + 1)]
    stretches = [points[edges[i] : edges[i + 1]] for i in range(most)]
    return [(sum(x for x, _ in s) / len(s), sum(y for _, y in s) / len(s)) for s in stretches]


def smoothed(points: list[Point]) -> list[Point]:
    """A moving average over about a twentieth of the points: centred, so that it doesn't lag; at the start over fewer,
    at the end over those that are there."""
    values = np.array([y for _, y in points])
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(points))
    reach = max(2, len(points) // 40)
    first = np.minimum(places, reach)
    last = np.minimum(np.where(places < reach, first, reach), places[::-1])
    means = (sums[places + last + 1] - sums[places - first]) / (first + last + 1)
    return [(x, float(mean)) for (x, _), mean in zip(points, means, strict=True)]


def _line(series: Series, x: _Scale, y: _Scale) -> Line:
    drawn = averaged(series.points, MOST_POINTS)
    smooth = series.smooth and len(series.points) >= SMOOTHING_FROM
    return Line(
        label=series.label,
        style=series.style,
        path=_path(averaged(smoothed(series.points), MOST_POINTS) if smooth else drawn, x, y),
        faint=_path(drawn, x, y) if smooth else "",
        dots=" ".join(f"M{x.percent(px)} {100 - y.percent(py):.2f}h0" for px, py in drawn)
        if series.marks or len(drawn) == 1
        else "",
        last=formatting.number(series.points[-1][1]),
    )


def _path(points: list[Point], x: _Scale, y: _Scale) -> str:
    return "M" + "L".join(f"{x.percent(px)} {100 - y.percent(py):.2f}" for px, py in points)


def _bands(series: list[Series], scale: _Scale) -> list[Band]:
    steps = sorted({x for s in series for x, _ in s.points})
    groups = [steps[i * len(steps) // MOST_BANDS : (i + 1) * len(steps) // MOST_BANDS] for i in range(MOST_BANDS)]
    places = [group[len(group) // 2] for group in groups if group]
    bands: list[Band] = []
    for number, place in enumerate(places):
        left = scale.low if number == 0 else (places[number - 1] + place) / 2
        right = scale.high if number == len(places) - 1 else (place + places[number + 1]) / 2
        values: list[str] = []
        for s in series:
            nearest = min(s.points, key=lambda point: abs(point[0] - place))
            if left <= nearest[0] <= right:
                values.append(f"{s.label} {formatting.number(nearest[1])}")
        text = f"Step {place:,.0f}: " + ", ".join(values)
        bands.append(Band(scale.percent(left), round(scale.percent(right) - scale.percent(left), 2), text))
    return bands
