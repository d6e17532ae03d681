"""`python main.py predictions`: light verbs that read what models made of their fixed samples while they trained. A new
one is a function here and its name in VERBS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from cli.light_verbs import carry_out_one_of
from cli.prediction_sides import Side, both_sides
from cli.run_verbs.settings import ROOT
from cli.terminal import agreed, width
from reports.prediction_comparison import differences, pair_up, side_by_side
from reports.prediction_files import as_json, write_csv, write_jsonl
from reports.prediction_lines import gist_of
from reports.text_columns import table, visible
from run_store import UserError
from run_store.predictions import PredictionStore, job_user_id, store_path


def list_(
    run: str | None = None,
    user: str | None = None,
    epoch: NonNegativeInt | None = None,
    sample: NonNegativeInt | None = None,
    member: str | None = None,
    limit: NonNegativeInt = 20,
    page: PositiveInt = 1,
    folder: str = ROOT,
    json: bool = False,
) -> None:
    """Lists predictions: by run, oldest first, then by member, step and sample.

    Args:
        run: Only of this run: its folder, id or name.
        user: Only this user's; JOB_USER_ID by default, and everybody's where that is unset.
        epoch: Only of this epoch.
        sample: Only of the sample with this number.
        member: Only of this member of a sweep.
        limit: Predictions on a page; 0 for all of them.
        page: Which page.
        folder: The folder of all runs.
        json: Print JSON, with everything that is stored, in place of the table.
    """
    offset = limit * (page - 1)
    with _reading(folder, user) as store, store.at_one_moment():
        run_id = None if run is None else store.resolve(run).run_id
        total = store.count(run=run_id, epoch=epoch, sample=sample, member=member)
        found = store.predictions(
            run=run_id, epoch=epoch, sample=sample, member=member, limit=limit or None, offset=offset
        )
    if json:
        print(as_json({"total": total, "predictions": [asdict(one) for one in found]}))
        return
    members = any(one.member for one in found)
    scores = list(dict.fromkeys(name for one in found for name in one.scores))
    header = ["run", *["member"] * members, "epoch", "step", "sample", *map(visible, scores), "prompt", "prediction"]
    rows = [
        [
            one.run_id[:8],
            *[one.member] * members,
            *map(str, (one.epoch, one.step, one.sample_index)),
            *(f"{one.scores[name]:.4g}" if name in one.scores else "" for name in scores),
            one.prompt,
            gist_of(one),
        ]
        for one in found
    ]
    if found:
        print("\n".join(table(header, rows, width(), elastic=2)))
    shown = f"{offset + 1}–{offset + len(found)} of {total}" if found else f"none of {total}"
    print(f"{shown} predictions in {store.path}")


def epochs(
    run: str, member: str | None = None, user: str | None = None, folder: str = ROOT, json: bool = False
) -> None:
    """Sums up each epoch of a run: how many predictions there are, and the mean of each score.

    Args:
        run: Its folder, id or name.
        member: Only of this member of a sweep.
        user: Only from this user's predictions; JOB_USER_ID by default, and everybody's where that is unset.
        folder: The folder of all runs.
        json: Print JSON in place of the table.
    """
    with _reading(folder, user) as store:
        found = store.resolve(run)
        summaries = store.epochs(found.run_id, member=member)
    if json:
        print(as_json({"run": asdict(found), "epochs": [asdict(summary) for summary in summaries]}))
        return
    members = any(summary.member for summary in summaries)
    scores = list(dict.fromkeys(name for summary in summaries for name in summary.scores))
    rows = [
        [
            *[summary.member] * members,
            str(summary.epoch),
            f"{summary.first_step}–{summary.last_step}",
            str(summary.records),
            *(f"{summary.scores[name]:.4g}" if name in summary.scores else "" for name in scores),
        ]
        for summary in summaries
    ]
    header = [*["member"] * members, "epoch", "steps", "records", *map(visible, scores)]
    print(f"{found.name} ({found.run_id[:8]}), means over the samples")
    print("\n".join(table(header, rows, width())))


def compare(
    run: str,
    other: str | None = None,
    epochs: list[NonNegativeInt] | None = None,
    members: list[str] | None = None,
    user: str | None = None,
    folder: str = ROOT,
    json: bool = False,
) -> None:
    """Puts two epochs of a run, two runs or two members of a sweep side by side, and marks what changed.

    Samples are told by their prompt. Of an epoch with several looks at the samples the last one counts.

    Args:
        run: The left side: a run's folder, id or name.
        other: The run on the right side; the same one by default.
        epochs: The epochs of the left and of the right side, or one for both, as in --epochs 1 3. By default the first
            and the last one of a run, and the last ones of two runs or members.
        members: The members of both sides, or one for both; all of them by default.
        user: Only this user's predictions; JOB_USER_ID by default, and everybody's where that is unset.
        folder: The folder of all runs.
        json: Print JSON in place of the table.
    """
    with _reading(folder, user) as store, store.at_one_moment():
        sides = both_sides(store, run, other, epochs, members)
        pairs = pair_up(*(side.predictions(store) for side in sides))
    left, right = sides
    if json:
        samples = [
            {
                "prompt": pair.sample.prompt,
                "left": pair.left and asdict(pair.left),
                "right": pair.right and asdict(pair.right),
                "changed": [difference.label for difference in differences(pair) if difference.changed],
            }
            for pair in pairs
        ]
        print(as_json({"left": asdict(left), "right": asdict(right), "samples": samples}))
        return
    print("\n".join(side_by_side(pairs, (_title(left), _title(right)), width())))


def export(
    output: str,
    run: str | None = None,
    user: str | None = None,
    epoch: NonNegativeInt | None = None,
    sample: NonNegativeInt | None = None,
    member: str | None = None,
    format: Literal["jsonl", "csv"] | None = None,
    folder: str = ROOT,
) -> None:
    """Writes predictions to a file.

    Args:
        output: The file.
        run: Only of this run: its folder, id or name.
        user: Only this user's; JOB_USER_ID by default, and everybody's where that is unset.
        epoch: Only of this epoch.
        sample: Only of the sample with this number.
        member: Only of this member of a sweep.
        format: JSON lines, or CSV with a column for each score; by default what the file's name ends in.
        folder: The folder of all runs.
    """
    formats = {"jsonl": write_jsonl, "csv": write_csv}
    wanted = format or Path(output).suffix.removeprefix(".")
    if wanted not in formats:
        raise UserError(f"output {output} ends neither in .jsonl nor in .csv: rename it, or give --format")
    with _reading(folder, user) as store, store.at_one_moment():
        run_id = None if run is None else store.resolve(run).run_id
        count = formats[wanted](output, lambda: store.each(run=run_id, epoch=epoch, sample=sample, member=member))
    print(f"wrote {count} predictions to {output}")


def delete(
    run: str | None = None,
    user: str | None = None,
    yes: bool = False,
    folder: str = ROOT,
) -> None:
    """Deletes the predictions of a run or of a user; the runs themselves stay, see `runs delete`.

    Of a user, all predictions go, and of the user's runs those that others have added too.

    Args:
        run: A run: its folder, id or name. Where JOB_USER_ID is set and the run is another's, only the own ones go.
        user: A user.
        yes: Do not ask.
        folder: The folder of all runs.
    """
    if (run is None) == (user is None):
        raise UserError("say what to delete: --run RUN or --user USER, one of them")
    with _reading(folder, user) as store:
        if run is not None:
            found = store.resolve(run)
            wanted, what, count = found.run_id, f"the run {found.folder}", store.count(run=found.run_id)
        else:
            assert user is not None
            if not store.runs():
                raise UserError(f"there is nothing of a user {user} in {store.path}: give another id")
            wanted, what, count = user, f"the user {user}", store.count()
    if not yes and not agreed(f"delete {count} predictions of {what}?"):
        print("nothing is deleted")
        return
    with PredictionStore(store_path(folder), user_id=_reader(user)) as store:
        deleted = store.delete_run(wanted) if run is not None else store.delete_user(wanted)
    print(f"deleted {deleted} predictions of {what}")


def report(*, out: str, runs: list[str] | None = None, user: str | None = None, folder: str = ROOT) -> None:
    """Writes a page to look at in a browser: table, slider over epochs, comparison and search. It needs no network.

    Args:
        out: The HTML file.
        runs: Only of these runs, by folder, id or name; all of them by default.
        user: Only this user's; JOB_USER_ID by default, and everybody's where that is unset.
        folder: The folder of all runs.
    """
    # imported here: the other verbs do not need it
    from reports.predictions_page import write_page

    with _reading(folder, user) as store:
        wanted = None if runs is None else [store.resolve(run).run_id for run in runs]
        write_page(store, Path(out), wanted)
    print(f"wrote {out}")


VERBS: dict[str, Callable[..., int | None]] = {
    "list": list_,
    "epochs": epochs,
    "compare": compare,
    "report": report,
    "export": export,
    "delete": delete,
}


def run(arguments: Sequence[str]) -> int:
    """Carries out one verb; `arguments` start with `predictions`.

    Returns:
        The exit code.

    Raises:
        UserError: a verb or setting is unknown or has an impossible value, or the verb cannot do its work.
    """
    return carry_out_one_of(VERBS, "predictions", arguments[1:])


def _reading(folder: str, user: str | None) -> PredictionStore:
    return PredictionStore(store_path(folder), read_only=True, user_id=_reader(user))


def _reader(user: str | None) -> str | None:
    """Whose records are seen: with JOB_USER_ID set nobody else's may be asked for."""
    own = job_user_id()
    if user is not None and own not in (None, user):
        raise UserError(f"user {user} is not JOB_USER_ID, which is {own}: leave --user out, or unset JOB_USER_ID")
    return own if user is None else user


def _title(side: Side) -> str:
    member = f" {side.member}" if side.member else ""
    return f"{side.name} ({side.run_id[:8]}){member}, epoch {side.epoch}"
