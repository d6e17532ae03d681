"""The space file: what it may say, and what is refused in one sentence."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_store import UserError
from search.space import Choice, Range, read_space, refuse_unknown

SPACES = Path(__file__).parents[2] / "configs" / "space"
CONFIG = {
    "seed_everything": 0,
    "run": {"name": "sae"},
    "model": {
        "class_path": "SparseAutoencoding",
        "init_args": {
            "autoencoder": {"class_path": "TopK", "init_args": {"d_sae": 32, "k": 3}},
            "lr_scheduler": None,
        },
    },
    "data": {"class_path": "ActivationDataModule", "init_args": {"batch_size": 64}},
    "trainer": {"max_epochs": 1},
}


@pytest.fixture
def read(tmp_path):
    def reading(text):
        (tmp_path / "space.yaml").write_text(text)
        return read_space(tmp_path / "space.yaml")

    return reading


def test_lists_and_ranges_are_read_under_the_names_that_are_typed(read):
    space = read(
        "model.init_args.autoencoder.init_args.k: [16, 32]\n"
        "model.optimizer.lr: {low: 1e-4, high: 1.0e-2, log: true, points: 3}\n"
        "model.autoencoder.d_sae: {low: 8, high: 16}\n"
    )
    assert space == {
        "model.autoencoder.k": Choice((16, 32)),
        "model.optimizer.lr": Range(1e-4, 1e-2, True, 3),
        "model.autoencoder.d_sae": Range(8, 16),
    }
    assert space["model.autoencoder.d_sae"].is_whole


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no settings"),
        ("[1, 2]", "names no settings"),
        ("a: [", "cannot be read as YAML"),
        ("data.k: []", "data.k is an empty list"),
        ("data.k: 3", "data.k is 3: write a list of values, as in [3], or a range"),
        ("data.k: [1, 2, 1]", "data.k has 1 twice"),
        ("data.k: [1]\ndata.k: [2]", "data.k stands twice"),
        ("data.k: [1]\ndata.init_args.k: [2]", "data.k stands twice"),
        ("data.k: [2020-01-01]", "data.k cannot be tried"),
        ("data.k: {low: 1}", "data.k is a range without high"),
        ("data.k: {low: 1, hihg: 2}", "has hihg, and a range has low, high, log, points: did you mean high?"),
        ("data.k: {low: 1, high: 1}", "low is 1 and high is 1: low must be less than high"),
        ("data.k: {low: 2.5, high: 1}", "low must be less than high"),
        ("data.k: {low: x, high: 1}", "low is 'x': write a number"),
        ("data.k: {low: true, high: 2}", "low is True: write a number"),
        ("data.k: {low: 0, high: .inf}", "high is inf: write a number"),
        ("data.k: {low: 0, high: 1, log: true}", "low is 0, which has no logarithm"),
        ("data.k: {low: 0, high: 1, log: 'yes'}", "log is 'yes': write true or false"),
        ("data.k: {low: 0, high: 1, points: 1}", "points is 1: write a whole number from 2 on"),
    ],
)
def test_a_mistake_is_one_sentence(read, text, sentence):
    with pytest.raises(UserError, match=r"space\.yaml") as refused:
        read(text)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none\.yaml"):
        read_space(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("model.autoencoder.kk", "which the job does not have: the nearest are model.autoencoder.k"),
        ("data.batchsize", "the nearest are data.batch_size"),
        ("model.lr_scheduler.warmup", "which the job does not have"),
        ("sead", "the nearest are seed"),
        ("run.name", "run.name, which makes no other training"),
        ("run", "run, which makes no other training"),
    ],
)
def test_a_setting_that_the_job_lacks_is_refused_with_the_nearest(setting, sentence):
    with pytest.raises(UserError) as refused:
        refuse_unknown({setting: Choice((1,))}, CONFIG)
    assert sentence in str(refused.value)


def test_what_the_job_has_is_known_and_what_hangs_on_a_searched_class_is_judged_later():
    known = ["model.autoencoder", "model.autoencoder.k", "data.batch_size", "seed_everything", "seed", "hook_points"]
    refuse_unknown(dict.fromkeys(known, Choice((1,))), CONFIG)
    chosen = {"model.autoencoder": Choice(("relu",)), "model.autoencoder.l1_coefficient": Choice((1,))}
    refuse_unknown(chosen, CONFIG)


def test_a_grid_over_a_range_must_know_how_many():
    with pytest.raises(UserError, match=r"data\.k is a range, of which a grid must know how many"):
        Range(1, 2).grid("data.k")


def test_grids_of_ranges_are_even_in_value_or_in_logarithm():
    assert Range(0.0, 1.0, points=5).grid("lr") == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert Range(1e-4, 1e-1, log=True, points=4).grid("lr") == (1e-4, 1e-3, 1e-2, 1e-1)
    assert Range(1, 3, points=9).grid("k") == (1, 2, 3)


@given(
    st.integers(1, 10**6) | st.floats(1e-6, 1e6),
    st.floats(1.001, 1e4),
    st.booleans(),
    st.integers(2, 20),
)
def test_a_grid_rises_from_one_end_to_the_other(low, ratio, log, points):
    high = math.ceil(low * ratio) + 1 if isinstance(low, int) else low * ratio
    values = Range(low, high, log, points).grid("data.k")
    assert list(values) == sorted(set(values))
    assert values[0] == pytest.approx(low, rel=1e-5)
    assert values[-1] == pytest.approx(high, rel=1e-5)
    assert 1 <= len(values) <= points
    assert all(isinstance(value, int) for value in values) == isinstance(low, int)


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_spaces_of_the_house_are_grids(path):
    space = read_space(path)
    assert all(len(entry.grid(setting)) > 1 for setting, entry in space.items())
