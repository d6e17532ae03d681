"""The command line: a light front that answers --help at once, and Lightning's CLI behind it."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType

from cli.streams import settle_streams
from run_store import UserError

VERBS = {
    "fit": "train (extracts activations first when the store is missing)",
    "validate": "measure a checkpoint on the validation documents",
    "test": "measure a checkpoint on the test documents",
    "predict": "extract activations into a store",
    "data": "look into an activation store: data inspect STORE",
    "check": "ask of an embedding model what must hold before it is relied on: loading, quality, convergence, latency",
    "dashboard": "write a page that shows what an autoencoder has learnt: dashboard --run RUN",
    "diff": "write the page of what fine-tuning changed, of a crosscoder between two models: diff --run RUN",
    "explain": "take a ranking apart into latents: explain --run RUN --query TEXT --documents FILE",
    "export": "write a trained autoencoder for SAELens or sparsify: export --run RUN --format saelens --output DIR",
    "fidelity": "how much of an embedder's retrieval its latents keep: fidelity --run RUN --triplets FILE",
    "import": "make a start of a published autoencoder: import FOLDER --output imported/NAME",
    "predictions": "what models made of their samples: list, epochs, compare, report, export or delete",
    "runs": "list, show, compare, choose, watch, label, pause, resume, delete, clean, verify or reindex runs",
    "search": "try several settings, select the best, train that and export it: search --config FILE --space FILE",
}
OWN_ROOM = {
    "check": "cli.check",
    "dashboard": "cli.dashboard",
    "data": "cli.data",
    "diff": "cli.difference",
    "explain": "cli.explain",
    "export": "cli.export",
    "fidelity": "cli.fidelity",
    "import": "cli.importing",
    "predictions": "cli.predictions",
    "runs": "cli.run_verbs",
    "search": "cli.search",
}
"""Verbs that are functions of ours, by module; all others are Lightning's."""

PREFLIGHT = "--preflight"
INTERRUPTED = 128 + signal.SIGINT
NOT_READ_TO_THE_END = 128 + 13
"""SIGPIPE, which Windows does not name."""

HELP = """usage: python main.py VERB --config FILE [--config FILE ...] [--SETTING VALUE ...]

verbs:
{verbs}

  python main.py fit --config configs/sae.yaml        the main job
  python main.py fit --config FILE --print_config     the resolved settings, without running
  python main.py fit --config FILE --preflight        what it will take, and whether it fits, without running
  python main.py VERB --help                          every setting
  python main.py fit --model.help SparseAutoencoding  the settings of one class
"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        args: as on the command line, without the program's name; `sys.argv` by default.

    Returns:
        The exit code: 0 (a finished or paused run too), 2 for a mistake in a setting or a file (told in one line on
        stderr), 130 after Ctrl-C, 141 when nobody reads on, 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    trains = bool(arguments) and arguments[0] in VERBS.keys() - OWN_ROOM.keys()
    settle_streams(outlive_readers=trains)
    try:
        code = _carried_out(arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if trains:
            raise  # a training has other pipes, to its processes
        # whoever read has seen enough, as `head` has; Python would complain once more when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_READ_TO_THE_END
    except SystemExit as stop:
        # Lightning ends the process itself after Ctrl-C, with the code of a failure
        if isinstance(stop.__context__, KeyboardInterrupt):
            return INTERRUPTED
        raise


def _carried_out(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, VERBS)) + 2
        print(HELP.format(verbs="\n".join(f"  {verb:<{width}}{meaning}" for verb, meaning in VERBS.items())), end="")
        return 0
    _check_verb(arguments[0])
    # imported here: torch and lightning take seconds, which a help page or a misspelt verb should not pay for
    return int(_imported(_room_of(arguments)).run(arguments) or 0)


def _imported(room: str) -> ModuleType:
    """The module. What is imported never becomes garbage: looking for some in it took a tenth of the start, and would
    take a moment of every later search.
    """
    if room not in sys.modules:
        gc.disable()
        try:
            importlib.import_module(room)
        finally:
            gc.enable()
        gc.freeze()
    return sys.modules[room]


def _room_of(arguments: Sequence[str]) -> str:
    if arguments[0] == "fit" and PREFLIGHT in arguments:
        return "cli.preflight"
    return OWN_ROOM.get(arguments[0], "cli.lightning_cli")


def _check_verb(verb: str) -> None:
    if verb not in VERBS:
        raise UserError(f"there is no verb {verb!r}: choose one of {', '.join(VERBS)} (python main.py --help)")
