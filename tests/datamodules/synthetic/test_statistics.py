"""What is drawn, against the formulae that it was drawn for: fixed seed, bounds of several standard errors."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.synthetic import (
    Constant,
    CorrelatedGroups,
    Exponential,
    FeatureSettings,
    FiringModel,
    Forest,
    HalfNormal,
    LogNormal,
    SyntheticStream,
    coherence_of,
    make_truth,
    power_law,
    unit_atoms,
    welch_bound,
)
from run_store import UserError

ROWS = 60_000
ALL = FeatureSettings(
    d=16,
    count=48,
    mean_l0=6.0,
    exponent=0.7,
    magnitudes=Constant(),
    correlation=CorrelatedGroups(groups=3, size=4, correlation=0.8),
    hierarchy=Forest(trees=3, branching=2, depth=2),
    seed=11,
)


@pytest.fixture(scope="module")
def truth():
    return make_truth(ALL)


@pytest.fixture(scope="module")
def fired():
    """bool [ROWS, 48]: which features fire, of all kinds."""
    return SyntheticStream(ALL).codes(torch.arange(ROWS)) > 0


def standard_errors(share, expected):
    return (share - expected).abs() / (expected * (1 - expected) / ROWS).sqrt()


def test_every_rate_is_the_power_laws_whatever_a_feature_depends_on(truth, fired):
    assert standard_errors(fired.double().mean(dim=0), truth.probabilities).max() < 4.5
    assert truth.probabilities.sum() == pytest.approx(6.0)
    assert {int((truth.parents >= 0).sum()), int((truth.groups >= 0).sum())} == {3 * (2 + 4), 3 * 4}
    assert not ((truth.parents >= 0) & (truth.groups >= 0)).any()


@given(st.integers(1, 300), st.floats(0, 3), st.floats(0.01, 0.5))
def test_the_power_law_adds_up_falls_and_is_a_power_below_its_limit(count, exponent, share):
    rates = power_law(count, exponent, share * count)
    assert rates.sum() == pytest.approx(share * count)
    assert (np.diff(rates) <= 0).all()
    assert 0 < rates[-1] <= rates[0] <= 0.5
    below = np.flatnonzero(rates < 0.5)
    if len(below) > 1:
        ratio = rates[below[-1]] / rates[below[0]]
        assert ratio == pytest.approx(((below[0] + 1) / (below[-1] + 1)) ** exponent, rel=1e-6)


def test_a_child_never_fires_without_its_parent(truth, fired):
    children = (truth.parents >= 0).nonzero().flatten()
    assert not (fired[:, children] & ~fired[:, truth.parents[children]]).any()
    # and tosses its own coin where the parent does: brothers are independent there
    for parent in truth.parents[children].unique():
        first, second = (truth.parents == parent).nonzero().flatten()
        expected = truth.probabilities[first] * truth.probabilities[second] / truth.probabilities[parent]
        assert standard_errors((fired[:, first] & fired[:, second]).double().mean(), expected) < 4.5


def test_features_of_a_group_fire_together_as_the_copula_says(truth, fired):
    # P(both) = ∫ φ(s) Φ((a − √ρ s) / √(1 − ρ)) Φ((b − √ρ s) / √(1 − ρ)) ds, summed on a grid
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    density = torch.exp(-grid.square() / 2)
    density /= density.sum()
    given_s = torch.special.ndtr((torch.special.ndtri(truth.probabilities)[:, None] - 0.8**0.5 * grid) / 0.2**0.5)
    for group in range(3):
        for a, b in itertools.combinations((truth.groups == group).nonzero().flatten().tolist(), 2):
            expected = (density * given_s[a] * given_s[b]).sum()
            assert standard_errors((fired[:, a] & fired[:, b]).double().mean(), expected) < 4.5
            assert expected > 2 * truth.probabilities[a] * truth.probabilities[b]


def test_features_without_ties_are_independent(truth, fired):
    free = [i for i in range(48) if truth.groups[i] < 0 and truth.parents[i] < 0 and i not in truth.parents]
    for a, b in itertools.combinations(free[:12], 2):
        expected = truth.probabilities[a] * truth.probabilities[b]
        assert standard_errors((fired[:, a] & fired[:, b]).double().mean(), expected) < 4.5


def test_a_child_as_frequent_as_its_parent_always_fires_with_it():
    rates = np.array([0.3, 0.3])
    model = FiringModel(rates, np.array([-1, 0]), np.array([-1, -1]), 0.0)
    fires = model.draw(4000, np.random.default_rng(0))
    assert np.array_equal(fires[:, 0], fires[:, 1])


@pytest.mark.parametrize(
    ("law", "mean", "second_moment"),
    [
        (Constant(2.0), 2.0, 4.0),
        (Exponential(1.5), 1.5, 2 * 1.5**2),
        (HalfNormal(2.0), 2 * (2 / np.pi) ** 0.5, 4.0),
        (LogNormal(1.2, 0.5), 1.2 * np.exp(0.125), 1.2**2 * np.exp(0.5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_magnitudes_follow_their_law(law, mean, second_moment):
    drawn = law.draw(200_000, np.random.default_rng(3)).astype(np.float64)
    assert drawn.min() > 0
    assert drawn.mean() == pytest.approx(mean, rel=0.01)
    assert (drawn**2).mean() == pytest.approx(second_moment, rel=0.03)


def test_activations_are_the_codes_times_the_atoms_plus_bias_and_noise():
    settings = FeatureSettings(d=16, count=48, mean_l0=6, noise=0.1, bias_norm=3.0)
    stream, rows = SyntheticStream(settings), torch.arange(2000)
    truth = stream.truth
    noise = stream.read(rows)[0] - (stream.codes(rows) @ truth.atoms + truth.bias)
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    assert abs(noise.mean().item()) < 0.003
    torch.testing.assert_close(truth.bias.norm(), torch.tensor(3.0))
    torch.testing.assert_close(truth.atoms.norm(dim=1), torch.ones(48))


def test_coherence_is_measured_and_pushed_below_what_is_asked():
    atoms = unit_atoms(300, 32, np.random.default_rng(0))
    cosines = np.abs(atoms @ atoms.T)[~np.eye(300, dtype=bool)]
    measured = coherence_of(atoms)
    assert measured[:3] == pytest.approx((cosines.min(), cosines.mean(), cosines.max()))
    assert measured.largest > 0.6

    crowded = unit_atoms(64, 16, np.random.default_rng(0), max_coherence=0.45)
    assert welch_bound(64, 16) < coherence_of(crowded).largest <= 0.45
    np.testing.assert_allclose(np.linalg.norm(crowded, axis=1), 1)


def test_the_welch_bound_is_met_by_a_simplex():
    corners = np.eye(5) - 1 / 5
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    assert coherence_of(corners).largest == pytest.approx(welch_bound(5, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean_l0": 30.0}, r"mean_l0 30.0 is more than 48 features"),
        ({"max_coherence": 0.1}, r"max_coherence 0.1 cannot be had: 48 atoms in 16 .*Welch"),
        ({"hierarchy": Forest(10, 3, 2)}, r"hierarchy takes 130 features .*count is 48"),
        ({"correlation": CorrelatedGroups(20, 3)}, r"correlation 60, and features.count is 48"),
    ],
)
def test_impossible_settings_are_told(settings, message):
    with pytest.raises(UserError, match=message):
        make_truth(FeatureSettings(**{"d": 16, "count": 48, "mean_l0": 4.0, **settings}))
