"""How the processes of a launch learn that one of them is gone.

A rank that waits in a collective for one that will never come waits half an hour with NCCL, and where gloo notices it
says nothing that a person could use. So every rank keeps a connection to the first one beside those of its process
group: the kernel closes it however its owner dies, and finds out by itself when a machine no longer answers. What ends
the launch is said once, and a process that does not come out of its collective is ended.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

GRACE = 10.0
"""Seconds in which a process may end by itself, once it knows that another is gone."""
LAST_WORDS = 10.0
"""Seconds for the record of a run whose process does not end by itself."""
ANSWER = 5.0
"""Seconds that are waited for the word of another process."""
ALIVE: Mapping[str, int] = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
"""A machine that does not answer for 20 seconds is gone (names and units of Linux)."""
AGAIN = "start the same line again, and a training goes on from its last checkpoint"


@dataclass(frozen=True)
class Ending:
    """Why a launch ends before its time.

    Attributes:
        sentence: for a person.
        code: the exit code of all processes.
        told: whether the process that it is about has said so itself.
    """

    sentence: str
    code: int = 2
    told: bool = False


@dataclass(frozen=True)
class Member:
    """One process of the launch."""

    rank: int
    pid: int
    host: str

    @classmethod
    def here(cls, rank: int) -> Member:
        """This process."""
        return cls(rank, os.getpid(), socket.gethostname())

    def gone(self, size: int) -> Ending:
        """What is said when nothing more is heard of it."""
        return _gone(f"rank {self.rank} of {size} (process {self.pid} on {self.host})")


@dataclass(frozen=True)
class Meeting:
    """Where the first process of a launch listens, and what shows that somebody belongs to it."""

    host: str
    port: int
    secret: str


class Lifeline(ABC):
    """One process's end of the connections. Its thread waits in the kernel, and costs nothing while nothing happens.

    Args:
        rank: of this process.
        size: how many processes there are.
        speaks: whether this process prints what is the matter when rank 0, which otherwise does, is gone.
    """

    def __init__(self, rank: int, size: int, speaks: bool) -> None:
        self.rank = rank
        self.size = size
        self.speaks = speaks
        self.grace = GRACE
        self.last_words: Callable[[Ending], None] = lambda ending: None
        """Called when this process is ended from outside of its main thread."""
        self.ended: Callable[[int], None] = os._exit
        """What ends it then."""
        self._ending: Ending | None = None
        self._known = threading.Event()
        self._lock = threading.RLock()
        self._said = False

    def ending(self, within: float = 0.0) -> Ending | None:
        """Why the launch ends, if it does; news is waited for so many seconds."""
        return self._ending if self._known.wait(within) else None

    def says(self, ending: Ending) -> bool:
        """Whether it is for the caller to print it: true once."""
        with self._lock:
            first, self._said = not self._said, True
        return first and self.speaks and not ending.told

    @abstractmethod
    def fail(self, ending: Ending) -> bool:
        """To be called when this process ends before its time: the others will, too.

        Returns:
            Whether another process says so; if not it is for the caller.
        """

    @abstractmethod
    def leave(self) -> None:
        """To be called when this process ends as it should."""

    def _learn(self, ending: Ending) -> bool:
        """Takes the first one that there is, and sees that this process ends."""
        if not self._take(ending):
            return False
        threading.Thread(target=self._see_to_it, args=(ending,), name="lifeline-end", daemon=True).start()
        return True

    def _take(self, ending: Ending) -> bool:
        with self._lock:
            if self._ending is not None:
                return False
            self._ending = ending
        self._known.set()
        return True

    def _see_to_it(self, ending: Ending) -> None:
        """Ends the process, whatever its main thread waits for."""
        time.sleep(self.grace)
        if self.says(ending):
            print(f"\nerror: {ending.sentence}", file=sys.stderr, flush=True)
        words = threading.Thread(target=self._last_words, args=(ending,), daemon=True)
        words.start()
        words.join(LAST_WORDS)
        self.ended(ending.code)

    def _last_words(self, ending: Ending) -> None:
        with suppress(Exception):
            self.last_words(ending)


class FirstLifeline(Lifeline):
    """That of rank 0, to which all others are connected.

    Args:
        size: how many processes there are.
        patience: seconds within which all must have come.
        host: under which the others reach this one.
        everywhere: whether it listens on all of the machine's addresses, or on its own alone.
    """

    def __init__(self, size: int, patience: float, host: str, everywhere: bool) -> None:
        super().__init__(0, size, True)
        listening = ("", 0) if everywhere else ("127.0.0.1", 0)
        self._listener = socket.create_server(listening, backlog=size)
        self.meeting = Meeting(host, self._listener.getsockname()[1], os.urandom(16).hex())
        self._deadline = time.monotonic() + patience
        self._patience = patience
        self._connected: dict[_Line, Member | None] = {}
        self._came: set[int] = {0}
        self._left: set[int] = set()
        self._leaving = False
        threading.Thread(target=self._listen, name="lifeline", daemon=True).start()

    def fail(self, ending: Ending) -> bool:
        # this process may take its time: it waits for nobody, and has the record to write
        told = Ending(ending.sentence, ending.code, told=True)
        if self._take(told):
            self._tell_all({"ending": asdict(told)})
        return False

    def leave(self) -> None:
        self._leaving = True
        self._tell_all({"bye": True})

    def lost(self, rank: int, how: str) -> None:
        """To be called when a process has ended of which there may be no connection yet."""
        if rank not in self._came:
            self._end(Ending(f"rank {rank} of {self.size} {how} before it had begun: see what it printed"))

    # ---- in the thread

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(timeout=self._remaining()):
                    if key.fileobj is self._listener:
                        with suppress(OSError):
                            line = _Line(self._listener.accept()[0])
                            with self._lock:
                                self._connected[line] = None
                            selector.register(line.connection, selectors.EVENT_READ, line)
                    elif not self._heard(key.data):
                        selector.unregister(key.fileobj)
                self._complain_of_absent()

    def _remaining(self) -> float | None:
        return None if len(self._came) == self.size else max(0.1, self._deadline - time.monotonic())

    def _complain_of_absent(self) -> None:
        if len(self._came) < self.size and time.monotonic() > self._deadline and not self._leaving:
            absent = [rank for rank in range(self.size) if rank not in self._came]
            self._came.update(absent)
            named = f"rank {absent[0]}" if len(absent) == 1 else f"ranks {', '.join(map(str, absent))}"
            self._end(
                Ending(
                    f"{named} of {self.size} did not come within {self._patience:g} s: start the missing processes, or "
                    "set trainer.devices and trainer.num_nodes to what there is (run.patience waits longer)"
                )
            )

    def _heard(self, line: _Line) -> bool:
        """Takes what has come; false when there will be no more."""
        messages = line.read()
        for message in messages or ():
            member = self._connected.get(line)
            if member is None:
                if message.get("secret") != self.meeting.secret:
                    messages = None
                    break
                self._connected[line] = member = Member(**message["member"])
                self._came.add(member.rank)
                if self._ending is not None:
                    line.write({"ending": asdict(self._ending)})
            elif "ending" in message:
                self._left.add(member.rank)
                self._end(Ending(**message["ending"]))
            elif "bye" in message:
                self._left.add(member.rank)
        if messages is not None:
            return True
        with self._lock:
            member = self._connected.pop(line)
        line.close()
        if member is not None and member.rank not in self._left:
            self._end(member.gone(self.size))
        return False

    def _end(self, ending: Ending) -> None:
        if not self._leaving and self._learn(ending):
            self._tell_all({"ending": asdict(ending)})

    def _tell_all(self, message: dict[str, Any]) -> None:
        with self._lock:
            lines = list(self._connected)
        for line in lines:
            line.write(message)


class OtherLifeline(Lifeline):
    """That of any rank but 0.

    Args:
        rank, size, speaks: see `Lifeline`.
        meeting: where rank 0 is.

    Raises:
        OSError: it cannot be reached.
    """

    def __init__(self, rank: int, size: int, speaks: bool, meeting: Meeting) -> None:
        # printed here only when there is no rank 0 that would
        super().__init__(rank, size, False)
        self._speaks_for_first = speaks
        self._line = _Line(socket.create_connection((meeting.host, meeting.port), timeout=ANSWER))
        self._line.write({"secret": meeting.secret, "member": asdict(Member.here(rank))})
        self._over = False
        self._told_by_first = False
        threading.Thread(target=self._listen, name="lifeline", daemon=True).start()

    def fail(self, ending: Ending) -> bool:
        if self._ending is None and not self._over:
            self._line.write({"ending": asdict(ending)})
            self.ending(ANSWER)
        return self._told_by_first

    def leave(self) -> None:
        self._over = True
        self._line.write({"bye": True})

    def _listen(self) -> None:
        while (messages := self._line.read()) is not None:
            for message in messages:
                self._told_by_first = "ending" in message
                if self._told_by_first:
                    self._learn(Ending(**message["ending"]))
                self._over = True
                return
        if not self._over:
            self.speaks = self._speaks_for_first
            self._learn(_gone(f"rank 0 of {self.size}"))


def _gone(who: str) -> Ending:
    return Ending(f"{who} is gone, as after a kill, a lack of memory or a loss of its machine: {AGAIN}")


class _Line:
    """A connection over which lines of JSON go."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in ALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._rest = b""

    def read(self) -> list[dict[str, Any]] | None:
        """What has come, once something has; None when the other end is gone or talks nonsense."""
        try:
            received = self.connection.recv(65536)
            *lines, self._rest = (self._rest + received).split(b"\n")
            return [dict(json.loads(line)) for line in lines] if received else None
        except (OSError, ValueError, TypeError):
            return None

    def write(self, message: dict[str, Any]) -> None:
        """Who does not read is gone, and will be noticed."""
        with suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self.connection.close()
