"""Whatever is done to runs and to the index: the index answers as a walk over the folders does."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import uuid
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import run_store.record
from run_store.fingerprints import Execution, IdentityFlags, Spec
from run_store.layout import METADATA_NAME, identity_folder, variant_folders
from run_store.listing import delete_run, find_runs
from run_store.locks import RunLock
from run_store.record import TRANSITIONS, Progress, RunRecord, create_record
from run_store.registry import list_runs, reindex
from run_store.run_index import INDEX_NAME, RunQuery
from run_store.variants import claim_variant
from tests.run_store.killing import killed_at

NAMES = st.sampled_from(["sae", "embedder"])
MODELS = st.sampled_from(["TopK", "Relu"])
TAGS = st.lists(st.sampled_from(["good", "größer", "%"]), max_size=2)
FILTERS: list[dict[str, Any]] = [
    {},
    {"name": "sae"},
    {"model": "TopK"},
    {"status": "running"},
    {"status": "interrupted"},
    {"status": "pending"},
    {"name": "sae", "model": "TopK", "status": "interrupted"},
]


class IndexMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name, "runs")
        self.records: list[RunRecord] = []
        self.locks: dict[Path, RunLock] = {}

    def teardown(self) -> None:
        for lock in self.locks.values():
            lock.release()
        self.folder.cleanup()

    def drawn(self, data: st.DataObject) -> RunRecord:
        return self.records[data.draw(st.integers(0, len(self.records) - 1))]

    # What trainings do

    @rule(name=NAMES, model=MODELS, k=st.integers(1, 2))
    def create(self, name: str, model: str, k: int) -> None:
        spec, execution = Spec({"k": k}, {}, {}, 0), Execution({}, "32-true", {}, {}, IdentityFlags())
        folder = identity_folder(self.root, name, spec.fingerprint, execution.fingerprint)
        self.records.append(create_record(claim_variant(folder), name, spec, execution, model=model))

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def change_status(self, data: st.DataObject) -> None:
        record = self.drawn(data)
        record.move_to(data.draw(st.sampled_from(sorted(TRANSITIONS[record.status]))))

    @precondition(lambda self: self.records)
    @rule(data=st.data(), step=st.integers(0, 3), value=st.floats())
    def report(self, data: st.DataObject, step: int, value: float) -> None:
        self.drawn(data).report(Progress(step), {"val/fvu": value})

    @precondition(lambda self: self.records)
    @rule(data=st.data(), tags=TAGS)
    def label(self, data: st.DataObject, tags: list[str]) -> None:
        self.drawn(data).label(tags=tags)

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def lock_or_let_go(self, data: st.DataObject) -> None:
        folder = self.drawn(data).folder
        if folder in self.locks:
            self.locks.pop(folder).release()
        else:
            self.locks[folder] = RunLock(folder)

    @precondition(lambda self: any(r.status not in ("pending", "paused") for r in self.records))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        possible = [r for r in self.records if r.status not in ("pending", "paused") and r.folder not in self.locks]
        if possible:
            record = data.draw(st.sampled_from(possible))
            delete_run(record.folder)
            self.records.remove(record)

    @precondition(lambda self: self.records)
    @rule(data=st.data(), operation=st.integers(1, 12))
    def be_killed(self, data: st.DataObject, operation: int) -> None:
        record = self.drawn(data)
        killed_at(operation, lambda: record.report(Progress(99), {"val/l0": 1.0}))
        self.records = [run_store.record.read_record(one.folder) for one in self.records]

    # What happens to the folders and to the index

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def remove_identity(self, data: st.DataObject) -> None:
        identity = self.drawn(data).folder.parent
        if not any(folder.parent == identity for folder in self.locks):
            shutil.rmtree(identity)
            self.records = [record for record in self.records if record.folder.parent != identity]

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def copy_variant_and_reindex(self, data: st.DataObject) -> None:
        folder = self.drawn(data).folder
        number = len(variant_folders(folder.parent)) + 20
        copy = folder.with_name(f"v{number}")
        shutil.copytree(folder, copy)
        content = json.loads((copy / METADATA_NAME).read_text())
        (copy / METADATA_NAME).write_text(json.dumps({**content, "id": uuid.uuid4().hex}))
        reindex(self.root)

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def damage_record(self, data: st.DataObject) -> None:
        record = self.drawn(data)
        (record.folder / METADATA_NAME).write_text("{")
        self.records.remove(record)
        reindex(self.root)

    @rule(content=st.sampled_from([None, b"", b"no database" * 100, "cut", "older"]))
    def damage_index(self, content: bytes | str | None) -> None:
        path = self.root / INDEX_NAME
        if not path.exists():
            return
        if content is None:
            path.unlink()
        elif content == "cut":
            path.write_bytes(path.read_bytes()[:5000])
        elif content == "older":
            connection = sqlite3.connect(path)
            connection.executescript("DROP TABLE filled")
            connection.close()
        else:
            assert isinstance(content, bytes)
            path.write_bytes(content)

    # What must be so

    @invariant()
    def the_index_tells_what_is_there(self) -> None:
        for filters in FILTERS:
            expected, page = find_runs(self.root, **filters), list_runs(self.root, RunQuery(**filters))
            assert [(run.folder, run.status) for run in page.runs] == [(r.folder, r.status) for r in expected.runs]
            assert page.total == expected.total
            assert sorted(page.damaged) == sorted(expected.damaged)
            assert page.warning == ""
            for run, found in zip(page.runs, expected.runs, strict=True):
                assert (run.summary.id, run.summary.step) == (found.record.id, found.record.progress.step)
                assert str(run.summary.metrics) == str(found.record.metrics)
                assert run.summary.tags == found.record.labels.tags
        for tag in ("good", "%"):
            tagged = [run.folder for run in find_runs(self.root).runs if tag in run.record.labels.tags]
            assert [run.folder for run in list_runs(self.root, RunQuery(tags=(tag,))).runs] == tagged


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
