"""Batches of embedded examples, small enough that texts meet in every role, and what losses are held against."""

import torch
from hypothesis import strategies as st

from lightning_modules.losses import EmbeddedBatch


def batch(b=5, n=2, u=9, d=4, seed=0, gaps=True, scores=None, dtype=torch.float64):
    """b examples of u texts, with -1 here and there; scores: "pairs", "teacher" or None."""
    generator = torch.Generator().manual_seed(seed)
    negatives = torch.randint(-1 if gaps else 0, u, (b, n), generator=generator)
    shape = {"pairs": (b,), "teacher": (b, 1 + n), None: ()}[scores]
    return EmbeddedBatch(
        torch.randn(u, d, generator=generator, dtype=dtype),
        torch.randperm(3 * u, generator=generator)[:u],
        torch.randint(0, u, (b,), generator=generator),
        torch.randint(0, u, (b,), generator=generator),
        negatives,
        None if scores is None else torch.randint(0, 4, shape, generator=generator).to(dtype),
        torch.nn.functional.normalize(torch.randn(u, 3, generator=generator, dtype=dtype), dim=1),
    )


def batches(scores=None, least=1):
    """Every shape, from one example without negatives to more examples than texts."""
    return st.builds(
        batch,
        b=st.integers(least, 6),
        n=st.integers(0, 3),
        u=st.integers(1, 8),
        d=st.sampled_from([2, 4]),
        seed=st.integers(0, 2**16),
        scores=st.just(scores),
    )


def distinct(b=4, n=1, d=4, seed=0, scores=None):
    """Examples that have no text in common."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(b * (2 + n)).view(b, 2 + n)
    shape = {"pairs": (b,), "teacher": (b, 1 + n), None: ()}[scores]
    texts = torch.randn(places.numel(), d, generator=generator, dtype=torch.float64)
    values = None if scores is None else torch.rand(shape, generator=generator, dtype=torch.float64)
    return EmbeddedBatch(texts, places.flatten() + 7, places[:, 0], places[:, 1], places[:, 2:], values)


def value_and_gradient(loss, batch):
    """The loss and its gradient by the texts."""
    texts = batch.texts.clone().requires_grad_()
    value = loss(batch._replace(texts=texts))
    return value.detach(), torch.autograd.grad(value, texts, materialize_grads=True)[0]


def agree(ours, theirs):
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-11)


def gradcheck(loss, batch):
    texts = batch.texts.clone().requires_grad_()
    return torch.autograd.gradcheck(lambda texts: loss(batch._replace(texts=texts)), texts)


def shuffled(batch, seed):
    """Examples in another order and texts at other places, and the texts' order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(batch.ids), generator=generator)
    examples = torch.randperm(len(batch.anchors), generator=generator)
    place = order.argsort()
    moved = batch._replace(
        texts=batch.texts[order],
        ids=batch.ids[order],
        anchors=place[batch.anchors[examples]],
        positives=place[batch.positives[examples]],
        negatives=torch.where(batch.negatives < 0, -1, place[batch.negatives.clamp_min(0)])[examples],
        scores=None if batch.scores is None else batch.scores[examples],
        guide=None if batch.guide is None else batch.guide[order],
    )
    return moved, order


def order_says_nothing(loss, batch, seed):
    moved, order = shuffled(batch, seed)
    value, gradient = value_and_gradient(loss, batch)
    agree(value_and_gradient(loss, moved), (value, gradient[order]))


def scale_says_nothing(loss, batch):
    scales = torch.logspace(-3, 3, len(batch.texts), dtype=batch.texts.dtype).unsqueeze(1)
    torch.testing.assert_close(loss(batch._replace(texts=batch.texts * scales)), loss(batch))


def extremes(loss, batch):
    """Nothing that embeddings may come to gives a NaN."""
    for texts in (
        torch.zeros_like(batch.texts),
        torch.ones_like(batch.texts),
        batch.texts * 1e30,
        batch.texts * 1e-30,
        batch.texts.masked_fill(torch.arange(len(batch.texts)).unsqueeze(1) % 2 == 0, 0),
    ):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            value, gradient = value_and_gradient(loss, batch._replace(texts=texts.to(dtype)))
            assert value.isfinite()
            assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert gradient.isfinite().all()
