"""What is changed of Lightning's strategies for several processes."""

from __future__ import annotations

import subprocess
import threading
import time

from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from cli.lifeline import FirstLifeline, Lifeline


def exchange_little(strategy: Strategy) -> None:
    """Has DDP send gradients alone, unless its settings say otherwise: what buffers hold is the same on every rank.
    Gradients are views of what is sent, which saves copying them back.
    """
    if isinstance(strategy, DDPStrategy):
        for name, value in {"broadcast_buffers": False, "gradient_as_bucket_view": True}.items():
            strategy._ddp_kwargs.setdefault(name, value)


class WatchedLauncher(_SubprocessScriptLauncher):
    """Lightning's, whose own watch kills this process too as soon as another has ended badly, whatever it is doing.

    Args:
        launcher: Lightning's.
        rank: of this process.
        lifeline: is told of processes that have ended before they were connected.
    """

    def __init__(self, launcher: _SubprocessScriptLauncher, rank: int, lifeline: Lifeline) -> None:
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self._rank = rank
        self._lifeline = lifeline
        self._children: list[subprocess.Popen[bytes]] = []

    def _call_children_scripts(self) -> None:
        super()._call_children_scripts()
        self._children, self.procs = self.procs, []
        if isinstance(self._lifeline, FirstLifeline):
            threading.Thread(target=self._watch, args=(self._lifeline,), name="children", daemon=True).start()

    def _watch(self, lifeline: FirstLifeline) -> None:
        running = dict(enumerate(self._children, self._rank + 1))
        while running:
            time.sleep(0.2)
            for rank, child in list(running.items()):
                if (code := child.poll()) is not None:
                    del running[rank]
                    lifeline.lost(rank, f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}")

    def kill(self, signum: int) -> None:
        for child in self._children:
            child.send_signal(signum)
