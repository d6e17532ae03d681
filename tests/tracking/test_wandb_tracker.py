"""Weights & Biases offline, by its real package: nothing goes over a network."""

from __future__ import annotations

import json
import struct
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from cli import main
from run_store.record import read_record
from tests.cli.jobs import ROOT
from tests.cli.test_export import JOB
from tests.conftest import missing
from tracking import WandbTracker

OVERLAY = str(ROOT / "configs" / "tracking" / "wandb.yaml")


@pytest.fixture
def config(store, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    settings = json.loads(json.dumps(JOB))
    settings["run"] |= {"folder": str(tmp_path / "runs")}
    settings["data"]["init_args"]["store"] = str(store)
    settings["trainer"] |= {"log_every_n_steps": 2, "limit_train_batches": 10}
    del settings["trainer"]["logger"]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings))
    return str(tmp_path / "job.yaml")


def records(folder: Path) -> list:
    """What an offline run has written: protobuf messages in the log format of LevelDB (blocks of 32 KiB; before each
    piece a checksum of 4 bytes, a length of 2 and a kind: 1 whole, 2 first, 3 middle, 4 last), behind 7 bytes.
    """
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    content, place, message, found = file.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # too little room for another piece in this block
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        message += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            found.append(wandb_internal_pb2.Record.FromString(message))
            message = b""
    return found


@pytest.mark.slow
def test_an_offline_run_has_curves_settings_and_lineage(config, tmp_path, capsys):
    if find_spec("wandb") is None:
        missing("needs the extra `wandb`")
    assert main(["fit", "--config", config, "--config", OVERLAY]) == 0
    assert "warning" not in capsys.readouterr().err
    (folder,) = (tmp_path / "runs").glob("*/spec-*/v*")
    record = read_record(folder)
    (offline,) = (folder / "wandb").glob("offline-run-*")
    written = records(offline)
    (run,) = (entry.run for entry in written if entry.HasField("run"))
    assert (run.run_id, run.display_name, run.project) == (record.id, "tiny-1", "fulgurite")
    assert list(run.tags) == [f"spec-{record.spec_fingerprint[:8]}", f"exec-{record.exec_fingerprint[:8]}"]
    config_of = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config_of["lineage"]["run"] == record.id
    assert config_of["lineage"]["store"] == record.lineage.store_sha256
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in entry.history.item}
        for entry in written
        if entry.HasField("history")
    ]
    assert [row["trainer/global_step"] for row in rows if "train/fvu" in row] == [1, 3, 5, 7, 9]
    assert [row["val/fvu"] for row in rows if "val/fvu" in row] == [pytest.approx(record.metrics["val/fvu"])]
    assert [entry.exit.exit_code for entry in written if entry.HasField("exit")] == [0]
    assert not (folder / "csv").exists()


def test_a_missing_package_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tracking.wandb_tracker.find_spec", lambda name: None)
    tracker = WandbTracker(save_dir=str(tmp_path))
    tracker.log_metrics({"loss": 1.0}, 0)
    tracker.finalize("success")
    assert "(its package is missing: pip install 'fulgurite[wandb]')" in capsys.readouterr().err
    assert (tmp_path / "csv" / "1" / "metrics.csv").read_text().split() == ["loss,step", "1.0,0"]
