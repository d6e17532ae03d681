"""Reading what enters and leaves a model's inner modules, and letting something else pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backbones.hook_aliases import FAMILIES, KINDS, Place, Side, aliases
from run_store import UserError, nearest

# A colon cannot stand in an attribute's name, which is what module paths are made of; a module called `input` can.
INPUT = ":input"


Visit = Callable[[str, Tensor], Tensor | None]


class HookPoint(NamedTuple):
    """A module of a model, and whether what enters or what leaves it is read."""

    module: nn.Module
    side: Side


def is_pattern(name: str) -> bool:
    """Whether a hook point may stand for several."""
    return any(character in name for character in "*?[")


def resolve(model: nn.Module, names: Sequence[str]) -> dict[str, HookPoint]:
    """Finds the modules that hook points name.

    Args:
        names: Module paths as `named_modules` gives them, such as `encoder.layer.2`, or aliases such as `residual.3`
            (see `hook_aliases.aliases`); a path comes before an alias. `:input` after a path asks for what enters the
            module. `*`, `?` and `[…]` stand for parts of a name, never for a dot; what they match comes in the order of
            the model's modules.

    Returns:
        Hook points by name, patterns replaced by the names that they match.

    Raises:
        UserError: there is no name, one that the model does not have (its nearest names are listed), or two for the
            same place.
    """
    if not names:
        raise UserError("hook_points is empty: name at least one module of the model")
    modules = {name: module for name, module in model.named_modules() if name}
    shortcuts = aliases(model)
    found: dict[str, HookPoint] = {}
    for written in names:
        matches = _matches(written, modules, shortcuts)
        if not matches:
            raise UserError(_not_found(model, written, [*modules, *shortcuts]))
        for name, place in matches.items():
            point = HookPoint(modules[place.path], place.side)
            for other, earlier in found.items():
                if earlier == point:
                    both = f"{name!r} twice" if name == other else f"the same place as {other!r} and as {name!r}"
                    raise UserError(f"hook_points names {both}: leave one out")
            found[name] = point
    return found


def capture(model: nn.Module, hook_points: Sequence[str], **inputs: Tensor) -> dict[str, Tensor]:
    """Runs the model up to the last of its hook points and returns what passed there.

    Args:
        hook_points: As in `resolve`.
        **inputs: The model's own arguments, `input_ids` [batch, length] and the like.

    Returns:
        As `read_points`, in the order of `hook_points`.

    Raises:
        UserError: as `resolve` and `read_points`.
    """
    return read_points(model, resolve(model, hook_points), inputs)


@torch.inference_mode()
def read_points(model: nn.Module, points: Mapping[str, HookPoint], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Runs the model up to the last of its hook points and returns what passed there.

    The forward is stopped as soon as every hook point has fired: what comes after the last one is not computed.

    Args:
        inputs: As in `run_through`.

    Returns:
        One tensor [batch, length, d] a hook point, in the order of `points`, in the dtype that the model computes.

    Raises:
        UserError: as `run_through`.
    """
    captured: dict[str, Tensor] = {}

    def keep(name: str, passing: Tensor) -> None:
        if len(captured) == len(points) - 1:
            captured[name] = passing
            raise _AllCapturedError
        # A copy, because what runs next may work in place.
        captured[name] = passing.clone()

    with suppress(_AllCapturedError):
        run_through(model, points, keep, inputs)
    return {name: captured[name] for name in points}


@torch.inference_mode()
def run_through(model: nn.Module, points: Mapping[str, HookPoint], visit: Visit, inputs: Mapping[str, Tensor]) -> Any:
    """Runs the model to its end and calls `visit` with what passes at each of its hook points.

    A module that runs several times in one forward is visited at the first; of a module that takes or returns several
    things, the first one is visited, or the argument `hidden_states`.

    Args:
        visit: Takes a hook point's name and what passes there, [batch, length, d]; what it returns, of the same shape,
            passes in its place, and None leaves it as it is.
        inputs: The model's own arguments, `input_ids` [batch, length] and the like; the first of them has the shape
            [batch, length, …] of what must pass at the hook points.

    Returns:
        What the model returns.

    Raises:
        UserError: a hook point does not run in a forward of these inputs, or does not give one vector a token.
    """
    visited = set[str]()
    contexts = next(iter(inputs.values())).shape[:2]

    def visit_once(name: str, passing: Any) -> Tensor | None:
        if name in visited:
            return None
        if not isinstance(passing, Tensor) or passing.ndim != 3 or passing.shape[:2] != contexts:
            raise UserError(
                f"hook point {name!r} does not give one vector a token: choose a module that returns hidden states"
            )
        visited.add(name)
        return visit(name, passing)

    with ExitStack() as hooks:
        for name, point in points.items():
            hooks.callback(_hook(point, partial(visit_once, name)))
        output = model(**inputs)
    if silent := next((name for name in points if name not in visited), None):
        raise UserError(
            f"hook point {silent!r} does not run when {type(model).__name__} reads text: choose another module"
        )
    return output


class _AllCapturedError(Exception):
    """Leaves the forward of a model; never seen outside of `read_points`."""


def _hook(point: HookPoint, visit: Callable[[Any], Tensor | None]) -> Callable[[], None]:
    """Calls `visit` with what passes at the point and lets pass what it returns; returns what ends that."""

    def before(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if "hidden_states" in named or not arguments:
            name = "hidden_states" if "hidden_states" in named else next(iter(named), "")
            new = visit(named.get(name))
            return None if new is None else (arguments, {**named, name: new})
        new = visit(arguments[0])
        return None if new is None else ((new, *arguments[1:]), named)

    def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        new = visit(_first(output))
        return None if new is None else _with_first(output, new)

    if point.side == "input":
        return point.module.register_forward_pre_hook(before, with_kwargs=True).remove
    return point.module.register_forward_hook(after).remove


def _first(passing: Any) -> Any:
    """The first of several things; a tensor is one thing."""
    if isinstance(passing, Mapping):
        passing = tuple(passing.values())
    return (passing[0] if passing else None) if isinstance(passing, tuple | list) else passing


def _with_first(passing: Any, new: Tensor) -> Any:
    """What a module returned, with another first thing."""
    if isinstance(passing, Mapping):
        # A copy of the same kind: outputs of transformers are dataclasses too.
        changed = copy.copy(passing)
        changed[next(iter(passing))] = new  # type: ignore[index]
        return changed
    if isinstance(passing, tuple | list):
        make = getattr(type(passing), "_make", type(passing))  # a NamedTuple's own way
        return make((new, *passing[1:]))
    return new


def _matches(written: str, modules: Mapping[str, nn.Module], shortcuts: Mapping[str, Place]) -> dict[str, Place]:
    """The names that one entry of `hook_points` stands for, with their places."""
    path = written.removesuffix(INPUT)
    if path != written:
        return {f"{name}{INPUT}": Place(name, "input") for name in _fitting(path, modules)}
    paths = {name: Place(name, "output") for name in _fitting(path, modules)}
    return paths or {name: shortcuts[name] for name in _fitting(path, shortcuts)}


def _fitting(pattern: str, names: Mapping[str, Any]) -> list[str]:
    if pattern in names or not is_pattern(pattern):
        return [pattern] if pattern in names else []
    parts = pattern.split(".")
    return [
        name for name in names if name.count(".") == len(parts) - 1 and all(map(fnmatchcase, name.split("."), parts))
    ]


def _not_found(model: nn.Module, written: str, known: Sequence[str]) -> str:
    path = written.removesuffix(INPUT)
    if path.partition(".")[0] in KINDS and not set(KINDS) & {name.partition(".")[0] for name in known}:
        return (
            f"hook point {written!r}: where the layers of {type(model).__name__} add to the residual stream is known "
            f"only for {', '.join(FAMILIES)}: name a module by its path, such as {nearest('layers.0', known, 1)}"
        )
    if path in known:
        return f"hook point {written!r}: {path!r} stands for one place and has no input: name a module by its path"
    what = "fits no module" if is_pattern(path) else "does not exist"
    return f"hook point {written!r} {what} in {type(model).__name__}; the nearest names are {nearest(path, known, 4)}"
