"""How the C kernels come to be: compiled once, kept, and done without where that is impossible."""

import json
import os
import stat
import subprocess
import sys
from functools import partial

import pytest
import torch

from lightning_modules.functional import side_by_side
from lightning_modules.functional.kernels import compiled, compiled_kernels_run_on

PROGRAM = """
import json
import torch
from lightning_modules.functional import linear_topk, sparse_decode
from lightning_modules.functional.kernels import compiled_kernels_run_on
W, x = torch.arange(24.0).view(6, 4).cos().requires_grad_(), torch.arange(12.0).view(3, 4).sin()
values, indices = linear_topk(x, W, torch.zeros(6), 2)
sparse_decode(values, indices, W).sum().backward()
print(json.dumps([compiled_kernels_run_on(W), *values.detach().sort().values.flatten().tolist(), W.grad.sum().item()]))
"""


def answers(tmp_path, **variables):
    """Whether kernels ran in a process of its own with this environment, and what it computed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "TRITON_INTERPRET")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), **variables}
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=environment, capture_output=True, text=True)
    ran, *computed = json.loads(done.stdout)
    return ran, computed


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_they_are_compiled_once_and_kept_for_this_user_alone(tmp_path):
    first = answers(tmp_path)
    (file,) = (tmp_path / "fulgurite").iterdir()
    made = file.stat().st_mtime_ns
    assert first == answers(tmp_path)
    assert first[0]
    assert file.stat().st_mtime_ns == made
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_a_damaged_file_in_the_cache_is_compiled_again(tmp_path):
    first = answers(tmp_path)
    (file,) = (tmp_path / "fulgurite").iterdir()
    file.write_bytes(b"half a fi")
    assert answers(tmp_path) == first


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_code_is_not_loaded_from_a_folder_that_others_may_write_to(tmp_path):
    folder = tmp_path / "fulgurite"
    folder.mkdir()
    folder.chmod(0o777)
    assert answers(tmp_path)[0]
    assert not list(folder.iterdir())


def test_a_compiler_that_fails_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.warns(UserWarning, match="could not be compiled by false"):
        assert compiled.library.__wrapped__() is None


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"CC": "no-such-compiler"}, {"CC": "false"}, {"FULGURITE_KERNELS": "off"}])
def test_without_a_compiler_the_eager_functions_give_the_same(tmp_path, variables):
    ran, computed = answers(tmp_path, **variables)
    assert not ran
    assert computed == pytest.approx(answers(tmp_path)[1])


@pytest.mark.usefixtures("native")
def test_other_numbers_than_float32_take_the_eager_path():
    assert compiled_kernels_run_on(torch.empty(0), torch.empty(0, dtype=torch.int64))
    assert not compiled_kernels_run_on(torch.empty(0), torch.empty(0, dtype=torch.float64))
    assert not compiled_kernels_run_on(torch.empty(0, dtype=torch.bfloat16))


def test_parts_cover_everything_and_a_failure_in_any_is_told(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    parts = []
    compiled.in_threads(lambda begin, end: parts.append((begin, end)), 10)
    assert sorted(parts) == [(0, 3), (3, 6), (6, 10)]
    with pytest.raises(MemoryError):
        compiled.in_threads(lambda begin, end: begin != 3, 10)


def test_side_by_side_parts_are_smaller_so_that_others_can_take_some():
    parts = []

    def piece(number):
        compiled.in_threads(lambda begin, end: parts.append((number, begin, end)), 10)

    with_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        side_by_side([partial(piece, number) for number in range(2)])
    finally:
        torch.set_num_threads(with_threads)
    for number in range(2):
        assert sorted(part[1:] for part in parts if part[0] == number) == [(0, 2), (2, 5), (5, 7), (7, 10)]
