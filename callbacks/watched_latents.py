"""Some latents of one autoencoder while rows of a validation pass by, and what TensorBoard is given of them.

Shapes: b rows of a batch, n watched latents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from callbacks.markdown import escaped
from datamodules.token_pieces import TokenPieces
from features import BatchRows, FeatureCollector, Features, Firings, Keeping, Label, automatic_labels, typical_patterns
from lightning_modules.functional import Codes, DenseCodes
from lightning_modules.metrics import DENSE_ABOVE

CANDIDATES = 4
"""Places kept for each one shown, so that there is a choice of documents."""
SAMPLED_ENTRIES = 2**18
"""Firings that labels are made of, of all watched latents together."""
FIRINGS_OF_EACH = 512
PATTERNS = 3
"""Of each kind and latent, all that a label is made of."""


class WatchedLatents:
    """Gathers what some latents fire on. No other latent is touched, so it costs a few columns of each batch.

    Args:
        latents: [n] their numbers.
        snippets: places shown of each.
        context: tokens shown on either side of a place.
        data: the datamodule that the rows are of.
    """

    def __init__(self, latents: Tensor, snippets: int, context: int, data: Any) -> None:
        self.latents = latents
        self.snippets = snippets
        self.context = context
        self._data = data
        keeping = Keeping(CANDIDATES * snippets, sampled=1, reach=0, sampled_entries=SAMPLED_ENTRIES)
        self._collector = FeatureCollector(len(latents), keeping)

    def update(self, codes: Codes, rows: Tensor) -> None:
        """Takes in a batch; rows [b] are numbers in the store."""
        columns = codes.columns(self.latents.to(rows.device)).cpu().float()
        numbers = rows.cpu()
        source = self._data.store.provenance(numbers)
        self._collector.update(DenseCodes(columns), BatchRows.whole(numbers, source.documents, source.tokens))

    def told(self) -> ToldLatents:
        """What was gathered so far, with a label for each."""
        features = self._collector.features()
        firings = Firings.of(features.sample, len(self.latents), FIRINGS_OF_EACH)
        labels = automatic_labels(typical_patterns(features.sample, firings, PATTERNS))
        return ToldLatents(self, features, labels, self._data)


class ToldLatents(NamedTuple):
    """Statistics and labels of n watched latents."""

    watched: WatchedLatents
    features: Features
    labels: list[Label]
    data: Any

    def alive(self) -> list[int]:
        """Places among the watched of those that fired, the strongest first."""
        largest = self.features.largest.tolist()
        return sorted((i for i, value in enumerate(largest) if value > 0), key=lambda i: -largest[i])

    def page(self, density: Tensor) -> str:
        """Labels and snippets as Markdown; density [d_sae]."""
        tokenizer = self.data.tokenizer()
        pieces = TokenPieces(tokenizer)
        dense = density > DENSE_ABOVE
        alive = [i for i in self.alive() if density[self.watched.latents[i]] > 0]
        sections = {
            "Latents, strongest first": [i for i in alive if not dense[self.watched.latents[i]]],
            f"Dense latents, on over {DENSE_ABOVE:.0%} of the tokens": [
                i for i in alive if dense[self.watched.latents[i]]
            ],
        }
        return "\n\n".join(
            "\n\n".join([f"## {title}", *(self._table(i, tokenizer, pieces, density) for i in members)])
            for title, members in sections.items()
            if members
        )

    def _table(self, i: int, tokenizer: Any, pieces: TokenPieces, density: Tensor) -> str:
        latent, label = int(self.watched.latents[i]), self.labels[i]
        lines = [f"### latent {latent}, on {density[latent]:.3%} of the tokens", ""]
        if words := label.words(pieces.of):
            lines += [f"Automatic label, {label.explained:.0%} of its activation: **{escaped(words)}**", ""]
        lines += ["| f | where |", "| --- | --- |"]
        rows = self.features.strongest.rows[i]
        rows = rows[rows >= 0]
        values = self.features.strongest.values[i][: len(rows)].tolist()
        documents = self.data.store.provenance(rows).documents.tolist()
        for place in varied(documents, self.watched.snippets):
            tokens, position = self.data.snippet(int(rows[place]), self.watched.context, self.watched.context)
            lines.append(f"| {values[place]:.1f} | {marked_snippet(tokenizer, tokens, position)} |")
        return "\n".join(lines)

    def histogram(self, i: int) -> dict[str, Any]:
        """Of the magnitudes of one latent that fired, by the names of TensorBoard's `add_histogram_raw`."""
        counts, width = self.features.histogram[i], float(self.features.bin_widths[i])
        used = int(counts.nonzero().max()) + 1
        kept = counts[:used].tolist()
        return {
            "min": 0.0,
            "max": float(self.features.largest[i]),
            "num": int(self.features.counts[i]),
            "sum": float(self.features.sums[i]),
            # no figure that is shown is made of it; the middles of the bins are near enough
            "sum_squares": sum(count * ((place + 0.5) * width) ** 2 for place, count in enumerate(kept)),
            "bucket_limits": [(place + 1) * width for place in range(used)],
            "bucket_counts": kept,
        }


def varied(documents: list[int], count: int) -> list[int]:
    """Which of some places to show, given their documents: the first of each document first, since a text that repeats
    itself would fill the table.
    """
    repeated = [documents.index(document) != place for place, document in enumerate(documents)]
    return sorted(range(len(documents)), key=lambda place: (repeated[place], place))[:count]


def marked_snippet(tokenizer: Any, tokens: list[int], position: int) -> str:
    """The text of some token ids with the one at `position` in bold, safe inside a Markdown table.

    The token's text is what decoding one token more adds, which holds for word pieces and byte pairs alike.
    """
    before, upto, whole = (tokenizer.decode(tokens[:n]) for n in (position, position + 1, len(tokens)))
    if not (upto.startswith(before) and whole.startswith(upto)):
        # a character split over several tokens: the pieces decoded apart are the best that can be shown
        before, upto, whole = _decode_apart(tokenizer, tokens, position)
    token = upto[len(before) :]
    space = " " if token != token.lstrip() else ""
    return f"{escaped(before)}{space}**{escaped(token.strip()) or '␣'}**{escaped(whole[len(upto) :])}"


def _decode_apart(tokenizer: Any, tokens: list[int], position: int) -> tuple[str, str, str]:
    pieces = [
        tokenizer.decode(part) for part in (tokens[:position], tokens[position : position + 1], tokens[position + 1 :])
    ]
    return pieces[0], pieces[0] + pieces[1], "".join(pieces)
