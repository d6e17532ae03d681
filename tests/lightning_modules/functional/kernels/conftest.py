"""Where kernels run: on a GPU where there is one, else interpreted on the CPU where that is asked for."""

import os
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from lightning_modules.functional.kernels import compiled_kernels_run_on, kernels_run_on
from lightning_modules.functional.kernels.availability import interpreted, switched_off


@pytest.fixture(scope="session")
def device() -> str:
    devices = ["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        if kernels_run_on(torch.empty(0, device=device)):
            return device
    pytest.skip("needs a GPU with Triton, or Triton and TRITON_INTERPRET=1")


@pytest.fixture(scope="session")
def bags(device: str) -> Iterator[ModuleType]:
    from lightning_modules.functional.kernels import bags

    with pytest.MonkeyPatch.context() as patch:
        if device == "cpu":
            # an interpreter asks one after another all the same, and bags are small here
            patch.setattr(bags, "ENTRIES_AHEAD", 2)
        yield bags


@pytest.fixture(scope="session")
def row_selection(device: str) -> ModuleType:
    from lightning_modules.functional.kernels import row_selection

    return row_selection


@pytest.fixture(scope="session")
def native() -> ModuleType:
    """The C kernels, where they can be compiled; in CI they must."""
    from lightning_modules.functional.kernels import native

    if not compiled_kernels_run_on(torch.empty(0)):
        if os.environ.get("FULGURITE_CI") == "1" and not (interpreted() or switched_off()):
            pytest.fail("no C compiler is found")
        pytest.skip("needs a C compiler")
    return native
