"""Where kernels run: on a GPU where there is one, else interpreted on the CPU where that is asked for."""

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from lightning_modules.functional.kernels import kernels_run_on


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
