"""The same text read by several models, for crosscoders between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from backbones.extractor import Extractor
from backbones.row_extractor import RowExtractor, RowFilters
from backbones.row_filters import RowCounts
from run_store import UserError


class JointExtractor(RowExtractor):
    """Reads every context with several models, so that the rows of their hook points lie side by side: a base model and
    its fine-tuned descendant, say. A hook point's name is that of its model, a slash and its own.

    The text is tokenised once, so the models must have the same vocabulary. A token gives a row where it gives one in
    every model.

    Args:
        extractors: By the name of each model, how it is read. Filters and `store_dtype` must be the same in all.
    """

    def __init__(self, extractors: dict[str, Extractor]) -> None:
        self.extractors = extractors
        self.counts = RowCounts()

    @property
    def store_dtype(self) -> str:  # type: ignore[override]
        """That of all models."""
        return self._first.store_dtype

    @property
    def device(self) -> torch.device:
        """Of the first model."""
        return self._first.device

    @property
    def filters(self) -> RowFilters:
        """Those of all models."""
        return self._first.filters

    def load(self) -> dict[str, PreTrainedModel]:
        """Every model by its name."""
        self._refuse_differing()
        return {name: extractor.load() for name, extractor in self.extractors.items()}

    def unload(self) -> None:
        for extractor in self.extractors.values():
            extractor.unload()

    def copied(self) -> JointExtractor:
        return JointExtractor({name: extractor.copied() for name, extractor in self.extractors.items()})

    def states(self, tokens: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        self._refuse_differing()
        return {
            f"{name}/{point}": state
            for name, extractor in self.extractors.items()
            for point, state in extractor.states(tokens, lengths).items()
        }

    def hook_point_names(self) -> list[str]:
        return [f"{name}/{point}" for name, each in self.extractors.items() for point in each.hook_point_names()]

    def describe(self) -> dict[str, Any]:
        self._refuse_differing()
        return {name: extractor.describe() for name, extractor in self.extractors.items()}

    def rounding_settings(self) -> set[str]:
        return {
            f"{name}.{setting}"
            for name, extractor in self.extractors.items()
            for setting in extractor.rounding_settings()
        }

    @property
    def _first(self) -> Extractor:
        if not self.extractors:
            raise UserError("extractors is empty: name at least one model and how it is read")
        return next(iter(self.extractors.values()))

    def _refuse_differing(self) -> None:
        wanted = {**self._first.filters._asdict(), "store_dtype": self._first.store_dtype}
        for name, extractor in self.extractors.items():
            if "/" in name:
                raise UserError(f"the name {name!r} in extractors holds a slash, which stands before a hook point")
            for setting, value in {**extractor.filters._asdict(), "store_dtype": extractor.store_dtype}.items():
                if value != wanted[setting]:
                    raise UserError(
                        f"{setting} is {value!r} for {name} and {wanted[setting]!r} for {next(iter(self.extractors))}: "
                        "rows lie side by side, so set it alike for all extractors"
                    )
