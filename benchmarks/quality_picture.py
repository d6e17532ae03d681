"""FVU against L0, a panel for each data set and a line for each variant."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from reports.store_picture import GREY, PALE, STYLE
from run_store import atomic_file

TITLES = {"synthetic": "Known features", "real": "Activations of MiniLM, layer 3"}
COLORS = mpl.colormaps["tab10"].colors
MARKERS = "osD^vP<>Xp"

Curves = dict[str, list[dict[str, float]]]
"""Scores at every L0 that was asked for, by the name of the variant."""


def draw(curves: dict[str, Curves], path: Path) -> None:
    """Writes an SVG, the same bytes for the same scores.

    Args:
        curves: by the name of the data.
        path: of the picture; an older one is replaced.

    Raises:
        UserError: the picture cannot be written there.
    """
    with mpl.rc_context(STYLE | {"svg.hashsalt": "quality", "svg.fonttype": "none"}):
        figure = Figure(figsize=(1.5 + 4.6 * len(curves), 4.4), layout="constrained")
        panels = figure.subplots(1, max(1, len(curves)), squeeze=False)[0]
        for axes, (name, of_variant) in zip(panels, curves.items(), strict=False):
            _draw_panel(axes, TITLES[name], of_variant)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
        FigureCanvasSVG(figure)
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _draw_panel(axes: Axes, title: str, curves: Curves) -> None:
    for number, (name, points) in enumerate(sorted(curves.items())):
        style = {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}
        points = sorted(points, key=lambda point: point["l0"])
        places = [[point[score] for point in points] for score in ("l0", "fvu")]
        axes.plot(*places, **style, label=name, markersize=4, lw=1.3, alpha=0.9)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.grid(color=PALE, lw=0.6, which="both")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="both", color=GREY)
    axes.set_title(title)
    axes.set_xlabel("L0")
    axes.set_ylabel("FVU")
