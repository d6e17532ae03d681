"""`python main.py diff`: what fine-tuning changed, once more, of a crosscoder that was trained before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.light_verbs import carry_out

if TYPE_CHECKING:
    from callbacks import DifferenceReport


def diff(
    *, run: str, out: str | None = None, checkpoint: str = "last", store: str | None = None, folder: str = "runs"
) -> None:
    """Writes the page of what fine-tuning changed, as `fit` does at its end, and prints its table.

    Triplets, bounds and all else are those of the callback DifferenceReport in the run's own settings.

    Args:
        run: The run of a crosscoder between two models (folder, id or name).
        out: The page to write, by default RUN_FOLDER/difference.html.
        checkpoint: Of the run: last, best, or the folder of one.
        store: Activation store to read; by default the one that the run was trained on.
        folder: The folder of all runs.
    """
    # imported here: help must not pay for torch
    from cli.quiet import quiet

    quiet()
    from callbacks.difference_report import NAME
    from explanations import find_difference
    from exports import find_trained, holds_encoder, load_trained
    from reports.dashboard.rows import open_store
    from reports.difference import Subject, table_of, write_page
    from run_store import UserError

    trained = find_trained(run, folder, checkpoint)
    if holds_encoder(trained):
        raise UserError(f"{run} trained a text encoder: name the run of a crosscoder, as configs/diff.yaml trains one")
    model = load_trained(trained)
    place = trained.checkpoint.path.parent.parent
    report = report_of(place)
    shapes = dict(model.only.shapes)
    opened = open_store(trained.record, store, shapes)
    found = find_difference(model.only, opened, list(shapes), report.triplets, report.settings)
    page = Path(out) if out else place / NAME
    write_page(Subject(trained.record.name if trained.record else place.name, found, opened), page)
    print(f"{table_of(found)}\n  open {page} in a browser")


def report_of(run: Path) -> DifferenceReport:
    """The callback as the run's newest settings have it; with its defaults where they name none.

    Raises:
        UserError: the settings cannot be read.
    """
    import yaml
    from jsonargparse import ArgumentError, ArgumentParser

    import cli.class_names  # noqa: F401  (so that settings may name classes without their packages)
    from callbacks import DifferenceReport
    from run_store import UserError

    configs = sorted(run.glob("config.*.yaml"), key=lambda path: int(path.suffixes[0][1:]))
    if not configs:
        return DifferenceReport()
    try:
        callbacks = (yaml.safe_load(configs[-1].read_text(encoding="utf-8")).get("trainer") or {}).get("callbacks")
        settings: dict[str, Any] = next(
            (one.get("init_args") or {} for one in callbacks or [] if one["class_path"].endswith("DifferenceReport")),
            {},
        )
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(DifferenceReport, "report")
        made = parser.instantiate(parser.parse_object({"report": settings}))
    except (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError, ArgumentError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{configs[-1]} cannot be read ({reason}): bring back a copy, or train again") from error
    return made.report  # type: ignore[no-any-return]


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `diff`.

    Raises:
        UserError: a setting is unknown or impossible, the run is not complete, or it is of no crosscoder between two
            embedding models.
    """
    return carry_out(diff, "diff", arguments[1:])
