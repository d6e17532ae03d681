"""What a datamodule with an activation store has, whatever it trains on: held-out documents and their rows' origin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from backbones import load_tokenizer
from datamodules.ranks import rank_of
from datamodules.shards import (
    ActivationBatch,
    BlockShuffle,
    EvaluationLoader,
    GroupedShuffle,
    Rank,
    RemoteStore,
    RowStore,
    ShardCache,
    Split,
    is_store,
    manifest_sha256,
    open_store,
    read_batch,
    split_ranges,
)
from datamodules.shards.batches import Follower
from datamodules.shards.files import in_words, place_of
from datamodules.shards.read_ahead import Following
from datamodules.text_samples import TextSamples
from run_store import UserError, nearest

Shuffle = BlockShuffle | GroupedShuffle


class ResumableLoader(Protocol):
    """A loader of training batches whose state is a cursor."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Loader = TypeVar("Loader", bound=ResumableLoader)


class StoredRows(LightningDataModule, Generic[Loader]):
    """Validates and tests on an activation store's held-out documents; what is trained on is up to the subclass.

    Args:
        store: The store's folder, or any URL that fsspec knows.
        batch_size: Rows in a batch, over all devices together.
        hook_points: Which hook points of the store to read; null reads all of them.
        validation_share: The expected share of documents held out for validation.
        test_share: The expected share of documents held out for the test.
        block_rows: Consecutive rows that are shuffled together.
        seed: Decides the order of the rows and which documents are held out.
        verify: Compare the sha256 of the store's files with those that were written.
        mixed_shards: Shards whose rows are shuffled together; null takes all.
        cache: Where shards of a URL are kept.
    """

    def __init__(
        self,
        store: str,
        batch_size: int,
        hook_points: list[str] | None,
        validation_share: float,
        test_share: float,
        block_rows: int,
        seed: int,
        verify: bool,
        mixed_shards: int | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        super().__init__()
        # Nodes share the folder of the store, or could not read one store.
        self.prepare_data_per_node = False
        self.folder = place_of(store)
        self.mixed_shards = mixed_shards
        self.cache = cache
        self.batch_size = batch_size
        self.hook_points = hook_points
        self.shares = {"validation": validation_share, "test": test_share}
        self.block_rows = block_rows
        self.seed = seed
        self.verify = verify
        self._cursor: dict[str, Any] | None = None
        self._loader: Loader | None = None
        self._store: RowStore | None = None
        self._splits: dict[Split, Shuffle] = {}

    @abstractmethod
    def _make_loader(self) -> Loader:
        """The loader of training batches, at its first batch."""

    def setup(self, stage: str | None = None) -> None:
        """Opens the store and splits it.

        Raises:
            UserError: the store is damaged or lacks a hook point, or a split is too small for the stage.
        """
        if self._store is None:
            self._store = self._open(self.folder)
            self._splits = self._split(self._store)
        self._refuse_impossible(stage)

    def lineage(self) -> dict[str, str]:
        """The open store's folder and the sha256 of its manifest."""
        return {"store": in_words(self.folder), "store_sha256": manifest_sha256(self.folder)}

    @property
    def store(self) -> RowStore:
        """The open store."""
        if self._store is None:
            raise RuntimeError("the store is opened by setup(), which has not been called")
        return self._store

    @property
    def shapes(self) -> dict[str, int]:
        """Width d of every hook point that is read, in the order of a batch's activations."""
        return {name: self.store.hook_points[name] for name in self.hook_points or self.store.hook_points}

    def train_dataloader(self) -> Loader:
        """Batches from the cursor of the checkpoint that is being resumed, or from the first."""
        loader = self._make_loader()
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
        """Forgets the cursor: the next fit starts at the first batch unless it resumes too. Nothing is fetched on."""
        self._cursor = self._loader = None
        if isinstance(self._store, RemoteStore):
            self._store.close()

    def val_dataloader(self) -> EvaluationLoader | list[EvaluationLoader]:
        return self._evaluation_loader("validation") if self.shares["validation"] else []

    def test_dataloader(self) -> EvaluationLoader:
        return self._evaluation_loader("test")

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
        text = self.store.manifest.source["text"]
        return load_tokenizer(text["tokenizer"], text.get("revision"))

    def text_samples(self) -> TextSamples:
        """Reads short texts: those held out for validation, and others with the model, where that is in the settings.

        Raises:
            UserError: the tokenizer cannot be loaded.
        """
        splits = split_ranges(self.store.document_names, self.store.document_ranges(), self.seed, *self.shares.values())
        extractor, text = getattr(self, "extractor", None), getattr(self, "text", None)
        return TextSamples(self.store, splits["validation"], list(self.shapes), self.tokenizer(), extractor, text)

    @property
    def _rank(self) -> Rank:
        return rank_of(self.trainer)

    def _evaluation_loader(self, split: Split) -> EvaluationLoader:
        order = self._splits[split]
        return EvaluationLoader(
            self.store, order, list(self.shapes), self.batch_size, self._rank, self._follower(self.store, order)
        )

    def _follower(self, store: RowStore, order: Shuffle) -> Follower | None:
        """What fetches the rows of an order before they are read, where they must be fetched."""
        if isinstance(store, RemoteStore) and isinstance(order, GroupedShuffle):
            return Following(store.read_ahead(list(self.shapes)), order)
        return None

    def _sample(self, store: RowStore, split: Shuffle, rows: int) -> ActivationBatch:
        """Rows spread evenly over a split, or over what is mixed first of it; at most all of that."""
        return read_batch(store, list(self.shapes), split.spread(rows))

    def _open(self, folder: str | Path) -> RowStore:
        # One process checks for all of them.
        store = open_store(folder, self.verify and self._rank.rank == 0, self.cache)
        self._refuse_unknown(folder, store.hook_points)
        return store

    def _refuse_unknown(self, folder: str | Path, available: Collection[str]) -> None:
        """Refuses names in `hook_points` that a store, or the extractor that is to make it, does not have."""
        unknown, here = [name for name in self.hook_points or [] if name not in available], in_words(folder)
        for name in unknown:
            if is_store(elsewhere := Path(name).parent) and not _is_same(elsewhere, folder):
                raise UserError(
                    f"data.hook_points names {name!r} of another store than {here}, and rows belong together only "
                    "within one: extract both into a new data.store, by naming both in data.extractor.hook_points"
                )
        for name in unknown[:1]:
            raise UserError(f"{here} has no hook point {name!r}: the nearest are {nearest(name, available)}")

    def _split(self, store: RowStore) -> dict[Split, Shuffle]:
        if sum(self.shares.values()) >= 1:
            raise UserError(
                f"validation_share {self.shares['validation']} and test_share {self.shares['test']} leave nothing to "
                "train on: lower them"
            )
        if isinstance(store, RemoteStore):
            store.refuse_small_cache(self.mixed_shards, list(self.shapes))
        ranges = split_ranges(store.document_names, store.document_ranges(), self.seed, *self.shares.values())
        return {split: self._shuffled(store, part) for split, part in ranges.items()}

    def _shuffled(self, store: RowStore, ranges: Tensor) -> Shuffle:
        if self.mixed_shards is None and not isinstance(store, RemoteStore):
            return BlockShuffle(ranges, self.block_rows, self.seed)
        # one group of all shards is in the order of a BlockShuffle
        return GroupedShuffle(ranges, store.shard_rows, self.mixed_shards, self.block_rows, self.seed)

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
                f"the {split} split of {self.store.place} has {rows} rows for {devices} devices (its {split}_share of "
                f"{len(self.store.document_names)} documents is {self.shares[split]}): raise {split}_share or "
                "extract more documents"
            )


def _is_same(folder: Path, place: str | Path) -> bool:
    return isinstance(place, Path) and place.exists() and folder.samefile(place)
