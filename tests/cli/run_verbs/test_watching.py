"""`runs watch`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from run_store.locks import RunLock
from run_store.record import Progress

CHECKOUT = Path(__file__).resolve().parents[3]


@contextmanager
def watching(root: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    options = ["--every", "0.02", "--json", "--folder", str(root), *arguments]
    process = subprocess.Popen(
        [sys.executable, "main.py", "runs", "watch", *options],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        # who runs the tests in the background may have Ctrl-C ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def next_event(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    event = json.loads(process.stdout.readline())
    return event["event"], event["status"]


def test_one_run_is_followed_until_it_has_ended(new_run: Any, root: Any) -> None:
    record = new_run()
    with watching(root, "--run", record.id) as process:
        assert next_event(process) == ("created", "pending")
        with RunLock(record.folder):
            record.begin_attempt()
            assert next_event(process) == ("attempt", "initialising")
            record.move_to("running")
            record.report(Progress(5), {"val/fvu": 0.5})
            assert [next_event(process)[0] for _ in range(2)] == ["status", "progress"]
            record.complete([])
        assert next_event(process) == ("status", "complete")
        assert process.wait() == 0


def test_all_runs_are_followed_until_ctrl_c(new_run: Any, root: Any) -> None:
    record, quiet = new_run(), new_run(k=2)
    quiet.label(note="n")
    with watching(root, "--last", "1") as process:
        assert next_event(process) == ("labels", "pending")
        record.move_to("failed")
        assert next_event(process) == ("status", "failed")
        another = new_run(name="embedder")
        assert next_event(process) == ("created", "pending")
        another.move_to("interrupted")
        quiet.move_to("interrupted")
        assert {next_event(process) for _ in range(2)} == {("status", "interrupted")}
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0


def test_once_prints_the_newest_events_and_ends(new_run: Any, printed: Any) -> None:
    record, other = new_run(), new_run(k=2)
    record.begin_attempt()
    record.move_to("running")
    record.report(Progress(5), {f"val/{name}": 0.25 for name in "abcdefgh"})
    record.label(tags=["good"])
    other.move_to("failed")
    lines = printed("watch", "--once", "--last", "4").splitlines()
    assert [line.split()[2] for line in lines] == [record.id[:8]] * 3 + [other.id[:8]]
    assert "step 5  val/a 0.25, " in lines[1]
    assert lines[1].endswith(", …")
    assert lines[2].endswith("tags good; note none")
    assert printed("watch", "--once", "--last", "0") == ""
    record.fail(RuntimeError("the disk\nwent away"))
    assert printed("watch", "--run", record.id, "--once", "--last", "1").endswith("RuntimeError: the disk⏎went away\n")
    assert len(printed("watch", "--run", record.id, "--json", "--last", "99").splitlines()) == 6
