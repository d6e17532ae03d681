"""The fine-tuning of an embedding model on one process and on two with the same batches."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import TripletColumns, TripletFiles
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.losses import AnglE, CoSENT, InfoNCE, MarginMSE, Matryoshka, Triplet
from tests.distributed.bag_encoder import Bag
from tests.distributed.ranks import on_ranks
from tests.distributed.steps import TOLERANCE, assert_same_science, assert_shared, trained

WORDS = "red green blue round square tall short old new warm cold wet dry loud soft deep".split()  # noqa: SIM905

# anchors and positives recur, on one rank or on both, and negatives may be others' positives
TRIPLETS = [
    {
        "anchor": f"{WORDS[i % 5]} {WORDS[5 + i % 3]}",
        "positive": f"{WORDS[i % 7]} {WORDS[9 + i % 2]} thing",
        "negative": f"{WORDS[(i + 1 + i % 3) % 7]} {WORDS[9 + i % 2]} thing",
    }
    for i in range(61)
]
SCORED = [{"anchor": row["anchor"], "positive": row["positive"], "score": i % 6} for i, row in enumerate(TRIPLETS)]
TAUGHT = [{**row, "said": i % 5, "said_of_negative": i % 3} for i, row in enumerate(TRIPLETS)]
SCORE = TripletColumns(negatives=[], score="score")
TEACHER = TripletColumns(negatives=["negative"], score="said", negative_scores=["said_of_negative"])

QUICK = {
    "info_nce": (lambda: InfoNCE(), TRIPLETS, TripletColumns(), {}),
}
LOSSES = {
    **QUICK,
    "cosent": (lambda: CoSENT(), SCORED, SCORE, {}),
    "cached": (lambda: InfoNCE(), TRIPLETS, TripletColumns(), {"gradient_cache": True}),
    "symmetric": (lambda: InfoNCE(direction="symmetric"), TRIPLETS, TripletColumns(), {}),
    "gte": (lambda: InfoNCE(direction="gte"), TRIPLETS, TripletColumns(), {"gradient_cache": True}),
    "own_negatives": (lambda: InfoNCE(in_batch=False), TRIPLETS, TripletColumns(), {}),
    "triplet": (lambda: Triplet(), TRIPLETS, TripletColumns(), {}),
    "triplet_hard": (lambda: Triplet(mining="batch_hard"), TRIPLETS, TripletColumns(), {"gradient_cache": True}),
    "triplet_semi_hard": (lambda: Triplet(mining="semi_hard"), TRIPLETS, TripletColumns(), {}),
    "angle": (lambda: AnglE(), SCORED, SCORE, {"gradient_cache": True}),
    "margin_mse": (lambda: MarginMSE(), TAUGHT, TEACHER, {}),
    "matryoshka": (lambda: Matryoshka(InfoNCE(), [4, 12]), TRIPLETS, TripletColumns(), {}),
}


@pytest.fixture
def training(tmp_path):
    """training(loss, rows, columns, settings) → module and datamodule."""

    def make(loss, rows, columns, settings):
        torch.manual_seed(0)
        path = tmp_path / f"{columns.score}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        held_out = tmp_path / f"{columns.score}.held_out.jsonl"
        # as many as two do not divide
        held_out.write_text("".join(json.dumps(row) + "\n" for row in rows[:13]))
        sources = [TripletFiles(str(file), columns) for file in (path, held_out)]
        data = TripletDataModule(
            sources[0], batch_size=16, validation=sources[1], test_share=0.0, cache=str(tmp_path / "cache")
        )
        settings = {"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2), **settings}
        return ContrastiveEmbedding(Bag(), loss, **settings), data

    return make


def compared(training, losses, ranks=2):
    """What one process and several come to with each of some losses, by name."""

    def all_of_them(_):
        return {name: trained(*training(loss(), *others)) for name, (loss, *others) in losses.items()}

    (alone,), together = on_ranks(all_of_them, 1), on_ranks(all_of_them, ranks)
    for name, expected in alone.items():
        yield name, expected, [rank[name] for rank in together]


def test_two_processes_take_the_steps_of_one_and_measure_the_same(training):
    for _, alone, together in compared(training, QUICK):
        assert_shared(alone, together)
        assert_same_science(alone, together)
        assert {"val/ndcg@10", "val/map", "train/loss"} <= alone["figures"].keys()


@pytest.mark.slow
def test_every_loss_takes_the_steps_of_one_process(training):
    for _, alone, together in compared(training, LOSSES, ranks=4):
        assert_shared(alone, together)
        assert_same_science(alone, together)


@pytest.mark.slow
def test_what_is_not_gathered_is_the_mean_of_what_each_process_would_come_to_alone(training):
    losses = {
        "info_nce": (lambda: InfoNCE(gather_negatives=False), TRIPLETS, TripletColumns(), {}),
        "triplet": (lambda: Triplet(mining="batch_hard", gather_negatives=False), TRIPLETS, TripletColumns(), {}),
        "cosent": (lambda: CoSENT(gather_pairs=False), SCORED, SCORE, {}),
        "angle": (lambda: AnglE(gather_pairs=False), SCORED, SCORE, {"gradient_cache": True}),
    }
    both = on_ranks(lambda _: {name: trained(*training(loss(), *o), steps=1) for name, (loss, *o) in losses.items()})
    for name, (loss, *others) in losses.items():
        of_ranks = [of_a_part(*training(loss(), *others), rank[name]["rows"]["train"][0]) for rank in both]
        for rank, (value, _) in zip(both, of_ranks, strict=True):
            assert_close(rank[name]["losses"][0], value, rtol=TOLERANCE, atol=TOLERANCE)
        for parameter, gradient in both[0][name]["gradients"][0].items():
            mean = sum(gradients[parameter] for _, gradients in of_ranks) / 2
            assert_close(gradient, mean, rtol=TOLERANCE, atol=TOLERANCE)


def of_a_part(module, data, examples):
    """The loss of some training examples, and its gradient by name."""
    data.tokenisations = module.tokenisations()
    data.prepare_data()
    data.setup()
    torch.set_default_dtype(torch.float64)
    module.configure_model()
    torch.set_default_dtype(torch.float32)
    batch = data.table("train").batch(rows := torch.tensor(examples), data.table("train").negatives(rows, 1))
    loss = module._loss_of(batch, module.encoder.encode(batch.texts))
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in module.named_parameters()}
