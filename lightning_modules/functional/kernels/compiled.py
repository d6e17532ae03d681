"""The C kernels of this folder: compiled for this machine at the first use, kept for the next ones, run in threads.

Where no C compiler is found, or it fails, the eager functions do the work: they give the same, only slower.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from pathlib import Path
from threading import local

import torch
from torch import Tensor

from lightning_modules.functional.kernels.availability import interpreted, switched_off
from lightning_modules.functional.side_by_side import parts_worth_sharing, shared_out

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-O3", "-std=gnu11", "-march=native", "-fopenmp-simd", "-fPIC", "-shared")
"""Without those that let a compiler change what a sum or a comparison with NaN means."""

COMPILATION_SECONDS = 120


def compiled_kernels_run_on(*tensors: Tensor) -> bool:
    """Whether all tensors are of float32 or int64 and on a CPU for which kernels could be compiled.
    FULGURITE_KERNELS=off says no.
    """
    fit = all(tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.int64) for tensor in tensors)
    return fit and not interpreted() and not switched_off() and library() is not None


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they cannot be had."""
    compiler = _compiler()
    if compiler is None:
        return None
    try:
        return _loaded(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error).encode()
        warnings.warn(
            f"the C kernels could not be compiled by {compiler[0]}, so slower functions take their place, whose last "
            f"bits differ; mend that compiler, or name another in CC: {told.decode(errors='replace').strip()}",
            stacklevel=2,
        )
        return None


def kernels() -> ctypes.CDLL:
    """The compiled kernels, where there are any."""
    found = library()
    assert found is not None
    return found


def _compiler() -> list[str] | None:
    if named := shlex.split(os.environ.get("CC", "")):
        return named if shutil.which(named[0]) else None
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    return None if found is None else [found]


def _loaded(compiler: list[str]) -> ctypes.CDLL:
    """From the cache, or compiled into it; from a folder of this process's own where there can be no cache."""
    name = f"native-{_fingerprint(compiler)}.so"
    with tempfile.TemporaryDirectory(prefix="fulgurite-") as own:
        folder = _cache_folder() or Path(own)
        file = folder / name
        if not file.is_file():
            _compile(compiler, file)
        try:
            compiled = ctypes.CDLL(str(file))
        except OSError:  # damaged in the cache
            _compile(compiler, file)
            compiled = ctypes.CDLL(str(file))
    compiled.reaching.restype = compiled.above_bar.restype = ctypes.c_int64
    compiled.nth_largest.restype = ctypes.c_float
    return compiled


def _compile(compiler: list[str], file: Path) -> None:
    # beside the target and renamed, so that no other process loads half a file
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        command = [*compiler, *FLAGS, str(SOURCE), "-o", str(fresh)]
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILATION_SECONDS)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def _fingerprint(compiler: list[str]) -> str:
    """Of all that decides what is compiled: machines of several kinds may share a home."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    text = "\n".join([SOURCE.read_text(), *compiler, *FLAGS, platform.machine(), platform.processor(), *kind])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cache_folder() -> Path | None:
    """Of this user alone, since code is loaded from it; None where there can be none."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fulgurite"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        foreign = hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()
        return None if foreign or folder.stat().st_mode & 0o022 or not os.access(folder, os.W_OK) else folder
    except (OSError, RuntimeError):
        return None


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """To the first element; NULL for None. The tensor must be contiguous, and outlive the call."""
    assert tensor is None or tensor.is_contiguous()
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def in_threads(work: Callable[[int, int], object], size: int) -> None:
    """work(begin, end) for parts that make up [0, size), in as many threads as torch uses.

    Args:
        work: calls a kernel, which runs without Python's lock.
        size: of all of it.

    Raises:
        MemoryError: a kernel could not allocate what it needs, and has returned 0 for success.
    """
    threads = max(1, torch.get_num_threads())
    pieces = [partial(_at_once, work, cut(*part, threads)) for part in cut(0, size, parts_worth_sharing())]
    if any(result is False for results in shared_out(pieces) for result in results):
        raise MemoryError("a kernel could not allocate memory")


def cut(begin: int, end: int, parts: int) -> list[tuple[int, int]]:
    """[begin, end) in so many parts, or less where one would be empty."""
    parts = max(1, min(parts, end - begin))
    bounds = [begin + (end - begin) * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(bounds))


def _at_once(work: Callable[[int, int], object], parts: list[tuple[int, int]]) -> list[object]:
    pool = _helpers.pool(len(parts) - 1) if len(parts) > 1 else None
    others = [pool.submit(work, *part) for part in parts[1:]] if pool is not None else []
    try:
        results = [work(*parts[0])]
    finally:
        wait(others)  # what they write to must not go away under them
    return results + [other.result() for other in others]


class _Helpers(local):
    """Of each thread that calls kernels, or they would wait for each other's."""

    def __init__(self) -> None:
        self._pools: dict[tuple[int, int], ThreadPoolExecutor] = {}

    def pool(self, threads: int) -> ThreadPoolExecutor:
        """Of so many; one a process, since threads do not survive a fork."""
        key = os.getpid(), threads
        if key not in self._pools:
            self._pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="kernels")
        return self._pools[key]


_helpers = _Helpers()
