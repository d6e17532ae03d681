"""At the end of a crosscoder's training: what fine-tuning changed in the model that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt, restricted_number_type
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.calibration import Calibration
from callbacks.graceful_stop import RunStopped
from callbacks.sample_predictions import SHARDED
from callbacks.undisturbed import undisturbed
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.shards import ActivationStore
from explanations import DifferenceSettings, ModelDifference, compare_models
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from reports.difference import Subject, table_of, write_page
from run_store import Split, UserError
from run_store.layout import METADATA_NAME
from run_store.record import read_record

NAME = "difference.html"

if TYPE_CHECKING:
    CosineBound = float
else:
    CosineBound = restricted_number_type("CosineBound", float, [(">=", -1), ("<=", 1)])


class DifferenceReport(Callback):
    """Writes RUN_FOLDER/difference.html when a crosscoder between a base and a fine-tuned embedding model has been
    trained: which latents both have, which one of them has alone, and what of the gain in NDCG@10 hangs on which, by
    ablation. The figures become metrics under diff/, too. `python main.py diff --run RUN` makes the page again.

    Whatever fails here stops nothing. The first rank does all of it.

    Args:
        triplets: what the fine-tuned model was trained on; null measures no retrieval.
        split: of the triplets, on which retrieval is measured.
        own_above: a latent is one model's own if that has more than this share, ½ or more, of the two decoder norms.
        rotated_below: another one is rotated if the cosine of its two decoder rows is below this.
        tokens: rows of the store that latents are looked at on, of documents that are drawn; null takes all.
        seed: of the bootstrap over queries.
    """

    def __init__(
        self,
        triplets: TripletDataModule | None = None,
        split: Split = "test",
        own_above: OpenUnitInterval = 0.7,
        rotated_below: CosineBound = 0.7,
        tokens: PositiveInt | None = 100_000,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.triplets = triplets
        self.settings = DifferenceSettings(
            float(own_above), float(rotated_below), None if tokens is None else int(tokens), split, int(seed)
        )
        self._folder: Path | None = None

    def check_settings(self) -> None:
        """Refuses impossible settings before any data is touched.

        Raises:
            UserError: naming the setting.
        """
        if self.settings.own_above < 0.5:
            raise UserError(
                f"own_above of callback DifferenceReport is {self.settings.own_above}, and a latent would be both "
                "models' own: set it to 0.5 or more"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses impossible settings.

        Raises:
            UserError: naming the setting.
        """
        if stage == "fit":
            self.check_settings()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # asked here because all ranks must ask together
        self._folder = None if trainer.log_dir is None else Path(trainer.log_dir)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks, writes and tells."""
        is_trial = trainer.fast_dev_run or any(isinstance(one, Calibration) for one in trainer.callbacks)  # type: ignore[attr-defined]
        if is_trial or not trainer.is_global_zero or self._folder is None:
            return
        try:
            with undisturbed(pl_module):
                self._report(trainer, pl_module, self._folder)
        except RunStopped:
            raise
        except Exception as error:
            why = " ".join(str(error).split())
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            rank_zero_warn(
                f"{NAME} was not written ({kind}{why}), and the training is complete all the same: make it by "
                f"python main.py diff --run {self._folder}"
            )

    def _report(self, trainer: Trainer, pl_module: LightningModule, folder: Path) -> None:
        if not isinstance(pl_module, SparseAutoencoding) or len(pl_module.members) != 1:
            raise UserError("it is about one crosscoder, and another model was trained")
        if isinstance(trainer.strategy, SHARDED):
            raise UserError(f"one rank reads all latents, and {type(trainer.strategy).__name__} has them in parts")
        data = trainer.datamodule  # type: ignore[attr-defined]
        store = getattr(data, "store", None)
        if not isinstance(store, ActivationStore):
            raise UserError("it reads an activation store on this machine, and the data has none")
        found = compare_models(pl_module.only, store, list(data.shapes), self.triplets, self.settings)
        name = read_record(folder).name if (folder / METADATA_NAME).exists() else folder.name
        write_page(Subject(name, found, store), folder / NAME)
        self._keep(trainer, found)
        print(f"\n{table_of(found)}\n  open {folder / NAME} in a browser", flush=True)

    @staticmethod
    def _keep(trainer: Trainer, found: ModelDifference) -> None:
        """In the curves, and in what the run's record is told."""
        figures = found.figures()
        for logger in trainer.loggers:
            logger.log_metrics(figures, trainer.global_step)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in figures.items()})
