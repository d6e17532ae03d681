"""Lightning's CLI with this project's classes, checkpoints and manner of refusing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

import cli.class_names  # noqa: F401  (so that a config may name classes without their packages)
from callbacks import AtomicCheckpointIO
from cli.messages import one_line
from cli.quiet import quiet
from run_store import UserError, atomic_file, sweep_temporaries

# abbreviations would let a misspelt setting pass as another
PARSER = {"exit_on_error": False, "allow_abbrev": False}


def run(arguments: Sequence[str]) -> None:
    """Parses and carries out one command.

    Raises:
        UserError: a setting is unknown, has the wrong type or an impossible value.
    """
    quiet()
    argv, sys.argv = sys.argv, [sys.argv[0]]  # Lightning warns when it is given both
    try:
        FulguriteCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=SaveConfig,
            seed_everything_default=0,
            parser_kwargs={**PARSER, **dict.fromkeys(FulguriteCLI.subcommands(), PARSER)},
            args=list(arguments),
        )
    except ArgumentError as error:
        raise UserError(one_line(error, arguments)) from error
    finally:
        sys.argv = argv


class FulguriteCLI(LightningCLI):
    """Adds `--resume RUN_FOLDER` to fit, and checkpoints that are written whole."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--resume",
            type=str | None,
            default=None,
            help="Run folder whose last checkpoint is taken: fit goes on in that folder, validate and test measure it.",
        )

    def before_instantiate_classes(self) -> None:
        """Points ckpt_path at the run to resume. Here, because on the command line it would make Lightning read
        hyper-parameters from the checkpoint and override what was typed.
        """
        settings = self.config[self.subcommand]
        if settings.resume is None:
            return
        folder = Path(settings.resume)
        checkpoint = folder / "checkpoints" / "last.ckpt"
        if not checkpoint.is_file():
            raise UserError(f"--resume {folder}: there is no checkpoint {checkpoint}")
        sweep_temporaries(checkpoint.parent)  # what a kill in the middle of a save has left
        settings.ckpt_path = str(checkpoint)
        log_into(settings.trainer, folder)

    def after_instantiate_classes(self) -> None:
        """Refuses impossible settings before hours are spent on extracting activations for them."""
        check_settings = getattr(self.model, "check_settings", None)
        if check_settings is not None:
            check_settings()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        plugins = self._get(self.config_init, "trainer").get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        return super().instantiate_trainer(plugins=[*plugins, AtomicCheckpointIO()], **kwargs)


def log_into(trainer: Any, folder: Path) -> None:
    """Points a configured TensorBoard logger at an existing run folder, SAVE_DIR/NAME/VERSION."""
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    for logger in loggers:
        if getattr(logger, "class_path", "").endswith("TensorBoardLogger"):
            settings = logger.init_args
            settings.save_dir, settings.name, settings.version = (
                str(folder.parent.parent),
                folder.parent.name,
                folder.name,
            )


class SaveConfig(SaveConfigCallback):
    """Writes the resolved settings of each attempt as config.1.yaml, config.2.yaml…, never over an older one."""

    def __init__(self, parser: LightningArgumentParser, config: Any, **kwargs: Any) -> None:
        super().__init__(parser, config, save_to_log_dir=False, **kwargs)
        self._folder: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # log_dir is broadcast whenever it is asked for, so all processes must ask; save_config runs in rank 0 alone.
        self._folder = trainer.log_dir
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._folder is None or not trainer.loggers:
            return
        folder = Path(self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        attempt = 1 + max((int(path.suffixes[0][1:]) for path in folder.glob("config.*.yaml")), default=0)
        text = self.parser.dump(self.config, skip_none=False)
        with atomic_file(folder / f"config.{attempt}.yaml") as temporary:
            temporary.write_text(text, encoding="utf-8")
