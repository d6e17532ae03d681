"""What is tried again when a line or a server fails, and what is not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from remote_files.urls import shown
from run_store import UserError

T = TypeVar("T")

LONGEST_PAUSE = 30.0
_FORBIDDEN = {401, 403}
_UNKNOWN = {405, 501}
# of its own: a pause must not move the random numbers of a training
_draw = random.Random()


@dataclass(frozen=True)
class Retries:
    """Carries out an action at a URL again after a failure that may pass, with pauses that double.

    Each pause is drawn between half and all of its length, so that many processes do not come back at once. What is
    missing or forbidden stays so, and is not tried again.

    Attributes:
        tries: in all.
        pause: seconds after the first failed try.
        sleep: waits for so many seconds.
    """

    tries: int = 6
    pause: float = 0.5
    sleep: Callable[[float], object] = time.sleep

    def __call__(self, action: Callable[[], T], url: str, doing: str = "read") -> T:
        """What the action returns.

        Args:
            action: may be carried out more than once.
            url: what it is about, for messages.
            doing: what it does there, for messages: read or written.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: it is forbidden, or every try has failed.
        """
        for number in range(self.tries):
            try:
                return action()
            except (FileNotFoundError, UserError):
                raise
            except Exception as error:  # whatever a file system raises
                status = getattr(error, "status", None)
                if isinstance(error, NotImplementedError) or status in _UNKNOWN:
                    reason = f"{shown(url)} cannot be {doing}, since its protocol or server has no way to"
                    raise UserError(f"{reason}: choose another place") from error
                if isinstance(error, PermissionError) or status in _FORBIDDEN:
                    raise UserError(
                        f"{shown(url)} may not be {doing} ({told(error)}): give this machine the credentials for it, "
                        "or choose another place"
                    ) from error
                if number + 1 == self.tries:
                    raise UserError(
                        f"{shown(url)} could not be {doing} in {self.tries} tries ({told(error)}): look at the "
                        "connection and the server, and start again to go on"
                    ) from error
            self.sleep(min(self.pause * 2**number, LONGEST_PAUSE) * _draw.uniform(0.5, 1.0))
        raise ValueError(f"{self.tries} tries are none")


def told(error: BaseException) -> str:
    """An exception in one line, without passwords."""
    return shown(" ".join(f"{type(error).__name__}: {error}".split()))
