"""Takes turns at training the shipped embedding recipe under the Trainer: embedder_worker.py SETTINGS.

SETTINGS is JSON with rows (a file of triplets), cache (a folder), batch, encoder (settings that are not the recipe's),
gradient_cache, warm_up and turn (in steps).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.embedding import recipe, trainer, triplets_in
from benchmarks.sae_step_worker import TakesTurns
from benchmarks.turns import Turns
from cli.allocator import keep_freed_memory


def main() -> None:
    keep_freed_memory()
    settings = json.loads(sys.argv[1])
    turns = Turns(settings["warm_up"], settings["turn"])
    model = recipe(settings["encoder"], gradient_cache=settings["gradient_cache"])
    data = triplets_in(Path(settings["rows"]), Path(settings["cache"]), settings["batch"])
    with tempfile.TemporaryDirectory() as folder:
        # a schedule has an end, which is never reached
        trainer(Path(folder), [TakesTurns(turns)], max_epochs=-1, max_steps=1_000_000).fit(model, data)


if __name__ == "__main__":
    main()
