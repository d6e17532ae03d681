from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from exports import FormatName, export_model
from lightning_modules.sparse_autoencoding import SparseAutoencoding

SCRIPT = Path(__file__).with_name("load_with_peers.py")
Loaded = Mapping[str, Tensor]


@pytest.fixture(scope="session")
def run_with_peer(
    peers_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[FormatName, Mapping[str, SparseAutoencoding], Mapping[str, Tensor]], Loaded]:
    """run_with_peer(format, models, inputs) → what the real library says of the exported models, all in one process:
    NAME.output [b, d_out] and NAME.latents [b, s].
    """

    def run(format: FormatName, models: Mapping[str, SparseAutoencoding], inputs: Mapping[str, Tensor]) -> Loaded:
        folder = tmp_path_factory.mktemp(format)
        for name, model in models.items():
            export_model(model, folder / name, format)
        save_file(dict(inputs), folder / "inputs.safetensors")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.run(
            [peers_python, str(SCRIPT), format, str(folder)], capture_output=True, text=True, env=environment
        )
        assert process.returncode == 0, process.stderr[-3000:]
        return load_file(folder / "outputs.safetensors")

    return run
