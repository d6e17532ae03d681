"""A store at a URL, on the command line."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from cli import main
from run_store.record import read_record
from tests.cli.test_export import JOB


@pytest.fixture
def config(tmp_path, monkeypatch):
    settings = json.loads(json.dumps(JOB))
    settings["trainer"]["max_steps"] = 3
    settings["data"]["init_args"]["store"] = "stores/known"
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "job.yaml")


@pytest.mark.slow
def test_a_training_reads_a_url_and_is_the_same_run(config, store, tmp_path, capsys):
    shutil.copytree(store, tmp_path / "bucket" / "known")
    url = f"file://{tmp_path}/bucket"
    cache = [f"--data.cache.folder={tmp_path}/cache", "--data.cache.size=50MB"]
    assert main(["fit", "--config", config, "--run.folder=runs", "--run.stores", url, *cache]) == 0
    (run,) = Path("runs").glob("tiny/spec-*/v*")
    assert read_record(run).lineage.store == f"{url}/known"
    assert 0 < sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) < 50e6
    # from the folder it is the same run, which is complete
    capsys.readouterr()
    assert main(["fit", "--config", config, "--run.folder=runs", "--data.store", str(store)]) == 0
    assert "is complete at step 3" in "".join(capsys.readouterr())


def test_a_cache_that_is_too_small_is_one_sentence(config, store, tmp_path, capsys):
    cache = [f"--data.cache.folder={tmp_path}/cache", "--data.cache.size=2kB", "--data.mixed_shards=1"]
    assert main(["fit", "--config", config, "--data.store", f"file://{store}", *cache]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: data.cache.size 2 kB does not hold what is mixed of file://")


def test_a_store_at_a_url_can_be_looked_into(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.chdir(tmp_path)
    assert main(["data", "inspect", f"file://{store}"]) == 0
    at_url = capsys.readouterr().out
    assert (tmp_path / f"{store.name}.png").is_file()
    assert main(["data", "inspect", str(store), "--picture", "null"]) == 0
    here = capsys.readouterr().out
    assert at_url.partition("\npicture")[0].strip() == here.replace(str(store), f"file://{store}", 1).strip()
