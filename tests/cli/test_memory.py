"""The command line when memory runs out: a process whose address space is limited in the middle of a training."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEGABYTE = 2**20
LARGE = 64 * MEGABYTE
"""Of a tensor: the C library is told not to keep such for later, so that the limit tells."""


CONFIG = """
seed_everything: 0
model:
  class_path: SparseAutoencoding
  init_args:
    autoencoder: {{class_path: ReLU, init_args: {{d_sae: {d_sae}}}}}
data:
  class_path: ActivationDataModule
  init_args: {{store: {store}, batch_size: {batch_size}}}
trainer:
  accelerator: cpu
  max_steps: 4
  max_epochs: -1
  limit_val_batches: 0
  num_sanity_val_steps: 0
  callbacks:
    - class_path: RunSummary
    - {{class_path: limited_memory.LimitedMemory, init_args: {{step: 2, more: {more}}}}}
"""


def fit(store, folder, batch_size, d_sae, more):
    """Exit code and output of a training of four steps that after two of them may take `more` bytes."""
    config = folder / "limited.yaml"
    config.write_text(CONFIG.format(store=store, batch_size=batch_size, d_sae=d_sae, more=more))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "MALLOC_MMAP_THRESHOLD_": str(MEGABYTE)}
    command = [sys.executable, str(ROOT / "main.py"), "fit", "--config", str(config)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_step_that_runs_out_in_mid_training_is_halved_and_the_run_ends_trained(store, tmp_path):
    code, output = fit(store, tmp_path, batch_size=1024, d_sae=2**14, more=3 * LARGE)
    assert code == 0, output
    told = re.findall(r"memory ran out on a batch of 1024 rows: .* computed (\d+) rows at a time", output)
    assert len(told) == 1
    assert int(told[0]) in (512, 256, 128, 64)
    assert re.search(r"optimiser steps +4\b", output)


@pytest.mark.slow
def test_a_run_that_cannot_go_on_ends_with_one_sentence(store, tmp_path):
    """The gradient of a single row does not fit: it is as large as the weights."""
    code, output = fit(store, tmp_path, batch_size=16, d_sae=2**20, more=MEGABYTE)
    assert code == 2, output
    (told,) = re.findall(r"^error: .*", output, re.MULTILINE)
    # with a megabyte left it may run out anywhere, between two steps too
    assert re.search(r"memory ran out.*: lower (data\.batch_size|model\.autoencoder\.d_sae)", told)
    assert "Traceback" not in output
