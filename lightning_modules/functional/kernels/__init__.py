"""Kernels for the sparse step: in C on a CPU; on a GPU Triton's, whose modules are imported by those who call them."""

from lightning_modules.functional.kernels.availability import kernels_run_on
from lightning_modules.functional.kernels.compiled import compiled_kernels_run_on

__all__ = ["compiled_kernels_run_on", "kernels_run_on"]
