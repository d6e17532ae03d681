"""What the machine has left: memory, disks and time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SYSTEM = Path("/")
HELD = ("RssAnon", "RssShmem")
"""Memory that cannot be had back by dropping pages of files."""
SECONDS_BETWEEN_LOOKS = 0.02
UNLIMITED = 2**60
"""What version 1 of cgroups writes for no limit is above it."""


class Available(NamedTuple):
    """Memory that can be had."""

    bytes: int
    of: str
    """Whose limit it is."""


def memory_available(system: Path = SYSTEM) -> Available | None:
    """What is left on this machine, or to the container of this process where that is less; None where neither says.

    Args:
        system: the root folder, for tests.
    """
    found = []
    if (there := _fields(system / "proc/meminfo").get("MemAvailable")) is not None:
        found.append(Available(there, "this machine"))
    for folder in _cgroups(system):
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most = _number(folder / limit)
            if most is not None and most < UNLIMITED:
                # pages of files are given back when memory is asked for
                idle = _words(folder / "memory.stat").get(cache, 0)
                taken = max(0, (_number(folder / used) or 0) - idle)
                found.append(Available(max(0, most - taken), f"the container's limit of {most / 1e9:.3g} GB"))
    return min(found, default=None)


def _cgroups(system: Path) -> list[Path]:
    """The folders of this process's control group and of all that it is part of."""
    root, folders = system / "sys/fs/cgroup", []
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        group = base / path.lstrip("/")
        # in a container the path may be that on the host, and its root is what is mounted
        folders += [folder for folder in (group, *group.parents) if folder == base or base in folder.parents]
    return [folder for folder in dict.fromkeys([*folders, root]) if folder.is_dir()]


def held_by(process: int | str = "self", system: Path = SYSTEM) -> int:
    """Bytes of memory that a process holds, mapped files left out; where the system does not tell, the most that this
    process has ever held with them.
    """
    fields = _fields(system / f"proc/{process}/status")
    if HELD[0] in fields:
        return sum(fields.get(name, 0) for name in HELD)
    if process != "self" or sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class PeakWatch:
    """Looks at the memory of this process again and again, in a thread."""

    def __init__(self) -> None:
        self._peak = held_by()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory", daemon=True)
        self._thread.start()

    def restart(self) -> int:
        """The most bytes since the start or the last restart; begins anew."""
        peak, self._peak = max(self._peak, held_by()), held_by()
        return peak

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_LOOKS):
            self._peak = max(self._peak, held_by())


def existing(folder: str | os.PathLike[str]) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = Path(folder).absolute()
    return next(place for place in (path, *path.parents) if place.is_dir())


def disk_of(folder: str | os.PathLike[str]) -> tuple[int, int]:
    """Number of the file system that a folder is or will be on, and its free bytes."""
    place = existing(folder)
    return place.stat().st_dev, shutil.disk_usage(place).free


def slurm_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds that the SLURM job of this process has left; None without one, or where it does not say."""
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return None
    if end := environment.get("SLURM_JOB_END_TIME"):
        return max(0.0, float(end) - time.time())
    try:
        told = subprocess.run(["squeue", "-h", "-j", job, "-o", "%L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_slurm_time(told.stdout.strip())


def parse_slurm_time(text: str) -> float | None:
    """Seconds of "1-02:03:04", "02:03:04", "03:04" or "4"; None for UNLIMITED and whatever else there is."""
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts) or (dash and not days.isdigit()) or len(parts) > 3:
        return None
    seconds = 0
    for part in parts:
        seconds = 60 * seconds + int(part)
    return float(seconds + 86400 * int(days or 0))


def _fields(path: Path) -> dict[str, int]:
    """Bytes by name of a file of lines such as `RssAnon:   123 kB`."""
    found = {}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[1] == "kB":
            found[name] = 1024 * int(words[0])
    return found


def _words(path: Path) -> dict[str, int]:
    """Numbers by name of a file of lines such as `inactive_file 123`."""
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    except (OSError, ValueError):
        return {}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no limit
        return None
