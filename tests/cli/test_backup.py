"""`--run.backup` in whole runs: copied while it trains, copied back, and never in the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from cli import main
from run_store.completion import completion_of
from run_store.record import read_record
from tests.callbacks.backed_up import Unreliable, fetched, whole_ones
from tests.cli.test_export import JOB


@pytest.fixture
def config(store, tmp_path):
    settings = json.loads(json.dumps(JOB))
    settings["run"]["folder"] = str(tmp_path / "runs")
    settings["data"]["init_args"]["store"] = str(store)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings))
    return str(tmp_path / "job.yaml")


def run_of(root: Path) -> Path:
    (folder,) = root.glob("tiny/spec-*/v*")
    return folder


@pytest.mark.slow
def test_a_run_that_lost_its_disk_goes_on_from_the_copy(config, tmp_path, capsys):
    backup = ["--run.backup", f"file://{tmp_path}/drive"]
    assert main(["fit", "--config", config, *backup, "--trainer.max_steps", "15"]) == 0
    assert "warning" not in capsys.readouterr().err
    run = run_of(tmp_path / "runs")
    saved = whole_ones(run / "checkpoints")
    record = read_record(run)
    shutil.rmtree(tmp_path / "runs")
    fetched(f"file://{tmp_path}/drive", tmp_path / "runs")
    assert whole_ones(run / "checkpoints") == saved
    assert completion_of(run).complete
    capsys.readouterr()
    assert main(["fit", "--config", config, *backup, "--trainer.max_steps", "15"]) == 0
    assert "is complete at step 15" in capsys.readouterr().out
    # as it was copied in the middle of the training
    (run / "metadata.json").write_text((run / "metadata.json").read_text().replace('"complete"', '"running"'))
    shutil.rmtree(run / "checkpoints" / "step-00000015")
    assert main(["fit", "--config", config, *backup, "--trainer.max_steps", "15"]) == 0
    assert "from step 10 " in capsys.readouterr().out.splitlines()[0]
    assert (read_record(run).id, read_record(run).status) == (record.id, "complete")


@pytest.mark.slow
def test_a_target_that_fails_fails_no_training(config, tmp_path, capsys):
    Unreliable.writes_left = 0
    assert main(["fit", "--config", config, "--run.backup", "unreliable://there", "--trainer.max_steps", "2"]) == 0
    Unreliable.writes_left = float("inf")
    first, last = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning"))
    assert first.startswith("warning: nothing could be copied to unreliable://there (ConnectionError: the line is cut)")
    assert "lacks step-00000002, config.1.yaml, events.jsonl, metrics.json, metadata.json" in last
    assert completion_of(run_of(tmp_path / "runs")).complete


def test_a_run_that_is_refused_leaves_nothing_there(config, tmp_path):
    backup = ["--run.backup", f"file://{tmp_path}/drive"]
    assert main(["fit", "--config", config, *backup, "--trainer.max_steps", "5", "--run.folder", "/dev/null/x"]) == 2
    assert not (tmp_path / "drive").exists()


def test_a_url_that_nothing_speaks_is_refused_before_anything_is_made(config, tmp_path, capsys):
    assert main(["fit", "--config", config, "--run.backup", "nothing://there"]) == 2
    assert "run.backup nothing://there cannot be reached" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_where_the_backup_is_makes_no_other_run(config, tmp_path):
    settings = ["--config", config, "--trainer.max_steps", "2"]
    assert main(["fit", *settings]) == 0
    assert main(["fit", *settings, "--run.backup", f"file://{tmp_path}/drive"]) == 0
    run_of(tmp_path / "runs")
