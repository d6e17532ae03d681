"""`python main.py search`: trains a job with several settings, selects the best, trains that and exports it."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from cli.criteria import criterion_of
from cli.light_verbs import carry_out
from run_store.selection import Direction, TieBreak
from search.children import Resolver, SearchStopped, stoppable
from search.finishing import Final, Following, carry_through
from search.searching import Job, Plan, Sampler, TrialMode
from search.space import read_space

OF_FIT = ("config", "data", "model", "run", "seed_everything", "trainer")
"""What the settings of `fit` begin with; they are passed on to it."""
STDERR = 2

Format = Literal["saelens", "sparsify", "safetensors", "sentence-transformers", "onnx"]


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `search`.

    Returns:
        The exit code: 0, or that of a signal that stopped it.

    Raises:
        UserError: a setting is unknown or impossible, no trial can be the best, or what follows the search fails.
    """
    of_fit, own = split(arguments[1:])

    def search(
        *,
        space: str,
        metric: list[str] = ["val/fvu"],  # noqa: B006  (jsonargparse copies it)
        direction: Direction = "min",
        at_least: list[str] = [],  # noqa: B006
        at_most: list[str] = [],  # noqa: B006
        tie_break: TieBreak = "newest",
        sampler: Sampler = "grid",
        trials: PositiveInt | None = None,
        seed: NonNegativeInt = 0,
        members_at_once: PositiveInt = 8,
        mode: TrialMode = "resume_if_incomplete",
        trial_config: list[str] = [],  # noqa: B006
        final: Final = "scratch",
        export: Format | None = None,
        output: str | None = None,
        json: bool = False,
    ) -> int:
        """Trains a job with several settings, selects the best, trains that and exports it. The job is given as to fit:
        --config FILE, --data.…, --model.…, --trainer.…, --run.….

        Args:
            space: File that names settings and the values to try (docs/search.md).
            metric: What is best, as NAME or NAME=WEIGHT; of several the weighted sum counts.
            direction: Whether the lowest or the highest is the best.
            at_least: Only trials are considered that reach NAME=VALUE.
            at_most: Only trials are considered that do not exceed NAME=VALUE.
            tie_break: Which of several equally good trials.
            sampler: Every combination of the values, or what Optuna suggests (needs the extra `optuna`).
            trials: Of Optuna, how many, 20 by default; of a grid, the most that it may have.
            seed: Of Optuna's sampler.
            members_at_once: Trials that are trained in one pass at most, where a sweep can; 1 trains each alone.
            mode: What is done with an interrupted run of a trial; finished ones are never trained again.
            trial_config: More config files, which the trials have and the final training has not, to make them short.
            final: The final training starts from scratch or from the weights of the best trial; none leaves it out.
            export: Format that the result is exported in, if any (python main.py export --help).
            output: Folder of the export; by default exported/NAME.
            json: Print one JSON object in place of the table.
        """
        criterion = criterion_of(metric, direction, at_least, at_most, tie_break)
        plan = Plan(read_space(Path(space)), criterion, sampler, trials, members_at_once, mode, seed)
        shortened = [argument for path in trial_config for argument in ("--config", path)]
        return _searched(of_fit, shortened, plan, Following(final, export, output), json)

    return carry_out(search, "search", own)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line in two: what is passed on to `fit`, and what is said to `search`."""
    of_fit: list[str] = []
    own: list[str] = []
    rest = list(arguments)
    while rest:
        values = list(takewhile(lambda argument: not argument.startswith("--"), rest[1:]))
        name = rest[0].removeprefix("--").partition("=")[0].partition(".")[0].rstrip("+")
        (of_fit if rest[0].startswith("--") and name in OF_FIT else own).extend([rest[0], *values])
        del rest[: 1 + len(values)]
    return of_fit, own


def _searched(
    of_fit: Sequence[str], shortened: Sequence[str], plan: Plan, following: Following, as_object: bool
) -> int:
    # with --json all but the one object goes to stderr
    stream, output = (sys.stderr, STDERR) if as_object else (sys.stdout, None)

    def tell(line: str) -> None:
        print(line, file=stream, flush=True)

    try:
        with stoppable(), Resolver() as resolver:
            job = Job(of_fit, resolver(of_fit).config, shortened)
            summary = carry_through(job, plan, following, resolver, tell, output)
    except SearchStopped as stopped:
        tell("stopped; the same line once more goes on")
        return stopped.exit_code
    if as_object:
        print(json_.dumps(summary, indent=1))
    else:
        final = summary["final"]
        of = f", member {final['member']}" if final["member"] else ""
        print(f"best: {summary['best']}; trained in {final['run']}{of}")
    return 0
