"""When kernels are chosen, on a machine that may have neither a GPU nor Triton."""

import os
import subprocess
import sys

import pytest
import torch

from lightning_modules.functional.kernels import availability, kernels_run_on
from run_store import UserError


@pytest.mark.slow
def test_a_cpu_tensor_takes_the_eager_path_and_triton_is_never_imported():
    program = (
        "import sys, torch\n"
        "from lightning_modules.functional import linear_topk, sparse_decode\n"
        "W = torch.randn(6, 4, requires_grad=True)\n"
        "sparse_decode(*linear_topk(torch.randn(3, 4), W, torch.zeros(6), 2), W).sum().backward()\n"
        "assert not any(name.endswith(('kernels.bags', 'kernels.row_selection')) for name in sys.modules)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


@pytest.fixture
def with_triton(monkeypatch):
    monkeypatch.delenv("FULGURITE_KERNELS", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(availability, "_triton_is_installed", lambda: True)


@pytest.mark.usefixtures("with_triton")
def test_the_switch_turns_kernels_off(monkeypatch):
    assert kernels_run_on(torch.empty(0))
    monkeypatch.setenv("FULGURITE_KERNELS", "off")
    assert not kernels_run_on(torch.empty(0))
    monkeypatch.setenv("FULGURITE_KERNELS", "no")
    with pytest.raises(UserError, match="FULGURITE_KERNELS is 'no': set it to auto or off"):
        kernels_run_on(torch.empty(0))


@pytest.mark.usefixtures("with_triton")
def test_integers_and_machines_without_triton_take_the_eager_path(monkeypatch):
    assert not kernels_run_on(torch.empty(0, dtype=torch.int64))
    monkeypatch.setattr(availability, "_triton_is_installed", lambda: False)
    assert not kernels_run_on(torch.empty(0))
