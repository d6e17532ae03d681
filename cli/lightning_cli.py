"""Lightning's CLI with this project's classes, runs, checkpoints and manner of refusing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import cli.class_names  # noqa: F401  (so that a config may name classes without their packages)
from callbacks import (
    AtomicCheckpointIO,
    Backup,
    EndsTogether,
    GracefulStop,
    InitialWeights,
    RandomStates,
    RunRecordKeeper,
    RunStopped,
)
from cli.environments import STORES, store_moved, with_environment
from cli.launch import DecidedElsewhere, Launch, Plan
from cli.messages import one_line
from cli.overlays import with_overlays
from cli.quiet import quiet
from cli.run_models import settle_models
from cli.run_settings import RunSettings
from cli.sources import find_measured
from cli.starting import Asked, Start, start
from cli.trainer_settings import refuse_impossible
from lightning_modules.memory_guard import ran_out_of_memory
from remote_files import check_url, is_url
from run_store import UserError
from run_store.paths import place_here

# abbreviations would let a misspelt setting pass as another
PARSER = {"exit_on_error": False, "allow_abbrev": False}
TENSORBOARD = "lightning.pytorch.loggers.TensorBoardLogger"


class NothingToDo(Exception):  # noqa: N818  (it is no error)
    """The run that was asked for is complete."""


def run(arguments: Sequence[str], carry_out: Callable[[Sequence[str], Launch], object] | None = None) -> int:
    """Parses and carries out one command.

    Args:
        arguments: as on the command line, without the program's name.
        carry_out: what does it; FulguriteCLI by default.

    Returns:
        The exit code.

    Raises:
        UserError: a setting is unknown, has the wrong type or an impossible value.
    """
    quiet()
    argv, arguments = sys.argv, with_environment(with_overlays(arguments))
    launch = Launch()
    try:
        (carry_out or FulguriteCLI)(arguments, launch)
        launch.leave()
    except NothingToDo:
        return 0
    except BaseException as error:
        reason = launch.ended_by(_told(error, arguments))
        if isinstance(reason, RunStopped | DecidedElsewhere):
            return reason.exit_code
        if reason is error:
            raise
        raise reason from error
    finally:
        sys.argv = argv
        launch.forget()
    return 0


def _told(error: BaseException, arguments: Sequence[str]) -> BaseException:
    """What libraries raise for a person's mistake, as a sentence."""
    if isinstance(error, ArgumentError):
        return UserError(one_line(error, arguments))
    if isinstance(error, MisconfigurationException):
        return UserError(" ".join(str(error).split()))
    # steps and validation have sentences of their own; this is the start sample, reading, saving
    if ran_out_of_memory(error):
        return UserError("memory ran out: lower data.batch_size or d_sae, or give the process more memory")
    return error


class FulguriteCLI(LightningCLI):
    """Adds the settings of runs: `fit` claims a run's folder before anything is built, `validate` and `test` find the
    run that they measure. Checkpoints are written whole.

    Args:
        arguments: the command line, without the program's name.
        launch: the processes that carry it out.
    """

    def __init__(self, arguments: Sequence[str], launch: Launch) -> None:
        self.arguments = list(arguments)
        self.launch = launch
        self.plan: Plan | None = None
        self.start: Start | None = None
        self.backup: Backup | None = None
        sys.argv = sys.argv[:1]  # Lightning warns when it is given both
        try:
            super().__init__(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                save_config_callback=None,
                seed_everything_default=0,
                parser_kwargs={**PARSER, **dict.fromkeys(self.subcommands(), PARSER)},
                args=self.arguments,
            )
        except BaseException as error:
            self._end_badly(self._reason_for(error))
            raise
        finally:
            if self.start is not None:
                self.start.lock.release()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunSettings, "run")
        parser.add_argument(
            "--resume",
            type=str | None,
            default=None,
            help="Run (its folder, id or name) whose newest checkpoint is used: fit goes on in it, validate and test "
            "measure it.",
        )

    # ---- before anything is built

    def before_instantiate_classes(self) -> None:
        """Decides which run this is about. Here, because a ckpt_path on the command line would make Lightning read
        hyper-parameters from the checkpoint and override what was typed.
        """
        sys.argv = [*sys.argv[:1], *self.arguments]  # what Lightning starts its other processes with
        settings = self.config[self.subcommand]
        self.launch.find_place(settings.trainer, settings.run.patience)
        if self.subcommand == "fit":
            refuse_impossible(settings.trainer)
        self._settle_places(settings)
        settle_models(settings, settings.run.folder)
        self.config_text = self._parser(self.subcommand).dump(settings, skip_none=False)
        given = Namespace(run=settings.run)  # type: ignore[no-untyped-call]
        self.run_settings: RunSettings = self._parser(self.subcommand).instantiate_classes(given).run
        if self.subcommand == "fit" and not settings.trainer.fast_dev_run:
            self._start(settings)
        elif self.subcommand in ("validate", "test") and settings.ckpt_path is None:
            self._measure(settings)

    def _settle_places(self, settings: Namespace) -> None:
        """Paths in one form, and stores where the environment has them."""
        run = settings.run
        run.folder = place_here(run.folder, "run.folder")
        run.stores = run.stores if is_url(run.stores) else place_here(run.stores, "run.stores")
        data = settings.get("data")
        if data is not None and (store := data.init_args.get("store")) is not None:
            data.init_args.store = store if is_url(store) else place_here(store, "data.store")
        if run.stores == STORES:
            return
        for inside in (data, *_as_list(settings.trainer.get("callbacks"))):
            for name, value in [] if inside is None else list(inside.init_args.items()):
                if isinstance(value, str):
                    inside.init_args[name] = store_moved(value, run.stores, self.arguments)

    def _start(self, settings: Namespace) -> None:
        if self.run_settings.backup is not None:
            check_url(self.run_settings.backup, "run.backup")
        config = yaml.safe_load(self.config_text)

        def decide() -> Plan:
            self.asked = Asked(config, self.run_settings, contents_of(config["data"]), settings.resume)
            self.start = start(self.asked)
            if self.start is None:
                return {"skip": True}
            found = self.start
            paths = {"folder": found.folder, "checkpoint": found.checkpoint, "weights": found.weights}
            return {name: path and str(path) for name, path in paths.items()}

        self.plan = self.launch.decided_together(decide)
        if "skip" in self.plan:
            raise NothingToDo
        settings.ckpt_path = self.plan["checkpoint"]
        log_into(settings.trainer, Path(self.plan["folder"]))

    def _measure(self, settings: Namespace) -> None:
        config = yaml.safe_load(self.config_text)
        spec = Asked(config, self.run_settings, contents_of(config["data"])).identity(None).spec.fingerprint
        folder, found = find_measured(self.run_settings, settings.resume, spec)
        if warning := found.warning():
            print(f"warning: {warning}", file=sys.stderr)
        settings.ckpt_path = str(found.checkpoint.path)
        # beside the training's curves: TensorBoard forgets those of a folder when a later file begins at step 0
        log_into(settings.trainer, folder / str(self.subcommand))

    # ---- around the Trainer

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = self._get(self.config_init, "trainer")
        plugins, callbacks = _as_list(trainer.get("plugins")), _as_list(trainer.get("callbacks"))
        self.keeper: RunRecordKeeper | None = None
        self.stop: GracefulStop | None = None
        if self.plan is not None:
            callbacks += self._callbacks_of_a_run(self.plan)
        elif self.subcommand != "predict":
            callbacks.append(RandomStates())  # or Lightning misses what a checkpoint has of it
        together = EndsTogether(self._reason_for)
        built = super().instantiate_trainer(
            plugins=[*plugins, AtomicCheckpointIO()], callbacks=[together, *callbacks], **kwargs
        )
        self.launch.join(built)
        return built

    def _callbacks_of_a_run(self, plan: Plan) -> list[Callback]:
        """Behind those of the config: a state is whole once they have seen the step."""
        self.stop = GracefulStop(plan["folder"])
        weights = [InitialWeights(Path(plan["weights"]), self.run_settings.member)] if plan["weights"] else []
        return [*weights, RandomStates(), self.stop]

    def after_instantiate_classes(self) -> None:
        """Refuses impossible settings before hours are spent on extracting activations for them."""
        check_settings = getattr(self.model, "check_settings", None)
        if check_settings is not None:
            check_settings(self.datamodule)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            getattr(callback, "check_settings", lambda: None)()
        if self.start is not None and self.stop is not None:
            self.keeper = RunRecordKeeper(self.start.begin(self.asked, self.config_text), self._reason_for)
            if self.run_settings.backup is not None:
                self.backup = Backup(self.run_settings.backup, self.start.folder)
            self.launch.when_ended(self._end_badly)
            kept: list[Callback] = [self.keeper, *([self.backup] if self.backup else [])]
            callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
            callbacks[callbacks.index(self.stop) : callbacks.index(self.stop)] = kept

    def _run_subcommand(self, subcommand: str) -> None:
        with nullcontext() if self.stop is None else self.stop.listening():
            super()._run_subcommand(subcommand)

    def after_fit(self) -> None:
        if self.keeper is not None:
            self.keeper.complete(self.trainer)
        if self.backup is not None:
            self.backup.finish()

    def _reason_for(self, error: BaseException) -> BaseException:
        return self.launch.ended_by(_told(error, self.arguments))

    def _end_badly(self, error: BaseException) -> None:
        if self.start is None:
            return
        if self.start.record is None:
            self.start.abandon()
        elif self.keeper is not None:
            self.keeper.on_exception(self.trainer, self.model, error)
        if self.backup is not None:
            self.backup.finish()


def contents_of(data: dict[str, Any]) -> dict[str, str | None]:
    """What a data class says of the files behind its settings (its `identity_of`), for `spec_of`.

    Raises:
        UserError: there is nothing that the settings could mean.
    """
    module, _, name = data["class_path"].rpartition(".")
    identity_of = getattr(getattr(importlib.import_module(module), name), "identity_of", None)
    contents = {} if identity_of is None else identity_of(data["init_args"])
    return {f"data.init_args.{name}": content for name, content in contents.items()}


def log_into(trainer: Namespace, folder: Path) -> None:
    """Points the loggers, and what is written where there are none, at a run's folder; TensorBoard is the default."""
    trainer.default_root_dir = str(folder)
    if trainer.logger is None or trainer.logger is True:
        settings = Namespace(default_hp_metric=False)  # type: ignore[no-untyped-call]
        trainer.logger = Namespace(class_path=TENSORBOARD, init_args=settings)  # type: ignore[no-untyped-call]
    for logger in trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]:
        if logger is False:
            continue
        settings = logger.init_args
        if logger.class_path.endswith(("TensorBoardLogger", "CSVLogger")):
            # SAVE_DIR/NAME/VERSION
            place = (str(folder.parent.parent), folder.parent.name, folder.name)
            settings.save_dir, settings.name, settings.version = place
        else:
            settings.save_dir = str(folder)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]
