"""Nested prefixes: what is given, what is drawn, what is refused."""

import copy

import pytest
import torch

from lightning_modules.autoencoders import MatryoshkaBatchTopK
from lightning_modules.autoencoders.prefixes import SampledPrefixes
from run_store import UserError


def lengths(d_sae, **settings):
    model = MatryoshkaBatchTopK(d_sae, 2, **settings)
    model.build(6)
    return model.prefixes.ends().tolist()


def sampled(d_sae=3072, drawn=4, shortest=1 / 64):
    prefixes = SampledPrefixes(d_sae, drawn, shortest)
    prefixes.check()
    prefixes.build()
    return prefixes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [4, 8, 16, 32, 64]),
        ([0.25, 1.0], [16, 64]),
        ([1], [64]),
        ([1, 5, 64], [1, 5, 64]),
        ([5.0, 64.0], [5, 64]),
    ],
)
def test_prefixes_are_shares_unless_one_is_above_1(given, expected):
    assert lengths(64, prefixes=given) == expected


@pytest.mark.parametrize(
    "prefixes",
    [
        [0.25, 0.5],
        [16, 32],
        [0.5, 0.25, 1.0],
        [32, 16, 64],
        [16, 16, 64],
        [0, 64],
        [0.001, 1.0],
        [0.5, 64],
        [-1, 64],
        [],
    ],
)
def test_prefixes_that_are_not_nested_or_do_not_end_at_d_sae_are_refused_with_both_numbers(prefixes):
    with pytest.raises(UserError, match=r"prefixes is \[.*\] and d_sae is 64: give rising"):
        lengths(64, prefixes=prefixes)


def test_fixed_and_drawn_prefixes_exclude_each_other():
    with pytest.raises(UserError, match="prefixes and sampled_prefixes are both given"):
        lengths(64, prefixes=[0.5, 1.0], sampled_prefixes=3)


@pytest.mark.parametrize("shortest", [65, 0, -0.5])
def test_a_shortest_prefix_that_cannot_be_is_refused(shortest):
    with pytest.raises(UserError, match=r"shortest_prefix is .* and d_sae is 64"):
        lengths(64, sampled_prefixes=3, shortest_prefix=shortest)


def test_drawn_prefixes_ascend_within_their_range_and_end_at_d_sae():
    prefixes = sampled()
    seen = set()
    for _ in range(200):
        ends = prefixes.ends()
        assert ends.shape == (5,)
        assert (ends.diff() >= 0).all()
        assert ends[0] >= 48
        assert ends[-1] == 3072
        seen.add(tuple(ends.tolist()))
        prefixes.advance()
    assert len(seen) > 190


def test_drawn_prefixes_are_log_uniform():
    prefixes, drawn = sampled(d_sae=4096, drawn=3, shortest=16), []
    for _ in range(500):
        drawn += prefixes.ends()[:-1].tolist()
        prefixes.advance()
    octaves = torch.tensor(drawn).double().log2().sub(4).clamp_max(7.999).floor().long().bincount(minlength=8)
    assert (octaves / len(drawn) - 1 / 8).abs().max() < 0.01


def test_the_same_are_drawn_after_a_resume_and_however_long_the_run_is():
    straight = sampled()
    for _ in range(5):
        straight.advance()
    resumed = sampled()
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    for _ in range(3):
        assert torch.equal(straight.ends(), resumed.ends())
        straight.advance()
        resumed.advance()
    straight.batches.fill_(2**40)
    assert 48 <= straight.ends()[0] <= straight.ends()[-1] == 3072


def test_evaluation_draws_nothing():
    prefixes = sampled().eval()
    prefixes.advance()
    assert prefixes.batches == 0
