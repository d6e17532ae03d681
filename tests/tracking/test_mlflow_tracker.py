"""MLflow, by a real server with an SQLite database and whole runs."""

from __future__ import annotations

import csv
import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import main
from run_store.record import read_record
from tests.cli.jobs import ROOT
from tests.cli.test_export import JOB
from tests.conftest import missing
from tests.tracking.servers import end, free_port, mlflow_server
from tracking import MLflowTracker

OVERLAY = str(ROOT / "configs" / "tracking" / "mlflow.yaml")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if find_spec("mlflow") is None:
        missing("needs the extra `mlflow`")
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as (url, _):
        yield url


@pytest.fixture
def client(server, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    return MlflowClient(server)


@pytest.fixture
def config(store, tmp_path):
    settings = json.loads(json.dumps(JOB))
    settings["run"] |= {"folder": str(tmp_path / "runs"), "name": tmp_path.name}
    settings["data"]["init_args"]["store"] = str(store)
    settings["trainer"] |= {"log_every_n_steps": 2, "limit_train_batches": 10}
    del settings["trainer"]["logger"]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings))
    return str(tmp_path / "job.yaml")


def runs_of(client: Any, name: str) -> list[Any]:
    experiment = client.get_experiment_by_name("fulgurite")
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return [run for run in found if run.info.run_name.startswith(f"{name}-")]


def folders(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "runs").glob("*/spec-*/v*"), key=lambda path: path.name)


@pytest.mark.slow
def test_a_run_is_there_by_number_with_its_curves_settings_and_lineage(client, config, tmp_path):
    for _ in range(2):
        assert main(["fit", "--config", config, "--config", OVERLAY, "--run.mode", "force_new"]) == 0
    first, second = runs_of(client, tmp_path.name)
    assert [run.info.run_name for run in (first, second)] == [f"{tmp_path.name}-1", f"{tmp_path.name}-2"]
    for run, folder in zip((first, second), folders(tmp_path), strict=True):
        record = read_record(folder)
        assert run.info.status == "FINISHED"
        assert {name: run.data.tags[f"fulgurite.{name}"] for name in ("run", "spec", "exec", "variant", "store")} == {
            "run": record.id,
            "spec": record.spec_fingerprint,
            "exec": record.exec_fingerprint,
            "variant": folder.name,
            "store": record.lineage.store_sha256,
        }
        assert run.data.params["autoencoder/init_args/k"] == "3"
        curve = client.get_metric_history(run.info.run_id, "train/fvu")
        assert [point.step for point in curve] == [1, 3, 5, 7, 9]
        assert run.data.metrics["val/fvu"] == pytest.approx(record.metrics["val/fvu"])
        assert list(folder.glob("events.out.tfevents.*"))
        assert not (folder / "csv").exists()


@pytest.mark.slow
def test_a_run_that_is_resumed_goes_on_there(client, config, tmp_path):
    start = ["fit", "--config", config, "--config", OVERLAY]
    assert main(start) == 0
    (folder,) = folders(tmp_path)
    (folder / "metadata.json").write_text((folder / "metadata.json").read_text().replace('"complete"', '"running"'))
    for path in sorted((folder / "checkpoints" / "step-00000010").iterdir()):
        path.unlink()
    (folder / "checkpoints" / "step-00000010").rmdir()
    assert main(start) == 0
    (run,) = runs_of(client, tmp_path.name)
    assert run.info.status == "FINISHED"
    assert not (folder / "csv").exists()


@pytest.mark.slow
def test_without_a_server_the_run_is_the_same_and_its_curves_are_here(config, tmp_path, monkeypatch, capsys):
    if find_spec("mlflow") is None:
        missing("needs the extra `mlflow`")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["fit", "--config", config, "--config", OVERLAY]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    (folder,) = folders(tmp_path)
    assert warnings[0].startswith("warning: MLflow cannot be reached (")
    assert warnings[0].endswith(f"the curves go to {folder / 'csv'} from here")
    assert read_record(folder).status == "complete"
    rows = list(csv.DictReader((folder / "csv" / "1" / "metrics.csv").open()))
    assert {row["step"] for row in rows if row["train/fvu"]} == {"1", "3", "5", "7", "9"}


@pytest.mark.slow
def test_what_comes_after_the_server_has_gone_is_here(tmp_path, monkeypatch, capsys):
    if find_spec("mlflow") is None:
        missing("needs the extra `mlflow`")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = tmp_path / "runs" / "v1"
    folder.mkdir(parents=True)
    with mlflow_server(tmp_path) as (url, process):
        tracker = MLflowTracker(tracking_uri=url, save_dir=str(folder))
        tracker.log_metrics({"loss": 1.0}, 0)
        while tracker._jobs:
            time.sleep(0.05)
        end(process)
        tracker.log_metrics({"loss": 0.5}, 1)
        tracker.log_metrics({"loss": 0.25}, 2)
        tracker.finalize("success")
    assert (folder / "csv" / "1" / "metrics.csv").read_text().split() == ["loss,step", "0.5,1", "0.25,2"]
    (warning,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning"))
    assert "MLflow cannot be reached" in warning
    client = MlflowClient(f"sqlite:///{tmp_path / 'server.sqlite'}")
    (run,) = client.search_runs([client.get_experiment_by_name("fulgurite").experiment_id])
    assert run.data.metrics == {"loss": 1.0}


@pytest.mark.slow
def test_without_an_address_it_is_a_database_beside_the_runs(config, tmp_path, monkeypatch):
    if find_spec("mlflow") is None:
        missing("needs the extra `mlflow`")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["fit", "--config", config, "--config", OVERLAY]) == 0
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.sqlite'}")
    (run,) = runs_of(client, tmp_path.name)
    assert run.info.status == "FINISHED"


def test_a_missing_package_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tracking.mlflow_tracker.find_spec", lambda name: None)
    tracker = MLflowTracker(save_dir=str(tmp_path))
    tracker.log_metrics({"loss": 1.0}, 0)
    tracker.finalize("success")
    assert "(its package is missing: pip install 'fulgurite[mlflow]')" in capsys.readouterr().err
    assert (tmp_path / "csv" / "1" / "metrics.csv").read_text().split() == ["loss,step", "1.0,0"]
