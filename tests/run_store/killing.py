"""A real process that dies at a file operation."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

FILE_OPERATIONS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree"}
KILLED = 9


def killed_at(operation: int, work: Callable[[], Any]) -> bool:
    """Does `work` in a forked process that ends, cleaning up nothing, just before its n-th operation on a file.

    Returns:
        Whether it was killed; False when the work was over before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forking beside threads
        child = os.fork()
    if child == 0:
        try:
            _die_at(operation)
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), "the work failed before it could be killed"
    return code == KILLED


def _die_at(operation: int) -> None:
    done = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event in FILE_OPERATIONS:
            done += 1
            if done == operation:
                os._exit(KILLED)

    sys.addaudithook(count)
