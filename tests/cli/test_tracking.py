"""Overlays of configs/tracking in whole runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from cli import main
from run_store.completion import completion_of
from run_store.record import read_record
from tests.cli.jobs import ROOT
from tests.cli.test_export import JOB

TRACKING = ROOT / "configs" / "tracking"


@pytest.fixture
def fit(store, tmp_path):
    settings = json.loads(json.dumps(JOB))
    settings["run"]["folder"] = str(tmp_path / "runs")
    settings["data"]["init_args"]["store"] = str(store)
    settings["trainer"] |= {"log_every_n_steps": 2, "limit_train_batches": 4}
    del settings["trainer"]["logger"]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings))

    def start(*overlays: str, more: tuple[str, ...] = ()) -> Path:
        configs = [part for name in overlays for part in ("--config", str(TRACKING / f"{name}.yaml"))]
        assert main(["fit", "--config", str(tmp_path / "job.yaml"), *configs, *more]) == 0
        return max((tmp_path / "runs").glob("*/spec-*/v*"), key=lambda path: path.name)

    return start


@pytest.mark.slow
def test_tensorboard_is_the_default_and_an_overlay_makes_no_other_run(fit):
    run = fit()
    assert list(run.glob("events.out.tfevents.*"))
    for overlay in ("tensorboard", "csv", "off", "mlflow", "wandb"):
        assert fit(overlay) == run  # complete, since how it is tracked is no part of it
    assert len(list(run.parent.glob("v*"))) == 1


def test_csv_in_place_of_it(fit):
    run = fit("csv")
    assert not list(run.glob("events.out.tfevents.*"))
    rows = list(csv.DictReader((run / "csv" / "1" / "metrics.csv").open()))
    assert [row["step"] for row in rows if row["train/fvu"]] == ["1", "3"]
    assert completion_of(run).complete


def test_off_leaves_our_own_files_and_no_others(fit):
    run = fit("off")
    assert {path.name for path in run.iterdir()} == {
        "checkpoints",
        "config.1.yaml",
        "events.jsonl",
        "metadata.json",
        "metrics.json",
        "run.lock",
    }
    assert completion_of(run).complete
    assert read_record(run).metrics["val/fvu"] > 0


@pytest.mark.slow
def test_without_its_package_a_tracker_is_told_once_and_the_run_is_complete(fit, monkeypatch, capsys):
    monkeypatch.setattr("tracking.mlflow_tracker.find_spec", lambda name: None)
    monkeypatch.setattr("tracking.wandb_tracker.find_spec", lambda name: None)
    for overlay, tracker in (("mlflow", "MLflow"), ("wandb", "Weights & Biases")):
        run = fit(overlay, more=("--run.mode", "force_new"))
        (warning,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning"))
        assert warning.startswith(f"warning: {tracker} cannot be reached (its package is missing: pip install")
        assert completion_of(run).complete
        assert list(run.glob("events.out.tfevents.*"))
        assert (run / "csv" / "1" / "metrics.csv").is_file()


def test_the_data_is_in_the_record_before_the_first_step(fit):
    history = read_record(fit("off")).history()
    (data,) = (event for event in history if event["event"] == "data")
    assert data["status"] == "initialising"
    assert data["store_sha256"]
