"""The overlays of configs/triplets."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from cli import class_names
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import TripletSource

OVERLAYS = sorted((Path(__file__).parents[2] / "configs" / "triplets").glob("*.yaml"))


@pytest.fixture
def parser():
    assert class_names.TripletDataModule is TripletDataModule
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TripletDataModule, "data")
    return parser


def test_every_source_has_an_overlay(parser):
    shown = [parser.instantiate(parser.parse_args(["--data", str(overlay)])).data for overlay in OVERLAYS]
    sources = {
        value for value in vars(class_names).values() if isinstance(value, type) and issubclass(value, TripletSource)
    }
    assert {type(data.sources["train"]) for data in shown} == sources


def test_columns_and_mining_are_set_on_the_command_line(parser):
    overlay = next(overlay for overlay in OVERLAYS if overlay.stem == "files")
    settings = ["--data.source.columns.negatives=[a,b]", "--data.mining.count=2", "--data.prompts={anchor: 'q: '}"]
    data = parser.instantiate(parser.parse_args(["--data", str(overlay), *settings])).data
    assert data.sources["train"].columns.negatives == ["a", "b"]
    assert data.mining.count == 2
    assert data.prompts == {"anchor": "q: "}
