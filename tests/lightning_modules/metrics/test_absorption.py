"""Absorption, counted by hand and by loops."""

import pytest
import torch

from lightning_modules.metrics import Absorption

PARENTS = torch.tensor([-1, -1, 0, 0, 2, -1])
"""0 has the children 2 and 3, 2 has 4; 1 and 5 are alone."""


def naive(parents, features, latents):
    together = absorbed = alone = missed = 0
    for fires, speaks in zip(features.tolist(), latents.tolist(), strict=True):
        for child, parent in enumerate(parents.tolist()):
            if parent >= 0 and fires[child] and fires[parent]:
                together += 1
                absorbed += speaks[child] and not speaks[parent]
        for feature in set(parents.tolist()) - {-1}:
            children = [child for child, parent in enumerate(parents.tolist()) if parent == feature]
            if fires[feature] and not any(fires[child] for child in children):
                alone += 1
                missed += not speaks[feature]
    return absorbed / together, missed / alone


def drawn(rows=200):
    """Features that never fire without their parent, and latents of any kind."""
    features = torch.rand(rows, 6) < 0.6
    for child in (2, 3, 4):
        features[:, child] &= features[:, PARENTS[child]]
    return features, torch.rand(rows, 6) < 0.7


def test_the_rates_are_those_of_loops_and_merge_over_ranks():
    features, latents = drawn()
    halves = [Absorption(PARENTS), Absorption(PARENTS)]
    for half, part in zip(halves, (slice(0, 60), slice(60, None)), strict=True):
        half.update(features[part], latents[part])
    halves[0].merge_state(halves[1])
    rates = halves[0].compute()
    assert (float(rates["absorption"]), float(rates["missed_alone"])) == pytest.approx(
        naive(PARENTS, features, latents)
    )


def test_latents_that_follow_their_features_absorb_nothing():
    features, _ = drawn()
    metric = Absorption(PARENTS)
    metric.update(features, features)
    assert all(rate == 0 for rate in metric.compute().values())


def test_a_parent_that_is_silent_under_its_children_alone_is_absorbed():
    features, _ = drawn()
    latents = features.clone()
    latents[:, 0] &= ~(features[:, 2] | features[:, 3])
    metric = Absorption(PARENTS)
    metric.update(features, latents)
    below_0 = int(features[:, [2, 3]].sum())
    assert float(metric.compute()["absorption"]) == pytest.approx(below_0 / (below_0 + int(features[:, 4].sum())))
    assert metric.compute()["missed_alone"] == 0


def test_a_row_in_which_neither_latent_fires_is_no_absorption():
    metric = Absorption(torch.tensor([-1, 0]))
    metric.update(torch.tensor([[True, True]]), torch.tensor([[False, False]]))
    assert metric.compute()["absorption"] == 0
