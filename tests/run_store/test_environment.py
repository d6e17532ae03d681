from __future__ import annotations

import json
import platform
from importlib import metadata

import pytest

from run_store.environment import detect_environment, environment_snapshot, hardware, package_versions


def test_versions_are_those_installed() -> None:
    versions = package_versions()
    assert versions["torch"] == metadata.version("torch")
    assert list(versions)
    assert all(versions.values())


def test_the_machine_is_described_in_plain_json() -> None:
    known = hardware()
    assert known["host"] == platform.node()
    assert known["cpus"] >= 1
    assert known["memory_bytes"] > 2**20
    assert json.loads(json.dumps(known)) == known


def test_cluster_variables_are_kept_and_secrets_are_not() -> None:
    kept = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0", "LOCAL_RANK": "1", "OMP_NUM_THREADS": "2", "JOB_ID": "j"}
    kept |= {"JOB_USER_ID": "u", "TOKENIZERS_PARALLELISM": "false", "WORLD_SIZE": "2"}
    secret = {"HF_TOKEN": "x", "KAGGLE_KEY": "x", "AZUREML_RUN_TOKEN": "x", "SLURM_SECRET": "x", "KAGGLE_PASSWORD": "x"}
    snapshot = environment_snapshot({**kept, **secret, "HOME": "private", "EDITOR": "vi"})
    assert snapshot["variables"] == kept
    assert snapshot["python"] == platform.python_version()
    assert json.loads(json.dumps(snapshot)) == snapshot


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "local"),
        ({"COLAB_RELEASE_TAG": ""}, "local"),
        ({"COLAB_RELEASE_TAG": "release-colab_20250101"}, "colab"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "kaggle"),
        # Kaggle's image is made from Colab's
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "COLAB_RELEASE_TAG": "x"}, "kaggle"),
        ({"AZUREML_RUN_ID": "job_1"}, "azureml"),
        # an account's name is no sign of where a process runs
        ({"KAGGLE_USERNAME": "x", "KAGGLE_KEY": "x"}, "local"),
    ],
)
def test_where_a_process_runs_is_told_by_its_host(variables: dict[str, str], expected: str) -> None:
    assert detect_environment(variables) == expected
