"""Gradients through the cache against those of one graph over everything."""

import weakref

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_modules.functional import cached_loss
from lightning_modules.losses import EmbeddedBatch, InfoNCE
from tests.lightning_modules.losses.batches import batch

SIZES = [4, 1, 0, 3, 1]


def encoder(dtype=torch.float64, dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 5)).to(dtype)


def through(some):
    """Embeddings → the loss of a batch of those."""
    return lambda texts: InfoNCE()(some._replace(texts=texts))


def gradients(model):
    return [parameter.grad for parameter in model.parameters()]


def cached(model, some, sizes=SIZES):
    return cached_loss(model, some.texts.split(sizes), through(some), list(model.parameters()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [SIZES, [9], [1] * 9])
def test_the_gradient_is_that_of_one_graph(dtype, tolerance, sizes):
    some = batch(dtype=dtype)
    ours, theirs = encoder(dtype), encoder(dtype)
    result = cached(ours, some, sizes)
    expected = through(some)(theirs(some.texts))
    torch.testing.assert_close(result.loss, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(result.embeddings, theirs(some.texts).detach(), rtol=tolerance, atol=tolerance)
    # twice, as in accumulation, and scaled
    for loss in (result.loss, expected):
        (3 * loss).backward()
    cached(ours, some, sizes).loss.backward()
    through(some)(theirs(some.texts)).backward()
    for mine, reference in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(mine, reference, rtol=tolerance, atol=tolerance)


def test_dropout_is_drawn_the_same_in_both_passes_and_backward_draws_nothing():
    some = batch()
    ours, theirs = encoder(dropout=0.5), encoder(dropout=0.5)
    torch.manual_seed(1)
    result = cached(ours, some)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    result.loss.backward()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    through(some)(torch.cat([theirs(chunk) for chunk in some.texts.split(SIZES)])).backward()
    assert torch.equal(torch.get_rng_state(), state)
    for mine, reference in zip(gradients(ours), gradients(theirs), strict=True):
        assert reference.any()
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-10)


def test_the_second_pass_has_the_precision_of_the_first():
    some = batch(dtype=torch.float32)
    model, seen = encoder(torch.float32), []

    def encode(chunk):
        embeddings = model(chunk)
        seen.append(embeddings.dtype)
        return embeddings

    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = cached_loss(encode, some.texts.split(SIZES), through(some), list(model.parameters()))
    result.loss.backward()
    assert seen == [torch.bfloat16] * 2 * len(SIZES)
    assert all(gradient.dtype == torch.float32 and gradient.any() for gradient in gradients(model))


def test_no_more_than_one_chunk_s_graph_is_alive():
    some = batch()
    model, alive, most, kept = encoder(), weakref.WeakSet(), [], []

    class Saved:
        def __init__(self, chunk, tensor):
            self.chunk, self.tensor = chunk, tensor
            alive.add(self)
            most.append(len({id(saved.chunk) for saved in alive}))

    def encode(chunk):
        with torch.autograd.graph.saved_tensors_hooks(lambda x: Saved(chunk, x), lambda saved: saved.tensor):
            embeddings = model(chunk)
        kept.append(embeddings.requires_grad)
        return embeddings

    result = cached_loss(encode, some.texts.split(SIZES), through(some), list(model.parameters()))
    assert not alive
    assert not any(kept)
    result.loss.backward()
    assert kept[len(SIZES) :] == [True] * len(SIZES)
    assert max(most) == 1
    assert not alive


def test_without_gradients_every_chunk_is_encoded_once_and_frozen_parameters_get_none():
    some = batch()
    model, calls = encoder(), []

    def encode(chunk):
        calls.append(chunk)
        return model(chunk)

    with torch.no_grad():
        result = cached_loss(encode, some.texts.split(SIZES), through(some), list(model.parameters()))
    assert len(calls) == len(SIZES)
    assert not result.loss.requires_grad
    model[0].requires_grad_(False)
    unused = nn.Parameter(torch.ones(2))
    cached_loss(encode, some.texts.split(SIZES), through(some), [*model.parameters(), unused]).loss.backward()
    assert model[0].weight.grad is None
    assert unused.grad is None
    assert model[3].weight.grad.any()


class Training(nn.Module):
    """What DDP wraps: a forward that gives one loss."""

    def __init__(self):
        super().__init__()
        self.encoder = encoder()

    def forward(self, some):
        return cached(self.encoder, some, [2] * (len(some.texts) // 2)).loss


def test_ddp_averages_gradients_that_come_through_the_cache(on_ranks):
    def own(rank):
        return batch(u=8, seed=rank)._replace(ids=torch.arange(8) + 8 * rank)

    def work(rank):
        model = DistributedDataParallel(Training())
        model(own(rank)).backward()
        return gradients(model)

    halves, model = [own(rank) for rank in range(2)], encoder()
    whole = halves[0]._replace(
        texts=torch.cat([half.texts for half in halves]),
        ids=torch.cat([half.ids for half in halves]),
        anchors=torch.cat([halves[0].anchors, halves[1].anchors + 8]),
        positives=torch.cat([halves[0].positives, halves[1].positives + 8]),
        negatives=torch.cat([halves[0].negatives, torch.where(halves[1].negatives < 0, -1, halves[1].negatives + 8)]),
    )
    through(whole)(model(whole.texts)).backward()
    for found in on_ranks(work):
        for mine, reference in zip(found, gradients(model), strict=True):
            torch.testing.assert_close(mine, reference, rtol=0, atol=1e-10)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made in it and are still there."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {
            part.untyped_storage()._cdata for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)
        }
        for part in tree_leaves(result):
            if isinstance(part, torch.Tensor) and (storage := part.untyped_storage())._cdata not in self.known | given:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        return result

    def gone(self, storage, size):
        self.known.discard(storage)
        self.now -= size


def peak_bytes(work):
    """Most bytes that tensors made in `work` had at once."""
    with LiveBytes() as live:
        work()
    return live.peak


@pytest.mark.slow
def test_a_batch_of_4096_takes_the_memory_of_a_chunk_of_64_and_its_scores():
    examples, chunk, tokens, width = 4096, 64, 16, 16
    model = nn.Sequential(nn.Linear(width, 1024), nn.GELU(), nn.Linear(1024, width), nn.Flatten(), nn.Linear(256, 8))
    texts = torch.randn(2 * examples, tokens, width)
    places = torch.arange(2 * examples)
    some = EmbeddedBatch(texts, places, places[:examples], places[examples:], places.new_empty(examples, 0))

    def one_chunk():
        model(texts[:chunk]).square().sum().backward()

    def whole_batch():
        parameters = list(model.parameters())
        cached_loss(model, texts.split(chunk), through(some), parameters).loss.backward()

    one_chunk()  # so that the gradients are there in both cases
    scores, of_one, of_all = 4 * examples * examples, peak_bytes(one_chunk), peak_bytes(whole_batch)
    assert of_one > 4 * chunk * tokens * 1024  # the widest activations are among what is counted
    assert of_all <= 1.1 * (of_one + scores)
