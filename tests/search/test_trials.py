"""Trials: the grid, their names, their command lines, and which of them share a training."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.sweep import NAME, RESERVED
from run_store import UserError
from search.space import Choice, Range
from search.trials import LONGEST_NAME, Trial, grid, in_groups, is_one_pass, refuse_members, refuse_too_many, sweep_of

JOB = {
    "model": {
        "class_path": "lightning_modules.sparse_autoencoding.SparseAutoencoding",
        "init_args": {
            "autoencoder": {"class_path": "TopK", "init_args": {"k": 3}},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.003}},
            "members": None,
        },
    }
}
SWEEP = {"model": {"init_args": {**JOB["model"]["init_args"], "members": {"a": {}}}}}
EMBEDDER = {"model": {"init_args": {"encoder": {}}}}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


def choices(**values):
    return {name.replace("__", "."): Choice(tuple(of)) for name, of in values.items()}


def test_a_grid_has_every_combination_once_the_last_setting_fastest():
    trials = grid({"a": Choice((1, 2)), "b": Range(0.0, 1.0, points=3)})
    assert [tuple(trial.settings.values()) for trial in trials] == list(itertools.product((1, 2), (0.0, 0.5, 1.0)))
    assert [trial.number for trial in trials] == [1, 2, 3, 4, 5, 6]


def test_a_grid_larger_than_allowed_is_refused_with_its_size():
    space = choices(a=range(100), b=range(100), c=range(100))
    with pytest.raises(UserError, match="the grid has 1000000 trials and --trials is 20"):
        refuse_too_many(space, 20)
    refuse_too_many(space, None)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"model.autoencoder.k": 64, "model.optimizer.lr": 0.001}, "1-k64-lr1e-3"),
        ({"model.optimizer.lr": 0.0015}, "1-lr15e-4"),
        ({"model.lr_scheduler.warmup": 0.0}, "1-warmup0"),
        ({"model.optimizer.weight_decay": 200.0}, "1-weight_decay200"),
        ({"model.autoencoder": "jump_relu", "model.autoencoder.target_l0": 20}, "1-jump_relu-target_l020"),
        ({"model.autoencoder": "configs/autoencoder/relu.yaml"}, "1-relu"),
        ({"model.autoencoder": {"class_path": "a.b.TopK", "init_args": {}}}, "1-TopK"),
        ({"seed": 3, "hook_points": ["residual.3", "residual.4"]}, "1-seed3-residual_3_residual_4"),
        ({"model.autoencoder.b": True, "model.autoencoder.c": None, "data.x": -2}, "1-btrue-cnull-xminus2"),
        ({}, "1"),
    ],
)
def test_names_tell_the_settings(settings, name):
    assert Trial(1, settings).name == name


@given(st.dictionaries(st.sampled_from(["model.autoencoder", "data.k", "seed", "hook_points"]), VALUES))
def test_every_name_can_be_a_members_a_files_and_a_metrics(settings):
    name = Trial(7, settings).name
    assert NAME.fullmatch(name)
    assert name.lower() not in RESERVED
    assert len(name) <= LONGEST_NAME
    assert Trial(17, settings).name.lower() != name.lower()


def test_a_command_line_names_classes_before_what_hangs_on_them():
    trial = Trial(1, {"model.autoencoder.use_bias": False, "model.autoencoder": "relu", "data.batch_size": 64})
    expected = ["--model.autoencoder=relu", "--data.batch_size=64", "--model.autoencoder.use_bias=false"]
    assert trial.arguments() == expected
    assert Trial(1, {"seed": 3}).arguments() == ['--model.members={"trial": {"seed": 3}}']


@pytest.mark.parametrize(
    ("names", "config", "expected"),
    [
        (["model.autoencoder.k", "model.optimizer.lr", "seed", "hook_points", "model.autoencoder"], JOB, True),
        (["model.autoencoder.k", "data.batch_size"], JOB, False),
        (["seed_everything"], JOB, False),
        (["model.autoencoders"], JOB, False),
        (["model.optimizer.betas"], JOB, False),
        (["model.autoencoder.k"], SWEEP, False),
        (["model.optimizer.lr"], EMBEDDER, False),
    ],
)
def test_one_pass_is_for_what_members_may_differ_in(names, config, expected):
    assert is_one_pass(dict.fromkeys(names, Choice((1,))), config) is expected


@pytest.mark.parametrize("config", [SWEEP, EMBEDDER])
def test_what_only_members_set_needs_a_model_that_takes_members(config):
    with pytest.raises(UserError, match="the space names seed, which a member of a sweep sets"):
        refuse_members(choices(seed=[1]), config)
    refuse_members(choices(seed=[1]), JOB)


@given(st.integers(0, 60), st.integers(1, 12))
def test_groups_hold_every_trial_once_in_order_and_are_even(count, most):
    trials = [Trial(number, {}) for number in range(1, count + 1)]
    groups = in_groups(trials, most)
    assert [trial for group in groups for trial in group] == trials
    sizes = {len(group) for group in groups}
    assert not sizes or (0 < max(sizes) <= most and max(sizes) - min(sizes) <= 1)
    assert len(groups) == -(-count // most)


def test_a_sweep_says_of_each_member_what_was_searched_and_no_more():
    lr = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}}
    other = {"model": {"init_args": {**JOB["model"]["init_args"], "optimizer": lr}}}
    trials = [
        (Trial(1, {"model.autoencoder.k": 3}), JOB),
        (Trial(2, {"model.optimizer.lr": 0.01}), other),
        (Trial(3, {"seed": 4}), JOB),
    ]
    assert sweep_of(trials)["model"]["init_args"]["members"] == {
        "1-k3": {"autoencoder": {"class_path": "TopK", "init_args": {"k": 3}}},
        "2-lr1e-2": {"lr": 0.01},
        "3-seed4": {"seed": 4},
    }
    assert all(re.fullmatch(NAME, trial.name) for trial, _ in trials)
