"""Freed memory is used again without being cleared."""

import os
import platform
import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
if sys.argv[1] == "kept":
    from cli.allocator import keep_freed_memory
    keep_freed_memory()
def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        blocks = [torch.ones(2**24) for _ in range(2)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(8)
print(faults(3))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc")
def test_blocks_of_megabytes_are_kept():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True).stdout)
        for how in ("given back", "kept")
    }
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", PROGRAM, "kept"]
    asked_otherwise = subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    pages = 3 * 2 * 2**26 // resource.getpagesize()
    assert faults["kept"] < pages / 100
    assert min(faults["given back"], int(asked_otherwise)) > 10 * faults["kept"]
