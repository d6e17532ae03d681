"""Several corpora as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from datamodules.text.corpus import Corpus, Document
from run_store import UserError


class Mixture(Corpus):
    """Documents of several corpora, so that each gives its share of the text (or of the documents).

    The next document always comes from the corpus that has given least for its weight. Shares therefore hold from the
    beginning, to within one document of each corpus, and nothing is left to chance: put a corpus that has an order of
    its own into `Shuffled`. Names are those of the corpora behind their keys, as `key/name`; no document comes twice,
    and the order in which the corpora are listed does not matter.

    Args:
        corpora: The corpora, each with a key.
        weights: A number above 0 for each key; only their proportions count.
        unit: What is weighed: `characters`, close to the shares of tokens, or `documents`, as `interleave_datasets`
            does.
        stop: `first_exhausted` ends when the corpus whose turn it is has nothing left, so the shares hold to the end;
            `all_exhausted` goes on with the others until all have been read.
    """

    def __init__(
        self,
        corpora: Mapping[str, Corpus],
        weights: Mapping[str, float],
        unit: Literal["characters", "documents"] = "characters",
        stop: Literal["first_exhausted", "all_exhausted"] = "first_exhausted",
    ) -> None:
        self.corpora = dict(sorted(corpora.items()))
        self.weights = dict(sorted(weights.items()))
        self.unit = unit
        self.stop = stop

    def documents(self) -> Iterator[Document]:
        """Yields the mixed documents.

        Raises:
            UserError: keys and weights do not fit together, or what a corpus raises.
        """
        self._refuse_impossible()
        sources = {key: corpus.documents() for key, corpus in self.corpora.items()}
        given = dict.fromkeys(sources, 0)
        while sources:
            key = min(sources, key=lambda key: given[key] / self.weights[key])
            document = next(sources[key], None)
            if document is not None:
                given[key] += len(document.text) if self.unit == "characters" else 1
                yield Document(f"{key}/{document.name}", document.text)
            elif self.stop == "first_exhausted":
                return
            else:
                del sources[key]

    def describe(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "corpora": {key: corpus.describe() for key, corpus in self.corpora.items()},
            "weights": self.weights,
            "unit": self.unit,
            "stop": self.stop,
        }

    def _refuse_impossible(self) -> None:
        if not self.corpora:
            raise UserError("corpora: a mixture needs at least one corpus with a key")
        for key in self.corpora.keys() ^ self.weights.keys():
            given, missing = ("corpora", "weights") if key in self.corpora else ("weights", "corpora")
            raise UserError(f"{missing}: {key!r} is in {given} alone: give every corpus a weight, under the same key")
        for key, weight in self.weights.items():
            if not 0 < weight < float("inf"):
                raise UserError(f"weights: {key} is {weight}: set it to a number above 0, or leave that corpus out")
            if "/" in key or not key:
                raise UserError(f"corpora: the key {key!r} begins its documents' names: write it without a slash")
