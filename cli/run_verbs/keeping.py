"""`runs update`, `runs verify` and `runs reindex`."""

from __future__ import annotations

from cli.run_verbs.settings import ROOT, printed_json
from cli.terminal import warn
from run_store import UserError, registry
from run_store.verifying import problems_of


def update(run: str, tags: list[str] | None = None, note: str | None = None, folder: str = ROOT) -> None:
    """Gives a run other tags or another note, whether or not a process is working on it.

    Args:
        run: Its folder, id or name.
        tags: Its tags from now on, as in --tags good final; [] takes them all away.
        note: Its note from now on; "" takes it away.
        folder: The folder of all runs.
    """
    if tags is None and note is None:
        raise UserError("say what to update: --tags TAG … or --note TEXT")
    record = registry.find_run(folder, run).record
    record.label(tags, note)
    print(f"{record.folder} has {_told(record.labels.tags, record.labels.note)}")


def verify(runs: list[str] | None = None, folder: str = ROOT, json: bool = False) -> int:
    """Reads all files of runs from end to end, and holds them against what was written down when they were made: the
    files that a complete run must have, and every checkpoint. The exit code is 1 when something is wrong.

    Args:
        runs: These runs, by folder, id or name; all of them by default.
        folder: The folder of all runs.
        json: Print JSON: what is wrong by run folder.
    """
    if runs is None:
        warn(registry.reindex(folder).warning)  # whatever is there is to be found
        found = sorted(registry.stamps(folder))
    else:
        found = [registry.find_run(folder, run).folder for run in runs]
    problems = {str(run): wrong for run in found if (wrong := problems_of(run))}
    if json:
        printed_json({"runs": len(found), "problems": problems})
    else:
        for sentences in problems.values():
            print("\n".join(sentences))
        print(f"{len(found)} runs verified, {len(problems) or 'none'} of them damaged")
    return 1 if problems else 0


def reindex(folder: str = ROOT) -> None:
    """Makes the index of all runs again from the run folders.

    Args:
        folder: The folder of all runs.
    """
    page = registry.reindex(folder)
    warn(page.warning)
    print(f"{page.total} runs in {folder}")
    for sentence in page.damaged:
        print(f"damaged: {sentence}")


def _told(tags: tuple[str, ...], note: str) -> str:
    return f"{'the tags ' + ', '.join(tags) if tags else 'no tags'} and {f'the note {note!r}' if note else 'no note'}"
