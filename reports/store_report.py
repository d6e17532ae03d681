"""What is in an activation store, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from backbones import load_tokenizer
from datamodules.shards import RowStore
from reports.store_statistics import (
    NORM_OUTLIER_RATIO,
    OUTLIER_DEVIATIONS,
    DimensionMoments,
    NormHistogram,
    StoreStatistics,
)
from run_store import UserError

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
SHOWN_DIMENSIONS = 8


class TokenShare(NamedTuple):
    """One token id among the rows."""

    label: str
    """What it decodes to, in quotation marks; `id 123` when there is no tokenizer to ask."""
    share: float
    times: int


def tokenizer_of(store: RowStore) -> PreTrainedTokenizerBase | None:
    """The tokenizer that the store names, or None when it names none or it cannot be loaded here."""
    name = store.manifest.source.get("text", {}).get("tokenizer")
    try:
        return load_tokenizer(name) if isinstance(name, str) else None
    except UserError:
        return None


def top_tokens(statistics: StoreStatistics, tokenizer: PreTrainedTokenizerBase | None, count: int) -> list[TokenShare]:
    """The most frequent tokens, most frequent first."""
    order = np.argsort(-statistics.tokens, kind="stable")[:count]
    found = [(int(token), int(statistics.tokens[token])) for token in order if statistics.tokens[token]]
    return [TokenShare(_label(token, tokenizer), times / statistics.rows, times) for token, times in found]


def as_text(store: RowStore, statistics: StoreStatistics, tokens: list[TokenShare], verified: bool) -> str:
    """The whole report."""
    sections = [
        "\n".join(_contents(store, statistics, verified)),
        *("\n".join(_hook_point(name, store, statistics)) for name in store.hook_points),
        "\n".join(_tokens(statistics, tokens)),
    ]
    return "\n\n".join(sections)


def _contents(store: RowStore, statistics: StoreStatistics, verified: bool) -> Iterator[str]:
    manifest = store.manifest
    files = manifest.files
    size = sum(file.bytes for file in files)
    lines = {
        "rows": f"{store.rows:,} in {_counted(len(manifest.shards), 'shard')}",
        "documents": f"{len(store.document_names):,}, of which {statistics.documents:,} have rows",
        "hook points": ", ".join(f"{name} [{at.d}] {at.dtype}" for name, at in manifest.hook_points.items()),
        "on disk": f"{in_bytes(size)}, {size / store.rows:,.0f} bytes a row",
        "sha256": f"verified {_counted(len(files), 'file')}" if verified else f"not verified ({len(files)} files)",
    }
    if statistics.rows < store.rows:
        lines["looked at"] = f"{statistics.rows:,} rows ({statistics.rows / store.rows:.1%}), evenly spread"
    yield store.place
    yield from _table(lines)
    yield "made with"
    yield from _table(flat(manifest.source))


def _hook_point(name: str, store: RowStore, statistics: StoreStatistics) -> Iterator[str]:
    norms, moments = statistics.norms[name], statistics.moments[name]
    yield f"{name}: norms of the rows"
    yield from _table(_norms(norms))
    yield f"{name}: dimensions"
    yield from _dimensions(moments)


def _norms(norms: NormHistogram) -> dict[str, str]:
    median = norms.quantile(0.5)
    out = norms.above(NORM_OUTLIER_RATIO * median)
    quantiles = "  ".join(f"{share:.0%} {norms.quantile(share):.4g}" for share in QUANTILES)
    return {
        "quantiles": quantiles,
        "mean": f"{norms.mean:.4g}",
        "range": f"{norms.smallest:.4g} to {norms.largest:.4g}",
        "outliers": f"{out:,} ({out / norms.size:.3%}) above {NORM_OUTLIER_RATIO:g} × the median",
    }


def _dimensions(moments: DimensionMoments) -> Iterator[str]:
    mean, std, deviations = moments.mean, moments.std, moments.deviations()
    outliers = moments.outliers()
    # of what a row's length is made of, on average
    power = mean.square() + std.square()
    power = power / power.sum().clamp_min(1e-300)
    yield from _table(
        {
            "typical": f"mean {float(mean.median()):.3g}, std {float(std.median()):.3g} (medians over the dimensions)",
            "outliers": f"{len(outliers)} of {moments.d}, with mean or std more than {OUTLIER_DEVIATIONS:g} robust "
            "deviations (1.4826 MAD) from the median dimension",
        }
    )
    if outliers:
        yield f"  {'dimension':>9}  {'mean':>9}  {'std':>9}  {'extreme':>9}  {'deviations':>10}  {'of ‖x‖²':>8}"
    for j in outliers[:SHOWN_DIMENSIONS]:
        yield (
            f"  {j:>9}  {float(mean[j]):>9.3g}  {float(std[j]):>9.3g}  {float(moments.extremes[j]):>9.3g}  "
            f"{float(deviations[j]):>10.1f}  {float(power[j]):>8.1%}"
        )


def _tokens(statistics: StoreStatistics, tokens: list[TokenShare]) -> Iterator[str]:
    distinct = int((statistics.tokens > 0).sum())
    together = sum(token.share for token in tokens)
    yield f"tokens: {distinct:,} different ones; the {len(tokens)} most frequent are {together:.1%} of the rows"
    for token in tokens:
        yield f"  {token.share:>7.2%}  {token.times:>12,}  {token.label}"


def _table(lines: dict[str, str]) -> list[str]:
    width = max((len(label) for label in lines), default=0)
    return [f"  {label:<{width}}  {value}" for label, value in lines.items()]


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings under dotted names, as text."""
    lines: dict[str, str] = {}
    for name, value in settings.items():
        lines |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": str(value)}
    return lines


def in_bytes(size: float) -> str:
    """A size as a person reads it, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def _label(token: int, tokenizer: PreTrainedTokenizerBase | None) -> str:
    # an id beyond the vocabulary decodes to nothing
    text = tokenizer.decode([token]) if tokenizer is not None else ""
    return repr(text) if text else f"id {token}"


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
