"""How often things happen, against a loop that goes through a whole run batch by batch."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimates import Schedule, counted
from run_store import UserError

schedules = st.builds(
    Schedule,
    train_batches=st.integers(1, 12),
    validation_batches=st.integers(0, 3),
    accumulate=st.integers(1, 4),
    max_steps=st.sampled_from([-1, 1, 7, 30]),
    max_epochs=st.integers(1, 5),
    validate_every_batches=st.integers(1, 13),
    validate_every_epochs=st.sampled_from([None, 1, 2]),
    log_every_steps=st.integers(0, 5),
    saves=st.booleans(),
    save_every_steps=st.sampled_from([None, 1, 4, 100]),
    save_at=st.lists(st.integers(1, 20), max_size=2),
    resample_at=st.lists(st.sampled_from([0.2, 0.5, 1.0, 3.0]), max_size=2),
    samples=st.sampled_from([None, "epoch", "step", "train_end"]),
    samples_every=st.integers(1, 4),
    mine_every_epochs=st.sampled_from([None, 0, 1, 2]),
)


def gone_through(s: Schedule):
    """Every event of a run with the number of optimiser steps that were made by then."""
    events, step, batch = [], 0, 0
    limit = s.total_steps
    for epoch in range(s.max_epochs if s.max_epochs != -1 else 10**6):
        if step >= limit:
            break
        every = s.mine_every_epochs
        if every is not None and (epoch % every == 0 if every else epoch == 0):
            events.append(("mining", step))
        for in_epoch in range(1, s.train_batches + 1):
            batch += 1
            events.append(("batch", step))
            if in_epoch % s.accumulate == 0 or in_epoch == s.train_batches:
                step += 1
                events.append(("step", step))
            whole_epochs = s.validate_every_epochs is not None
            due = (in_epoch if whole_epochs else batch) % s.validate_every_batches == 0
            if whole_epochs:
                due = due and (epoch + 1) % s.validate_every_epochs == 0
            if due and s.validation_batches:
                events.append(("validation", step))
            if step >= limit:
                break
        events.append(("epoch", step))
    return events


@given(schedules)
def test_counts_are_those_of_a_run_that_is_gone_through(s):
    events = gone_through(s)
    counts = counted(s)

    def number(name):
        return sum(kind == name for kind, _ in events)

    assert counts.total_steps == counts.steps == number("step")
    assert (counts.batches, counts.epochs, counts.minings) == (number("batch"), number("epoch"), number("mining"))
    assert counts.validations == number("validation")
    assert counts.validated == {step for kind, step in events if kind == "validation"}
    assert counts.logged == (counts.steps // s.log_every_steps if s.log_every_steps else 0)
    ends = {step for kind, step in events if kind in ("epoch", "validation")}
    scheduled = {k for k in range(1, counts.steps + 1) if s.save_every_steps and k % s.save_every_steps == 0}
    expected = ends | scheduled | {k for k in s.save_at if k <= counts.steps}
    assert set(counts.saved) == ({step for step in expected if step > 0} if s.saves else set())
    moments = {None: 0, "epoch": counts.epochs, "step": counts.steps // s.samples_every, "train_end": 1}
    assert counts.moments == moments[s.samples]


@given(schedules, st.integers(0, 60))
def test_what_is_done_and_what_is_left_make_a_whole(s, done):
    """An interrupted run and the rest of it do together what an uninterrupted one does."""
    done = min(done, s.total_steps)
    if done % s.epoch_steps:  # the end of an epoch is then at the end of a run, too
        done -= done % s.epoch_steps
    s = replace(s, samples=None if s.samples == "train_end" else s.samples)
    whole, rest = counted(s), counted(s, done)
    first = counted(replace(s, max_steps=done)) if done else None
    for name in ("steps", "batches", "epochs", "validations", "logged", "moments"):
        assert getattr(whole, name) == getattr(rest, name) + (getattr(first, name) if first else 0)
    assert set(whole.saved) == set(rest.saved) | set(first.saved if first else ())
    assert counted(s, s.total_steps).batches == 0


def test_a_run_without_an_end_is_refused():
    with pytest.raises(UserError, match=r"trainer\.max_steps and trainer\.max_epochs are both -1"):
        counted(Schedule(train_batches=10))


def test_resamplings_are_shares_of_the_whole_run_or_steps():
    s = Schedule(train_batches=100, max_epochs=1, resample_at=(0.2, 0.5, 65))
    assert (counted(s).resamplings, counted(s, 20).resamplings, counted(s, 64).resamplings) == (3, 2, 1)
