"""What is said of two models as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from explanations import GROUPS, DifferenceSettings, compare_models
from explanations.latent_groups import LatentGroups
from tests.explanations.diffing import activations, crosscoder, triplets
from tests.explanations.readers import save_embedder


def compared(folder, base_pooling="mean", **settings):
    """Of models whose base says that it pools in this way."""
    models = {}
    for seed, (name, pooling) in enumerate({"base": base_pooling, "tuned": "mean"}.items()):
        (folder / name).mkdir(parents=True)
        models[name] = save_embedder(folder / name, seed=seed, pooling=pooling)
    torch.manual_seed(0)
    data, model = activations(folder, models), crosscoder()
    data.prepare_data()
    data.setup("fit")
    model.shapes = data.shapes
    model.configure_model()
    model.only.start_from_data(data.sample(200).activations)
    given = DifferenceSettings(**settings)
    return compare_models(model.only.eval(), data.store, list(data.shapes), triplets(folder), given)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return compared(tmp_path_factory.mktemp("models"))


def test_the_base_is_pooled_as_the_fine_tuned_model_is_whatever_it_says(found, tmp_path):
    other = compared(tmp_path, base_pooling="cls")
    assert (other.gain.base, other.gain.tuned) == (found.gain.base, found.gain.tuned)


def test_every_living_latent_is_in_one_group_and_those_that_move_most_come_first(found):
    numbers = torch.arange(24) % 4
    parted = replace(found, groups=LatentGroups(torch.rand(24), torch.rand(24), numbers))
    members = [parted.members(place) for place in range(len(GROUPS))]
    assert sorted(torch.cat(members).tolist()) == found.fires.nonzero().flatten().tolist()
    for place, group in enumerate(members):
        assert (numbers[group] == place).all()
        assert (found.moved[group].diff() <= 0).all()


def test_figures_are_shares_and_tell_of_the_gain_only_what_is_sure(found):
    figures = found.figures()
    assert sum(figures[f"diff/{name}"] for name in GROUPS) == pytest.approx(1)
    assert ("diff/share_of_gain/shared" in figures) == found.gain.is_sure
