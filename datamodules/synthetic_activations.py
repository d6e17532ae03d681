"""Activations whose features are known, made as they are asked for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.ranks import rank_of
from datamodules.shards import ActivationBatch, EvaluationLoader, Rank, Split, TrainingLoader, read_batch
from datamodules.synthetic import EndlessOrder, FeatureSettings, SyntheticStream, Truth
from run_store import UserError

HOOK_POINT = "synthetic"


class SyntheticActivations(LightningDataModule):
    """Batches of synthetic activations, whose dictionary and codes can be asked for.

    Every epoch brings new rows; validation and test read rows that no epoch ever reaches. Nothing is stored.

    Args:
        features: What there is to be found.
        batch_size: Rows in a batch, over all devices together.
        train_rows: Rows of an epoch.
        validation_rows: Rows that validation reads, always the same.
        test_rows: Rows that the test reads, always the same.
    """

    def __init__(
        self,
        features: FeatureSettings,
        batch_size: PositiveInt = 2048,
        train_rows: PositiveInt = 1_000_000,
        validation_rows: NonNegativeInt = 16_384,
        test_rows: NonNegativeInt = 16_384,
    ) -> None:
        super().__init__()
        self.features = features
        self.batch_size = batch_size
        self.rows_of: dict[Split, int] = {"validation": validation_rows, "test": test_rows, "train": train_rows}
        self._cursor: dict[str, Any] | None = None
        self._loader: TrainingLoader | None = None
        self._stream: SyntheticStream | None = None

    def setup(self, stage: str | None = None) -> None:
        """Draws the truth, and tells how crowded the dictionary is.

        Raises:
            UserError: the settings contradict each other, or a split is too small for the stage.
        """
        if self._stream is None:
            self._stream = SyntheticStream(self.features)
            rank_zero_info(self._in_words())
        self._refuse_impossible(stage)

    @property
    def stream(self) -> SyntheticStream:
        """The rows."""
        if self._stream is None:
            raise RuntimeError("the truth is drawn by setup(), which has not been called")
        return self._stream

    @property
    def truth(self) -> Truth:
        """The dictionary, the firing rates and who depends on whom."""
        return self.stream.truth

    def codes(self, rows: Tensor) -> Tensor:
        """The true codes of a batch's `rows`, int64 [b]: float32 [b, n], 0 where a feature does not fire."""
        return self.stream.codes(rows)

    @property
    def shapes(self) -> dict[str, int]:
        """Width d under the one name that stands for a hook point."""
        return {HOOK_POINT: self.features.d}

    def hook_point_names(self) -> list[str]:
        """The one name that stands for a hook point."""
        return [HOOK_POINT]

    def train_dataloader(self) -> TrainingLoader:
        """Batches from the cursor of the checkpoint that is being resumed, or from the first."""
        loader = TrainingLoader(self.stream, self._order("train"), [HOOK_POINT], self.batch_size, self._rank)
        if self._cursor is not None:
            loader.load_state_dict(self._cursor)
        self._loader = loader
        return loader

    def state_dict(self) -> dict[str, Any]:
        """The training loader's cursor and what gives its rows their meaning."""
        return {} if self._loader is None else {"cursor": self._loader.state_dict(), "features": self._described()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the cursor for the training loader that is made next.

        Raises:
            UserError: the checkpoint was trained on other features.
        """
        there, here = state_dict.get("features", {}), self._described()
        for name, value in there.items():
            if here.get(name) != value:
                raise UserError(
                    f"the checkpoint was made with features.{name} {value} and this run has {here.get(name)}: set it "
                    "back or start a new run"
                )
        self._cursor = state_dict.get("cursor")

    def teardown(self, stage: str) -> None:
        """Forgets the cursor: the next fit starts at the first batch unless it resumes too."""
        self._cursor = self._loader = None

    def val_dataloader(self) -> EvaluationLoader | list[EvaluationLoader]:
        return self._evaluation_loader("validation") if self.rows_of["validation"] else []

    def test_dataloader(self) -> EvaluationLoader:
        return self._evaluation_loader("test")

    def sample(self, rows: int) -> ActivationBatch:
        """The first rows of the training split; at most an epoch of them."""
        order = self._order("train")
        return read_batch(self.stream, [HOOK_POINT], order.rows(0, 0, min(rows, order.size)))

    def describe_row(self, row: int) -> str:
        """Which row it is, for messages."""
        return f"row {row} of the synthetic activations (seed {self.features.seed})"

    @property
    def _rank(self) -> Rank:
        return rank_of(self.trainer)

    def _order(self, split: Split) -> EndlessOrder:
        # held-out rows come first, because training has no end
        held_out = self.rows_of["validation"], self.rows_of["test"]
        first = {"validation": 0, "test": held_out[0], "train": sum(held_out)}[split]
        return EndlessOrder(first, self.rows_of[split], self.features.seed)

    def _evaluation_loader(self, split: Split) -> EvaluationLoader:
        return EvaluationLoader(self.stream, self._order(split), [HOOK_POINT], self.batch_size, self._rank)

    def _refuse_impossible(self, stage: str | None) -> None:
        if stage == "fit" and self.rows_of["train"] < self.batch_size:
            raise UserError(
                f"batch_size {self.batch_size} is more than the {self.rows_of['train']} rows of train_rows: make it "
                "smaller or raise train_rows"
            )
        needed: dict[str | None, Split] = {"validate": "validation", "test": "test"}
        split = needed.get(stage)
        if split and self.rows_of[split] < self._rank.world_size:
            raise UserError(f"{split}_rows is {self.rows_of[split]}: raise it to measure a checkpoint on such rows")

    def _described(self) -> dict[str, str]:
        """The settings of the features as text, which any checkpoint can hold."""
        settings = {**asdict(self.features), "magnitudes": self.features.law}
        return {name: _in_text(value) for name, value in settings.items()}

    def _in_words(self) -> str:
        coherence, features = self.truth.coherence, self.features
        return (
            f"Synthetic truth: {features.count} features in {features.d} dimensions, {features.mean_l0:g} a row; "
            f"|cosine| between atoms {coherence.mean:.3f} on average and {coherence.largest:.3f} at most (no "
            f"dictionary of this size stays below {coherence.bound:.3f})."
        )


def _in_text(value: Any) -> str:
    settings = getattr(value, "__dict__", None)
    return str(value) if settings is None else f"{type(value).__name__} {settings}"
