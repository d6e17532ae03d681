"""`python main.py diff`: what fine-tuning changed, once more, of a crosscoder that was trained before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.light_verbs import carry_out
from cli.trained_autoencoders import trained_autoencoder
from cli.triplet_configs import triplets_of
from run_store import UserError
from run_store.layout import newest_config

if TYPE_CHECKING:
    from callbacks import DifferenceReport


def diff(
    *,
    run: str,
    out: str | None = None,
    checkpoint: str = "last",
    member: str | None = None,
    triplets: str | None = None,
    store: str | None = None,
    folder: str = "runs",
) -> None:
    """Writes the page of what fine-tuning changed, as `fit` does at its end, and prints its table.

    Bounds and all else are those of the callback DifferenceReport in the run's own settings.

    Args:
        run: The run of a crosscoder between two models (folder, id or name).
        out: The page to write, by default RUN_FOLDER/difference.html, or difference-MEMBER.html of a member.
        checkpoint: Of the run: last, best, or the folder of one.
        member: Of a sweep, the crosscoder that is meant.
        triplets: What the fine-tuned model was trained on, a file such as configs/triplets/standard_library.yaml; by
            default what the run's own settings say.
        store: Activation store to read; by default the one that the run was trained on.
        folder: The folder of all runs.
    """
    # imported here: help must not pay for torch
    from cli.quiet import quiet

    quiet()
    from callbacks.difference_report import NAME
    from explanations import compare_models
    from reports.dashboard.rows import open_store
    from reports.difference import Subject, table_of, write_page

    wanted = "name the run of a crosscoder, as configs/diff.yaml trains one"
    trained, model = trained_autoencoder(run, folder, checkpoint, member, wanted)
    place = trained.checkpoint.path.parent.parent
    report = report_of(place, triplets)
    shapes = dict(model.only.shapes)
    opened = open_store(trained.record, store, shapes)
    found = compare_models(model.only, opened, list(shapes), report.triplets, report.settings)
    page = Path(out) if out else place / (NAME if member is None else f"difference-{member}.html")
    name = f"{trained.record.name if trained.record else place.name} {member or ''}".strip()
    write_page(Subject(name, found, opened), page)
    print(f"{table_of(found)}\n  open {page} in a browser")


def report_of(run: Path, triplets: str | None = None) -> DifferenceReport:
    """The callback as the run's newest settings have it; with its defaults where they name none.

    Args:
        run: its folder.
        triplets: a file of settings to put in the place of its own.

    Raises:
        UserError: the settings cannot be read.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    from callbacks import DifferenceReport
    from cli.messages import one_line  # which makes the names of classes known without their packages, too

    config = newest_config(run)
    own = {} if config is None else _settings_in(config)
    callbacks = (own.get("trainer") or {}).get("callbacks") or []
    named = [one.get("init_args") or {} for one in callbacks if str(one["class_path"]).endswith("DifferenceReport")]
    settings = dict(named[0]) if named else {}
    if triplets is not None:
        settings["triplets"] = None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DifferenceReport, "report")
    try:
        made = parser.instantiate(parser.parse_object({"report": settings}))
    except (ArgumentError, ValueError, TypeError) as error:
        raise UserError(
            f"{config or run}: {one_line(error, [])}: name the triplets by --triplets FILE, or mend it"
        ) from error
    report: DifferenceReport = made.report
    if triplets is not None:
        report.triplets = triplets_of(triplets)
    return report


def _settings_in(config: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{config} cannot be read ({' '.join(str(error).split())}): mend it") from error
    if not isinstance(content, dict):
        raise UserError(f"{config} holds no settings: mend it")
    return content


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `diff`.

    Raises:
        UserError: a setting is unknown or impossible, the run is not complete, or it is of no crosscoder between two
            embedding models.
    """
    return carry_out(diff, "diff", arguments[1:])
