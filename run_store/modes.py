"""What a start does, given what is on disk: one pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from run_store.locks import Holder
from run_store.record import Status

Mode = Literal["reuse_if_exists", "force_new", "resume_if_incomplete", "continue_from_previous"]
Source = Literal["scratch", "run", "best", "path"]
Action = Literal["skip", "start_new", "resume", "refuse"]
MODES: tuple[Mode, ...] = get_args(Mode)
SOURCES: tuple[Source, ...] = get_args(Source)

FORCE = "--run.mode force_new starts another"


@dataclass(frozen=True)
class Request:
    """What a person asks for.

    Attributes:
        mode: reuse_if_exists skips when a run of this identity is complete and starts a new one otherwise;
            force_new always starts a new one; resume_if_incomplete skips a complete run, goes on with an interrupted
            one and starts one where there is none; continue_from_previous starts a new one from the weights of another.
        source: where a new run takes its first weights from: nowhere, a run, the best run or a checkpoint's path.
        path: names the run or the checkpoint, for messages.
        validate: refuse a checkpoint given by its path unless it is found whole.
    """

    mode: Mode = "resume_if_incomplete"
    source: Source = "scratch"
    path: Path | None = None
    validate: bool = True


@dataclass(frozen=True)
class FoundCheckpoint:
    """A whole checkpoint, every file of which has its recorded hash; `warning` names damaged ones that are newer."""

    folder: Path
    step: int
    warning: str = ""


@dataclass(frozen=True)
class FoundVariant:
    """A run on disk.

    Attributes:
        folder: of the run.
        status: as its record says; None without a readable record.
        complete: as `completion_of` finds it; `why_incomplete` says why not.
        holder: the living process that works on it.
        checkpoint: the newest whole one.
        damaged_checkpoints: how many there are that are not whole.
        final_step: how far the record says that it came.
        problem: what is wrong with its record.
    """

    folder: Path
    status: Status | None = None
    complete: bool = False
    why_incomplete: str = ""
    holder: Holder | None = None
    checkpoint: FoundCheckpoint | None = None
    damaged_checkpoints: int = 0
    final_step: int = 0
    problem: str = ""


@dataclass(frozen=True)
class FoundPath:
    """What a path leads to. `problem` is why it is no whole checkpoint, as words that follow the path, or None."""

    folder: Path
    exists: bool
    problem: str | None = None


@dataclass(frozen=True)
class OnDisk:
    """What is on disk.

    Attributes:
        variants: of the identity that is asked for, lowest number first.
        run: the run that the source `run` names; None when there is no such run.
        best: the run that the source `best` selects; None when there is none.
        path: what the source `path` names.
    """

    variants: tuple[FoundVariant, ...] = ()
    run: FoundVariant | None = None
    best: FoundVariant | None = None
    path: FoundPath | None = None


@dataclass(frozen=True)
class Decision:
    """What to do.

    Attributes:
        action: skip, start_new, resume or refuse.
        reason: why, as one line to print.
        folder: of the run that is skipped or resumed; None when a new variant is to be claimed, and when refused.
        checkpoint: to take weights from; None to begin with fresh ones.
        whole_state: take everything from the checkpoint (a resume), not the weights alone (a new run).
        warning: a sentence to print as well, when a damaged checkpoint was passed over; else empty.
    """

    action: Action
    reason: str
    folder: Path | None = None
    checkpoint: Path | None = None
    whole_state: bool = False
    warning: str = ""


def decide(request: Request, found: OnDisk) -> Decision:
    """The one place where it is decided what a start does. Total: every request has an answer, whatever is found.

    The newest variant speaks for its identity; `reuse_if_exists` takes any complete one. A run that a living process
    works on is never touched, and not trained a second time by accident either: only modes that ask for another run
    start one beside it. A new run takes weights alone; a resumed one goes on from its own newest whole checkpoint,
    whatever the source.
    """
    return _DECIDE[request.mode](request, found)


def _reuse_if_exists(request: Request, found: OnDisk) -> Decision:
    complete = [variant for variant in found.variants if variant.complete]
    if complete:
        return _skip(complete[-1])
    for variant in found.variants:
        if variant.holder:
            return _refuse_locked(variant)
    if not found.variants:
        return _start_new(request, found, "there is no run of these settings yet")
    newest = found.variants[-1]
    return _start_new(
        request,
        found,
        f"{newest.folder} is incomplete ({_why(newest)}; --run.mode resume_if_incomplete goes on with it)",
    )


def _force_new(request: Request, found: OnDisk) -> Decision:
    return _start_new(request, found, "--run.mode force_new asks for one")


def _resume_if_incomplete(request: Request, found: OnDisk) -> Decision:
    if not found.variants:
        return _start_new(request, found, "there is no run of these settings yet")
    newest = found.variants[-1]
    if newest.complete:
        return _skip(newest)
    return _refuse_locked(newest) if newest.holder else _resume(newest)


def _continue_from_previous(request: Request, found: OnDisk) -> Decision:
    if request.source != "scratch":
        return _start_new(request, found, "--run.mode continue_from_previous asks for one")
    usable = [variant for variant in found.variants if variant.checkpoint]
    if not usable:
        return _refuse(
            "no run of these settings has a whole checkpoint to continue from: name one with --run.source run or path"
        )
    return _start_from(usable[-1], "--run.mode continue_from_previous asks for one")


_DECIDE: dict[Mode, Callable[[Request, OnDisk], Decision]] = {
    "reuse_if_exists": _reuse_if_exists,
    "force_new": _force_new,
    "resume_if_incomplete": _resume_if_incomplete,
    "continue_from_previous": _continue_from_previous,
}


def _skip(variant: FoundVariant) -> Decision:
    return Decision("skip", f"{variant.folder} is complete at step {variant.final_step}; {FORCE}", variant.folder)


def _refuse(reason: str) -> Decision:
    return Decision("refuse", reason)


def _refuse_locked(variant: FoundVariant) -> Decision:
    return _refuse(f"{variant.holder} is working on {variant.folder}: wait for it to end, or stop it; {FORCE}")


def _resume(variant: FoundVariant) -> Decision:
    """Goes on in the same folder. Without any checkpoint there is nothing to lose, and it begins again there."""
    if variant.problem:
        return _refuse(f"{variant.folder} cannot be resumed, since {variant.problem}; {FORCE}")
    if variant.checkpoint:
        reason = f"going on with {variant.folder} from step {variant.checkpoint.step} ({_why(variant)})"
        found = variant.checkpoint
        return Decision("resume", reason, variant.folder, found.folder, whole_state=True, warning=found.warning)
    if variant.damaged_checkpoints:
        return _refuse(
            f"every checkpoint of {variant.folder} is damaged ({variant.damaged_checkpoints}): put one back; {FORCE}"
        )
    reason = f"beginning {variant.folder} again, since it has no checkpoint yet ({_why(variant)})"
    return Decision("resume", reason, variant.folder)


def _start_new(request: Request, found: OnDisk, because: str) -> Decision:
    return _FROM[request.source](request, found, because)


def _from_scratch(request: Request, found: OnDisk, because: str) -> Decision:
    return Decision("start_new", f"starting a new run, since {because}")


def _from_run(request: Request, found: OnDisk, because: str) -> Decision:
    if found.run is None:
        return _refuse(f"there is no run {request.path or '(none was named)'} to start from: set --run.path to a run")
    return _start_from(found.run, because)


def _from_best(request: Request, found: OnDisk, because: str) -> Decision:
    if found.best is None:
        return _refuse("no run can be selected as the best to start from: train one, or loosen the criterion")
    return _start_from(found.best, because)


def _from_path(request: Request, found: OnDisk, because: str) -> Decision:
    if found.path is None or not found.path.exists:
        return _refuse(f"there is no checkpoint {request.path or '(none was named)'}: set --run.path to one")
    path = found.path
    if request.validate and path.problem is not None:
        return _refuse(
            f"the checkpoint {path.folder} {path.problem}: name another one, or set --run.validate_source false"
        )
    trusted = "" if request.validate else ", not validated"
    return Decision("start_new", _with_weights(because, f"{path.folder}{trusted}"), checkpoint=path.folder)


_FROM: dict[Source, Callable[[Request, OnDisk, str], Decision]] = {
    "scratch": _from_scratch,
    "run": _from_run,
    "best": _from_best,
    "path": _from_path,
}


def _start_from(variant: FoundVariant, because: str) -> Decision:
    if variant.checkpoint is None:
        return _refuse(f"{variant.folder} has no whole checkpoint to start from: name another run")
    weights = _with_weights(because, str(variant.checkpoint.folder))
    return Decision("start_new", weights, checkpoint=variant.checkpoint.folder, warning=variant.checkpoint.warning)


def _with_weights(because: str, origin: str) -> str:
    return f"starting a new run with the weights of {origin}, since {because}"


def _why(variant: FoundVariant) -> str:
    return variant.why_incomplete or f"its status is {variant.status or 'unknown'}"
