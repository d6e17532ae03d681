"""Programs that take turns, so that a machine that slows down slows all of them. Standard library alone: the workers of
rivals run in an environment of their own.

A worker says when a step begins. After its warm-up, and from then on after every turn of a few steps, it stops until
it is told to go on. Worker and bench must agree on how many steps a turn has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WARM_UP = 5
TURN = 5
IMPORT_SECONDS = 600


class Turns:
    """A worker's side: says on stdout what a turn took, and waits on stdin for the next. When stdin ends the process
    does too.

    Args:
        warm_up: steps before the first turn.
        turn: steps of a turn.
    """

    def __init__(self, warm_up: int = WARM_UP, turn: int = TURN) -> None:
        self.warm_up = warm_up
        self.turn = turn
        self.steps = -1
        self.started = 0.0
        # what libraries print must not get between the lines of the protocol
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def step_begins(self) -> None:
        """To be called before every step, the first one too."""
        self.steps += 1
        if self.steps < self.warm_up or (self.steps - self.warm_up) % self.turn:
            return
        self._say(seconds=time.perf_counter() - self.started)
        if not sys.stdin.readline():
            os._exit(0)
        self.started = time.perf_counter()

    def _say(self, **what: float) -> None:
        print(json.dumps({**what, "peak_mb": peak_mb()}), file=self.out, flush=True)


def peak_mb() -> float:
    """The most memory that this process has had (Linux); getrusage would count what its parent had at the fork."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


class Worker:
    """The bench's side of a worker that has been started."""

    def __init__(self, name: str, command: list[str], log: Path, turn: int = TURN) -> None:
        self.name = name
        self.turn_steps = turn
        self.log = log
        self.seconds: list[float] = []
        self.peak_mb = 0.0
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        self._said()  # the warm-up

    def turn(self) -> None:
        """Lets it make its steps."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        said = self._said()
        self.seconds.append(said["seconds"] / self.turn_steps)
        self.peak_mb = said["peak_mb"]

    def stop(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(IMPORT_SECONDS)

    def _said(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended before its time:\n{self.log.read_text()[-3000:]}")
        return dict(json.loads(line))
