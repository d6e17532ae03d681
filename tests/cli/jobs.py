"""The main job on 12 000 tokens with a small dictionary, as processes that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from datamodules.activations import ActivationDataModule
from run_store.checkpoints import newest_valid
from run_store.record import RunRecord, read_record

ROOT = Path(__file__).parents[2]


@dataclass
class Job:
    """The main job in a folder of its own.

    Attributes:
        store: folder of the activation store.
        runs: the folder of all runs.
        settings: more of the command line.
    """

    store: Path
    runs: Path
    settings: tuple[str, ...] = ()

    def arguments(self, *more: str, verb: str = "fit") -> list[str]:
        """The command line after `python main.py`."""
        return [
            verb,
            *("--config", str(ROOT / "configs" / "sae.yaml")),
            *("--data.store", str(self.store)),
            *("--data.text.corpus.max_characters", "3000"),
            *("--data.text.max_tokens", "12000"),
            *("--data.validation_share", "0.2"),
            *("--data.batch_size", "256"),
            *("--model.autoencoder.d_sae", "96"),
            *("--model.autoencoder.k", "8"),
            *("--trainer.max_epochs", "2"),
            *("--trainer.callbacks.every_n_steps", "5"),
            *("--run.folder", str(self.runs)),
            # whoever runs the tests may be editing the code meanwhile
            *("--run.identity.code", "false"),
            *self.settings,
            *more,
        ]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run. The text is Python's own library, which is another in every version."""
        data = ActivationDataModule(str(self.store), batch_size=256, validation_share=0.2)
        data.setup("fit")
        return 2 * len(data.train_dataloader())

    def folders(self) -> list[Path]:
        """Every run's, oldest first."""
        return sorted(self.runs.glob("*/spec-*_exec-*/v*"), key=lambda path: path.stat().st_ctime_ns)

    @property
    def run(self) -> Path:
        """The folder of the only run."""
        (folder,) = self.folders()
        return folder

    @property
    def record(self) -> RunRecord:
        return read_record(self.run)

    def saved(self) -> set[str]:
        """Names of the checkpoints of the only run, or none."""
        return {path.name for path in self.runs.glob("*/*/v*/checkpoints/step-????????")}

    def fit(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Trains in a process of its own."""
        return subprocess.run(
            [sys.executable, "main.py", *self.arguments(*more)], cwd=ROOT, capture_output=True, text=True, timeout=240
        )


def newest(run: Path) -> Path:
    """The folder of the newest checkpoint."""
    return newest_valid(run / "checkpoints").checkpoint.path


def final_state(run: Path) -> dict[str, Any]:
    """Weights and optimiser of the newest checkpoint, by name."""
    folder = newest(run)
    state = torch.load(folder / "state.ckpt", weights_only=True)
    moments = {
        f"{index}.{name}": value
        for index, values in state["optimizer_states"][0]["state"].items()
        for name, value in values.items()
    }
    return {**safetensors.torch.load_file(folder / "model.safetensors"), **moments, "step": state["global_step"]}


def differing(run: Path, other: Path) -> list[str]:
    """Names of what is not bit-identical in two runs' newest checkpoints."""
    ours, theirs = final_state(run), final_state(other)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(theirs[name]))]


@dataclass
class Started:
    """A command that has been started."""

    server: ForkServer
    pid: int
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def is_alive(self) -> bool:
        if self.pid not in self.server.ended:
            code = self.server.ask({"wait": self.pid, "block": False})
            if code is not None:
                self.server.ended[self.pid] = code
        return self.pid not in self.server.ended

    def wait(self) -> int:
        """Its exit code once it has ended."""
        if self.pid not in self.server.ended:
            self.server.ended[self.pid] = self.server.ask({"wait": self.pid, "block": True})
        return self.server.ended[self.pid]

    def send(self, how: signal.Signals) -> None:
        os.kill(self.pid, how)


@dataclass
class ForkServer:
    """Starts commands without importing torch for each."""

    folder: Path
    process: subprocess.Popen[str]
    ended: dict[int, int] = field(default_factory=dict)
    started: int = 0

    def ask(self, request: dict[str, Any]) -> Any:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, arguments: list[str], **environment: str) -> Started:
        self.started += 1
        log = self.folder / f"{self.started}.log"
        log.touch()
        pid = self.ask({"arguments": arguments, "output": str(log), "environment": environment})
        return Started(self, pid, log)


def wait_for(condition: Callable[[], Any], started: Started, pause: float = 0.001) -> None:
    """Until something is so, or the process has ended."""
    while not condition() and started.is_alive():
        time.sleep(pause)
