"""The processes of a search: one that reads command lines, and one a training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

from run_store import UserError

ROOT = Path(__file__).parents[1]
MAIN = ROOT / "main.py"
_FORWARDED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class SearchStopped(Exception):  # noqa: N818  (it is no error)
    """Somebody has stopped the search, or paused one of its runs; the same line goes on.

    Attributes:
        exit_code: of the process.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Resolved:
    """What a command line of `fit` means.

    Attributes:
        config: as plain values.
        folder: of all runs of this identity.
        identity: fingerprints of what is trained and how.
    """

    config: Mapping[str, Any]
    folder: Path
    identity: tuple[str, str]


class Resolver:
    """Reads command lines of `fit` in a process that is started when it is asked for the first time: the parser knows
    every class, and so needs torch.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Resolver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, arguments: Sequence[str]) -> Resolved:
        """Reads one.

        Raises:
            UserError: `fit` would refuse it.
        """
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(list(arguments)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process = None
            raise UserError(
                f"the process that reads settings has ended with code {process.wait()}: see what it printed above"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"])
        spec, execution = answer["identity"]
        return Resolved(answer["config"], Path(answer["folder"]), (spec, execution))

    def close(self) -> None:
        """Ends the process, and frees its memory; the next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate()

    def _start(self) -> subprocess.Popen[str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            [sys.executable, "-m", "cli.resolving"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
        )


def carry_out(arguments: Sequence[str], log: Path | None = None, output: int | None = None) -> int:
    """Runs `python main.py ARGUMENTS` to its end. A signal to this process is passed on, and waited for.

    Args:
        arguments: verb and settings.
        log: file that gets what it prints, behind what is there; by default the terminal does.
        output: number of the open file that gets its output where there is no log.

    Returns:
        Its exit code; minus the signal's number where one ended it.

    Raises:
        SearchStopped: a signal came.
        UserError: the log cannot be written.
    """
    # a process group of its own: the terminal would send Ctrl-C to both, and two of them stop a run at once
    with _where(log, output) as place, _passing_on() as (child, received):
        process = subprocess.Popen(
            [sys.executable, str(MAIN), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=place,
            stderr=None if log is None else place,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        child(process)
        code = process.wait()
    if received:
        raise SearchStopped(128 + received[0])
    return code


@contextmanager
def stoppable() -> Iterator[None]:
    """Between two trainings a signal that would end the process at once ends the search in order.

    Raises:
        SearchStopped: one came.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise SearchStopped(128 + number)

    with _handling([number for number in _FORWARDED if number != signal.SIGINT], on_signal):
        yield


@contextmanager
def _where(log: Path | None, output: int | None) -> Iterator[IO[bytes] | int | None]:
    if log is None:
        yield output
        return
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            yield file
    except OSError as error:
        raise UserError(f"{log} cannot be written ({error.strerror}): choose another --run.folder") from error


@contextmanager
def _passing_on() -> Iterator[tuple[Callable[[subprocess.Popen[bytes]], None], list[int]]]:
    """Yields what is told the child once there is one, and the signals that came."""
    received: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in children:
            process.send_signal(number)

    def child(process: subprocess.Popen[bytes]) -> None:
        children.append(process)
        for number in received:  # it came while the child was started
            process.send_signal(number)

    with _handling(_FORWARDED, on_signal):
        yield child, received


@contextmanager
def _handling(numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
