"""Whether the models of an encoder load, how fast, and what they are."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import torch

from backbones import TextEncoder, load_tokenizer
from backbones.encoder import Encoder
from backbones.loading import weights_sha256
from checks.limits import Limits
from checks.verdict import Figure, Verdict
from run_store import UserError


def check_loading(encoder: Encoder, limits: Limits) -> Verdict:
    """Loads the models of an encoder one by one, each with its tokenizer.

    Seconds mean something for an encoder that has not been built yet.
    """
    figures: list[Figure] = []
    failures: list[str] = []
    for model in (module for module in encoder.modules() if isinstance(module, TextEncoder)):
        start = perf_counter()
        fault = fault_in_building(model)
        seconds = perf_counter() - start
        if fault is None:
            figures += _figures_of(model, seconds, limits)
        else:
            failures.append(fault)
    if not failures and (fault := fault_in_building(encoder)) is not None:
        failures.append(fault)
    return Verdict.of("loading", figures, failures)


def fault_in_building(encoder: Encoder) -> str | None:
    """Loads what is not loaded yet; what keeps it from being loaded, as a sentence, or None."""
    try:
        encoder.build()
        for how in encoder.tokenisations():
            load_tokenizer(how.tokenizer, how.revision)
    except UserError as error:
        return str(error)
    return None


def _figures_of(model: TextEncoder, seconds: float, limits: Limits) -> Iterator[Figure]:
    state = model.state_dict()
    megabytes = sum(tensor.nbytes for tensor in state.values()) / 1e6
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    finite = sum(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    name = model.model
    yield Figure(f"{name}, load", seconds, "s", at_most=limits.load_seconds, setting="limits.load_seconds")
    yield Figure(f"{name}, size", megabytes, "MB")
    yield Figure(f"{name}, tensors", len(state), at_least=limits.min_tensors, setting="limits.min_tensors")
    yield Figure(f"{name}, tensors all finite", finite, at_least=len(state))
    yield Figure(f"{name}, dtype", ", ".join(dtypes))
    yield Figure(f"{name}, sha256", weights_sha256(name, model.revision))
