"""The overlays for extractors of well-known models."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from backbones import Extractor, JointExtractor, RowExtractor

OVERLAYS = sorted((Path(__file__).resolve().parents[2] / "configs" / "extractor").glob("*.yaml"))


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_every_overlay_makes_an_extractor(overlay):
    parser = ArgumentParser()
    parser.add_argument("--extractor", type=RowExtractor, enable_path=True)
    made = parser.instantiate(parser.parse_args(["--extractor", str(overlay)])).extractor
    assert is_as_written(made, yaml.safe_load(overlay.read_text()))


def is_as_written(made, said):
    if type(made) is JointExtractor:
        each = said["init_args"]["extractors"]
        return made.extractors.keys() == each.keys() and all(
            is_as_written(made.extractors[name], each[name]) for name in each
        )
    settings = said["init_args"]
    return type(made) is Extractor and {name: getattr(made, name) for name in settings} == settings
