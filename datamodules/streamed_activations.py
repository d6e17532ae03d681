"""Activations on the fly: from the model into training without a store, or with one that fills on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from lightning.pytorch.utilities import rank_zero_info

from backbones import RowExtractor
from datamodules.extraction import extract_to_store
from datamodules.rehearsal import Rehearsal, Wanted, rehearse_store, survey
from datamodules.rehearsed_stream import Stream, known_of
from datamodules.shards import (
    ActivationBatch,
    RowStore,
    Split,
    TrainingLoader,
    is_store,
    read_manifest,
    split_of,
)
from datamodules.source import places_of_models, refuse_other_store
from datamodules.stored_rows import Shuffle, StoredRows
from datamodules.streaming import StreamingLoader
from datamodules.text_contexts import TextContexts
from datamodules.text_pools import TextPools, place_of
from estimates import Extraction
from remote_files import is_url, shown
from run_store import UserError


class StreamedActivationDataModule(StoredRows[StreamingLoader]):
    """Batches straight from the model, which reads on while the autoencoder trains.

    Rows mix over two pools of text at a time. Documents are held out whole, by a hash of their names: their rows are
    dropped from the stream, and what the validation and the test read is a small store of such documents alone.

    Args:
        extractor: The model and its hook points.
        text: The text to train on, read over and over.
        held_out: Folder of the store of held-out documents, which is extracted first when it is missing.
        fill: Folder of a store that the first pass over the text fills, of all its documents, and that later passes
            read instead of the text; if it is whole already, it is read from the start. null keeps nothing.
        batch_size: Rows in a batch, over all devices together.
        epoch_batches: Batches that the Trainer counts as an epoch, since how many a pass gives shows only at its end.
        pool_windows: Windows of text (each `text.batch_size × text.window_batches` contexts) in a pool, on each
            device: more mix better and take more memory, in which there are three pools at most (of each lane, where
            a pass goes on on fewer devices than began it).
        hook_points: Which of the extractor's hook points to train on; null takes all of them.
        held_out_tokens: The held-out store is made of at most so many tokens.
        validation_share: The expected share of documents held out for validation.
        test_share: The expected share of documents held out for the test.
        block_rows: Consecutive rows that are shuffled together where rows come from a store.
        seed: Decides the order of the rows and which documents are held out.
        ahead: Make the next pool in a background thread while one is trained on; the batches are the same.
        verify: Compare the sha256 of a store's files with those that were written.
    """

    def __init__(
        self,
        extractor: RowExtractor,
        text: TextContexts,
        held_out: str,
        fill: str | None = None,
        batch_size: PositiveInt = 4096,
        epoch_batches: PositiveInt = 500,
        pool_windows: PositiveInt = 8,
        hook_points: list[str] | None = None,
        held_out_tokens: PositiveInt = 200_000,
        validation_share: ClosedUnitInterval = 0.05,
        test_share: ClosedUnitInterval = 0.05,
        block_rows: PositiveInt = 16,
        seed: int = 0,
        ahead: bool = True,
        verify: bool = True,
    ) -> None:
        super().__init__(
            held_out, batch_size, hook_points, validation_share, test_share, block_rows, seed=seed, verify=verify
        )
        self.extractor = extractor
        self.text = text
        self.fill = None if fill is None else Path(fill)
        self._places = {"held_out": held_out, "fill": fill}
        self.epoch_batches = epoch_batches
        self.pool_windows = pool_windows
        self.held_out_tokens = held_out_tokens
        self.ahead = ahead
        self._filled: tuple[RowStore, Shuffle] | None = None

    def prepare_data(self) -> None:
        """Extracts the held-out documents unless that was done; makes sure that stores are those of the settings.

        Raises:
            UserError: nothing is held out, the extraction failed, or a store was made with other settings.
        """
        for name, place in self._places.items():
            if place is not None and is_url(place):
                raise UserError(f"data.{name} is the URL {shown(place)}: name a folder of this machine")
        text = self._held_out_text()
        if is_store(self.folder):
            refuse_other_store(self.folder, self.extractor, text)
            rank_zero_info(
                f"Reusing the held-out documents in {self.folder}: {read_manifest(self.folder).rows:,} rows."
            )
        else:
            extract_to_store(self.extractor, text, self.folder)
        if self.fill is not None and is_store(self.fill):
            refuse_other_store(self.fill, self.extractor, self.text)
            rank_zero_info(f"Reading the activation store {self.fill}, which is whole already.")

    def hook_point_names(self) -> list[str]:
        """Which hook points a batch will have, in its order, known before anything is read."""
        return self.hook_points or self.extractor.hook_point_names()

    @staticmethod
    def identity_of(settings: Mapping[str, Any]) -> dict[str, str | None]:
        """What stands for the data in a run's identity: the settings that make it, wherever stores lie. A store that
        fills decides the order of the rows that come after the first pass.

        Args:
            settings: the arguments of this class, as plain values.

        Returns:
            By dotted name of a setting, what stands for it, or None where it decides nothing.
        """
        nothing = dict.fromkeys(("held_out", "verify", "ahead", *places_of_models(settings)))
        return {**nothing, "fill": None if settings.get("fill") is None else "filled"}

    @property
    def rows_read(self) -> int:
        """That the model has given since this was made, those of held-out documents too."""
        return self.extractor.counts.kept

    def rehearse(self, scratch: Path, wanted: Wanted) -> Rehearsal:
        """Extracts a slice of the held-out documents into `scratch` where they are missing, and has a store fill there.
        Pools are smaller, so that the first comes soon.

        Raises:
            UserError: as `prepare_data`, or how long a text is that fills a store, is not known.
        """
        settings: dict[str, Any] = {}
        extractions: tuple[Extraction, ...] = ()
        validation_rows = None
        if not is_store(self.folder):
            text = self._held_out_text()
            found = survey(self.extractor, text, self._split_of, 0, 2 * self.batch_size, wanted.seconds)
            settings["held_out"] = str(scratch / "held-out")
            made = rehearse_store(
                self.extractor, text, self.folder, scratch / "held-out", found, self.batch_size, wanted.seconds
            )
            extractions, validation_rows = (made,), found.scaled(found.rows["validation"], text)
        if self.fill is not None and is_store(self.fill):
            return Rehearsal(settings, None, validation_rows, extractions)
        stream = Stream(
            self.extractor,
            self.text,
            self.hook_points,
            self._split_of,
            self.pool_windows,
            self.batch_size,
            self.ahead,
            self.fill,
        )
        known, pools = known_of(stream, wanted)
        settings["pool_windows"] = pools
        if self.fill is not None:
            settings["fill"] = str(scratch / "fill")
        same = self.fill is None and pools == self.pool_windows
        return Rehearsal(settings, None, validation_rows, extractions, known, same)

    def train_dataloader(self) -> StreamingLoader:
        """As the base; the loader of before gives back its thread."""
        self._close()
        return super().train_dataloader()

    def sample(self, rows: int) -> ActivationBatch:
        """The same rows at every call: the first of the text that are trained on, or spread over a store that was there
        from the start.
        """
        if self._loader is not None and self._loader.first_stored == 0:
            return self._sample(*self._open_filled(), rows)
        # the pools that are being read, if any: they know when the model is in use
        pools = self._pools() if self._loader is None else self._loader.pools
        activations, numbers = pools.sample(rows)
        return ActivationBatch(tuple(a.float() for a in activations), numbers)

    def describe_row(self, row: int) -> str:
        """Where a row that is trained on comes from, in words, for messages."""
        if row >= 0:
            return self._open_filled()[0].describe(row)
        window, index = place_of(row)
        return f"row {index} of window {window} of the text"

    def on_exception(self, exception: BaseException) -> None:
        self._close()

    def teardown(self, stage: str) -> None:
        """Ends the background thread, too."""
        self._close()
        super().teardown(stage)
        if stage == "fit" and self.fill is not None and not is_store(self.fill):
            rank_zero_info(f"The activation store {self.fill} is not whole yet: a later run goes on filling it.")

    def _make_loader(self) -> StreamingLoader:
        if self.fill is not None and self._rank.world_size > 1 and not is_store(self.fill):
            raise UserError(
                "a store is filled by one process: set trainer.devices and trainer.num_nodes to 1, or extract it first"
            )
        return StreamingLoader(
            self._pools(),
            self.epoch_batches,
            self.batch_size,
            self.seed,
            self._order(),
            self.fill,
            self._stored_loader,
            self._rank,
            self._agree,
            self.ahead,
        )

    def _pools(self) -> TextPools:
        return TextPools(self.extractor, self.text, list(self.shapes), self.pool_windows, self._in_training)

    def _in_training(self, document: str) -> bool:
        return self._split_of(document) == "train"

    def _split_of(self, document: str) -> Split:
        return split_of(document, self.seed, self.shares["validation"], self.shares["test"])

    def _held_out_text(self) -> TextContexts:
        share = self.shares["validation"] + self.shares["test"]
        if not share:
            raise UserError(
                "validation_share and test_share are both 0, and training on the fly measures itself on held-out "
                "documents alone: raise one of them"
            )
        # What would be held out for a validation of that size is what is held out for both, since they lie end to end.
        return self.text.part("validation", self.seed, share, 0.0, self.held_out_tokens)

    def _stored_loader(self) -> TrainingLoader:
        store, training = self._open_filled()
        return TrainingLoader(store, training, list(self.shapes), self.batch_size, self._rank)

    def _open_filled(self) -> tuple[RowStore, Shuffle]:
        if self._filled is None:
            assert self.fill is not None  # or no row would come from there
            store = self._open(self.fill)
            self._filled = store, self._split(store)["train"]
        return self._filled

    def _agree(self, known: list[list[int]]) -> list[list[int]]:
        if self._rank.world_size == 1:
            return known
        strategy = self.trainer.strategy  # type: ignore[union-attr]
        everyone = strategy.all_gather(torch.tensor(known, device=strategy.root_device))
        # who mixes a lane says the same of it, whoever does not says -1
        agreed: list[list[int]] = everyone.amax(dim=0).tolist()
        return agreed

    def _order(self) -> dict[str, Any]:
        """What decides the order of the rows; plain, so that a checkpoint can hold it."""
        settings = {
            "batch_size": self.batch_size,
            "epoch_batches": self.epoch_batches,
            "pool_windows": self.pool_windows,
            "block_rows": self.block_rows,
            "fill": None if self.fill is None else "a folder",
            "seed": self.seed,
            **{f"{split}_share": share for split, share in self.shares.items()},
            **{f"text.{name}": value for name, value in self.text.describe().items()},
        }
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain

    def _close(self) -> None:
        if self._loader is not None:
            self._loader.close()
