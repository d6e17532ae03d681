"""What is in an activation store, in one picture: norms, dimensions and tokens."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from datamodules.shards import RowStore
from reports.store_report import TokenShare, in_bytes
from reports.store_statistics import NORM_OUTLIER_RATIO, DimensionMoments, NormHistogram, StoreStatistics
from run_store import atomic_file

INK, GREY, PALE = "#22303c", "#8a97a3", "#dfe5ea"
BLUE, RED, GOLD = "#2f6fae", "#c8452d", "#d69a2d"
MARKED_DIMENSIONS = 8
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    # what a token or a hook point is called is no formula, whatever signs are in it
    "text.parse_math": False,
}


def draw(store: RowStore, statistics: StoreStatistics, tokens: list[TokenShare], path: str | os.PathLike[str]) -> None:
    """Writes a PNG: a line of panels for each hook point, the tokens in a column on the right.

    Args:
        store: what was looked at.
        statistics: of the store.
        tokens: shares to show, greatest first.
        path: of the picture; an older one is replaced.

    Raises:
        UserError: the picture cannot be written there.
    """
    # imported here: a second that a report without a picture need not wait
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context(STYLE):
        lines = len(store.hook_points)
        figure = Figure(
            figsize=(13, 1.1 + max(3.9, 3.1 * lines)), dpi=130, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        )
        grid = figure.add_gridspec(lines, 3, width_ratios=(3, 5, 2.4))
        for line, name in enumerate(store.hook_points):
            _draw_norms(figure.add_subplot(grid[line, 0]), name, statistics.norms[name])
            _draw_dimensions(figure.add_subplot(grid[line, 1]), name, statistics.moments[name])
        _draw_tokens(figure.add_subplot(grid[:, 2]), tokens, statistics)
        figure.suptitle(_title(store, statistics), x=0.012, ha="left", fontsize=12, color=INK)
        FigureCanvasAgg(figure)
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="png")


def _title(store: RowStore, statistics: StoreStatistics) -> str:
    size = in_bytes(sum(file.bytes for file in store.manifest.files))
    looked_at = "" if statistics.rows == store.rows else f" (looked at {statistics.rows:,})"
    name = store.place.rstrip("/").rpartition("/")[2]
    return f"{name}    {store.rows:,} rows{looked_at}, {len(store.document_names):,} documents, {size}"


def _draw_norms(axes: Any, name: str, norms: NormHistogram) -> None:
    """Histogram of the norms on a logarithmic scale: outliers are many times the rest."""
    low, high = max(norms.smallest, norms.quantile(0.5) / 100), norms.largest
    low, high = (low, high) if high > 1.02 * low else (0.9 * low, 1.1 * high)
    edges = np.geomspace(0.98 * low, 1.02 * high, 70)
    counts = norms.between(edges)
    axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.7, 4 * counts.max())
    _plain_ticks(axes, edges)
    median = norms.quantile(0.5)
    _mark(axes, median, "median", INK)
    for share, label in ((0.01, "1%"), (0.99, "99%")):
        place = norms.quantile(share)
        apart = abs(np.log(place / median)) > 0.08 * np.log(edges[-1] / edges[0]) if place > 0 else False
        _mark(axes, place, label if apart else "", GREY)
    limit = NORM_OUTLIER_RATIO * median
    if high > limit:
        axes.axvspan(limit, edges[-1], color=RED, alpha=0.12, lw=0)
    axes.set_title(f"Norms at {name}")
    axes.set_xlabel(f"‖x‖ (median {median:.3g}, {norms.above(limit):,} beyond {NORM_OUTLIER_RATIO:g} ×)")
    axes.set_ylabel("rows")


def _mark(axes: Any, place: float, label: str, color: str) -> None:
    axes.axvline(place, color=color, lw=1, ls=(0, (3, 2)))
    axes.text(
        place, 0.985, f" {label}", color=color, fontsize=7.5, rotation=90, ha="right", va="top",
        transform=axes.get_xaxis_transform(),
    )  # fmt: skip


def _plain_ticks(axes: Any, edges: Any) -> None:
    """Numbers as people write them; where less than a decade is shown, ticks as on a plain scale."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    if edges[-1] < 10 * edges[0]:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())


def _draw_dimensions(axes: Any, name: str, moments: DimensionMoments) -> None:
    """Mean ± standard deviation of every dimension, outliers marked."""
    mean, std = moments.mean.numpy(), moments.std.numpy()
    places = np.arange(moments.d)
    outliers = moments.outliers()
    axes.vlines(places, mean - std, mean + std, color=BLUE, alpha=0.35, lw=min(4.0, max(0.5, 330 / moments.d)))
    axes.scatter(places, mean, s=min(14, 1800 / moments.d), color=BLUE, lw=0)
    axes.vlines(outliers, (mean - std)[outliers], (mean + std)[outliers], color=RED, lw=1.4)
    axes.scatter(outliers, mean[outliers], s=16, color=RED, lw=0, zorder=3)
    for dimension in outliers[:MARKED_DIMENSIONS]:
        upwards = mean[dimension] >= np.median(mean)
        tip = mean[dimension] + (1 if upwards else -1) * std[dimension]
        axes.annotate(
            str(dimension), (dimension, tip), xytext=(0, 3 if upwards else -3), textcoords="offset points",
            color=RED, fontsize=8, ha="center", va="bottom" if upwards else "top",
        )  # fmt: skip
    axes.axhline(0, color=PALE, lw=1, zorder=0)
    axes.margins(x=0.01, y=0.1)
    typical = float(np.median(np.abs(mean) + std))
    if np.max(np.abs(mean) + std) > 12 * typical > 0:
        # what is far out would press all others flat
        axes.set_yscale("symlog", linthresh=3 * typical, linscale=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title(f"Dimensions at {name}: mean ± std")
    axes.set_xlabel(f"dimension ({len(outliers)} of {moments.d} far out, in red)")


def _draw_tokens(axes: Any, tokens: list[TokenShare], statistics: StoreStatistics) -> None:
    """Shares of the most frequent tokens as bars."""
    places = np.arange(len(tokens))
    shares = np.array([100 * token.share for token in tokens])
    axes.barh(places, shares, color=GOLD, height=0.72)
    axes.set_yticks(places, [_drawable(token.label) for token in tokens], fontsize=8, family="monospace")
    axes.invert_yaxis()
    for place, share in zip(places, shares, strict=True):
        axes.text(share, place, f" {share:.2f}", va="center", fontsize=7.5)
    axes.margins(x=0.16, y=0.01)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title("Tokens")
    axes.set_xlabel(f"% of the rows ({int((statistics.tokens > 0).sum()):,} different tokens)")


def _drawable(label: str, longest: int = 14) -> str:
    """A label without characters that the font lacks, which would be drawn as boxes."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans Mono")).get_charmap()
    text = "".join(character if ord(character) in known else "·" for character in label)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
