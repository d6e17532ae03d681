"""Why a job cannot be done here: a pure function of what it takes and of what there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from estimates.forecast import Forecast
from estimates.words import duration
from run_store.checkpoints import in_words


@dataclass(frozen=True)
class Disk:
    """A file system.

    Attributes:
        number: the same for all folders on it.
        free: bytes.
    """

    number: int
    free: int


@dataclass(frozen=True)
class Limits:
    """What a job may take.

    Attributes:
        disks: by folder: that of the runs and those of stores.
        runs: the folder of the runs.
        memory: bytes of a host that can be had; None where nobody knows.
        memory_of: whose limit that is.
        device: bytes of an accelerator that can be had; None on the CPU.
        seconds: until the job must have ended; None for ever.
        seconds_of: who says so.
        training_seconds: that the training alone may take; None for ever.
    """

    disks: Mapping[str, Disk] = field(default_factory=dict)
    runs: str = "runs"
    memory: int | None = None
    memory_of: str = "this machine"
    device: int | None = None
    seconds: float | None = None
    seconds_of: str = "SLURM"
    training_seconds: float | None = None


def refusals(forecast: Forecast, limits: Limits) -> list[str]:
    """Every reason why the job cannot be done, each a sentence with the numbers and a way out; none when it fits."""
    found = [*_disks(forecast, limits), *_memory(forecast, limits), *_time(forecast, limits)]
    return [sentence for sentence in found if sentence]


def _disks(forecast: Forecast, limits: Limits) -> list[str]:
    needed: dict[int, float] = defaultdict(float)
    folders: dict[int, list[str]] = defaultdict(list)
    wanted = [(part.name, part.amount) for part in forecast.stores] + [(limits.runs, forecast.most_files)]
    for folder, amount in wanted:
        if folder in limits.disks:
            number = limits.disks[folder].number
            needed[number] += amount
            folders[number].append(folder)
    free = {disk.number: disk.free for disk in limits.disks.values()}
    return [
        f"the disk of {' and '.join(folders[number])} has {in_words(free[number])} free and the job needs up to "
        f"{in_words(int(amount))} there: free some space, lower data.text.max_tokens or let CheckpointRetention delete"
        for number, amount in needed.items()
        if amount > free[number]
    ]


def _memory(forecast: Forecast, limits: Limits) -> list[str]:
    found = []
    if limits.memory is not None and forecast.host.amount > limits.memory:
        found.append(
            f"the job needs {in_words(int(forecast.host.amount))} of memory and {limits.memory_of} has "
            f"{in_words(limits.memory)} left: lower data.batch_size or d_sae, or give it more memory"
        )
    if forecast.device is not None and limits.device is not None and forecast.device.amount > limits.device:
        found.append(
            f"a rank needs {in_words(int(forecast.device.amount))} of memory on its accelerator, which has "
            f"{in_words(limits.device)} left: lower data.batch_size or d_sae, or take a larger one"
        )
    return found


def _time(forecast: Forecast, limits: Limits) -> list[str]:
    found = []
    if limits.seconds is not None and forecast.seconds > limits.seconds:
        found.append(
            f"the job needs {duration(forecast.seconds)} and {limits.seconds_of} leaves it "
            f"{duration(limits.seconds)}: ask for more time, or train in fewer epochs"
        )
    if limits.training_seconds is not None and forecast.training > limits.training_seconds:
        found.append(
            f"the training needs {duration(forecast.training)} and trainer.max_time is "
            f"{duration(limits.training_seconds)}: raise it, or train in fewer epochs"
        )
    return found
