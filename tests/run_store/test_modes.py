from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_store.locks import Holder
from run_store.modes import (
    MODES,
    SOURCES,
    FoundCheckpoint,
    FoundPath,
    FoundVariant,
    Mode,
    OnDisk,
    Request,
    Source,
    decide,
)
from run_store.record import STATUSES

HOLDER = Holder(4321, "node7")
NEW = "starting a new run"


def variant(number: int = 1, state: str = "interrupted", step: int | None = 200, damaged: int = 0) -> FoundVariant:
    folder = Path(f"runs/sae/x/v{number}")
    checkpoint = None if step is None else FoundCheckpoint(folder / f"checkpoints/step-{step:08d}", step)
    return FoundVariant(
        folder,
        status="running" if state == "locked" else state,  # type: ignore[arg-type]
        complete=state == "complete",
        why_incomplete="" if state == "complete" else f"its status is {state}",
        holder=HOLDER if state == "locked" else None,
        checkpoint=checkpoint,
        damaged_checkpoints=damaged,
        final_step=300,
    )


# The whole matrix: what each mode does for each state of the newest run, from scratch

EMPTY: tuple[FoundVariant, ...] = ()
STATES: dict[str, tuple[FoundVariant, ...]] = {
    "nothing": EMPTY,
    "interrupted": (variant(),),
    "paused": (variant(state="paused"),),
    "failed": (variant(state="failed"),),
    "without a checkpoint": (variant(step=None),),
    "all damaged": (variant(step=None, damaged=2),),
    "locked": (variant(state="locked"),),
    "complete": (variant(state="complete"),),
    "complete, then interrupted": (variant(1, "complete"), variant(2)),
    "complete, then locked": (variant(1, "complete"), variant(2, "locked")),
    "interrupted, then complete": (variant(1), variant(2, "complete")),
    "locked, then interrupted": (variant(1, "locked"), variant(2)),
}
# state → (reuse_if_exists, force_new, resume_if_incomplete, continue_from_previous)
EXPECTED: dict[str, tuple[str, str, str, str]] = {
    "nothing": ("start_new", "start_new", "start_new", "refuse"),
    "interrupted": ("start_new", "start_new", "resume v1", "start_new from v1"),
    "paused": ("start_new", "start_new", "resume v1", "start_new from v1"),
    "failed": ("start_new", "start_new", "resume v1", "start_new from v1"),
    "without a checkpoint": ("start_new", "start_new", "again v1", "refuse"),
    "all damaged": ("start_new", "start_new", "refuse", "refuse"),
    "locked": ("refuse", "start_new", "refuse", "start_new from v1"),
    "complete": ("skip v1", "start_new", "skip v1", "start_new from v1"),
    "complete, then interrupted": ("skip v1", "start_new", "resume v2", "start_new from v2"),
    "complete, then locked": ("skip v1", "start_new", "refuse", "start_new from v2"),
    "interrupted, then complete": ("skip v2", "start_new", "skip v2", "start_new from v2"),
    "locked, then interrupted": ("refuse", "start_new", "resume v2", "start_new from v2"),
}


@pytest.mark.parametrize(("state", "mode"), list(product(STATES, MODES)))
def test_the_matrix_of_modes(state: str, mode: Mode) -> None:
    decision = decide(Request(mode), OnDisk(STATES[state]))
    word = decision.action
    if decision.action == "resume" and decision.checkpoint is None:
        word = "again"  # type: ignore[assignment]
    if decision.folder:
        said = f"{word} {decision.folder.name}"
    else:
        said = f"{word} from {decision.checkpoint.parent.parent.name}" if decision.checkpoint else word
    assert said == EXPECTED[state][MODES.index(mode)]
    assert decision.whole_state == (decision.action == "resume" and decision.checkpoint is not None)


# Where a new run takes its weights from

ORIGINS: dict[str, OnDisk] = {
    "nothing": OnDisk(),
    "sound": OnDisk((), variant(7), variant(8), FoundPath(Path("a/step-1"), True)),
    "damaged": OnDisk(
        (), variant(7, step=None), variant(8, step=None), FoundPath(Path("a/step-1"), True, "is cut off")
    ),
    "gone": OnDisk((), None, None, FoundPath(Path("a/step-1"), False)),
}
WEIGHTS: dict[Source, str] = {"run": "v7/checkpoints/step-00000200", "best": "v8/checkpoints/step-00000200"}
WEIGHTS["path"] = "a/step-1"


@pytest.mark.parametrize(
    ("mode", "source", "origin", "validate"), list(product(MODES, SOURCES, ORIGINS, [True, False]))
)
def test_the_matrix_of_sources(mode: Mode, source: Source, origin: str, validate: bool) -> None:
    decision = decide(Request(mode, source, Path("a/step-1"), validate), ORIGINS[origin])
    if source == "scratch":
        assert decision.action == ("refuse" if mode == "continue_from_previous" else "start_new")
        assert decision.checkpoint is None
    elif origin == "sound" or (origin == "damaged" and source == "path" and not validate):
        assert decision.action == "start_new"
        assert decision.checkpoint is not None
        assert str(decision.checkpoint).endswith(WEIGHTS[source])
        assert str(decision.checkpoint) in decision.reason
        assert not decision.whole_state
    else:
        assert decision.action == "refuse"


@pytest.mark.parametrize("source", SOURCES)
def test_a_resumed_run_goes_on_from_its_own_checkpoint_whatever_the_source(source: Source) -> None:
    found = replace(ORIGINS["sound"], variants=(variant(2),))
    decision = decide(Request(source=source, path=Path("a/step-1")), found)
    assert (decision.action, decision.folder) == ("resume", Path("runs/sae/x/v2"))
    assert decision.checkpoint == Path("runs/sae/x/v2/checkpoints/step-00000200")


# What is printed


def test_plain_fit_resumes_an_interrupted_run() -> None:
    decision = decide(Request(), OnDisk((variant(),)))
    assert decision.reason == "going on with runs/sae/x/v1 from step 200 (its status is interrupted)"


def test_a_finished_run_is_skipped_and_the_line_says_how_to_force_another() -> None:
    decision = decide(Request(), OnDisk((variant(state="complete"),)))
    assert decision.reason == "runs/sae/x/v1 is complete at step 300; --run.mode force_new starts another"


def test_a_run_whose_files_are_lost_is_finished_again() -> None:
    lost = replace(variant(state="complete"), complete=False, why_incomplete="metrics.json is missing")
    decision = decide(Request(), OnDisk((lost,)))
    assert decision.action == "resume"
    assert decision.reason == "going on with runs/sae/x/v1 from step 200 (metrics.json is missing)"


def test_a_locked_run_is_refused_with_the_process_and_its_host() -> None:
    decision = decide(Request(), OnDisk((variant(state="locked"),)))
    assert decision.reason.startswith("process 4321 on node7 is working on runs/sae/x/v1: wait for it to end")


def test_a_damaged_newer_checkpoint_is_warned_of() -> None:
    checkpoint = FoundCheckpoint(Path("step-00000100"), 100, "step-00000200 is damaged: going on from step-00000100")
    found = replace(variant(), checkpoint=checkpoint, damaged_checkpoints=1)
    for mode in ("resume_if_incomplete", "continue_from_previous"):
        assert decide(Request(mode), OnDisk((found,))).warning == checkpoint.warning  # type: ignore[arg-type]


def test_a_record_that_cannot_be_read_is_not_written_over() -> None:
    decision = decide(Request(), OnDisk((replace(variant(), problem="its record is damaged"),)))
    assert decision.action == "refuse"
    assert decision.reason == (
        "runs/sae/x/v1 cannot be resumed, since its record is damaged; --run.mode force_new starts another"
    )


@pytest.mark.parametrize("source", ["run", "path"])
def test_a_source_that_is_not_there_is_named(source: Source) -> None:
    assert "there is no" in decide(Request("force_new", source, Path("a/b")), OnDisk()).reason
    assert "a/b" in decide(Request("force_new", source, Path("a/b")), OnDisk()).reason
    assert "(none was named)" in decide(Request("force_new", source), OnDisk()).reason


# And whatever is found

CHECKPOINTS = st.none() | st.builds(
    FoundCheckpoint, st.just(Path("step")), st.integers(0, 9), st.sampled_from(["", "w"])
)
VARIANTS = st.builds(
    FoundVariant,
    folder=st.just(Path("v")),
    status=st.sampled_from([None, *STATUSES]),
    complete=st.booleans(),
    why_incomplete=st.sampled_from(["", "a file is missing"]),
    holder=st.none() | st.just(HOLDER),
    checkpoint=CHECKPOINTS,
    damaged_checkpoints=st.integers(0, 2),
    final_step=st.integers(0, 9),
    problem=st.sampled_from(["", "its record is damaged"]),
)
PATHS = st.builds(FoundPath, st.just(Path("p")), st.booleans(), st.none() | st.just("is cut off"))


def numbered(variants: list[FoundVariant]) -> tuple[FoundVariant, ...]:
    """Each in a folder of its own, with its checkpoint in it."""
    return tuple(
        replace(
            found,
            folder=Path(f"v{number}"),
            checkpoint=found.checkpoint and replace(found.checkpoint, folder=Path(f"v{number}/step")),
        )
        for number, found in enumerate(variants, start=1)
    )


ON_DISK = st.builds(
    OnDisk,
    variants=st.lists(VARIANTS, max_size=4).map(numbered),
    run=st.none() | VARIANTS,
    best=st.none() | VARIANTS,
    path=st.none() | PATHS,
)
REQUESTS: Any = st.builds(
    Request, st.sampled_from(MODES), st.sampled_from(SOURCES), st.none() | st.just(Path("p")), st.booleans()
)


@settings(max_examples=250)
@given(request=REQUESTS, found=ON_DISK)
def test_every_request_has_an_answer_that_harms_nothing(request: Request, found: OnDisk) -> None:
    decision = decide(request, found)
    assert decision == decide(request, found)
    assert decision.reason
    assert "\n" not in decision.reason
    there = {each.folder: each for each in found.variants}
    if decision.action == "resume":
        assert request.mode == "resume_if_incomplete"
        run = there[decision.folder or Path()]
        assert run is found.variants[-1]
        assert run.holder is None
        assert not run.complete
        assert not run.problem
        # its own whole checkpoint or, when there never was one, none
        assert decision.checkpoint == (run.checkpoint.folder if run.checkpoint else None)
        assert run.checkpoint or not run.damaged_checkpoints
        assert decision.whole_state == (run.checkpoint is not None)
    else:
        assert not decision.whole_state
    if decision.action == "skip":
        assert there[decision.folder or Path()].complete
        assert request.mode in ("reuse_if_exists", "resume_if_incomplete")
        assert decision.checkpoint is None
    if decision.action in ("start_new", "refuse"):
        assert decision.folder is None
    if decision.action == "start_new":
        whole = {
            each.checkpoint.folder for each in (*found.variants, found.run, found.best) if each and each.checkpoint
        }
        trusted = found.path and found.path.exists and (found.path.problem is None or not request.validate)
        assert decision.checkpoint in {None, *whole, *([found.path.folder] if found.path and trusted else [])}
    if request.mode in ("force_new", "continue_from_previous"):
        assert decision.action in ("start_new", "refuse")
    if request.mode == "force_new" and request.source == "scratch":
        assert decision.action == "start_new"
    if request.mode == "continue_from_previous" and decision.action == "start_new":
        assert decision.checkpoint is not None
