"""The overlays for extractors of well-known models."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from backbones import Extractor

OVERLAYS = sorted((Path(__file__).resolve().parents[2] / "configs" / "extractor").glob("*.yaml"))


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_every_overlay_makes_an_extractor(overlay):
    parser = ArgumentParser()
    parser.add_argument("--extractor", type=Extractor, enable_path=True)
    made = parser.instantiate(parser.parse_args(["--extractor", str(overlay)]))
    settings = yaml.safe_load(overlay.read_text())["init_args"]
    assert type(made.extractor) is Extractor
    assert {name: getattr(made.extractor, name) for name in settings} == settings
