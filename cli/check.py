"""`python main.py check`: what is asked of an embedding model before it is relied on."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Literal

import torch
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import cli.class_names  # noqa: F401  (so that a config may name classes without their packages)
from checks import PARTS, Limits, Part, Subject, as_json, as_text, carry_out
from cli.lightning_cli import PARSER
from cli.messages import TOP, one_line
from cli.overlays import with_overlays
from cli.quiet import quiet
from cli.run_settings import RunSettings
from datamodules.contrastive_triplets import TripletDataModule
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.optimizer_settings import check_optimizer
from run_store import UserError, nearest

FAILED = 1
OWN = ("only", "json", "device", "limits")


class CheckCLI(LightningCLI):
    """Reads the configs of `fit` and makes model and data of them, no Trainer.

    Args:
        arguments: the command line behind `check`.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={**PARSER, "prog": "python main.py check", "description": __doc__},
            args=list(arguments),
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(Limits, "limits")
        parser.add_argument(
            "--only", type=Part, nargs="+", default=list(PARTS), help="The parts that are carried out; all by default."
        )
        parser.add_argument("--json", action="store_true", help="Print JSON in place of the table.")
        parser.add_argument(
            "--device",
            type=Literal["auto", "cpu", "cuda"],
            default="auto",
            help="What the model is put on; auto takes a GPU where there is one.",
        )
        # what configs of `fit` may hold besides, and `check` has no use for
        parser.add_class_arguments(RunSettings, "run")
        for name in ("resume", "ckpt_path", "weights_only"):
            parser.add_argument(f"--{name}", type=str | bool | None, default=None, help="Of no use here.")

    def instantiate_classes(self) -> None:
        wanted = Namespace({name: self.config[name] for name in ("model", "data", "limits")})  # type: ignore[no-untyped-call]
        self.config_init = self.parser.instantiate_classes(wanted)
        self.model, self.datamodule = self.config_init.model, self.config_init.data


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `check`.

    Returns:
        0 when every part passed, 1 when one did not.

    Raises:
        UserError: a setting is unknown or impossible, or the data cannot be read.
    """
    quiet()
    argv, given = sys.argv, with_overlays(arguments)[1:]
    sys.argv = argv[:1]  # Lightning warns when it is given both
    try:
        parsed = CheckCLI(given)
    except ArgumentError as error:
        raise UserError(_explained(error, given)) from error
    finally:
        sys.argv = argv
    settings = parsed.config
    _refuse_unclear(settings.only, given)
    subject, device = _subject_of(parsed.model, parsed.datamodule), _device(settings.device)
    verdicts = carry_out(subject, parsed.config_init.limits, settings.only, device)
    print(as_json(verdicts) if settings.json else as_text(verdicts))
    return 0 if all(verdict.passed for verdict in verdicts) else FAILED


def _refuse_unclear(only: Sequence[Part], arguments: Sequence[str]) -> None:
    if not only:
        raise UserError(f"only is empty, and nothing checked would pass: name some of {', '.join(PARTS)}")
    # the parser would take the last one
    if sum(argument.partition("=")[0] == "--only" for argument in arguments) > 1:
        raise UserError("only is given twice: name all parts behind one, as in --only loading quality")


def _subject_of(model: LightningModule, data: LightningDataModule | None) -> Subject:
    if not isinstance(model, ContrastiveEmbedding) or not isinstance(data, TripletDataModule):
        raise UserError(
            f"check is for embedding models, and the config has {type(model).__name__} on {type(data).__name__}: name "
            "one with ContrastiveEmbedding on TripletDataModule, such as --config configs/embedder.yaml"
        )
    check_optimizer(model.make_optimizer, model.make_lr_scheduler)
    return Subject(model.encoder, model.loss, model.make_optimizer, data)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda is not there: set it to auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _explained(error: ArgumentError, arguments: Sequence[str]) -> str:
    """As for `fit`, which lacks the settings of `check`."""
    if "arguments are required" in str(error):
        return "check needs the config of an embedding model, such as --config configs/embedder.yaml"
    if found := re.search(r"(?:unrecognized arguments: -*|does not accept option ')([\w.]+)", str(error)):
        group, _, option = found[1].partition(".")
        if group == "limits" or "Group 'limits'" in str(error):
            names = [field.name for field in fields(Limits)]
            return f"there is no setting limits.{option or group}: the nearest are {nearest(option or group, names)}"
        if group not in TOP:
            return f"there is no setting {found[1]}: the nearest are {nearest(group, [*TOP, *OWN])}"
    return one_line(error, arguments)
