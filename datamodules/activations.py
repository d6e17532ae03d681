"""Activations as batches: extracted when they are missing, split by document, shuffled and resumable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from lightning.pytorch.utilities import rank_zero_info

from backbones import RowExtractor
from datamodules.extraction import extract_to_store
from datamodules.rehearsal import Rehearsal, Wanted, rehearse_store, survey
from datamodules.shards import (
    ActivationBatch,
    ShardCache,
    TrainingLoader,
    is_store,
    manifest_sha256,
    read_manifest,
    split_of,
)
from datamodules.shards.files import in_words
from datamodules.source import places_of_models, refuse_other_store
from datamodules.stored_rows import StoredRows
from datamodules.text_contexts import TextContexts
from run_store import UserError

_NO_STORE = (
    "there is no activation store in {}: set data.store to the folder of one, "
    "or data.extractor and data.text to make one"
)


class ActivationDataModule(StoredRows[TrainingLoader]):
    """Batches from an activation store.

    Documents are held out whole, by a hash of their names, so that nothing held out is trained on.

    Args:
        store: The store's folder, or any URL that fsspec knows. When there is no store in it, one is extracted first.
        batch_size: Rows in a batch, over all devices together.
        hook_points: Which hook points of the store to read; null reads all of them.
        extractor: The model and hook points to make a missing store with.
        text: The text to make a missing store from.
        validation_share: The expected share of documents held out for validation.
        test_share: The expected share of documents held out for the test.
        block_rows: Consecutive rows that are shuffled together: more read faster, fewer mix better.
        seed: Decides the order of the rows and which documents are held out.
        verify: Compare the sha256 of the store's files with those that were written; what is fetched from a URL always
            is.
        mixed_shards: Shards whose rows are shuffled together; null shuffles all rows. Needed where a store at a URL is
            larger than the cache.
        cache: Where shards of a URL are kept on this machine.
    """

    def __init__(
        self,
        store: str,
        batch_size: PositiveInt = 4096,
        hook_points: list[str] | None = None,
        extractor: RowExtractor | None = None,
        text: TextContexts | None = None,
        validation_share: ClosedUnitInterval = 0.05,
        test_share: ClosedUnitInterval = 0.05,
        block_rows: PositiveInt = 16,
        seed: int = 0,
        verify: bool = True,
        mixed_shards: PositiveInt | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        super().__init__(
            store,
            batch_size,
            hook_points,
            validation_share,
            test_share,
            block_rows,
            seed=seed,
            verify=verify,
            mixed_shards=mixed_shards,
            cache=cache,
        )
        self.extractor = extractor
        self.text = text

    def prepare_data(self) -> None:
        """Extracts the store when it is missing; otherwise makes sure that it is the one that the settings ask for.

        Raises:
            UserError: the store is missing and there is nothing to make it with, its extraction failed, or it was made
                with other settings.
        """
        if is_store(self.folder):
            if self.extractor is not None and self.text is not None:
                refuse_other_store(self.folder, self.extractor, self.text)
            rows = read_manifest(self.folder).rows
            rank_zero_info(f"Reusing the activation store {in_words(self.folder)}: {rows:,} rows.")
        elif self.extractor is None or self.text is None:
            raise UserError(_NO_STORE.format(in_words(self.folder)))
        else:
            extract_to_store(self.extractor, self.text, self.folder)
            self.extractor.unload()

    def hook_point_names(self) -> list[str]:
        """Which hook points a batch will have, in its order, known before anything is extracted.

        Raises:
            UserError: there is neither a store nor anything to make one with, or it lacks one of `hook_points`.
        """
        if is_store(self.folder):
            available = list(read_manifest(self.folder).hook_points)
        elif self.extractor is not None:
            available = self.extractor.hook_point_names()
        else:
            raise UserError(_NO_STORE.format(in_words(self.folder)))
        self._refuse_unknown(self.folder, available)
        return self.hook_points or available

    @staticmethod
    def identity_of(settings: Mapping[str, Any]) -> dict[str, str | None]:
        """What stands for the data in a run's identity, known before anything is extracted or read.

        A store that the settings can make is what they say, wherever it lies; any other is its manifest, which names
        the sha256 of every file.

        Args:
            settings: the arguments of this class, as plain values.

        Returns:
            By dotted name of a setting, the sha256 that stands for what it leads to, or None where it decides nothing.

        Raises:
            UserError: there is neither a store nor anything to make one with.
        """
        if settings.get("extractor") is None or settings.get("text") is None:
            if not is_store(settings["store"]):
                raise UserError(_NO_STORE.format(in_words(settings["store"])))
            return {"store": manifest_sha256(settings["store"]), "verify": None, "cache": None}
        return dict.fromkeys(("store", "verify", "cache", *places_of_models(settings)))

    def rehearse(self, scratch: Path, wanted: Wanted) -> Rehearsal:
        """Extracts a slice into `scratch` where the store is missing, which is left missing.

        Raises:
            UserError: as `prepare_data`, or how long the text is, is not known.
        """
        if is_store(self.folder) or self.extractor is None or self.text is None:
            return Rehearsal()
        shares = self.shares["validation"], self.shares["test"]
        rows = max(wanted.rows, wanted.batches * self.batch_size)
        of_validation = 2 * self.batch_size if self.shares["validation"] else 0
        found = survey(
            self.extractor,
            self.text,
            lambda name: split_of(name, self.seed, *shares),
            rows,
            of_validation,
            wanted.seconds,
        )
        place, least = scratch / "store", 2 * self.batch_size
        made = rehearse_store(self.extractor, self.text, self.folder, place, found, least, wanted.seconds)
        return Rehearsal(
            {"store": str(place)},
            found.scaled(found.rows["train"], self.text),
            found.scaled(found.rows["validation"], self.text),
            (made,),
            same_order=False,
        )

    def sample(self, rows: int) -> ActivationBatch:
        """The same rows at every call, spread evenly over the training split; at most all of it."""
        return self._sample(self.store, self._splits["train"], rows)

    def _make_loader(self) -> TrainingLoader:
        order = self._splits["train"]
        return TrainingLoader(
            self.store,
            order,
            list(self.shapes),
            self.batch_size,
            self._rank,
            follower=self._follower(self.store, order),
        )
