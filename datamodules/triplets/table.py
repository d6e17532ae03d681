"""Triplets as numbers on the disk, and batches of them.

Shapes: b examples, n negatives of each, u different texts, t tokens of these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.triplets.batch import TokenisedTexts, TripletBatch
from datamodules.triplets.building import TripletCounts
from datamodules.triplets.table_files import map_array, read_manifest
from run_store import UserError

Rows = npt.NDArray[np.int64]


class RetrievalTask(NamedTuple):
    """What retrieval is measured on: which documents belong to which queries."""

    queries: Tensor
    """[q] int64 ids of the different anchors."""
    documents: Tensor
    """[m] int64 ids of the different positives and negatives."""
    relevant: Tensor
    """[r, 2] int64 places: of a query, and of a document that belongs to it; each pair once, sorted."""


class TripletTable:
    """Examples whose texts are tokenised, mapped from a folder that `prepare_table` made.

    Args:
        folder: The table's.

    Raises:
        UserError: there is no table in it.
    """

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise UserError(f"{folder} holds no tokenised triplets: delete it, and it is made again")
        self.folder = folder
        self.counts = TripletCounts(**manifest["counts"])
        self.kind_of_score: str | None = manifest["scores"]
        """`pair`, `teacher` or None."""
        arrays = {name: map_array(folder, name, stored) for name, stored in manifest["arrays"].items()}
        self.anchors: Rows = arrays["anchors"]
        """[examples] ids."""
        self.positives: Rows = arrays["positives"]
        """[examples] ids."""
        self.groups: npt.NDArray[np.uint64] = arrays["groups"]
        """[examples] hashes."""
        self._arrays = arrays
        self.tokenisations: int = len(manifest["tokenisers"])
        counts = np.diff(arrays["negative_offsets"])
        self.most_negatives = int(counts.max())
        """Of an example."""

    def __len__(self) -> int:
        return len(self.anchors)

    def batch(self, rows: Tensor, negatives: Tensor) -> TripletBatch:
        """Some examples as a batch.

        Args:
            rows: int64 [b] numbers of examples.
            negatives: int64 [b, n] ids of their negatives, -1 where an example has fewer.
        """
        anchors, positives = (torch.from_numpy(ids[rows.numpy()]) for ids in (self.anchors, self.positives))
        every = torch.cat([anchors, positives, negatives.flatten()])
        ids = torch.unique(every[every >= 0])  # sorted
        places = torch.searchsorted(ids, every).masked_fill_(every < 0, -1)
        b = len(rows)
        return TripletBatch(
            self.texts(ids),
            ids,
            places[:b],
            places[b : 2 * b],
            places[2 * b :].view(b, negatives.shape[1]),
            self._scores(rows, negatives.shape[1]),
            rows,
        )

    def negatives(self, rows: Tensor, most: int) -> Tensor:
        """int64 [b, most]: the ids of the first negatives of examples [b], -1 where one has fewer."""
        return torch.from_numpy(self._ragged("negatives", rows, most, -1))

    def texts(self, ids: Tensor) -> tuple[TokenisedTexts, ...]:
        """Texts by id, int64 [u], in each tokenisation."""
        return tuple(self._texts_of(part, ids.numpy()) for part in range(self.tokenisations))

    def lengths(self, tokenisation: int) -> Tensor:
        """int64 [texts]: tokens of every text."""
        return torch.from_numpy(np.diff(self._arrays[f"offsets-{tokenisation}"]))

    def truncated(self, tokenisation: int) -> Tensor:
        """bool [texts]: which texts were cut."""
        return torch.from_numpy(self._arrays[f"truncated-{tokenisation}"].astype(bool))

    def place(self, row: int) -> str:
        """The file and line of an example."""
        start, stop = self._arrays["place_offsets"][row : row + 2]
        return bytes(self._arrays["places"][start:stop]).decode("utf-8", "replace")

    def retrieval(self, rows: Tensor) -> RetrievalTask:
        """Some examples, int64 [b], as a task of retrieval among their own documents."""
        negatives = self.negatives(rows, self.most_negatives).flatten()
        anchors, positives = (torch.from_numpy(ids[rows.numpy()]) for ids in (self.anchors, self.positives))
        queries = torch.unique(anchors)
        documents = torch.unique(torch.cat([positives, negatives[negatives >= 0]]))
        places = (torch.searchsorted(queries, anchors), torch.searchsorted(documents, positives))
        return RetrievalTask(queries, documents, torch.unique(torch.stack(places, dim=1), dim=0))

    def _texts_of(self, part: int, ids: Rows) -> TokenisedTexts:
        offsets, tokens = self._arrays[f"offsets-{part}"], self._arrays[f"tokens-{part}"]
        starts = offsets[ids]
        lengths = offsets[ids + 1] - starts
        ends = np.cumsum(lengths)
        places = np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)
        found: Any = np.asarray(tokens[places], dtype=np.int32)
        return TokenisedTexts(torch.from_numpy(found), torch.from_numpy(np.asarray(lengths, dtype=np.int64)))

    def _scores(self, rows: Tensor, most: int) -> Tensor | None:
        if self.kind_of_score is None:
            return None
        scores = self._arrays["scores"][rows.numpy()].astype(np.float32)
        if self.kind_of_score == "pair":
            return torch.from_numpy(scores)
        negatives = self._ragged("negative_scores", rows, most, 0).astype(np.float32)
        return torch.from_numpy(np.concatenate([scores[:, None], negatives], axis=1))

    def _ragged(self, name: str, rows: Tensor, most: int, missing: int) -> npt.NDArray[Any]:
        """[b, most]: the first of what examples have in an array that holds as many values as there are negatives."""
        values, offsets = self._arrays[name], self._arrays["negative_offsets"]
        places = offsets[rows.numpy()][:, None] + np.arange(most)
        exists = places < offsets[rows.numpy() + 1][:, None]
        filled = np.full(places.shape, missing, values.dtype.newbyteorder("="))
        filled[exists] = values[places[exists]]
        return filled
