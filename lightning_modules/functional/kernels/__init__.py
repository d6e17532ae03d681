"""Triton kernels for the sparse step on a GPU. Modules that need Triton are imported by those who call them."""

from lightning_modules.functional.kernels.availability import kernels_run_on

__all__ = ["kernels_run_on"]
