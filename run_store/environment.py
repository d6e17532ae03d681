"""What a run ran on: kept in its record, so that a difference between two runs can be traced."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any, Literal

Environment = Literal["local", "colab", "kaggle", "azureml"]
# Kaggle's image is made from Colab's, so it is asked for first.
_MARKS: dict[Environment, str] = {
    "azureml": "AZUREML_RUN_ID",
    "kaggle": "KAGGLE_KERNEL_RUN_TYPE",
    "colab": "COLAB_RELEASE_TAG",
}
PACKAGES = (
    "fulgurite",
    "torch",
    "lightning",
    "jsonargparse",
    "torchmetrics",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
)
_TOLD = re.compile(
    r"(SLURM|PBS|LSB|SGE|KUBERNETES|COLAB|KAGGLE|AZUREML|CUDA|NCCL|GLOO|TORCH|PYTORCH|OMP|MKL|CUBLAS|TOKENIZERS)_.+"
    r"|JOB_(ID|USER_ID)|WORLD_SIZE|(LOCAL_|NODE_|GROUP_)?RANK|MASTER_(ADDR|PORT)|PYTHONHASHSEED|TMPDIR|HF_HUB_OFFLINE"
)
_SECRET = re.compile(r"TOKEN(?!IZERS_)|SECRET|PASSW|CREDENTIAL|AUTH|_KEY|JWT", re.IGNORECASE)


def detect_environment(variables: Mapping[str, str] = os.environ) -> Environment:
    """Where this process runs, by the variables that hosts of notebooks and jobs set; local where none is set."""
    return next((name for name, mark in _MARKS.items() if variables.get(mark)), "local")


def package_versions() -> dict[str, str]:
    """Version by name of the packages that decide a run's numbers; those that are not installed are left out."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """Host, architecture, logical CPUs that may be used and bytes of memory. Accelerators are the caller's to add."""
    known = {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    with suppress(ValueError, OSError):  # some systems do not say
        known["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return known


def environment_snapshot(variables: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Python, operating system, command line and the variables that clusters and numerical libraries read.

    Only variables known to matter are kept, and none whose name speaks of a secret.
    """
    told = {name: text for name, text in variables.items() if _TOLD.fullmatch(name) and not _SECRET.search(name)}
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.platform(),
        "command": list(sys.argv),
        "variables": dict(sorted(told.items())),
    }
