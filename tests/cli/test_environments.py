"""Settings that come with where a command runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from cli import main
from cli.environments import folder_of_runs, store_moved, with_environment
from cli.overlays import CONFIGS
from cli.run_settings import RunSettings
from run_store.environment import Environment
from run_store.record import read_record
from tests.cli.test_export import JOB

MARKS = ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", "AZUREML_RUN_ID")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    for mark in MARKS:
        monkeypatch.delenv(mark, raising=False)


def first_config(arguments: list[str]) -> str:
    assert arguments[1] == "--config"
    return Path(arguments[2]).stem


def test_it_is_found_out(monkeypatch):
    assert first_config(with_environment(["fit"])) == "local"
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    assert first_config(with_environment(["fit"])) == "colab"
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert first_config(with_environment(["fit", "--config", "job.yaml"])) == "kaggle"
    assert with_environment(["fit", "--x", "1"])[3:] == ["--x", "1"]
    assert with_environment([]) == []


def test_verbs_that_look_for_runs_look_where_they_are(monkeypatch):
    assert folder_of_runs() == "runs"
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    assert folder_of_runs() == "/content/runs"
    done = subprocess.run(
        [sys.executable, CONFIGS.parent / "main.py", "runs", "list"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "none of 0 runs in /content/runs\n"


def test_a_name_wins_and_the_command_line_over_configs(tmp_path, monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    for name, environment in (("one", "azureml"), ("two", "kaggle"), ("none", None), ("odd", "moon")):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"run": {"environment": environment}}))
    (tmp_path / "broken.yaml").write_text("run: [")
    one, two, none, odd, broken = (str(tmp_path / f"{name}.yaml") for name in ("one", "two", "none", "odd", "broken"))
    assert first_config(with_environment(["fit", "--config", one, f"--config={two}"])) == "kaggle"
    assert first_config(with_environment(["fit", "--config", one, "--config", none, "--config", broken])) == "azureml"
    assert first_config(with_environment(["fit", "--config", one, "--run.environment", "local"])) == "local"
    assert first_config(with_environment(["fit", "--run.environment=auto", "--config", one])) == "colab"
    assert first_config(with_environment(["fit", "--config", odd])) == "colab"  # the parser refuses it


def test_every_environment_has_a_small_file_and_that_of_a_machine_of_ones_own_changes_nothing():
    files = {file.stem: yaml.safe_load(file.read_text()) for file in (CONFIGS / "environment").glob("*.yaml")}
    assert files.keys() == set(get_args(Environment))
    for content in files.values():
        assert content.keys() == {"run"}
        assert content["run"].keys() <= {"folder", "stores", "backup"}
    defaults = RunSettings()
    assert files["local"]["run"] == {"folder": defaults.folder, "stores": defaults.stores}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("stores/a", "/fast/a"),
        ("./stores/a/b", "/fast/a/b"),
        (r"stores\a", "/fast/a"),
        ("stores", "stores"),
        ("other/stores/a", "other/stores/a"),
        ("/stores/a", "/stores/a"),
        ("", ""),
        ("stores/typed", "stores/typed"),
        ("stores/glued", "stores/glued"),
    ],
)
def test_stores_of_configs_move_and_others_stay(path, expected):
    typed = ["fit", "--data.store", "stores/typed", "--data.fill=stores/glued"]
    assert store_moved(path, "/fast", typed) == expected


@pytest.fixture
def config(store, tmp_path, monkeypatch):
    """A job that names a store as our configs do; it is in another folder."""
    settings = json.loads(json.dumps(JOB))
    settings["data"]["init_args"]["store"] = "stores/known"
    settings["trainer"]["max_steps"] = 2
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "job.yaml")


def test_runs_and_stores_are_where_the_environment_has_them(config, store, tmp_path, monkeypatch):
    monkeypatch.setenv("AZUREML_RUN_ID", "job_1")
    assert main(["fit", "--config", config, "--run.stores", str(store.parent)]) == 0
    (run,) = (tmp_path / "outputs" / "runs").glob("tiny/spec-*/v*")
    record = read_record(run)
    assert record.environment["name"] == "azureml"
    assert record.lineage.store == str(store)
    fit_here = ["fit", "--config", config, "--data.store", str(store), "--run.environment", "local"]
    assert main(fit_here) == 0
    (here,) = (tmp_path / "runs").glob("tiny/spec-*/v*")
    assert here.parent.name == run.parent.name  # where it runs is no part of what it is
    assert read_record(here).environment["name"] == "local"


def test_given_paths_win(config, store, tmp_path, monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    settings = yaml.safe_load(Path(config).read_text())
    settings["run"] |= {"folder": "mine", "backup": None}
    settings["data"]["init_args"]["store"] = str(store)
    Path(config).write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", config]) == 0
    (run,) = (tmp_path / "mine").glob("tiny/spec-*/v*")
    assert read_record(run).environment["name"] == "colab"


@pytest.mark.first_is_fast
@pytest.mark.parametrize("setting", ["run.folder", "run.stores", "data.store"])
def test_a_place_of_windows_is_one_sentence(config, tmp_path, capsys, setting):
    assert main(["fit", "--config", config, f"--{setting}", r"D:\data\x"]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
    assert line == rf"error: {setting} is D:\data\x, a place of Windows, which this machine has not: choose another"
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


@pytest.mark.slow
def test_a_config_written_on_windows_means_the_same_folders(config, store, tmp_path):
    assert main(["fit", "--config", config, "--data.store", str(store), "--run.folder", r"all\runs"]) == 0
    (run,) = (tmp_path / "all" / "runs").glob("tiny/spec-*/v*")
    assert run.is_dir()


def test_an_environment_that_there_is_not_is_one_sentence(config, capsys):
    assert main(["fit", "--config", config, "--run.environment", "moon"]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
    assert "run.environment must be one of auto, local, colab, kaggle, azureml, not" in line
