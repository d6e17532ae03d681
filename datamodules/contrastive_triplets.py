"""Triplets as batches: read and checked, tokenised once, split by group, shuffled, resumable, with mined negatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from backbones import load_tokenizer, tokenizer_sha256
from datamodules.processes import ALONE, Processes
from datamodules.rehearsal import Rehearsal, Wanted
from datamodules.shards import Rank
from datamodules.triplets import (
    HardNegatives,
    OrderedTriplets,
    RetrievalTask,
    Tokenisation,
    TokenisedTexts,
    Tokeniser,
    TripletBatch,
    TripletLoader,
    TripletReport,
    TripletSource,
    TripletTable,
    prepare_table,
    report_of,
)
from datamodules.triplets.mined_negatives import Embed, LatentsOf, mined_negatives
from datamodules.triplets.report import PaddedTokens
from datamodules.triplets.splits import SPLITS, split_rows
from datamodules.triplets.tokeniser import Column
from run_store import Split, UserError
from run_store.fingerprints import fingerprint

REPORTED_BATCHES = 16


class TripletDataModule(LightningDataModule):
    """Batches of triplets, pairs or scored pairs.

    What is held out is decided by the hash of an example's group, or of its anchor where it has none, so that nothing
    held out is trained on.

    Args:
        source: The examples to train on, and to hold some out of.
        batch_size: Examples of a batch, over all devices together.
        validation: Examples to validate on, instead of some held out of `source`.
        test: Examples to test on, instead of some held out of `source`.
        validation_share: The expected share of groups held out for validation; not used where `validation` is given.
        test_share: The expected share of groups held out for the test; not used where `test` is given.
        negatives_per_example: The first so many negatives of an example are used; null uses all.
        prompts: By column, what is put in front of its texts instead of what the encoder says; negatives have the
            prompt of positives.
        mining: Which hard negatives are mined; null mines none.
        cache: The folder that tokenised triplets are kept in.
        seed: Decides the order of the examples, which groups are held out, and random negatives.
    """

    def __init__(
        self,
        source: TripletSource,
        batch_size: PositiveInt = 64,
        validation: TripletSource | None = None,
        test: TripletSource | None = None,
        validation_share: ClosedUnitInterval = 0.05,
        test_share: ClosedUnitInterval = 0.05,
        negatives_per_example: NonNegativeInt | None = None,
        prompts: dict[Column, str] | None = None,
        mining: HardNegatives | None = None,
        cache: str = "stores/triplets",
        seed: int = 0,
    ) -> None:
        super().__init__()
        # Nodes share the folder of the cache, as they share stores.
        self.prepare_data_per_node = False
        self.source = source
        self.sources = {"train": source, "validation": validation, "test": test}
        self.batch_size = batch_size
        self.shares = {
            "validation": 0.0 if validation else validation_share,
            "test": 0.0 if test else test_share,
        }
        self.negatives_per_example = negatives_per_example
        self.prompts = dict[str, str](prompts.items() if prompts else ())
        self.mining = mining
        self.cache = Path(cache)
        self.seed = seed
        self.tokenisations: list[Tokenisation] | None = None
        """How texts are tokenised; None asks the model, by its `tokenisations()`."""
        self._folders: dict[str, Path] = {}
        self._tables: dict[str, TripletTable] = {}
        self._rows: dict[Split, Tensor] = {}
        self._mined: Tensor | None = None
        self._mined_in: int | None = None
        self._embed: Embed | None = None
        self._latents_of: LatentsOf | None = None
        self._restored: dict[str, Any] = {}
        self._loader: TripletLoader | None = None

    def prepare_data(self) -> None:
        """Reads, checks and tokenises what is not in the cache yet.

        Raises:
            UserError: settings contradict each other, a row is bad and those are refused, or a tokenizer cannot be
                loaded.
        """
        self._check_settings()
        tokenisers = self.tokenisers()
        given = {name: source for name, source in self.sources.items() if source is not None}
        self._folders = {name: prepare_table(self.cache, source, tokenisers) for name, source in given.items()}

    def setup(self, stage: str | None = None) -> None:
        """Opens the tables and splits them.

        Raises:
            UserError: a split is too small for the stage.
        """
        if not self._tables:
            # only the process that prepared the data knows
            self._folders = self._processes.broadcast(self._folders)
            self._tables = {name: TripletTable(folder) for name, folder in self._folders.items()}
            self._rows = self._split()
        if self.mining is not None and self.table("train").kind_of_score == "teacher":
            raise UserError("mining: a teacher's scores know nothing of mined negatives: set mining to null")
        self._refuse_impossible(stage)

    @staticmethod
    def identity_of(settings: Mapping[str, Any]) -> dict[str, str | None]:
        """What stands for the data in a run's identity: what is behind the sources, wherever it lies.

        Args:
            settings: the arguments of this class, as plain values.

        Returns:
            By name of a setting, the sha256 that stands for what it leads to, or None where it decides nothing.

        Raises:
            UserError: a source cannot be read.
        """
        parser = ArgumentParser(exit_on_error=False)
        named = {name: settings[name] for name in ("source", "validation", "test") if settings.get(name) is not None}
        for name in named:
            parser.add_subclass_arguments(TripletSource, name)
        sources = vars(parser.instantiate(parser.parse_object(named)))
        identities: dict[str, str | None] = {}
        for name in named:
            described = {key: value for key, value in sources[name].describe().items() if key != "files"}
            identities[name] = fingerprint([described, sources[name].fingerprint()])
        return {**identities, "cache": None}

    def rehearse(self, scratch: Path, wanted: Wanted) -> Rehearsal:
        """Has what is not in the cache yet made in `scratch`, all of it; what is there is read where it is."""
        cache = scratch / "triplets"
        cache.mkdir()
        for folder in self.cache.glob("*") if self.cache.is_dir() else ():
            if folder.is_dir() and not folder.suffix:
                (cache / folder.name).symlink_to(folder.resolve(), target_is_directory=True)
        return Rehearsal({"cache": str(cache)})

    def table(self, split: Split) -> TripletTable:
        """The table that a split's examples are in."""
        if not self._tables:
            raise RuntimeError("the tables are opened by setup(), which has not been called")
        return self._tables.get(split, self._tables["train"])

    def rows(self, split: Split) -> Tensor:
        """int64 [examples]: which examples of its table a split has."""
        return self._rows[split]

    def retrieval(self, split: Split) -> RetrievalTask:
        """A split's anchors as queries for its positives among all its documents."""
        return self.table(split).retrieval(self.rows(split))

    def tokenised(self, texts: Sequence[str], column: Column) -> tuple[TokenisedTexts, ...]:
        """Texts as those of a column are read, in each tokenisation.

        Raises:
            UserError: a tokenizer cannot be loaded.
        """
        parts = []
        for tokeniser in self.tokenisers():
            ids = [text.ids for text in tokeniser([tokeniser.prompt(column) + text for text in texts])] if texts else []
            tokens = torch.from_numpy(np.concatenate(ids)) if ids else torch.empty(0, dtype=torch.int32)
            parts.append(TokenisedTexts(tokens, torch.tensor([len(text) for text in ids], dtype=torch.int64)))
        return tuple(parts)

    def describe_example(self, split: Split, example: int) -> str:
        """The file and line of an example, for messages."""
        return self.table(split).place(example)

    def train_dataloader(self) -> TripletLoader:
        """Batches from the cursor of the checkpoint that is being resumed, or from the first.

        Raises:
            UserError: the checkpoint was made with other data, or in another order.
        """
        loader = self._make_loader()
        if self._restored:
            self._refuse_other_data(self._restored["data"])
            loader.load_state_dict(self._restored["cursor"])
        self._loader = loader
        return loader

    def val_dataloader(self) -> OrderedTriplets | list[OrderedTriplets]:
        return self._ordered("validation") if len(self.rows("validation")) else []

    def test_dataloader(self) -> OrderedTriplets:
        return self._ordered("test")

    def state_dict(self) -> dict[str, Any]:
        """The training loader's cursor, what gives it its meaning, and the mined negatives."""
        if self._loader is None:
            return {}
        state: dict[str, Any] = {"cursor": self._loader.state_dict(), "data": self.table("train").folder.name}
        if self._mined is not None:
            state |= {"mined": self._mined, "mined_in": self._mined_in}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the cursor for the training loader that is made next, and takes the mined negatives."""
        self._restored = {name: state_dict[name] for name in ("cursor", "data") if name in state_dict}
        self._mined, self._mined_in = state_dict.get("mined"), state_dict.get("mined_in")

    def teardown(self, stage: str) -> None:
        """Forgets cursor and mined negatives: the next fit starts anew unless it resumes too."""
        if stage == "fit":
            self._restored, self._loader, self._mined, self._mined_in = {}, None, None, None
            self._embed = self._latents_of = None

    def mine_with(self, embed: Embed) -> None:
        """Says what `mine` is called with whenever it is due, before the first batch of an epoch.

        Lightning's own hook will not do: it calls none for the epoch after a checkpoint of an epoch's last step.

        Raises:
            UserError: mining compares latents, and nothing gives them.
        """
        if self.mining is not None and self.mining.compares_latents and self._latents_of is None:
            raise UserError(
                "mining.most_overlap and mining.sampling least_overlap compare latents: add callback LatentGuide, or "
                "set most_overlap to null and sampling to hardest or random"
            )
        self._embed = embed

    def guide_with(self, latents_of: LatentsOf) -> None:
        """Says what gives the latents of documents where mining compares them; to be called before `mine_with`."""
        self._latents_of = latents_of

    def mine(self, embed: Embed, epoch: int) -> None:
        """Looks for hard negatives of the training examples with a model as it is now; they join those of the data.

        Every rank does the same work, since all need all negatives.

        Args:
            embed: Gives the embeddings [u, d] of u texts, without gradient and without dropout.
            epoch: At whose start it is.

        Raises:
            UserError: the model gives embeddings that are not finite.
        """
        if self.mining is None:
            raise RuntimeError("there is nothing to mine: mining is null")
        rows = self.rows("train")
        mined = mined_negatives(self.table("train"), rows, embed, self.mining, self.seed + epoch, self._latents_of)
        self._mined, self._mined_in = mined, epoch
        there, wanted = int((mined[rows] >= 0).sum()), mined[rows].numel()
        rank_zero_info(f"Mined {there:,} hard negatives for {len(rows):,} examples; {wanted - there:,} were not found.")

    def report(self, padded_tokens: PaddedTokens) -> TripletReport:
        """What is known of the training examples.

        Args:
            padded_tokens: how many tokens an encoder computes for texts of these lengths (int64 [u] in each
                tokenisation).
        """
        sample = self.sample(REPORTED_BATCHES)
        return report_of(self.table("train"), self.rows("train"), self._mined, sample, padded_tokens)

    def sample(self, batches: int) -> Iterator[TripletBatch]:
        """The first batches of the first epoch, as this rank has them; the loader's place stays what it is."""
        loader = self._make_loader()
        for n in range(min(batches, len(loader))):
            yield loader.read(*self._rank.share(n * self.batch_size, (n + 1) * self.batch_size))

    @property
    def _rank(self) -> Rank:
        return Rank(self.trainer.global_rank, self.trainer.world_size) if self.trainer else Rank()

    @property
    def _processes(self) -> Processes:
        return Processes.of(self.trainer) if self.trainer else ALONE

    def _make_loader(self) -> TripletLoader:
        make = partial(self._batch, "train")
        return TripletLoader(make, self.rows("train"), self.batch_size, self.seed, self._begin, self._rank)

    def _begin(self, epoch: int) -> None:
        if self.mining is None or not self.mining.is_due(epoch, self._mined_in):
            return
        if self._embed is None:
            raise RuntimeError("mining is set, and the model has not called `mine_with`")
        self.mine(self._embed, epoch)

    def _ordered(self, split: Split) -> OrderedTriplets:
        return OrderedTriplets(partial(self._batch, split), self.rows(split), self.batch_size, self._rank)

    def _batch(self, split: Split, rows: Tensor) -> TripletBatch:
        table = self.table(split)
        negatives = table.negatives(rows, self._most_negatives(table))
        if split == "train" and self._mined is not None:
            negatives = _without_repeats(torch.cat([negatives, self._mined[rows]], dim=1))
        return table.batch(rows, negatives)

    def _most_negatives(self, table: TripletTable) -> int:
        asked = self.negatives_per_example
        return table.most_negatives if asked is None else min(asked, table.most_negatives)

    def tokenisers(self) -> list[Tokeniser]:
        """What makes tokens of texts, one for each tokenisation of the model."""
        hows = self._asked() if self.tokenisations is None else self.tokenisations
        return [
            Tokeniser(
                how._replace(prompts={**how.prompts, **self.prompts}),
                tokenizer_sha256(how.tokenizer, how.revision),
                partial(load_tokenizer, how.tokenizer, how.revision),
            )
            for how in hows
        ]

    def _asked(self) -> list[Tokenisation]:
        if self.trainer is None:
            raise RuntimeError("without a Trainer, and so a model to ask, `tokenisations` is to be set first")
        tokenisations = cast(Callable[[], list[Tokenisation]], self.trainer.lightning_module.tokenisations)
        return tokenisations()

    def _split(self) -> dict[Split, Tensor]:
        rows = split_rows(self._tables["train"], self.seed, self.shares["validation"], self.shares["test"])
        own: list[Split] = [split for split in SPLITS if split != "train" and split in self._tables]
        return {**rows, **{split: torch.arange(len(self._tables[split])) for split in own}}

    def _check_settings(self) -> None:
        if sum(self.shares.values()) >= 1:
            raise UserError(
                f"validation_share {self.shares['validation']} and test_share {self.shares['test']} leave nothing to "
                "train on: lower them"
            )
        if self.mining is not None:
            self.mining.check_settings()

    def _refuse_other_data(self, name: str) -> None:
        here = self.table("train").folder.name
        if here != name:
            raise UserError(
                f"the checkpoint was made with the triplets {name} and this run has {here}, so other examples, columns "
                "or tokens: set them back, or start a new run"
            )

    def _refuse_impossible(self, stage: str | None) -> None:
        """Raises before a model is built what would otherwise come up in the middle of a run."""
        if stage == "fit":
            self._make_loader()
        needed: list[Split] = ["test"] if stage == "test" else ["validation"] if stage == "validate" else []
        if stage == "fit" and (self.shares["validation"] or self.sources["validation"]):
            needed = ["validation"]
        for split in needed:
            if len(self.rows(split)) < self._rank.world_size:
                raise UserError(
                    f"the {split} split has {len(self.rows(split))} examples for {self._rank.world_size} devices (its "
                    f"{split}_share of {len(set(self.table('train').groups.tolist()))} groups is "
                    f"{self.shares.get(split, 0)}): raise {split}_share, or name a source as `{split}`"
                )


def _without_repeats(ids: Tensor) -> Tensor:
    """Ids [b, n] with -1 instead of what stands further to the left already: it would count twice."""
    same = ids.unsqueeze(2) == ids.unsqueeze(1)
    return ids.masked_fill(same.tril(-1).any(dim=2), -1)
