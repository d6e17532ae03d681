"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's names for what `mallopt` sets."""
OWN_CHOICE = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"}
"""Its environment variables."""
LARGEST = 2**30
LARGEST_BEFORE = 2**25
"""That older versions take."""


def keep_freed_memory() -> None:
    """Has glibc keep freed blocks of up to 1 GiB for the next ones. By itself it gives large ones back to the kernel,
    which clears every page before it gives it out again: a tenth of the processor time of a training step on a CPU,
    whose buffers of megabytes come and go. Other C libraries are left alone, and so is a person's own choice.
    """
    if sys.platform != "linux" or not OWN_CHOICE.isdisjoint(os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not mallopt(M_MMAP_THRESHOLD, LARGEST):
        mallopt(M_MMAP_THRESHOLD, LARGEST_BEFORE)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
