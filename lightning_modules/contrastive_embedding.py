"""Fine-tunes an embedding model on triplets of texts."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.functional import normalize
from torch.optim import Optimizer

from backbones.chunks import in_batch_order
from backbones.encoder import Encoder
from backbones.tokenizers import load_tokenizer
from datamodules.triplets import Tokenisation, TokenisedTexts, TripletBatch
from lightning_modules.embedding_evaluation import EmbeddingEvaluation, ShownEmbeddings, Similarities
from lightning_modules.folder_checkpoints import LoadsFolders
from lightning_modules.functional import ScoreSpace, cached_loss, ranks, sum_over_ranks
from lightning_modules.hyperparameters import keep_plain
from lightning_modules.losses import ContrastiveLoss, EmbeddedBatch, InfoNCE
from lightning_modules.optimizer_settings import check_optimizer, clip_gradients, scheduled
from lightning_modules.predictions import AnswerSettings, Sample
from lightning_modules.retrieval_predictions import RetrievalPredictor
from lightning_modules.schedules import WarmupDecay
from lightning_modules.triplet_data import TripletData
from run_store import Split, UserError

TEXTS_AT_ONCE = 256
"""That are embedded where nothing is learnt from them."""

LOOK_EVERY_N_STEPS_ON_A_GPU = 50


class ContrastiveEmbedding(LoadsFolders):
    """LightningModule around a text encoder and a contrastive loss.

    Each different text of a batch is encoded once, sorted by length in chunks of little padding. Validation scores
    retrieval among the documents that were held out, before the first step too, so that what a training gained is
    known.

    Args:
        encoder: what makes one vector of a text; its weights are loaded before training begins.
        loss: of the embeddings of a batch; `InfoNCE` by default.
        optimizer: makes the optimiser from the parameters that are trained.
        lr_scheduler: makes the schedule from the optimiser; it is stepped once an optimiser step.
        gradient_cache: encode a batch twice, with memory for one chunk alone, so that the number of negatives is not
            bounded by memory (GradCache). The gradient is the same.
        score_spaces: in what else validation scores retrieval, by name: truncated, int8 or binary embeddings.
        measure_first: whether the model is measured on the validation examples before the first step.
    """

    paced_in = "triplets"
    shown_behind_the_bar = ("train/loss",)

    def __init__(
        self,
        encoder: Encoder,
        loss: ContrastiveLoss | None = None,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(parameters, lr=2e-5, fused=True),
        lr_scheduler: LRSchedulerCallable = lambda optimizer: WarmupDecay(optimizer, warmup=0.1, decay=0.9),
        gradient_cache: bool = False,
        score_spaces: dict[str, ScoreSpace] | None = None,
        measure_first: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        keep_plain(self)
        self.encoder = encoder
        self.loss = InfoNCE() if loss is None else loss
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.gradient_cache = gradient_cache
        self.score_spaces = score_spaces
        self.measure_first = measure_first
        self.scores_before: dict[str, float] = {}
        # the encoder before any training, without weights yet; in a list so that it is no part of the model
        self._base = [copy.deepcopy(encoder)] if self.loss.needs_guide else []
        self._guide: Tensor | None = None

    @property
    def data(self) -> TripletData:
        """The datamodule of the Trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    def tokenisations(self) -> list[Tokenisation]:
        """How the encoder wants its texts."""
        return self.encoder.tokenisations()

    # ---- weights and their start

    def check_settings(self, data: Any = None) -> None:
        """Refuses impossible settings before any data is touched.

        Raises:
            UserError: naming the setting.
        """
        self.encoder.check_settings()
        self.loss.check_settings()
        check_optimizer(self.make_optimizer, self.make_lr_scheduler)

    def configure_model(self) -> None:
        """Loads the weights, once.

        Raises:
            UserError: they cannot be loaded.
        """
        if not hasattr(self, "evaluation"):
            self.encoder.build()
            self.evaluation = EmbeddingEvaluation(self.encoder.width, self.score_spaces)

    def on_fit_start(self) -> None:
        self._run_length = int(self.trainer.estimated_stepping_batches)
        self.data.mine_with(self.embed)
        if self.loss.needs_guide:
            self._guide = self._embedded_by_the_base()

    def on_train_start(self) -> None:
        """Measures the model before its first step."""
        loader = self.data.val_dataloader()
        if self.measure_first and self.global_step == 0 and loader:
            scores = self._measured(loader)
            self.scores_before = {f"val/{name}": float(value) for name, value in scores.items()}
            for logger in self.loggers:
                logger.log_metrics(self.scores_before, step=0)

    def _measured(self, loader: Any) -> dict[str, Tensor]:
        with self._looking():
            for batch in loader:
                self._evaluate(self.trainer.strategy.batch_to_device(batch, self.device))
        return self.evaluation.scores()

    def _embedded_by_the_base(self) -> Tensor:
        """[texts, g] unit embeddings of all training texts by the encoder as it was before any training."""
        base = copy.deepcopy(self._base[0])
        base.build()
        base.to(self.device).eval()
        table = self.data.table("train")
        every = torch.arange(len(table.lengths(0)))
        with torch.no_grad():
            parts = [base.encode(self._on_device(table.texts(ids))) for ids in torch.split(every, TEXTS_AT_ONCE)]
        return normalize(torch.cat(parts), dim=1).cpu()

    # ---- training

    def pace_of(self, batch: TripletBatch) -> int:
        """Triplets of a batch."""
        return len(batch.examples)

    def training_step(self, batch: TripletBatch, batch_idx: int) -> Tensor:
        self.evaluation.retrieval.kept = None
        chunks = self.encoder.chunks(batch.texts)
        parameters = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]

        def loss_of(rows: Tensor) -> Tensor:
            return self._loss_of(batch, in_batch_order([rows], chunks))

        if self.gradient_cache:
            loss = cached_loss(self.encoder.encode_chunk, chunks, loss_of, parameters).loss
        else:
            loss = loss_of(torch.cat(self.encoder.encode_chunks(chunks)))
        self._refuse_non_finite(loss, batch)
        if self._figures_are_due:
            self.log("train/loss", sum_over_ranks(loss.detach()) / ranks(), prog_bar=True)
            self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    @property
    def _figures_are_due(self) -> bool:
        """Whether they are worth an exchange between ranks; one process shows those of every step."""
        step, every = self.global_step + 1, self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return ranks() == 1 or step in (1, self._run_length) or (every > 0 and step % every == 0)

    def _loss_of(self, batch: TripletBatch, texts: Tensor) -> Tensor:
        guide = None if self._guide is None else self._guide[batch.ids.cpu()].to(texts.device)
        value: Tensor = self.loss(
            EmbeddedBatch(texts, batch.ids, batch.anchors, batch.positives, batch.negatives, batch.scores, guide)
        )
        return value

    def _refuse_non_finite(self, loss: Tensor, batch: TripletBatch) -> None:
        # looking waits for a GPU
        if loss.device.type != "cpu" and self.global_step % LOOK_EVERY_N_STEPS_ON_A_GPU:
            return
        if not math.isfinite(value := float(loss.detach())):
            where = self.data.describe_example("train", int(batch.examples[0]))
            raise UserError(
                f"the loss became {value} at step {self.global_step} (its first example: {where}): lower the learning "
                "rate, or set the encoder's precision to float32"
            )

    def trial(self, batch: TripletBatch) -> float:
        """The share of a batch's triplets that are satisfied already; its gradient is made and forgotten, as a trial of
        a step, and no random number is drawn.
        """
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices, device_type=self.device.type if devices else "cuda"):
            texts = self.encoder.encode(batch.texts)
            torch.autograd.backward(self._loss_of(batch, texts))
        for parameter in self.parameters():
            parameter.grad = None
        evaluation = EmbeddingEvaluation(self.encoder.width).to(self.device)
        evaluation.update(batch, texts.detach())
        return float(evaluation.scores().get("triplet_accuracy", math.nan))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        clip_gradients(self.trainer, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not trained:
            raise UserError("frozen_layers of model.encoder leaves no weight to be trained: lower it")
        optimizer = self.make_optimizer(trained)
        return scheduled(optimizer, self.make_lr_scheduler, lambda: int(self.trainer.estimated_stepping_batches))

    # ---- embedding and evaluation

    def forward(self, texts: tuple[TokenisedTexts, ...]) -> Tensor:
        """Embeddings [u, d] of u texts in each of `tokenisations()`."""
        return self.encoder.encode(texts)

    @torch.no_grad()
    def embed(self, texts: tuple[TokenisedTexts, ...]) -> Tensor:
        """As `forward`, without a gradient or dropout, on the CPU."""
        with self._looking():
            return self.encoder.encode(self._on_device(texts)).cpu()

    @contextmanager
    def _looking(self) -> Iterator[None]:
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(training)

    def _on_device(self, texts: tuple[TokenisedTexts, ...]) -> tuple[TokenisedTexts, ...]:
        return tuple(TokenisedTexts(part.tokens.to(self.device), part.lengths.to(self.device)) for part in texts)

    def _evaluate(self, batch: TripletBatch) -> None:
        self.evaluation.update(batch, self.encoder.encode(batch.texts))

    def on_validation_epoch_start(self) -> None:
        self.evaluation.begin()

    def on_test_epoch_start(self) -> None:
        self.evaluation.begin()

    def validation_step(self, batch: TripletBatch, batch_idx: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: TripletBatch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, stage: str) -> None:
        self.log_dict({f"{stage}/{name}": value for name, value in self.evaluation.scores().items()})

    def validation_similarities(self) -> Similarities:
        """Of the last validation or test."""
        return self.evaluation.similarities()

    def validation_embeddings(self, texts: int) -> ShownEmbeddings:
        """Of at most so many texts held out for validation, the same each time; as many anchors as positives and
        negatives.
        """
        split: Split = "validation"
        if not len(self.data.rows(split)):
            return ShownEmbeddings(torch.empty(0, self.encoder.width), [], [])
        task = self.data.retrieval(split)
        positive = task.documents[torch.unique(task.relevant[:, 1])]
        by_role = {"anchor": task.queries, "positive": positive}
        by_role["negative"] = task.documents[~torch.isin(task.documents, positive)]
        by_role = {role: ids[: texts // len(by_role)] for role, ids in by_role.items()}
        ids = torch.cat(list(by_role.values()))
        parts = [self.data.table(split).texts(some) for some in torch.split(ids, TEXTS_AT_ONCE)]
        vectors = torch.cat([self.embed(part) for part in parts])
        how = self.tokenisations()[0]
        tokenizer = load_tokenizer(how.tokenizer, how.revision)
        shown = [
            str(tokenizer.decode(tokens, skip_special_tokens=True))
            for part in parts
            for tokens in torch.split(part[0].tokens, part[0].lengths.tolist())
        ]
        return ShownEmbeddings(vectors, shown, [role for role, some in by_role.items() for _ in some])

    def predictor(
        self, samples: Sequence[Sample] | None, count: int, seed: int, settings: AnswerSettings
    ) -> RetrievalPredictor:
        """What tells what is retrieved for prompts; see `lightning_modules.predictions.Predicts`."""
        return RetrievalPredictor(self.data, self.embed, self.evaluation, samples, count, seed, settings)

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to save weights that are not finite, so that the last checkpoint on disk is always a good one."""
        if not all(bool(parameter.isfinite().all()) for parameter in self.parameters()):
            raise UserError(
                f"weights are not finite at step {self.global_step}: resume from the last checkpoint with a lower "
                "learning rate"
            )
        checkpoint["scores_before"] = dict(self.scores_before)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.scores_before = dict(checkpoint.get("scores_before", {}))
