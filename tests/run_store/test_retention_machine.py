"""Saves, kills, clashing rules and clocks, in any order, on a real folder and with real killed processes."""

from __future__ import annotations

import importlib.util
import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from run_store.checkpoints import (
    checkpoint_path,
    damage,
    list_checkpoints,
    new_checkpoint,
    newest_valid,
    remove_checkpoint,
    sweep_leftovers,
)
from run_store.retention import RetentionRules, plan_retention

# the folders of tests are no packages
_spec = importlib.util.spec_from_file_location("killing", Path(__file__).with_name("killing.py"))
killing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(killing)

LARGEST = 3000
MANIFEST_AT_MOST = 700

RULES = st.builds(
    RetentionRules,
    keep_last=st.integers(1, 4),
    keep_best=st.integers(0, 2),
    metric=st.just("val/fvu"),
    mode=st.sampled_from(["min", "max"]),
    tie=st.sampled_from(["newer", "older"]),
    milestone_every=st.sampled_from([None, 1, 100, 400]),
    budget=st.none() | st.integers(2 * (LARGEST + MANIFEST_AT_MOST), 5 * LARGEST),
    minimum_age=st.sampled_from([0.0, 0.0, 50.0]),
)
SIZES = st.sampled_from([1, 1500, 2500, LARGEST - 10])
METRICS = st.sampled_from([0.1, 0.1, 0.2, 0.3, math.nan, math.inf])


class Retention(RuleBasedStateMachine):
    """One run's folder. `self.saved` is what was saved whole: path → content, as somebody outside remembers it."""

    def __init__(self):
        super().__init__()
        memory = Path("/dev/shm")  # where flushing to disk is free
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)) / "checkpoints"
        self.folder.mkdir()
        self.now = 1000.0
        self.step = 0
        self.saved = {}
        self.spoilt = set()
        self.needed = set()

    def teardown(self):
        shutil.rmtree(self.folder.parent)

    @initialize(rules=RULES)
    def begin(self, rules):
        self.rules = rules

    # ---- what happens to a run

    def write(self, path, size, metric):
        with new_checkpoint(path, self.step, 0, {"val/fvu": metric}, lambda: self.now) as folder:
            (folder / "state.ckpt").write_bytes(bytes([self.step % 251]) * size)
            (folder / "model.safetensors").write_bytes(b"w" * 10)

    @rule(
        steps=st.sampled_from([0, 0, 40, 100, 150]),
        size=SIZES,
        metric=METRICS,
        kill=st.none() | st.integers(1, 40),
    )
    def save(self, steps, size, metric, kill):
        """0 steps write over the checkpoint of the same step, as a run that went back does."""
        self.step += max(steps, not self.step)
        path = checkpoint_path(self.folder, self.step)
        before = {other for other in self.saved if other != path}
        if kill is not None and killing.killed_at(kill, lambda: self.write(path, size, metric)):
            sweep_leftovers(self.folder)
        elif kill is None:
            self.write(path, size, metric)
        if path.is_dir() and (kill is None or damage(path) is None):
            self.saved[path] = None
            self.spoilt.discard(path)
        assert all(other.is_dir() for other in before), "a save touches its own step alone"

    @rule(
        several=st.lists(
            st.tuples(st.integers(20, 150), SIZES, METRICS, st.sampled_from([0, 5])), min_size=4, max_size=8
        ),
        clock=st.sampled_from([-500.0, 0.0, 40.0, 5000.0]),
        kill=st.sampled_from([None, None, 1, 3, 5, 8, 13, 21]),
    )
    def train(self, several, clock, kill):
        """Saves as they come in an undisturbed run, the clock set meanwhile, and then the rules."""
        for number, (steps, size, metric, seconds) in enumerate(several):
            self.now += clock if number == len(several) // 2 else seconds
            self.save(steps, size, metric, None)
        self.thin_out(kill)

    @precondition(lambda self: self.saved)
    @rule(kill=st.none() | st.integers(1, 25))
    def thin_out(self, kill):
        try:
            resumable = newest_valid(self.folder).checkpoint.path
        except Exception:
            resumable = None
        before = list_checkpoints(self.folder)
        plan = plan_retention(before, self.rules, self.now, resumable, self.needed)
        assert plan == plan_retention(before[::-1], self.rules, self.now, resumable, self.needed)

        def remove():
            for checkpoint in plan.removed:
                remove_checkpoint(checkpoint.path)

        if kill is not None and killing.killed_at(kill, remove):
            sweep_leftovers(self.folder)
        elif kill is None:
            remove()
            assert [c.path for c in list_checkpoints(self.folder)] == [c.path for c, _ in plan.kept]
            self.demand_the_rules(before, resumable)
        after = {checkpoint.path for checkpoint in list_checkpoints(self.folder)}
        gone = {checkpoint.path for checkpoint in before} - after
        self.demand_what_must_stay(before, gone, resumable)
        for path in gone:
            self.saved.pop(path, None)
            self.spoilt.discard(path)

    @rule(seconds=st.sampled_from([-500.0, -10.0, 10.0, 60.0, 5000.0]))
    def move_the_clock(self, seconds):
        self.now += seconds

    @precondition(lambda self: set(self.saved) - self.spoilt)
    @rule(data=st.data(), what=st.sampled_from(["flip", "cut", "manifest"]))
    def spoil(self, data, what):
        path = data.draw(st.sampled_from(sorted(set(self.saved) - self.spoilt)))
        file = path / ("manifest.json" if what == "manifest" else "state.ckpt")
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if what != "flip" else content[:-1] + bytes([content[-1] ^ 1]))
        self.spoilt.add(path)

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def another_run_needs(self, data):
        self.needed = set(data.draw(st.lists(st.sampled_from(sorted(self.saved)), max_size=2)))

    # ---- what must hold

    def demand_what_must_stay(self, before, gone, resumable):
        young = {c.path for c in before if self.now - c.time < self.rules.minimum_age}
        assert not gone & ({resumable} | self.needed | young)
        assert resumable is not None or not gone

    def demand_the_rules(self, before, resumable):
        """With room enough every rule is kept; without, the budget holds as far as what must stay allows."""
        left = {checkpoint.path for checkpoint in list_checkpoints(self.folder)}
        if resumable is None:
            return
        size = {checkpoint.path: checkpoint.bytes for checkpoint in before}
        unlimited = replace(self.rules, budget=None)
        wanted = {c.path for c, _ in plan_retention(before, unlimited, self.now, resumable, self.needed).kept}
        newest_first = sorted(before, key=lambda c: -c.sequence)
        assert wanted >= {c.path for c in newest_first[: self.rules.keep_last]}
        assert wanted >= {c.path for c in self.naive_best(before)}
        if self.rules.budget is None or sum(size[path] for path in wanted) <= self.rules.budget:
            assert left == wanted
            return
        must = {c.path for c in before if self.now - c.time < self.rules.minimum_age} | {resumable} | self.needed
        must &= set(size)
        assert left <= wanted
        assert sum(size[path] for path in left) <= max(self.rules.budget, sum(size[path] for path in must))

    def naive_best(self, before):
        ranked = []
        left = [c for c in before if c.metrics["val/fvu"] is not None]
        while left and len(ranked) < self.rules.keep_best:
            values = [c.metrics["val/fvu"] for c in left]
            value = min(values) if self.rules.mode == "min" else max(values)
            equal = [c for c in left if c.metrics["val/fvu"] == value]
            chosen = (max if self.rules.tie == "newer" else min)(equal, key=lambda c: c.sequence)
            ranked.append(chosen)
            left.remove(chosen)
        return ranked

    @invariant()
    def every_checkpoint_that_looks_whole_is_whole(self):
        for checkpoint in list_checkpoints(self.folder):
            assert checkpoint.path in self.spoilt or damage(checkpoint.path) is None

    @invariant()
    def a_resume_finds_the_newest_that_nobody_spoilt(self):
        good = [path for path in self.saved if path not in self.spoilt and path.is_dir()]
        if good:
            found = newest_valid(self.folder)
            assert found.checkpoint.path in good
            assert all(path in self.spoilt for path, _ in found.damaged)

    @invariant()
    def nothing_is_lost(self):
        assert all(path.is_dir() for path in self.saved)


class LongRetention(Retention):
    """The same, for longer."""


# without shrinking: a failure is told in a second rather than in minutes, and is short enough
ONCE = settings(max_examples=12, stateful_step_count=12, deadline=None, phases=[Phase.generate])
Retention.TestCase.settings = ONCE
LongRetention.TestCase.settings = settings(ONCE, max_examples=60, stateful_step_count=30)
TestRetention = Retention.TestCase
TestLongRetention = pytest.mark.slow(LongRetention.TestCase)
