"""Mining against loops over all documents."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from datamodules.triplets import HardNegatives
from datamodules.triplets import mining as module
from lightning_modules.functional import LatentSets
from run_store import UserError


def plainly(settings, anchors, documents, examples, forbidden):
    """For each example the allowed documents, best first."""
    cosines = normalize(anchors, dim=1) @ normalize(documents, dim=1).T
    found = []
    for query, positive in examples.tolist():
        banned = {d for q, d in [*forbidden.tolist(), *examples.tolist()] if q == query}
        ranked = sorted((d for d in range(len(documents)) if d not in banned), key=lambda d: -cosines[query, d])
        limit = cosines[query, positive]
        limit = limit - (1 - settings.max_share) * abs(limit)
        if settings.margin is not None:
            limit = min(limit, cosines[query, positive] - settings.margin)
        window = ranked[settings.first_rank : settings.last_rank]
        found.append([d for d in window if cosines[query, d] <= limit])
    return found


@given(
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 9)),
    count=st.integers(1, 3),
    ranks=st.tuples(st.integers(0, 3), st.integers(3, 12)),
    margin=st.none() | st.floats(0, 0.5),
    block=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_the_hardest_are_those_that_loops_find(sizes, count, ranks, margin, block, seed):
    generator = torch.Generator().manual_seed(seed)
    q, m, e = sizes
    anchors, documents = (torch.randn(n, 4, generator=generator) for n in (q, m))
    examples = torch.stack([torch.randint(n, (e,), generator=generator) for n in (q, m)], dim=1)
    forbidden = torch.stack([torch.randint(n, (2,), generator=generator) for n in (q, m)], dim=1)
    settings = HardNegatives(count, *ranks, margin=margin)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EXAMPLES_A_BLOCK", block)
        found = settings.mine(anchors, documents, examples, forbidden)
    expected = plainly(settings, anchors, documents, examples, forbidden)
    assert found.tolist() == [(allowed + [-1] * count)[:count] for allowed in expected]


@given(seed=st.integers(0, 100), block=st.integers(1, 7))
def test_random_ones_are_allowed_ones_whatever_the_blocks(seed, block):
    generator = torch.Generator().manual_seed(seed)
    anchors, documents = torch.randn(6, 4, generator=generator), torch.randn(30, 4, generator=generator)
    examples = torch.stack([torch.arange(6), torch.arange(6)], dim=1)
    none = torch.empty(0, 2, dtype=torch.int64)
    settings = HardNegatives(3, 2, 20, sampling="random")
    with pytest.MonkeyPatch.context() as patch:
        found = settings.mine(anchors, documents, examples, none, seed)
        patch.setattr(module, "EXAMPLES_A_BLOCK", block)
        assert torch.equal(found, settings.mine(anchors, documents, examples, none, seed))
    for row, allowed in zip(found.tolist(), plainly(settings, anchors, documents, examples, none), strict=True):
        there = [place for place in row if place >= 0]
        assert len(there) == len(set(there)) == min(3, len(allowed))
        assert [place for place in allowed if place in there] == there


def test_random_ones_go_by_the_seed_and_are_spread():
    generator = torch.Generator().manual_seed(0)
    anchors, documents = torch.randn(1, 8, generator=generator), torch.randn(400, 8, generator=generator)
    documents[0] = anchors[0]
    none = torch.empty(0, 2, dtype=torch.int64)
    settings = HardNegatives(1, 0, 50, sampling="random")
    draws = [settings.mine(anchors, documents, torch.tensor([[0, 0]]), none, seed).item() for seed in range(60)]
    assert len(set(draws)) > 20


def test_a_model_that_finds_all_equal_gives_none():
    same = torch.ones(5, 3)
    examples = torch.tensor([[0, 0], [1, 1]])
    assert HardNegatives(2).mine(same[:2], same, examples, examples).tolist() == [[-1, -1], [-1, -1]]


def test_what_cannot_be_is_told():
    with pytest.raises(UserError, match=r"first_rank 3 and last_rank 4 leave fewer documents than mining\.count 2"):
        HardNegatives(2, 3, 4).check_settings()
    with pytest.raises(UserError, match="embeddings that are not finite"):
        HardNegatives().mine(
            torch.tensor([[torch.nan]]), torch.ones(1, 1), torch.zeros(1, 2).long(), torch.zeros(1, 2).long()
        )


@pytest.mark.parametrize(("every", "due"), [(None, [True, False, False, False]), (2, [True, False, True, False])])
def test_when_to_mine_again(every, due):
    settings, mined_in, found = HardNegatives(refresh_every_n_epochs=every), None, []
    for epoch in range(4):
        found.append(settings.is_due(epoch, mined_in))
        mined_in = epoch if found[-1] else mined_in
    assert found == due


@given(
    seed=st.integers(0, 200),
    most=st.none() | st.sampled_from([0.0, 0.3, 1.0]),
    sampling=st.sampled_from(["hardest", "least_overlap"]),
    block=st.integers(1, 7),
)
def test_overlap_with_the_positive_leaves_out_and_chooses_as_loops_do(seed, most, sampling, block):
    generator = torch.Generator().manual_seed(seed)
    anchors, documents = torch.randn(5, 4, generator=generator), torch.randn(14, 4, generator=generator)
    examples = torch.stack([torch.arange(5), torch.randint(14, (5,), generator=generator)], dim=1)
    latents = torch.stack([torch.randperm(6, generator=generator)[:3] for _ in range(14)])
    sets = LatentSets(latents, torch.randint(0, 3, (14, 3), generator=generator).float(), 6)
    none = torch.empty(0, 2, dtype=torch.int64)
    settings = HardNegatives(2, 1, 11, max_share=1.0, sampling=sampling, most_overlap=most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EXAMPLES_A_BLOCK", block)
        found = settings.mine(anchors, documents, examples, none, latents=sets).tolist()
    for row, allowed, positive in zip(
        found, plainly(settings, anchors, documents, examples, none), examples[:, 1], strict=True
    ):
        overlap = sets.overlaps(positive.view(1), torch.arange(14).view(1, -1))[0]
        kept = [place for place in allowed if most is None or overlap[place] <= most]
        chosen = sorted(kept, key=lambda place: overlap[place])[:2] if sampling == "least_overlap" else kept[:2]
        expected = [place for place in kept if place in chosen]
        assert row == [*expected, -1, -1][:2]
