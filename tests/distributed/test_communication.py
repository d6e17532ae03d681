"""What a step sends, against the arithmetic of docs/scale.md. Ranks hand in tensors; how often a backend sends each on
is its own affair.
"""

from collections import Counter

import pytest
import torch
from lightning.pytorch import Trainer

from callbacks import GracefulStop, RandomStates
from cli.strategies import exchange_little
from datamodules.activations import ActivationDataModule
from lightning_modules import autoencoders
from lightning_modules.losses import EmbeddedBatch, InfoNCE
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from tests.distributed.counted import Collectives, CountsSteps
from tests.distributed.ranks import ddp, on_ranks

D_IN, D_SAE, K, BATCH, RANKS = 16, 96, 4, 128, 2
PARAMETERS = 2 * D_IN * D_SAE + D_IN + D_SAE
STEPS = 3
VOTE = 8
"""Bytes of a rank's wish to stop."""
LARGE = 256
"""Bytes, above which an exchange is none of a few numbers."""
FEW = 2
"""Exchanges of a few numbers that a step may have: the vote, and what the loss divides by."""


def steps_of(autoencoder, store, folder, **settings):
    """What each of the ranks exchanged in STEPS steps."""

    def work(rank):
        counts = CountsSteps(2, 2 + STEPS - 1)
        strategy = ddp()
        exchange_little(strategy)
        trainer = Trainer(
            max_steps=2 + STEPS + 1,
            accelerator="cpu",
            devices=RANKS,
            strategy=strategy,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            callbacks=[counts, RandomStates(), GracefulStop(folder)],
            **settings,
        )
        data = ActivationDataModule(str(store), batch_size=BATCH, validation_share=0.1, test_share=0.0)
        trainer.fit(SparseAutoencoding(autoencoder(D_SAE, K)), data)
        return counts.collectives.seen

    return on_ranks(work, RANKS)


def test_a_step_sends_the_gradient_once_who_fired_and_a_few_numbers(store, tmp_path):
    for seen in steps_of(autoencoders.TopK, store, tmp_path):
        large = [exchange for exchange in seen if exchange[1] > LARGE]
        firing = ("allreduce", D_SAE * 4)
        assert Counter(large)[firing] == STEPS
        gradients = [size for name, size in large if (name, size) != firing]
        assert sum(gradients) == STEPS * PARAMETERS * 4
        # DDP's buckets: the parameter that it meets first, and the others
        assert len(gradients) <= 2 * STEPS
        small = [exchange for exchange in seen if exchange[1] <= LARGE]
        assert ("allreduce", VOTE) in small
        assert len(small) <= FEW * STEPS


def test_batch_topk_sends_its_largest_values_besides(store, tmp_path):
    for seen in steps_of(autoencoders.BatchTopK, store, tmp_path):
        gathered = [size for name, size in seen if name == "allgather" and size > LARGE]
        assert gathered == [2 * K * (BATCH // RANKS) * 4] * STEPS


def test_logging_at_every_step_sends_a_few_numbers_more_at_most(store, tmp_path):
    quiet, loud = (steps_of(autoencoders.TopK, store, tmp_path, log_every_n_steps=every)[0] for every in (1000, 1))
    more = Counter(loud) - Counter(quiet)
    assert sum(more.values()) <= 2 * STEPS
    assert all(size <= LARGE for _, size in more)


@pytest.mark.parametrize("negatives", [0, 2])
def test_gathered_negatives_send_embeddings_once_in_each_direction(negatives):
    width, examples = 24, 6

    def work(rank):
        torch.manual_seed(rank)
        texts = examples * (2 + negatives) - rank
        ids = torch.arange(texts) + 1000 * rank
        places = torch.arange(examples * (2 + negatives)).clamp(max=texts - 1).view(2 + negatives, examples)
        embeddings = torch.randn(texts, width, requires_grad=True)
        batch = EmbeddedBatch(embeddings, ids, places[0], places[1], places[2:].T, None, None)
        with Collectives() as collectives:
            torch.autograd.backward(InfoNCE()(batch))
        return collectives.seen

    of_all = [examples * (2 + negatives) - rank for rank in range(RANKS)]
    most = max(of_all)
    for seen in on_ranks(work, RANKS):
        assert sorted(seen) == sorted(
            [
                ("allgather", 3 * 8),  # how many
                ("allgather", examples * (2 + negatives) * 8),  # whose they are
                ("allgather", most * width * 4),
                ("allgather", most * 8),  # which text each is
                ("allreduce", sum(of_all) * width * 4),  # their gradients
            ]
        )
