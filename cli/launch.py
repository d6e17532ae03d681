"""One decision for all processes of a launch, and one end."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch import distributed
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from callbacks import RunStopped
from cli.lifeline import AGAIN, ANSWER, Ending, FirstLifeline, Lifeline, Meeting, OtherLifeline
from cli.places import Place, is_second_on_its_machine, place_of
from run_store import UserError

HANDED_DOWN = "FULGURITE_START"
_PLAN, _MEETING = "fulgurite/start/{}", "fulgurite/meeting/{}"
# the deciding process may have checkpoints of many gigabytes to hash
_DECIDING = timedelta(minutes=30)
_FAREWELL = 300.0
_STOPPED = 128
"""Exit codes above are those of processes that a signal has stopped."""
_OF_CONNECTIONS = ("gloo", "NCCL", "Connection reset", "Connection closed", "Socket", "Broken pipe", "TCPStore")
"""What errors of a process group have in their text that are no DistError."""

Plan = dict[str, Any]


class DecidedElsewhere(Exception):  # noqa: N818  (the error is told elsewhere)
    """Another process of the launch has failed, and says so itself.

    Attributes:
        exit_code: of this process.
    """

    def __init__(self, exit_code: int = 2) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Launch:
    """The processes that were started together, seen from one of them.

    Processes that Lightning starts itself find what they need in their environment; those of torchrun, of a cluster's
    manager and the first ones of several nodes get it through the store at which their process group will meet. No
    file is left behind that a later launch could take for its own.
    """

    def __init__(self) -> None:
        self.place: Place | None = None
        self.lifeline: Lifeline | None = None
        self._patience = 0.0
        self._handed: dict[str, Any] = _handed_down() or {}
        self._store: TCPStore | None = None
        self._end: BaseException | None = None

    def find_place(self, trainer: MutableMapping[str, Any], patience: float) -> None:
        """To be called before anything is decided.

        Args:
            trainer: its settings; see `place_of`.
            patience: seconds within which all processes must have come.

        Raises:
            UserError: the settings contradict what has been started, or the first process cannot be reached.
        """
        self._patience = patience
        self.place = None if self._handed else place_of(trainer)
        if self.place is not None and self.place.world_size > 1:
            self._store = _store_at(self.place, patience)

    # ---- the decision

    def decided_together(self, decide: Callable[[], Plan]) -> Plan:
        """What the first process of a launch decides, in every one of them.

        Args:
            decide: called in the first process alone; the plan is plain JSON.

        Raises:
            DecidedElsewhere: in all other processes, when `decide` has failed in the first.
        """
        if not self._handed:
            self._hand_down(plan=decide() if self._store is None else self._through_store(self._store, decide))
        plan: Plan = self._handed["plan"]
        return plan

    def _through_store(self, store: TCPStore, decide: Callable[[], Plan]) -> Plan:
        assert self.place is not None
        key = _PLAN.format(self.place.restart)
        if self.place.rank:
            content = _read(store, key)
            store.add(f"{key}/read", 1)
            if content is None:
                raise DecidedElsewhere
            return dict(content)
        plan: Plan | None = None
        try:
            plan = decide()
        finally:
            store.set(key, json.dumps(plan))
            if plan is None or "skip" in plan:
                _wait_for_readers(store, key, self.place.world_size - 1)
        return plan

    def _hand_down(self, **news: Any) -> None:
        """Lets the processes that Lightning starts from this one have what it knows."""
        self._handed.update(news)
        os.environ[HANDED_DOWN] = json.dumps({**self._handed, "pid": os.getpid()})

    def forget(self) -> None:
        """Ends the handing down: what this process starts from now on decides for itself."""
        os.environ.pop(HANDED_DOWN, None)

    # ---- the connections

    def join(self, trainer: Trainer) -> None:
        """Connects this process with the others, when there will be any. From here on none outlives another that has
        ended before its time by more than some seconds.

        Raises:
            UserError: it has been started beside others, and the Trainer would not have them work together.
            DecidedElsewhere: the first process has ended.
        """
        size, launcher = trainer.world_size, trainer.strategy.launcher
        if self.place is not None and self.place.starter and self.place.world_size != size:
            raise UserError(
                f"{self.place.starter} has started {self.place.world_size} processes, and trainer.devices × "
                f"trainer.num_nodes is {size}: make them the same"
            )
        if size == 1 or not isinstance(launcher, _SubprocessScriptLauncher):
            return
        exchange_little(trainer.strategy)
        if trainer.global_rank:
            meeting = self._meeting()
            try:
                speaks = trainer.local_rank == 0 or trainer.global_rank == 1
                self.lifeline = OtherLifeline(trainer.global_rank, size, speaks, meeting)
            except OSError as error:
                raise _unreachable(trainer.global_rank, meeting.host, meeting.port, ANSWER) from error
        else:
            self.lifeline = self._first(size)
        if not launcher.cluster_environment.creates_processes_externally:
            watched = _WatchedLauncher(launcher, trainer.global_rank, self.lifeline)
            trainer.strategy._launcher = watched

    def _first(self, size: int) -> FirstLifeline:
        several = self.place is not None and self.place.nodes > 1
        lifeline = FirstLifeline(
            size, self._patience, self.place.address if self.place and several else "127.0.0.1", several
        )
        meeting = asdict(lifeline.meeting)
        self._hand_down(meeting=meeting)
        if self._store is not None and self.place is not None:
            self._store.set(_MEETING.format(self.place.restart), json.dumps(meeting))
        return lifeline

    def _meeting(self) -> Meeting:
        if "meeting" not in self._handed:
            assert self._store is not None
            assert self.place is not None
            content = _read(self._store, _MEETING.format(self.place.restart))
            if content is None:
                raise DecidedElsewhere
            self._hand_down(meeting=content)
        return Meeting(**self._handed["meeting"])

    # ---- the end

    def leave(self) -> None:
        """To be called when the command has been carried out."""
        if self.lifeline is not None:
            self.lifeline.leave()

    def when_ended(self, write: Callable[[BaseException], None]) -> None:
        """Has the reason written for which this process may have to be ended outside of its main thread."""

        def last_words(ending: Ending) -> None:
            self._end = self._end or _as_error(ending)
            write(self._end)

        if self.lifeline is not None:
            self.lifeline.last_words = last_words

    def _reason_for(self, error: BaseException) -> BaseException:
        """The error itself; where it only follows from what has happened to another process, what that was."""
        if self.lifeline is None:
            return error
        ending = self.lifeline.ending(ANSWER if _is_of_a_connection(error) else 0.0)
        if ending is None:
            return error
        reason = _as_error(ending)
        is_for_here = isinstance(reason, RunStopped) or self.lifeline.says(ending)
        return reason if is_for_here else DecidedElsewhere(ending.code)

    def ended_by(self, error: BaseException) -> BaseException:
        """To be called as soon as it is clear that the command will not be carried out, and as often as one likes. The
        others learn of it.

        Returns:
            What is to be raised.
        """
        if self._end is None:
            self._end = self._ended_by(error)
            if self.lifeline is not None and not _agreed(error):
                _broken.append(getattr(self._end, "exit_code", 2 if isinstance(self._end, UserError) else 1))
        return self._end

    def _ended_by(self, error: BaseException) -> BaseException:
        reason = self._reason_for(error)
        if self.lifeline is None:
            return self._ended_alone(reason)
        if reason is not error:
            return reason
        if _agreed(error):
            self.lifeline.leave()
            return error
        said_elsewhere = self.lifeline.fail(_ending_by(error, self.lifeline.rank))
        return DecidedElsewhere() if said_elsewhere and isinstance(error, UserError) else error

    def _ended_alone(self, error: BaseException) -> BaseException:
        """Of a process that is not connected with the others yet, which have the same settings: one speaks for all."""
        if not isinstance(error, UserError):
            return error
        if self.place is None:
            return DecidedElsewhere() if is_second_on_its_machine() else error
        if self._store is None:
            return error
        key = _MEETING.format(self.place.restart)
        if self.place.rank == 0:
            self._store.set(key, "null")
            return error
        return DecidedElsewhere() if _has_ended(self._store, key) else error


def exchange_little(strategy: Strategy) -> None:
    """Has DDP send gradients alone, unless its settings say otherwise: what buffers hold is the same on every rank.
    Gradients are views of what is sent, which saves copying them back.
    """
    if isinstance(strategy, DDPStrategy):
        for name, value in {"broadcast_buffers": False, "gradient_as_bucket_view": True}.items():
            strategy._ddp_kwargs.setdefault(name, value)


class _WatchedLauncher(_SubprocessScriptLauncher):
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


def _handed_down() -> dict[str, Any] | None:
    text = os.environ.get(HANDED_DOWN)
    if text is None or "LOCAL_RANK" not in os.environ:
        return None
    content: dict[str, Any] = json.loads(text)
    # a process of another launch may have inherited the variable
    return content if content.pop("pid") == os.getppid() else None


# The server of a launch lives as long as its process: the process group finds it at the same port.
_servers: list[TCPStore] = []


def _store_at(place: Place, patience: float) -> TCPStore:
    # torchrun's agent has a server at this port already
    is_server = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        # shared with the process group, which opens it once more
        store = TCPStore(
            place.address,
            place.port,
            place.world_size,
            is_server,
            timeout=timedelta(seconds=patience),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except (DistError, RuntimeError, ValueError) as error:
        if is_server:
            raise UserError(
                f"rank 0 cannot listen on {place.address}:{place.port}: set MASTER_ADDR to an address of this machine "
                "and MASTER_PORT to a port that is free"
            ) from error
        raise _unreachable(place.rank, place.address, place.port, patience) from error
    store.set_timeout(_DECIDING)
    _servers.append(store)
    return store


def _unreachable(rank: int, address: str, port: int, patience: float) -> UserError:
    return UserError(
        f"rank {rank} cannot reach rank 0 at {address}:{port} within {patience:g} s: start its process, too, and see "
        "that MASTER_ADDR and MASTER_PORT are its, and that no firewall is between them (run.patience waits longer)"
    )


def _read(store: TCPStore, key: str) -> Any:
    """What the first process has written under a key; None when it has ended."""
    try:
        return json.loads(store.get(key))
    except (DistError, RuntimeError):
        return None


def _has_ended(store: TCPStore, key: str) -> bool:
    """Whether the first process has ended instead of saying where it can be met, or does so soon."""
    end = time.monotonic() + ANSWER
    try:
        while not store.check([key]) and time.monotonic() < end:
            time.sleep(0.05)
        return bool(store.check([key])) and json.loads(store.get(key)) is None
    except (DistError, RuntimeError):
        return True


def _wait_for_readers(store: TCPStore, key: str, readers: int) -> None:
    """The server ends with this process, and the others may not have come to it yet."""
    end = time.monotonic() + _FAREWELL
    while store.add(f"{key}/read", 0) < readers and time.monotonic() < end:
        time.sleep(0.05)


def _is_of_a_connection(error: BaseException) -> bool:
    if isinstance(error, DistError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OF_CONNECTIONS)


def _as_error(ending: Ending) -> BaseException:
    return RunStopped("interrupted", ending.code) if ending.code > _STOPPED else UserError(ending.sentence)


def _agreed(error: BaseException) -> bool:
    """Whether all processes end by it, each by itself."""
    return isinstance(error, RunStopped) and error.agreed


def _ending_by(error: BaseException, rank: int) -> Ending:
    if isinstance(error, RunStopped):
        return Ending(f"rank {rank} was stopped", error.exit_code or 2, told=True)
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return Ending(f"rank {rank} was stopped", _STOPPED + signal.SIGINT, told=True)
    if isinstance(error, UserError):
        return Ending(f"{error} (rank {rank})")
    return Ending(
        f"rank {rank} failed with {type(error).__name__}, whose traceback it has printed ({_first_line(error)}): "
        f"{AGAIN}"
    )


def _first_line(error: BaseException) -> str:
    lines: Iterable[str] = str(error).splitlines() or [""]
    return next(iter(lines))[:200]


# Exit code of a process whose group has lost a member: leaving that in order could wait for ever.
_broken: list[int] = []


@atexit.register
def _leave_group() -> None:
    """Lightning leaves NCCL's groups alone; gloo's threads abort a process now and then that ends among them."""
    if _broken:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_broken[0])
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
