"""Autoencoders on one process and on two with the same batches."""

from __future__ import annotations

import pytest
import torch

from callbacks import DeadNeuronResampling
from datamodules.activations import ActivationDataModule
from lightning_modules.autoencoders import (
    BatchTopK,
    Gated,
    HierarchicalTopK,
    JumpReLU,
    MatchingPursuit,
    MatryoshkaBatchTopK,
    PAnneal,
    ReLU,
    TopK,
)
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from tests.distributed.ranks import on_ranks
from tests.distributed.steps import assert_same_science, assert_shared, trained

S = 160
"""Latents, so many that some fire seldom."""

QUICK = {
    "topk": lambda: TopK(S, 3),
    "batch_topk": lambda: BatchTopK(S, 3),
    "jump_relu": lambda: JumpReLU(S, 0.1, penalty="target", target_l0=4.0, init_threshold=2.0),
}
VARIANTS = {
    **QUICK,
    "multi_topk": lambda: TopK(S, 3, multi_topk_coefficient=0.125),
    "matryoshka": lambda: MatryoshkaBatchTopK(S, 3),
    "matryoshka_sampled": lambda: MatryoshkaBatchTopK(S, 3, sampled_prefixes=3),
    "jump_relu_l0": lambda: JumpReLU(S, 0.1, target_l0=4.0),
    "jump_relu_tanh": lambda: JumpReLU(S, 0.1, penalty="tanh"),
    "gated": lambda: Gated(S, 0.1),
    "relu": lambda: ReLU(S, 0.1),
    "relu_ghosts": lambda: ReLU(S, 0.5, ghost_gradients=1.0),
    "relu_steered": lambda: ReLU(S, 0.1, target_l0=4.0),
    "hierarchical": lambda: HierarchicalTopK(S, 4),
    "pursuit": lambda: MatchingPursuit(S, 3),
    "p_anneal": lambda: PAnneal(S, 0.1, stages=3, start=0.0, end=0.9),
}


def data(store):
    # 64 rows a batch; the held-out documents have 200 rows
    return ActivationDataModule(str(store), batch_size=64, validation_share=0.1, test_share=0.1, block_rows=4)


def model(autoencoder, **settings):
    torch.manual_seed(0)
    settings = {"sample_rows": 512, "dead_after_tokens": 100, "sparsity_warmup": 2.0, **settings}
    return SparseAutoencoding(autoencoder, **settings)


def compared(make, ranks=2):
    """What one process and several come to of each of some trainings, which are made by name."""
    together = on_ranks(lambda _: {name: trained(*one()) for name, one in make.items()}, ranks)
    for name, one in make.items():
        yield name, trained(*one()), [rank[name] for rank in together]


def test_two_processes_take_the_steps_of_one(store):
    make = {name: lambda variant=variant: (model(variant()), data(store)) for name, variant in QUICK.items()}
    for name, alone, together in compared(make):
        assert_shared(alone, together)
        assert_same_science(alone, together)
        assert_estimates_are_equal(alone, together)
        assert alone["figures"]["train/dead"] > 0, f"{name}: nothing was dead, so the losses on that were not asked"


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_every_variant_takes_the_steps_of_one_process(store, ranks):
    make = {name: lambda variant=variant: (model(variant()), data(store)) for name, variant in VARIANTS.items()}
    make["in_mse"] = lambda: (model(ReLU(S, 0.1), reconstruction_unit="mse"), data(store))
    make["in_parts"] = lambda: (
        model(JumpReLU(S, 0.1, penalty="target", target_l0=4.0, init_threshold=2.0), rows_at_once=7),
        data(store),
    )
    for _, alone, together in compared(make, ranks):
        assert_shared(alone, together)
        assert_same_science(alone, together)
        assert_estimates_are_equal(alone, together)


@pytest.mark.slow
def test_a_sweep_and_clipping_and_accumulation_and_resampling_are_those_of_one_process(store):
    def sweep():
        members = {"narrow": Member(TopK(32, 3), lr=1e-3), "wide": Member(BatchTopK(S, 4), seed=3)}
        return model(TopK(32, 3), members=members), data(store)

    def alone():
        return model(TopK(S, 3)), data(store)

    def resampled():
        return model(TopK(S, 3)), data(store), DeadNeuronResampling((3,), rows=700)

    clipped = {"gradient_clip_val": 0.05, "accumulate_grad_batches": 2}
    of_each = {"sweep": (sweep, clipped), "alone": (alone, {}), "resampled": (resampled, {})}

    def all_of_them(_):
        return {name: trained(*make(), **settings) for name, (make, settings) in of_each.items()}

    (one,), both = on_ranks(all_of_them, 1), on_ranks(all_of_them, 2)
    for name, expected in one.items():
        assert_shared(expected, [rank[name] for rank in both])
        assert_same_science(expected, [rank[name] for rank in both])
    W_dec = "members.only.autoencoder.W_dec"
    assert not torch.equal(one["alone"]["state"][W_dec], one["resampled"]["state"][W_dec]), "nothing was started anew"


def assert_estimates_are_equal(alone, together):
    estimates = [name for name in alone["state"] if name.endswith(("factor", "autoencoder.mean"))]
    assert len(estimates) == 2
    for rank in together:
        assert all(torch.equal(rank["state"][name], alone["state"][name]) for name in estimates)
