"""From the hidden states of a batch of contexts to rows of activations: which tokens count, and in what order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backbones.captured_rows import CapturedRows, in_order
from backbones.refusals import refuse_non_finite
from backbones.row_filters import Candidates, RowCounts, choose, outliers
from datamodules.text import TokenBatch, TokenWindow

# Rows are handed on as the store keeps them, but for a store that rounds whole blocks of them by itself.
ROW_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.float32}


class RowFilters(NamedTuple):
    """Which tokens give rows; `Extractor` says what each setting means."""

    keep_special_tokens: bool
    keep_first_token: bool | None
    positions: list[int] | None
    max_norm_ratio: float | None


class RowExtractor(ABC):
    """Template of what reads rows of activations: a subclass says which hidden states there are.

    Nothing is loaded before it is needed.
    """

    store_dtype: str
    """In what the activations are handed on; for an int8 store that is float32."""
    counts: RowCounts
    """Rows read since the extractor was made, kept and filtered; replace it to count anew."""

    @abstractmethod
    def load(self) -> object:
        """What is read with, loaded at the first call.

        Raises:
            UserError: it cannot be loaded, lacks a hook point, or the device is not there or not fit for the settings.
        """

    @abstractmethod
    def unload(self) -> None:
        """Gives the memory back."""

    @abstractmethod
    def copied(self) -> RowExtractor:
        """The same settings with a model of its own, which is not loaded yet."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where contexts go in."""

    @property
    @abstractmethod
    def filters(self) -> RowFilters:
        """Which tokens give rows."""

    @abstractmethod
    def states(self, tokens: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Hidden states [batch, length, d] at each hook point.

        Args:
            tokens: int64 [batch, length], on the CPU.
            lengths: Tokens of each context that are not padding, int64 [batch]; None where nothing is padded.

        Raises:
            UserError: the contexts do not fit the model.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What decides the values of the rows, as plain JSON values.

        Raises:
            UserError: a model's weights cannot be found, or a pattern fits nothing in it.
        """

    @abstractmethod
    def rounding_settings(self) -> set[str]:
        """Dotted names in `describe` of settings that decide no more than the last bit of a rounding."""

    @abstractmethod
    def hook_point_names(self) -> list[str]:
        """What there will be in `states`, known without weights; patterns are expanded.

        Raises:
            UserError: a pattern fits nothing in the model.
        """

    def shapes(self) -> dict[str, int]:
        """Size d of the vectors at each hook point, found by a forward of two tokens; patterns are expanded."""
        states = self.states(torch.zeros(1, 2, dtype=torch.int64))
        return {name: state.shape[-1] for name, state in states.items()}

    def __call__(self, batch: TokenBatch) -> CapturedRows:
        """Runs the contexts through the model and keeps the rows that count, in the order of the batch.

        Raises:
            UserError: the contexts do not fit the model, or an activation is NaN or infinite.
        """
        return self._read(batch)[0]

    @torch.inference_mode()
    def read_window(self, window: TokenWindow, progress: Callable[[int], None] | None = None) -> CapturedRows:
        """Runs the batches of a window through the model and keeps the rows that count, in the order of the corpus.

        Args:
            progress: Called after each batch with the tokens that were read, padding left out.

        Raises:
            UserError: as `__call__`.
        """
        parts, places, first = list[CapturedRows](), list[Tensor](), 0
        for batch in window.batches:
            rows, contexts = self._read(batch)
            parts.append(rows)
            places.append(window.order[first + contexts])
            first += len(batch.tokens)
            if progress is not None:
                progress(int(batch.lengths.sum()))
        return in_order(parts, places)

    @torch.inference_mode()
    def _read(self, batch: TokenBatch) -> tuple[CapturedRows, Tensor]:
        """The rows of a batch, and for each of them the index of its context, int64 [rows]."""
        batch = TokenBatch(*(column.cpu() for column in batch))
        states = self.states(batch.tokens, batch.lengths)
        kept = self.kept_tokens(states, batch).flatten().nonzero().squeeze(1)
        activations = {
            name: state.flatten(0, 1).index_select(0, kept.to(state.device)).to("cpu", ROW_DTYPES[self.store_dtype])
            for name, state in states.items()
        }
        kept = kept.cpu()
        tokens, documents, positions = (column.flatten().index_select(0, kept) for column in batch[:3])
        return CapturedRows(activations, tokens, documents, positions), kept // batch.tokens.shape[1]

    def kept_tokens(self, states: Mapping[str, Tensor], batch: TokenBatch) -> Tensor:
        """The tokens of a batch that give rows, bool [batch, length], on the device; `counts` is added to.

        Args:
            states: [batch, length, d] at every hook point.
            batch: On the CPU.

        Raises:
            UserError: an activation is NaN or infinite.
        """
        filters = self.filters
        candidates = choose(
            batch, filters.keep_special_tokens, filters.keep_first_token, filters.positions, self.counts
        )
        tokens = self._without_outliers(states, candidates, batch)
        kept = int(tokens.sum())
        self.counts.kept += kept
        self.counts.outliers += int(candidates.kept.sum()) - kept
        return tokens

    def _without_outliers(self, states: Mapping[str, Tensor], candidates: Candidates, batch: TokenBatch) -> Tensor:
        """The kept tokens that are no outlier at any hook point, bool [batch, length], on the device."""
        content, kept, exempt = (mask.to(self.device) for mask in candidates)
        norms = {
            name: torch.linalg.vector_norm(state, dim=-1, dtype=torch.float32).to(self.device)
            for name, state in states.items()
        }
        refuse_non_finite(norms, content | kept, batch)
        ratio = self.filters.max_norm_ratio
        if ratio is not None:
            for lengths in norms.values():
                kept = kept & ~(outliers(lengths, content, ratio) & ~exempt)
        return kept
