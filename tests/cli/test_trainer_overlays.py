"""configs/trainer: where a run is trained, and nothing of what is trained."""

import pytest
import yaml

from cli.overlays import CONFIGS
from cli.resolving import answer
from run_store.fingerprints import PARALLELISM_DEFAULTS

OVERLAYS = sorted((CONFIGS / "trainer").glob("*.yaml"))
NO_FOLDER = ("--run.folder", "nowhere", "--run.identity.code", "false")


def asked(*configs):
    options = [option for config in configs for option in ("--config", str(config))]
    answered = answer([*options, *NO_FOLDER])
    assert "error" not in answered, answered
    return answered


@pytest.fixture(scope="module")
def plain():
    return asked(CONFIGS / "sae.yaml")


@pytest.mark.parametrize(
    "overlay",
    [path if path.stem == "fsdp" else pytest.param(path, marks=pytest.mark.slow) for path in OVERLAYS],
    ids=lambda path: path.stem,
)
def test_an_overlay_changes_where_and_not_what(plain, overlay):
    changed = asked(CONFIGS / "sae.yaml", overlay)
    assert changed["identity"][0] == plain["identity"][0]
    trainer, before = changed["config"]["trainer"], plain["config"]["trainer"]
    assert {name for name in trainer if trainer[name] != before[name]} <= PARALLELISM_DEFAULTS.keys()
    assert changed["config"] == {**plain["config"], "trainer": trainer}


def test_there_is_one_for_every_place():
    assert {path.stem for path in OVERLAYS} == {"cpu", "ddp", "fsdp", "gpu", "slurm"}
    for path in OVERLAYS:
        (whole, trainer), *others = yaml.safe_load(path.read_text()).items()
        assert (whole, others) == ("trainer", [])
        assert trainer.keys() <= PARALLELISM_DEFAULTS.keys()
