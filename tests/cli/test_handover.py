"""The contract that a run must keep before its model is handed on, and the lineage that goes with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cli import main
from run_store.record import read_record
from tests.cli.test_export import exported, job, run  # noqa: F401  (fixtures)


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
    return line


def newest(run: Path) -> Path:  # noqa: F811
    return sorted((run / "checkpoints").iterdir())[-1]


def change_record(run: Path, **changes: object) -> None:  # noqa: F811
    content = json.loads((run / "metadata.json").read_text())
    (run / "metadata.json").write_text(json.dumps(content | changes))


@pytest.mark.first_is_fast
@pytest.mark.parametrize("format", ["saelens", "safetensors"])
def test_lineage_goes_with_the_weights(run, tmp_path, format):  # noqa: F811
    change_record(run, lineage=json.loads((run / "metadata.json").read_text())["lineage"] | {"parent_run": "f00d"})
    assert exported(run, tmp_path / "files", format) == 0
    text = (tmp_path / "files" / "lineage.json").read_text()
    lineage, record, checkpoint = json.loads(text), read_record(run), newest(run)
    assert lineage["run"] == record.id
    assert (lineage["spec_fingerprint"], lineage["exec_fingerprint"]) == (
        record.spec_fingerprint,
        record.exec_fingerprint,
    )
    assert (lineage["parent_run"], lineage["store_sha256"]) == ("f00d", record.lineage.store_sha256)
    manifest, weights = (checkpoint / "manifest.json").read_bytes(), (checkpoint / "model.safetensors").read_bytes()
    assert lineage["checkpoint"]["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert lineage["checkpoint"]["files"]["model.safetensors"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert str(tmp_path) not in text


def test_a_run_that_is_not_there_or_has_no_record_is_refused(run, tmp_path, capsys):  # noqa: F811
    assert exported("nowhere", tmp_path / "files") == 2
    assert "there is no run nowhere" in refusal(capsys)
    (run / "metadata.json").write_text("{")
    assert exported(run, tmp_path / "files") == 2
    assert "metadata.json is damaged" in refusal(capsys)


def test_everything_that_is_missing_is_named_at_once(run, tmp_path, capsys):  # noqa: F811
    (run / "metrics.json").unlink()
    (run / "config.1.yaml").write_text("")
    weights = newest(run) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert exported(run, tmp_path / "files") == 2
    line = refusal(capsys)
    for problem in ("metrics.json is missing", "config.1.yaml is empty", "model.safetensors is not the file that was"):
        assert problem in line
    assert not (tmp_path / "files").exists()


def test_an_older_checkpoint_is_looked_at_as_well(run, tmp_path, capsys):  # noqa: F811
    oldest = sorted((run / "checkpoints").iterdir())[0]
    content = bytearray((oldest / "state.ckpt").read_bytes())
    content[100] ^= 1
    (oldest / "state.ckpt").write_bytes(content)
    assert exported(run, tmp_path / "files") == 0
    for wanted in ([str(run), "saelens", "--checkpoint", str(oldest)], [str(oldest), "saelens"]):
        assert exported(wanted[0], tmp_path / "other", *wanted[1:]) == 2
        assert "state.ckpt differs from what was saved" in refusal(capsys)


def test_a_checkpoint_of_another_run_is_refused(job, run, tmp_path, capsys):  # noqa: F811
    (other,) = Path(job[1]).glob("*/spec-*/v*/checkpoints")
    wanted = sorted(other.iterdir())[0]
    assert exported(run, tmp_path / "files", "saelens", "--checkpoint", str(wanted)) == 2
    assert f"{wanted} is no checkpoint of the run {run}" in refusal(capsys)


def test_what_was_imported_hands_on_what_is_known(run, tmp_path):  # noqa: F811
    assert exported(run, tmp_path / "files", "safetensors") == 0
    assert main(["import", str(tmp_path / "files"), "--output", str(tmp_path / "imported")]) == 0
    assert exported(tmp_path / "imported", tmp_path / "again", "safetensors") == 0
    lineage = json.loads((tmp_path / "again" / "lineage.json").read_text())
    assert lineage.keys() == {"format", "version", "checkpoint"}
