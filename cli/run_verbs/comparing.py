"""`runs compare`."""

from __future__ import annotations

from dataclasses import asdict

from cli.run_verbs.settings import ROOT, printed_json
from cli.terminal import width
from reports.run_comparison import as_table, compared
from run_store import UserError
from run_store.registry import find_run


def compare(runs: list[str], folder: str = ROOT, json: bool = False) -> None:
    """Puts runs side by side: the settings in which they differ, and what they measured last.

    Args:
        runs: Two or more of them, by folder, id or name.
        folder: The folder of all runs.
        json: Print JSON in place of the table.
    """
    found = [find_run(folder, run) for run in runs]
    if len({run.folder.resolve() for run in found}) < 2:
        raise UserError(f"runs has only {runs[0] if runs else 'none'}: give two different ones, runs compare A B")
    comparison = compared(found)
    if json:
        shown = [
            {"id": run.record.id, "name": run.record.name, "status": run.status, "folder": run.folder} for run in found
        ]
        printed_json({"runs": shown, **asdict(comparison)})
        return
    for number, run in enumerate(found, start=1):
        print(f"{number}  {run.record.id[:8]}  {run.status:<12} {run.folder}")
    print()
    titles = [f"{number} {run.record.name}" for number, run in enumerate(found, start=1)]
    print("\n".join(as_table(comparison, titles, width())))
