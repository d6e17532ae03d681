"""What a model makes of the same few samples while it trains, for a person to read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt, restricted_number_type
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.graceful_stop import RunStopped
from callbacks.prediction_run import PredictionRun, prediction_run
from callbacks.prediction_samples import read_samples
from callbacks.prediction_text import prediction_text
from callbacks.undisturbed import undisturbed
from lightning_modules.predictions import Answer, AnswerSettings, Predictor, Predicts
from run_store import UserError
from run_store.predictions import BufferedPredictions, Prediction

MOST_SAMPLES = 100
TOO_MUCH = 0.05
"""Share of a training's time from which on a person is warned."""

if TYPE_CHECKING:
    SampleCount = int
else:
    SampleCount = restricted_number_type("SampleCount", int, [(">=", 1), ("<=", MOST_SAMPLES)])

# What is on one rank alone cannot be asked there alone.
SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


class SamplePredictions(Callback):
    """Keeps what the model makes of a few fixed samples, at moments of the training, in ROOT/predictions.sqlite, where
    ROOT is the folder of all runs, and shows it as a table in TensorBoard. `python main.py predictions` reads it.

    An embedding model retrieves, for each prompt, among the documents of the validation set. An autoencoder tells of
    each token its strongest latents and how much of it is missed, and how a causal language model goes on with and
    without the reconstruction in the place of its activations.

    Nothing about the training changes, and whatever fails here never stops it. The first rank does all of it.

    Args:
        enabled: whether it does anything.
        sample_count: how many samples there are, at most.
        sample_frequency: when the model is asked: at the end of every epoch, of every n-th step, or of the training.
        every_n_steps: for the frequency step, how many optimiser steps lie between.
        seed: draws the samples. The same seed and data give the same ones, after a resume too.
        samples: a file of JSON lines, each with a `prompt` and, if it is known, its `ground_truth` and an `index`; null
            takes samples of the validation set.
        top_k: how many texts are retrieved, or latents of a token told.
        text_tokens: tokens of a text that an autoencoder is shown on, at most.
        continuation_tokens: tokens by which a causal language model goes on; 0 leaves that out.
    """

    def __init__(
        self,
        enabled: bool = True,
        sample_count: SampleCount = 5,
        sample_frequency: Literal["epoch", "step", "train_end"] = "epoch",
        every_n_steps: PositiveInt | None = None,
        seed: int = 0,
        samples: str | None = None,
        top_k: PositiveInt = 5,
        text_tokens: PositiveInt = 64,
        continuation_tokens: NonNegativeInt = 20,
    ) -> None:
        self.enabled = enabled
        self.sample_count = sample_count
        self.sample_frequency = sample_frequency
        self.every_n_steps = every_n_steps
        self.seed = seed
        self.samples = samples
        self.settings = AnswerSettings(int(top_k), int(text_tokens), int(continuation_tokens))
        self.seconds = 0.0
        """Spent on predictions since the training began."""
        self._predictor: Predictor | None = None
        self._run: PredictionRun | None = None
        self._store: BufferedPredictions | None = None
        self._restored: str | None = None
        self._moments, self._failures = 0, 0
        self._warned = False

    def check_settings(self) -> None:
        """Refuses impossible settings before any data is touched.

        Raises:
            UserError: naming the setting.
        """
        if not 1 <= self.sample_count <= MOST_SAMPLES:
            raise UserError(
                f"sample_count of callback SamplePredictions is {self.sample_count}: set it to 1 to {MOST_SAMPLES}"
            )
        if self.sample_frequency == "step" and self.every_n_steps is None:
            raise UserError("sample_frequency of callback SamplePredictions is step: set every_n_steps, too")
        if self.sample_frequency != "step" and self.every_n_steps is not None:
            raise UserError(
                f"every_n_steps of callback SamplePredictions is {self.every_n_steps} and sample_frequency "
                f"{self.sample_frequency}: set sample_frequency to step, or every_n_steps to null"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses impossible settings.

        Raises:
            UserError: naming the setting.
        """
        if stage == "fit":
            self.check_settings()

    def state_dict(self) -> dict[str, Any]:
        """Of a run without a record, its id; the samples follow from the settings."""
        return {} if self._run is None or self._run.has_record else {"run_id": self._run.entry.run_id}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict.get("run_id")

    # ---- moments

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the samples."""
        self._predictor = self._store = self._run = None
        self.seconds, self._moments, self._failures, self._warned = 0.0, 0, 0, False
        self._before, self._told = time.perf_counter(), 0.0
        self._last_step = trainer.global_step
        if not self.enabled or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        log_dir = trainer.log_dir  # all ranks must ask together
        if not trainer.is_global_zero:
            return
        try:
            with self._timed(pl_module):
                self._predictor = self._start(trainer, pl_module, log_dir)
        except RunStopped:
            raise
        except Exception as error:
            rank_zero_warn(f"callback SamplePredictions is off, and training goes on: {_in_words(error)}")

    def _start(self, trainer: Trainer, pl_module: LightningModule, log_dir: str | None) -> Predictor:
        if isinstance(trainer.strategy, SHARDED):
            raise UserError(
                f"{type(trainer.strategy).__name__} has the model in parts, which cannot be asked one by one"
            )
        if not isinstance(pl_module, Predicts):
            raise UserError(f"model {type(pl_module).__name__} predicts nothing that could be told of a sample")
        samples = None if self.samples is None else read_samples(self.samples, self.sample_count, self.seed)
        predictor = pl_module.predictor(samples, int(self.sample_count), self.seed, self.settings)
        self._run = prediction_run(trainer.default_root_dir, log_dir, self._restored)
        self._store = BufferedPredictions(self._run.path, self._run.entry, rank_zero_warn)
        return predictor

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.every_n_steps is None or self._predictor is None or trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        if trainer.global_step % self.every_n_steps == 0:
            self._tell(trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.sample_frequency == "epoch":
            self._tell(trainer, pl_module, trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says what failed, if anything did."""
        if self.sample_frequency == "train_end":
            # Lightning has counted the last epoch by now
            self._tell(trainer, pl_module, max(0, trainer.current_epoch - 1))
        self._finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._finish()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives memory back."""
        self._finish()

    # ---- telling

    def _tell(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        if self._predictor is None:
            return
        self._moments += 1
        try:
            with self._timed(pl_module):
                answers = self._predictor.answers()
                self._write(answers, epoch, trainer.global_step)
                self._show(trainer, answers)
        except RunStopped:
            raise
        except Exception as error:
            self._failures += 1
            if self._failures == 1:
                rank_zero_warn(
                    f"no predictions of samples at step {trainer.global_step}, and training goes on: {_in_words(error)}"
                )
        self._warn_of_cost()

    def _write(self, answers: Sequence[Answer], epoch: int, step: int) -> None:
        assert self._run is not None
        assert self._store is not None
        run = self._run.entry
        self._store.write(
            Prediction(
                run.run_id,
                answer.member,
                epoch,
                step,
                answer.sample.index,
                answer.sample.prompt,
                answer.sample.ground_truth,
                answer.prediction,
                answer.scores,
                run.user_id,
                run.job_id,
            )
            for answer in answers
        )

    @staticmethod
    def _show(trainer: Trainer, answers: Sequence[Answer]) -> None:
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        for member in dict.fromkeys(answer.member for answer in answers) if writers else ():
            text = prediction_text([answer for answer in answers if answer.member == member])
            for writer in writers:
                writer.add_text(f"{member}/predictions" if member else "predictions", text, trainer.global_step)

    @contextmanager
    def _timed(self, pl_module: LightningModule) -> Iterator[None]:
        """Without a trace in the training; its seconds are counted."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # what steps have asked for is no time of ours
        started = time.perf_counter()
        try:
            with undisturbed(pl_module):
                yield
        finally:
            self.seconds += time.perf_counter() - started

    def _warn_of_cost(self) -> None:
        now = time.perf_counter()
        share = (self.seconds - self._told) / max(now - self._before, 1e-9)
        self._told, self._before = self.seconds, now
        if share > TOO_MUCH and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"predictions of samples took {share:.0%} of the time since the training began or the last of them: "
                "lower sample_count of callback SamplePredictions, or ask less often by its sample_frequency"
            )

    def _finish(self) -> None:
        store, self._store, self._predictor = self._store, None, None
        if store is None:
            return
        store.close()
        if (outcome := store.outcome()) is not None:
            rank_zero_warn(outcome)
        if self._failures:
            rank_zero_warn(f"predictions of samples failed at {self._failures} of {self._moments} moments")


def _in_words(error: Exception) -> str:
    """One line; what is no UserError is told with its kind."""
    told = " ".join(str(error).split())
    return told if isinstance(error, UserError) else f"{type(error).__name__}: {told}"
