"""Names of figures and of those whom a refusal is about."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.members import refuse_unknown_hook_points, telling, under_names
from run_store import UserError

FIGURES = st.dictionaries(st.sampled_from("abcd"), st.floats(-100, 100, width=32), min_size=1)


def test_figures_of_one_without_a_name_stay_as_they_are():
    figures = {"fvu": torch.tensor(0.5), "lr": 0.1}
    assert under_names({"": figures}) == figures


@given(st.dictionaries(st.sampled_from(["x/", "y/", "z/"]), FIGURES, min_size=1))
def test_every_figure_keeps_its_value_and_means_are_over_what_all_have(figures):
    tensors = {
        prefix: {name: torch.tensor(value) if name < "c" else value for name, value in own.items()}
        for prefix, own in figures.items()
    }
    named = under_names(tensors)
    shared = set.intersection(*(set(own) for own in figures.values()))
    assert set(named) == shared | {f"{prefix}{name}" for prefix, own in figures.items() for name in own}
    for name in shared:
        values = [own[name] for own in figures.values()]
        assert float(named[name]) == pytest.approx(sum(values) / len(values), rel=1e-4, abs=1e-4)


def test_a_figure_that_one_has_as_a_number_and_another_as_a_tensor_has_a_mean():
    named = under_names({"x/": {"a": 1.0}, "y/": {"a": torch.tensor(3.0, dtype=torch.float64)}})
    assert float(named["a"]) == 2.0


def test_a_refusal_begins_with_the_members_name_where_there_is_one():
    for prefix, sentence in (("k16/", "^member k16: lower it$"), ("", "^lower it$")):
        with pytest.raises(UserError, match=sentence), telling(prefix):
            raise UserError("lower it")


def test_hook_points_are_those_of_the_data_each_once():
    refuse_unknown_hook_points(["b", "a"], ["a", "b", "c"])
    for wanted in (["d"], [], ["a", "a"]):
        with pytest.raises(UserError, match="hook_points"):
            refuse_unknown_hook_points(wanted, ["a", "b", "c"])
