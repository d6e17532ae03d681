"""Two processes with parts of a batch against one that has all of it."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_modules.losses import EmbeddedBatch, InfoNCE
from tests.lightning_modules.losses.batches import batch

LOSSES = {
    "documents": InfoNCE(),
    "anchors too": InfoNCE(direction="gte"),
    "guided": InfoNCE(direction="symmetric", guide_margin=0.1),
    "own negatives": InfoNCE(in_batch=False),
}


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5)).double()


def part(whole, examples, n):
    """Some examples and only their texts, in an order of their own, with at most n negatives."""
    negatives = whole.negatives[examples, :n]
    used = torch.cat([whole.anchors[examples], whole.positives[examples], negatives[negatives >= 0]]).unique().flip(0)
    place = torch.full((len(whole.ids) + 1,), -1)
    place[used] = torch.arange(len(used))
    return EmbeddedBatch(
        whole.texts[used],
        whole.ids[used],
        place[whole.anchors[examples]],
        place[whole.positives[examples]],
        place[negatives],
        guide=whole.guide[used],
    )


def gradient(loss, model, some):
    loss(some._replace(texts=model(some.texts))).backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("cut", [4, 5, 8], ids=["halves", "uneven", "a process without examples"])
def test_gradients_averaged_over_processes_are_those_of_one_process_with_the_whole_batch(on_ranks, cut):
    whole = batch(b=8, n=3, u=14, seed=5)
    whole.negatives[:cut, 2:] = -1  # so that processes have different numbers of negatives
    whole.negatives[cut:, 1:] = -1

    def work(rank):
        examples = torch.arange(8)[slice(0, cut) if rank == 0 else slice(cut, 8)]
        own = part(whole, examples, (2, 1)[rank])
        return {name: gradient(loss, DistributedDataParallel(encoder()), own) for name, loss in LOSSES.items()}

    results = on_ranks(work)
    for name, loss in LOSSES.items():
        for rank in range(2):
            for ours, theirs in zip(results[rank][name], gradient(loss, encoder(), whole), strict=True):
                assert theirs.any()
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_without_gathering_each_process_is_alone(on_ranks):
    loss = InfoNCE(gather_negatives=False)

    def work(rank):
        return loss(batch(seed=rank))

    assert [float(value) for value in on_ranks(work)] == [float(loss(batch(seed=rank))) for rank in range(2)]
