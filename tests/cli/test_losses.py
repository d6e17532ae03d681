"""Losses by their short names, in a config and one inside another."""

import pytest
from jsonargparse import ArgumentParser

from cli import class_names
from lightning_modules.losses import ContrastiveLoss


@pytest.fixture
def parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ContrastiveLoss, "loss")
    return parser


def losses():
    values = vars(class_names).values()
    return [value for value in values if isinstance(value, type) and issubclass(value, ContrastiveLoss)]


@pytest.mark.parametrize("kind", [kind for kind in losses() if kind is not class_names.Matryoshka])
def test_a_short_name_is_enough(parser, kind):
    assert type(parser.instantiate(parser.parse_args([f"--loss={kind.__name__}"])).loss) is kind


def test_settings_and_a_loss_inside_another(parser):
    arguments = ["--loss=Matryoshka", "--loss.loss=InfoNCE", "--loss.loss.temperature=0.02", "--loss.dims=[8,4]"]
    loss = parser.instantiate(parser.parse_args(arguments)).loss
    assert loss.dims == [8, 4]
    assert loss.loss.temperature == 0.02


def test_every_loss_has_a_short_name():
    assert set(losses()) == {kind for kind in ContrastiveLoss.__subclasses__() if kind.__module__.startswith("light")}
