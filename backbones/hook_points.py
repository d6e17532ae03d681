"""Reading the outputs of a model's inner modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from run_store import UserError, nearest


def resolve(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Finds the modules that hook points name.

    Args:
        names: Module paths as `named_modules` gives them, such as `encoder.layer.2`.

    Raises:
        UserError: there is no name, a name twice, or one that the model does not have (its nearest names are listed).
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if not names:
        raise UserError("hook_points is empty: name at least one module of the model")
    if len(set(names)) < len(names):
        raise UserError(f"hook_points names a module twice: {', '.join(names)}")
    for name in names:
        if name not in modules:
            raise UserError(
                f"hook point {name!r} does not exist in {type(model).__name__}; the nearest names are "
                f"{nearest(name, modules, count=4)}"
            )
    return {name: modules[name] for name in names}


@torch.inference_mode()
def capture(model: nn.Module, hook_points: Sequence[str], **inputs: Tensor) -> dict[str, Tensor]:
    """Runs the model up to the last of its hook points and returns their outputs.

    The forward is stopped as soon as every hook point has fired: what comes after the last one is not computed. A
    module that runs several times in one forward gives its first output; of a module that returns a tuple or an output
    object, its first entry is taken.

    Args:
        hook_points: Module paths; their outputs are captured.
        **inputs: The model's own arguments, `input_ids` [batch, length] and the like.

    Returns:
        One tensor [batch, length, d] a hook point, in the order of `hook_points`, in the dtype that the model computes.

    Raises:
        UserError: a hook point does not exist, does not run in a forward of these inputs, or does not give one vector a
            token.
    """
    captured: dict[str, Tensor] = {}
    modules = resolve(model, hook_points)

    def keep_output_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            if name in captured:
                return
            states = _hidden_states(name, output)
            if len(captured) == len(modules) - 1:
                captured[name] = states
                raise _AllCapturedError
            # A copy, because what runs next may work in place.
            captured[name] = states.clone()

        return keep

    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.callback(module.register_forward_hook(keep_output_of(name)).remove)
        try:
            model(**inputs)
        except _AllCapturedError:
            return {name: captured[name] for name in modules}
    silent = next(name for name in modules if name not in captured)
    raise UserError(f"hook point {silent!r} does not run when {type(model).__name__} reads text: choose another module")


class _AllCapturedError(Exception):
    """Leaves the forward of a model; never seen outside of `capture`."""


def _hidden_states(name: str, output: Any) -> Tensor:
    states = output if isinstance(output, Tensor) else output[0] if output else None
    if not isinstance(states, Tensor) or states.ndim != 3:
        raise UserError(
            f"hook point {name!r} does not give one vector a token: choose a module that returns hidden states"
        )
    return states
