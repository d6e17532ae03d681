"""From windows of text to pools of training rows, and into a store on the way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Event, Lock

import torch
from torch import Tensor

from backbones import CapturedRows, RowExtractor
from datamodules.extraction import Extraction
from datamodules.mixing import Pool, Pools
from datamodules.shards import SHARD_BYTES
from datamodules.text import TokenWindow
from datamodules.text_contexts import TextContexts

WINDOW_BITS = 32
Rows = tuple[tuple[Tensor, ...], Tensor]  # activations [rows, d] per hook point, row numbers [rows]


@dataclass(eq=False)
class TextPools:
    """Reads the rows of training documents out of a text, pool by pool.

    A pool is `windows` windows of a lane. Those of the text belong to the lanes in turn, so that none runs far ahead of
    the others in the corpus. All processes tokenise everything; each forwards the windows of the lanes that it mixes.
    """

    extractor: RowExtractor
    text: TextContexts
    hook_points: Sequence[str]
    windows: int
    in_training: Callable[[str], bool]
    """Whether a document, by its name, is trained on."""
    shard_bytes: int = SHARD_BYTES
    """Upper bound of one hook point's data in a shard of the store that is filled."""
    stopped: Event = field(default_factory=Event)
    """Set from outside; then a reading ends at its next window."""
    _model: Lock = field(default_factory=Lock)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.extractor.device

    def read(self, first: Mapping[int, int], lanes: int = 1, fill: Path | None = None) -> Generator[Pools]:
        """Yields the pools of some lanes, to the end of the text.

        Args:
            first: By lane that is read, the number of its first pool.
            lanes: That the windows belong to.
            fill: Folder of a store that takes the rows of all documents too, from the window on where a filling before
                has stopped, and is whole before the last pools are yielded.

        Raises:
            UserError: the text or the model cannot be read, or the folder cannot take the store.
        """
        text = copy.copy(self.text)  # it remembers how far it was read
        with Extraction(self.extractor, text, fill, self.shard_bytes) if fill else nullcontext() as filling:
            wanted = min(first.values()) * self.windows * lanes
            start = min(wanted, filling.next_window) if filling else wanted
            reading = text.windows(start)
            for window in islice(reading, wanted - start):
                if self.stopped.is_set():
                    return
                self._forward(window, filling)
            yield from self._pools(reading, first, lanes, text, filling)

    def _pools(
        self,
        reading: Iterator[TokenWindow],
        first: Mapping[int, int],
        lanes: int,
        text: TextContexts,
        filling: Extraction | None,
    ) -> Iterator[Pools]:
        training, together = _TrainingDocuments(text, self.in_training), self.windows * lanes
        number, last = min(first.values()), False
        while not last:
            kept: dict[int, list[Rows]] = {lane: [] for lane in first if first[lane] <= number}
            read = 0
            for window in islice(reading, together):
                if self.stopped.is_set():
                    return
                read += 1
                parts = kept.get(window.number % lanes)
                if parts is not None or filling:
                    captured = self._forward(window, filling)
                if parts is not None:
                    parts.append(self._training_rows(window, captured, training))
            # pools that are cut short are the last; a text that ends with whole ones ends with empty ones
            last = read < together
            if last and filling:
                filling.finish()
            yield Pools(number, last, {lane: Pool(*self._joined(parts)) for lane, parts in kept.items()})
            number += 1

    def sample(self, rows: int) -> Rows:
        """Activations, as captured, and numbers of the first training rows of the text; at most all of them."""
        text = copy.copy(self.text)
        training, kept, left = _TrainingDocuments(text, self.in_training), list[Rows](), rows
        for window in text.windows():
            activations, numbers = self._training_rows(window, self._forward(window, None), training)
            kept.append((tuple(a[:left] for a in activations), numbers[:left]))
            left -= len(kept[-1][1])
            if not left:
                break
        return self._joined(kept)

    def _forward(self, window: TokenWindow, filling: Extraction | None) -> CapturedRows:
        # Hooks on one model at a time: a callback may ask for a sample in the middle of a run.
        with self._model:
            captured = self.extractor.read_window(window)
        if filling:
            filling.append(window.number, captured)
        return captured

    def _training_rows(self, window: TokenWindow, captured: CapturedRows, training: _TrainingDocuments) -> Rows:
        kept = training.mask(captured.documents).nonzero().squeeze(1)
        activations = tuple(captured.activations[name].index_select(0, kept) for name in self.hook_points)
        return activations, number_of(window.number, kept)

    def _joined(self, parts: list[Rows]) -> Rows:
        if not parts:
            shapes = self.extractor.shapes()
            parts = [(tuple(torch.empty(0, shapes[name]) for name in self.hook_points), torch.empty(0).long())]
        activations, rows = zip(*parts, strict=True)
        return tuple(torch.cat(column) for column in zip(*activations, strict=True)), torch.cat(rows)


class _TrainingDocuments:
    """Which documents of a text are trained on, asked once a document."""

    def __init__(self, text: TextContexts, in_training: Callable[[str], bool]) -> None:
        self._text, self._in_training = text, in_training
        self._known = torch.empty(0, dtype=torch.bool)

    def mask(self, documents: Tensor) -> Tensor:
        """bool [rows] for document numbers [rows] that the text has come to."""
        if len(documents) and int(documents.max()) >= len(self._known):
            new = self._text.document_names()[len(self._known) :]
            self._known = torch.cat([self._known, torch.tensor([self._in_training(name) for name in new])])
        return self._known[documents]


def number_of(window: int, index: Tensor) -> Tensor:
    """The numbers of a window's rows: below zero, since they are not those of a store."""
    return -1 - ((window << WINDOW_BITS) + index)


def place_of(number: int) -> tuple[int, int]:
    """The window of a row and its place among the rows of that."""
    return divmod(-1 - number, 1 << WINDOW_BITS)
