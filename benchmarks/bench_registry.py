"""How long `runs list` and `runs reindex` take over many run folders.

    python benchmarks/bench_registry.py [--runs 10000 --names 10 --looks 5 --folder .]

The folders hold records as a training leaves them, with 40 metrics each, every run of another identity. `reindex` is
timed on its own, once without an index and once with; `list` within a process and as a whole command, Python's start
included. `walk` is the same page by reading every record, which is what `list` would do without the index. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from run_store.environment import environment_snapshot, hardware, package_versions
from run_store.fingerprints import Execution, Spec
from run_store.layout import METADATA_NAME
from run_store.listing import find_runs
from run_store.record import Progress, create_record
from run_store.registry import list_runs, reindex
from run_store.run_index import INDEX_NAME, RunQuery

CHECKOUT = Path(__file__).parents[1]


def fill(root: Path, runs: int, names: int) -> None:
    """Run folders below `root`, without an index."""
    template = json.loads(_template())
    for number in range(runs):
        name = f"name-{number % names}"
        folder = root / name / f"spec-{number:08x}_exec-00000000" / "v1"
        folder.mkdir(parents=True)
        created = f"2026-01-{1 + number % 28:02}T00:{number % 60:02}:00.{number:06}+00:00"
        content = {**template, "id": uuid.uuid4().hex, "name": name, "created": created}
        (folder / METADATA_NAME).write_text(json.dumps(content, indent=1))


def _template() -> str:
    """metadata.json of a complete run."""
    settings = {f"setting {number}": {"class_path": "a.module.Class", "value": number} for number in range(50)}
    with tempfile.TemporaryDirectory() as folder:
        record = create_record(
            folder,
            "template",
            Spec(settings, settings, {"max_epochs": 3}, 0),
            Execution({}, "32-true", {}, {}),
            model="TopK",
            dataset="store",
            packages=package_versions(),
            hardware=hardware(),
            environment=environment_snapshot(),
        )
        record.begin_attempt()
        record.move_to("running")
        record.report(Progress(1473, 3, None, 3), {f"val/metric {number}": 1 / (1 + number) for number in range(40)})
        record.complete([])
        return Path(folder, METADATA_NAME).read_text()


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """The median."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--names", type=int, default=10)
    parser.add_argument("--looks", type=int, default=5)
    parser.add_argument("--folder", default=None, help="on the disk to measure; the system's temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder, "runs")
        fill(root, options.runs, options.names)
        page = RunQuery(limit=20)
        command = [sys.executable, "main.py", "runs", "list", "--folder", str(root)]
        report = {
            **vars(options),
            "reindex_without_an_index_s": seconds(lambda: reindex(root)),
            "reindex_s": seconds(lambda: reindex(root)),
            "list_s": seconds(lambda: list_runs(root, page), options.looks),
            "list_of_one_status_s": seconds(lambda: list_runs(root, RunQuery(status="running")), options.looks),
            "list_command_s": seconds(
                lambda: subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL), options.looks
            ),
            "walk_s": seconds(lambda: find_runs(root, limit=20)),
            "index_megabytes": Path(root, INDEX_NAME).stat().st_size / 10**6,
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
