"""What command lines of `fit` mean, for a parent that does without torch: `python -m cli.resolving` reads a JSON list
of arguments a line, and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from typing import Any

import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException

from cli.launch import Launch
from cli.lightning_cli import FulguriteCLI, contents_of
from cli.messages import one_line
from cli.overlays import with_overlays
from cli.quiet import quiet
from cli.run_models import settle_models
from cli.run_settings import RunSettings
from cli.sources import find_source
from cli.starting import Asked
from cli.trainer_settings import refuse_impossible
from run_store import UserError


class Understood(Exception):  # noqa: N818  (it is no error)
    """The command line has been read; nothing is built or begun."""


class ResolvingCLI(FulguriteCLI):
    """Reads a command line of `fit` as `fit` would, and stops there.

    Raises:
        Understood: always, with the answer.
    """

    def before_instantiate_classes(self) -> None:
        settings = self.config[self.subcommand]
        refuse_impossible(settings.trainer)
        settle_models(settings, settings.run.folder)
        parser = self._parser(self.subcommand)
        config = yaml.safe_load(parser.dump(settings, skip_none=False))
        given = Namespace(run=settings.run)  # type: ignore[no-untyped-call]
        run: RunSettings = parser.instantiate_classes(given).run
        asked = Asked(config, run, contents_of(config["data"]))
        identity = asked.identity(asked.began_as(find_source(run).checkpoint))
        fingerprints = [identity.spec.fingerprint, identity.execution.fingerprint]
        raise Understood({"config": config, "folder": str(identity.folder(run)), "identity": fingerprints})


def answer(arguments: list[str]) -> dict[str, Any]:
    """What `python main.py fit ARGUMENTS` is about.

    Returns:
        `config` as it is resolved, `folder` of its runs and `identity`, the two fingerprints; or `error`, a sentence.
    """
    given = with_overlays(["fit", *arguments])
    try:
        ResolvingCLI(given, Launch())
    except Understood as understood:
        return dict(understood.args[0])
    except ArgumentError as error:
        return {"error": one_line(error, given)}
    except (UserError, MisconfigurationException) as error:
        return {"error": " ".join(str(error).split())}
    raise AssertionError("a command line is either understood or refused")


def main() -> None:
    """Answers until there are no more questions."""
    quiet()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then asks no more
    logging.disable(logging.INFO)  # Lightning tells each line's seed
    # whatever else is printed goes to the terminal
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
