"""Whatever is written, deleted and asked for: the store answers as a plain list would."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from run_store.predictions import Prediction, PredictionStore, RunEntry, store_path
from tests.run_store.predictions.records import entry, prediction

RUNS = st.sampled_from(["a1", "b2", "c3"])
USERS = st.sampled_from([None, "ann", "bob"])
MEMBERS = st.sampled_from(["", "k16"])
STEPS = st.integers(0, 35)
SAMPLES = st.integers(0, 3)
OPTIONAL = {
    "run": st.none() | RUNS,
    "user": USERS,
    "epoch": st.none() | st.integers(0, 3),
    "sample": st.none() | SAMPLES,
    "member": st.none() | MEMBERS,
}
FIELDS = {"run": "run_id", "user": "user_id", "epoch": "epoch", "sample": "sample_index", "member": "member"}


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = store_path(Path(self.folder.name, "runs"))
        self.store = PredictionStore(self.path)
        self.runs: dict[str, RunEntry] = {}
        self.rows: dict[tuple[Any, ...], Prediction] = {}

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(run=RUNS, user=USERS)
    def register(self, run: str, user: str | None) -> None:
        owner = self.runs[run].user_id if run in self.runs else None
        self.runs[run] = entry(run, user_id=owner or user)
        self.store.register(entry(run, user_id=user))

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), keys=st.lists(st.tuples(MEMBERS, STEPS, SAMPLES), max_size=6), user=USERS)
    def write(self, data: st.DataObject, keys: list[tuple[str, int, int]], user: str | None) -> None:
        run = data.draw(st.sampled_from(sorted(self.runs)))
        text = data.draw(st.text(max_size=3))
        found = [
            prediction(sample, step, run, member=member, user_id=user, prediction={"text": text}, created_at="2026")
            for member, step, sample in keys
        ]
        self.store.write(found)
        self.rows |= {(one.run_id, one.member, one.step, one.sample_index): one for one in found}

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def delete_run(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.runs)))
        assert self.store.delete_run(run) == self.keep(lambda one: one.run_id != run)
        del self.runs[run]

    @rule(user=st.sampled_from(["ann", "bob"]))
    def delete_user(self, user: str) -> None:
        owned = {run for run, known in self.runs.items() if known.user_id == user}
        if not owned and all(one.user_id != user for one in self.rows.values()):
            return
        deleted = self.store.delete_user(user)
        assert deleted == self.keep(lambda one: one.user_id != user and one.run_id not in owned)
        self.runs = {run: known for run, known in self.runs.items() if run not in owned}

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = PredictionStore(self.path)

    @rule(asked=st.fixed_dictionaries(OPTIONAL), limit=st.none() | st.integers(0, 5), offset=st.integers(0, 8))
    def ask(self, asked: dict[str, Any], limit: int | None, offset: int) -> None:
        given = {FIELDS[name]: value for name, value in asked.items() if value is not None}
        wanted = [one for one in self.in_order() if all(getattr(one, name) == value for name, value in given.items())]
        page = wanted[offset : None if limit is None else offset + limit]
        with PredictionStore(self.path, read_only=True) as reader:
            assert reader.predictions(**asked, limit=limit, offset=offset) == page
            assert reader.count(**asked) == len(wanted)
        with PredictionStore(self.path, read_only=True, user_id="ann") as anns:
            assert anns.predictions(**asked) == [one for one in wanted if one.user_id == "ann"]

    @invariant()
    def holds_what_was_written(self) -> None:
        assert self.store.predictions() == self.in_order()
        newest_first = sorted(self.runs.values(), key=lambda run: run.created_at, reverse=True)
        assert self.store.runs() == newest_first

    def in_order(self) -> list[Prediction]:
        return [self.rows[key] for key in sorted(self.rows, key=lambda key: (self.runs[key[0]].created_at, key))]

    def keep(self, stays: Any) -> int:
        before = len(self.rows)
        self.rows = {key: one for key, one in self.rows.items() if stays(one)}
        return before - len(self.rows)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
