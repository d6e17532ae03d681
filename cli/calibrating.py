"""The process that tries a job before it is foreseen: `python -m cli.calibrating FOLDER fit …` trains some steps of
what `fit …` would train, in a scratch folder whose name it leaves in FOLDER/scratch, and writes what it has measured to
FOLDER/result.json. Whoever started it deletes both.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from callbacks import Calibration, slowest
from cli.allocator import keep_freed_memory
from cli.calibrated_schedule import retention_of, said_by_callbacks, schedule_of, seconds_of
from cli.launch import Launch
from cli.lightning_cli import FulguriteCLI, NothingToDo, contents_of, log_into, run
from cli.starting import Asked, foreseen
from datamodules.rehearsal import Rehearsal, Rehearses, Wanted
from estimates.machine import PeakWatch, existing
from run_store import UserError, write_json
from run_store.atomic import is_disk_full
from run_store.checkpoints import list_checkpoints
from run_store.layout import CHECKPOINTS_NAME

VALIDATION_BATCHES = 16
WARM_UP, BATCHES, SECONDS = 5, 40, 20.0
RESULT, SCRATCH, STARTED, ERROR = "result.json", "scratch", "FULGURITE_STARTED", "error: "


class CalibratingCLI(FulguriteCLI):
    """Reads a command line of `fit` as `fit` would, and trains some steps of it elsewhere.

    Args:
        folder: see the module.
        started: when the process was, by time.time().
        arguments: the command line, without the program's name.
        launch: the processes that carry it out.
    """

    def __init__(self, folder: Path, started: float, arguments: Sequence[str], launch: Launch) -> None:
        self.folder, self.started = folder, started
        self.memory = PeakWatch()
        self.calibration = Calibration(WARM_UP, BATCHES, SECONDS, memory=self.memory)
        super().__init__(arguments, launch)

    # ---- before anything is built

    def before_instantiate_classes(self) -> None:
        if self.config[self.subcommand].trainer.fast_dev_run:
            raise UserError("trainer.fast_dev_run tries a job by itself: leave it out, or --preflight")
        super().before_instantiate_classes()

    def _start(self, settings: Namespace) -> None:
        sys.argv = [sys.argv[0], str(self.folder), *self.arguments]  # what other ranks are started with
        config = yaml.safe_load(self.config_text)
        self.asked = Asked(config, self.run_settings, contents_of(config["data"]), settings.resume)
        self.true_trainer = settings.trainer.clone()
        self.plan = self.launch.decided_together(partial(self._plan, settings))
        if "skip" in self.plan:
            raise NothingToDo
        for name, value in self.plan["rehearsal"]["settings"].items():
            settings.data.init_args[name] = value
        settings.ckpt_path = self.plan["checkpoint"]
        self._shorten(settings.trainer, Path(self.plan["folder"]))

    def _plan(self, settings: Namespace) -> dict[str, Any]:
        """What the first process decides for all: what is trained, and on which data."""
        decision = foreseen(self.asked)
        if decision.action == "skip":
            write_json(self.folder / RESULT, {"nothing": decision.reason})
            return {"skip": True}
        scratch = Path(tempfile.mkdtemp(prefix=".preflight-", dir=existing(self.run_settings.folder)))
        (self.folder / SCRATCH).write_text(str(scratch), encoding="utf-8")
        before, peak_before = time.time(), self.memory.restart()
        rehearsal = self._rehearsed(settings, scratch)
        peak = self.memory.restart()
        extractions = [asdict(replace(one, peak_bytes=peak)) for one in rehearsal.extractions]
        is_resumed = decision.whole_state and decision.checkpoint is not None
        resumes = is_resumed and rehearsal.same_order
        return {
            "folder": str(scratch / "runs" / "calibration" / "v1"),
            "reason": decision.reason,
            "present": _checkpoints_of(decision.folder),
            "checkpoint": str(decision.checkpoint) if resumes else None,
            "weights": str(decision.checkpoint) if decision.checkpoint and not is_resumed else None,
            "done": _step_of(decision.checkpoint) if is_resumed and not resumes else None,
            "rehearsal": {**asdict(rehearsal), "extractions": extractions},
            "rehearsed_seconds": time.time() - before,
            "peak_before": peak_before,
        }

    def _rehearsed(self, settings: Namespace, scratch: Path) -> Rehearsal:
        given = Namespace(data=settings.data)  # type: ignore[no-untyped-call]
        data = self._parser("fit").instantiate_classes(given).data
        if not isinstance(data, Rehearses):
            return Rehearsal()
        # what dead latents start anew from is as large, as a rule, as what start values are estimated on
        rows = int(settings.model.init_args.get("sample_rows") or 0)
        return data.rehearse(scratch, Wanted(WARM_UP + BATCHES + 2, rows, SECONDS))

    def _shorten(self, trainer: Namespace, folder: Path) -> None:
        """One validation at the end, of some batches; nothing keeps it from stopping early; curves go to `folder`."""
        limit = trainer.limit_val_batches
        if limit is None or limit > VALIDATION_BATCHES or (isinstance(limit, float) and limit > 0):
            trainer.limit_val_batches = VALIDATION_BATCHES
        trainer.val_check_interval, trainer.check_val_every_n_epoch = 1.0, 1
        trainer.min_epochs = trainer.min_steps = trainer.max_time = None
        loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
        kept = [logger for logger in loggers if isinstance(logger, Namespace) and _is_local(logger)]
        if trainer.logger is not False:
            trainer.logger = kept or True
        log_into(trainer, folder)

    # ---- around the Trainer

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.insert(0, self.calibration)
        # those of the config say when, before the calibration makes them do it earlier
        self.said, self.retention = said_by_callbacks(trainer), retention_of(trainer)
        return trainer

    def after_fit(self) -> None:
        """Writes what was found; the first rank alone, once every one has said what it found."""
        assert self.plan is not None
        trainer, plan = self.trainer, self.plan
        found = slowest(self.calibration.found)
        if not trainer.is_global_zero:
            return
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        found |= self.calibration.sizes(every)
        found["host_bytes"] = max(found["host_bytes"], self.memory.restart(), plan["peak_before"])
        found["start"] = found.pop("started") - self.started - plan["rehearsed_seconds"]
        found["record_bytes"] = len(self.config_text.encode())
        found |= {"ranks": trainer.world_size, "nodes": trainer.num_nodes}
        found["host_bytes"] //= trainer.num_nodes
        if plan["done"] is not None:
            found["start_step"] = plan["done"]
        write_json(
            self.folder / RESULT,
            {
                "reason": plan["reason"],
                "present": plan["present"],
                "runs": self.run_settings.folder,
                "measured": found,
                "schedule": schedule_of(self.true_trainer, trainer, plan["rehearsal"], self.said),
                "retention": self.retention,
                "rehearsal": plan["rehearsal"],
                "device_total": found.pop("device_total"),
                "max_time": seconds_of(self.true_trainer.max_time),
                "train_ended": self.calibration.train_ended,
            },
        )


def main() -> int:
    """Tries the job that the command line names.

    Returns:
        The exit code.
    """
    started = time.time()
    folder, *arguments = sys.argv[1:]
    try:
        return run(arguments, partial(CalibratingCLI, Path(folder), float(os.environ.get(STARTED, started))))
    except UserError as error:
        print(f"{ERROR}{error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_disk_full(error):
            raise
        print(f"{ERROR}no space left on the disk of the runs to try the job: free some space there", file=sys.stderr)
        return 2


def _is_local(logger: Namespace) -> bool:
    return bool(logger.class_path.endswith(("TensorBoardLogger", "CSVLogger")))


def _checkpoints_of(run: Path | None) -> list[dict[str, Any]]:
    """The whole checkpoints of a run that goes on, as plain values but for their files."""
    names = ("step", "epoch", "sequence", "time", "metrics", "bytes")
    found = [] if run is None else list_checkpoints(run / CHECKPOINTS_NAME)
    return [{name: getattr(checkpoint, name) for name in names} for checkpoint in found]


def _step_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    sys.exit(main())
