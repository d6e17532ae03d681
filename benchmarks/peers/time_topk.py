"""Run in an environment that has the rival libraries: time_topk.py TRAINER SETTINGS.json. Takes turns at training, see
`turns`; the settings are those of train_topk.py.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from train_topk import TRAINERS, Rows
from turns import Turns


class RowsInTurns(Rows):
    """The file's batches over and over; a step begins when its batch is asked for."""

    def __init__(self, path, batch, turns):
        super().__init__(path)
        self.count = self.slices.get_shape()[0] // batch
        self.batch_size = batch
        self.turns = turns

    def __getitem__(self, part):
        if part.stop - part.start != self.batch_size:
            return super().__getitem__(part)  # a library that asks for a row to see its width
        self.turns.step_begins()
        start = self.turns.steps % self.count * self.batch_size
        return super().__getitem__(slice(start, start + self.batch_size))


if __name__ == "__main__":
    settings = SimpleNamespace(**json.loads(Path(sys.argv[2]).read_text()))
    torch.manual_seed(settings.seed)
    TRAINERS[sys.argv[1]](RowsInTurns(settings.rows, settings.batch, Turns()), settings)
