"""Activations as batches: extracted when they are missing, split by document, shuffled and resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from transformers import PreTrainedTokenizerBase

from backbones import Extractor, load_tokenizer
from datamodules.extraction import FINGERPRINT, describe_settings, extract_to_store
from datamodules.shards import (
    ActivationBatch,
    ActivationStore,
    BlockShuffle,
    EvaluationLoader,
    Rank,
    Split,
    TrainingLoader,
    is_store,
    read_batch,
    read_manifest,
    split_ranges,
)
from datamodules.text_contexts import TextContexts
from run_store import UserError, nearest


class ActivationDataModule(LightningDataModule):
    """Batches from an activation store.

    Documents are held out whole, by a hash of their names, so that nothing held out is trained on.

    Args:
        store: The store's folder. When there is no store in it, one is extracted first.
        batch_size: Rows in a batch, over all devices together.
        hook_points: Which hook points of the store to read; null reads all of them.
        extractor: The model and hook points to make a missing store with.
        text: The text to make a missing store from.
        validation_share: The expected share of documents held out for validation.
        test_share: The expected share of documents held out for the test.
        block_rows: Consecutive rows that are shuffled together: more read faster, fewer mix better.
        seed: Decides the order of the rows and which documents are held out.
        verify: Compare the sha256 of the store's files with those that were written.
    """

    def __init__(
        self,
        store: str,
        batch_size: PositiveInt = 4096,
        hook_points: list[str] | None = None,
        extractor: Extractor | None = None,
        text: TextContexts | None = None,
        validation_share: ClosedUnitInterval = 0.05,
        test_share: ClosedUnitInterval = 0.05,
        block_rows: PositiveInt = 16,
        seed: int = 0,
        verify: bool = True,
    ) -> None:
        super().__init__()
        # Nodes share the folder of the store, or could not read one store.
        self.prepare_data_per_node = False
        self.folder = Path(store)
        self.batch_size = batch_size
        self.hook_points = hook_points
        self.extractor = extractor
        self.text = text
        self.shares = {"validation": validation_share, "test": test_share}
        self.block_rows = block_rows
        self.seed = seed
        self.verify = verify
        self._cursor: dict[str, Any] | None = None
        self._loader: TrainingLoader | None = None
        self._store: ActivationStore | None = None
        self._splits: dict[Split, BlockShuffle] = {}

    def prepare_data(self) -> None:
        """Extracts the store when it is missing; otherwise makes sure that it is the one that the settings ask for.

        Raises:
            UserError: the store is missing and there is nothing to make it with, its extraction failed, or it was made
                with other settings.
        """
        if is_store(self.folder):
            self._refuse_other_settings()
            rank_zero_info(f"Reusing the activation store {self.folder}: {read_manifest(self.folder).rows:,} rows.")
        elif self.extractor is None or self.text is None:
            raise UserError(
                f"there is no activation store in {self.folder}: set data.store to the folder of one, "
                "or data.extractor and data.text to make one"
            )
        else:
            manifest = extract_to_store(self.extractor, self.text, self.folder)
            self.extractor.unload()
            rank_zero_info(f"Extracted the activation store {self.folder}: {manifest.rows:,} rows.")

    def setup(self, stage: str | None = None) -> None:
        """Opens the store and splits it.

        Raises:
            UserError: the store is damaged or lacks a hook point, or a split is too small for the stage.
        """
        if self._store is None:
            self._store = self._open()
            self._splits = self._split(self._store)
        self._refuse_impossible(stage)

    @property
    def store(self) -> ActivationStore:
        """The open store."""
        if self._store is None:
            raise RuntimeError("the store is opened by setup(), which has not been called")
        return self._store

    @property
    def shapes(self) -> dict[str, int]:
        """Width d of every hook point that is read, in the order of a batch's activations."""
        return {name: self.store.hook_points[name] for name in self.hook_points or self.store.hook_points}

    def train_dataloader(self) -> TrainingLoader:
        """Batches from the cursor of the checkpoint that is being resumed, or from the first."""
        loader = TrainingLoader(self.store, self._splits["train"], list(self.shapes), self.batch_size, self._rank)
        if self._cursor is not None:
            loader.load_state_dict(self._cursor)
        self._loader = loader
        return loader

    def state_dict(self) -> dict[str, Any]:
        """The training loader's cursor.

        Lightning keeps a loader's state itself, but gives it back only to a loader made after the checkpoint was
        read. Whatever asks the Trainer for the length of the run while optimisers are configured makes it before.
        """
        return {} if self._loader is None else {"cursor": self._loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the cursor for the training loader that is made next."""
        self._cursor = state_dict.get("cursor")

    def teardown(self, stage: str) -> None:
        """Forgets the cursor: the next fit starts at the first batch unless it resumes too."""
        self._cursor = self._loader = None

    def val_dataloader(self) -> EvaluationLoader | list[EvaluationLoader]:
        return self._evaluation_loader("validation") if self.shares["validation"] else []

    def test_dataloader(self) -> EvaluationLoader:
        return self._evaluation_loader("test")

    def sample(self, rows: int) -> ActivationBatch:
        """The same rows at every call, spread evenly over the training split; at most all of it."""
        split = self._splits["train"]
        rows = min(rows, split.size)
        middles = (2 * torch.arange(rows) + 1) * split.size // (2 * rows)
        return read_batch(self.store, list(self.shapes), split.physical(middles.numpy()))

    def describe_row(self, row: int) -> str:
        """Where a row comes from, in words, for messages."""
        return self.store.describe(row)

    def snippet(self, row: int, before: int, after: int) -> tuple[list[int], int]:
        """The token ids around a row, within its document, and the index of the row's own token among them.

        Tokens that were filtered out at extraction are missing.
        """
        start = max(0, row - before)
        source = self.store.provenance(torch.arange(start, min(self.store.rows, row + after + 1)))
        same_document = source.documents == source.documents[row - start]
        return source.tokens[same_document].tolist(), int(same_document[: row - start].sum())

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that the store's token ids belong to.

        Raises:
            UserError: it cannot be loaded.
        """
        return load_tokenizer(self.store.manifest.source["text"]["tokenizer"])

    @property
    def _rank(self) -> Rank:
        return Rank(self.trainer.global_rank, self.trainer.world_size) if self.trainer else Rank()

    def _evaluation_loader(self, split: Split) -> EvaluationLoader:
        return EvaluationLoader(self.store, self._splits[split], list(self.shapes), self.batch_size, self._rank)

    def _open(self) -> ActivationStore:
        # One process checks for all of them.
        store = ActivationStore(self.folder, verify=self.verify and self._rank.rank == 0)
        for name in self.hook_points or []:
            if name not in store.hook_points:
                raise UserError(
                    f"{self.folder} has no hook point {name!r}: the nearest are {nearest(name, store.hook_points)}"
                )
        return store

    def _split(self, store: ActivationStore) -> dict[Split, BlockShuffle]:
        if sum(self.shares.values()) >= 1:
            raise UserError(
                f"validation_share {self.shares['validation']} and test_share {self.shares['test']} leave nothing to "
                "train on: lower them"
            )
        ranges = split_ranges(store.document_names, store.document_ranges(), self.seed, *self.shares.values())
        return {split: BlockShuffle(part, self.block_rows, self.seed) for split, part in ranges.items()}

    def _refuse_impossible(self, stage: str | None) -> None:
        """Raises before a model is built what would otherwise come up in the middle of a run."""
        if stage == "fit":
            self.train_dataloader()
            if self.shares["validation"]:
                self._refuse_empty("validation")
        elif stage in ("validate", "test"):
            self._refuse_empty("validation" if stage == "validate" else "test")

    def _refuse_empty(self, split: Split) -> None:
        rows, devices = self._splits[split].size, self._rank.world_size
        if rows < devices:
            raise UserError(
                f"the {split} split of {self.folder} has {rows} rows for {devices} devices (its {split}_share of "
                f"{len(self.store.document_names)} documents is {self.shares[split]}): raise {split}_share or "
                "extract more documents"
            )

    def _refuse_other_settings(self) -> None:
        if self.extractor is None or self.text is None:
            return
        stored = _flat(read_manifest(self.folder).source)
        asked = _flat(describe_settings(self.extractor, self.text))
        if self.extractor.precision == "auto":
            # whatever was best where the store was made is good here
            asked["extractor.precision"] = stored.get("extractor.precision")
        differing = [name for name in stored | asked if stored.get(name) != asked.get(name) and name != FINGERPRINT]
        if differing:
            both = "; ".join(f"{name} is {stored.get(name)!r} there and {asked.get(name)!r} here" for name in differing)
            raise UserError(
                f"the activation store {self.folder} was made with other settings ({both}): set data.store to another "
                "folder, or set them back"
            )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names, as JSON gives them back."""
    flat: dict[str, Any] = {}
    for name, value in json.loads(json.dumps(settings)).items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
