"""All there is to say of what fine-tuning changed in an embedding model, by a crosscoder between it and its base.

Shapes: s = d_sae latents, n texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.contrastive_triplets import TripletDataModule
from datamodules.shards import ActivationStore
from datamodules.shards.row_ranges import some_documents
from datamodules.triplet_texts import examples_of
from explanations.gain import BothRead, Gain, RetrievalTexts, gain_of, moves
from explanations.latent_groups import GROUPS, LatentGroups, group_latents, two_decoders
from explanations.latent_reader import LatentReader
from explanations.latent_scaling import weaker_has
from explanations.opening import open_reader
from features import Features, Firings, Keeping, Label, automatic_labels, typical_patterns
from features.facts import FIRINGS_LOOKED_AT
from lightning_modules.feature_pass import feature_pass
from lightning_modules.trainee import Trainee
from run_store import Split, UserError

EXAMPLES = Keeping(strongest=16, sampled=1, reach=14)
PATTERNS = 12
"""Of a kind, that labels choose from."""
ROWS_FOR_SCALING = 50_000


@dataclass(frozen=True)
class DifferenceSettings:
    """What is looked at, and what counts as what.

    Attributes:
        own_above: share of the two decoder norms above which a latent is one model's own.
        rotated_below: cosine of the two rows below which a latent that both models have counts as rotated.
        tokens: rows of the store that latents are looked at on, of documents that are drawn; None takes all.
        split: of the triplets, on which retrieval is measured.
        seed: of the bootstrap.
    """

    own_above: float = 0.7
    rotated_below: float = 0.7
    tokens: int | None = 100_000
    split: Split = "test"
    seed: int = 0


@dataclass(frozen=True)
class ModelDifference:
    """What was found. Latents are numbered as in the autoencoder.

    Attributes:
        sides: hook points of the base and of the fine-tuned model.
        models: where both come from.
        groups: what each latent is.
        features: of a pass over the store.
        labels: [s] by the rule of `features.labels`.
        weaker_has: [s] see `latent_scaling`.
        moved: [s] share of how far all latents together move the embeddings of the texts that retrieval is measured on;
            zeros where it was not measured.
        fvu: of the reconstruction on the same rows, mean over both models.
        gain: what fine-tuning gained in retrieval; where that is not known, a sentence that says why.
        settings: what counted as what.
    """

    sides: tuple[str, str]
    models: tuple[str, str]
    groups: LatentGroups
    features: Features
    labels: list[Label]
    weaker_has: Tensor
    moved: Tensor
    fvu: float
    gain: Gain | str
    settings: DifferenceSettings

    @property
    def fires(self) -> Tensor:
        """bool [s] which latents fired at all; the others are in no group."""
        return self.features.counts > 0

    def members(self, group: int) -> Tensor:
        """int64 latents of a group that fire, those first that move embeddings most, then those that fire most."""
        chosen = ((self.groups.numbers == group) & self.fires).nonzero().flatten()
        by_count = chosen[self.features.counts[chosen].argsort(descending=True, stable=True)]
        return by_count[self.moved[by_count].argsort(descending=True, stable=True)]

    def figures(self) -> dict[str, float]:
        """Scalars by name, for curves and records: shares of the latents that fire, and of the gain."""
        live = max(1, int(self.fires.sum()))
        found = {f"diff/{name}": len(self.members(place)) / live for place, name in enumerate(GROUPS)}
        if isinstance(self.gain, Gain):
            found |= {"diff/ndcg@10_base": self.gain.base, "diff/ndcg@10_tuned": self.gain.tuned}
            if self.gain.is_sure:
                found |= {f"diff/share_of_gain/{part.name}": part.share.mean for part in self.gain.parts}
        return found


def compare_models(
    member: Trainee,
    store: ActivationStore,
    hook_points: Sequence[str],
    triplets: TripletDataModule | None,
    settings: DifferenceSettings,
    on_progress: Callable[[int, int], None] = lambda done, rows: None,
) -> ModelDifference:
    """Looks at a crosscoder between two models, and reads the triplets' held-out texts with both.

    Args:
        member: the crosscoder, in evaluation.
        store: what it was trained on; says which models were read.
        hook_points: names of the activations of a batch, in the order that the member's model has them.
        triplets: what the fine-tuned model was trained on; None tells nothing of retrieval.
        settings: what is looked at.
        on_progress: told the rows that are done and those that there are.

    Raises:
        UserError: the autoencoder is no crosscoder between two embedding models, or these cannot be read.
    """
    decoders = two_decoders(member)
    groups = group_latents(decoders, settings.own_above, settings.rotated_below)
    reader = open_reader(member, store.manifest.source.get("extractor", {}))
    if len(reader.hook_points) != 2:
        raise UserError(
            f"the autoencoder reads {', '.join(member.shapes)}, and what fine-tuning changed is told of two models: "
            "train one by configs/diff.yaml"
        )
    base, tuned = reader.hook_points
    # training began from the base with this pooling, whatever the base says of itself, and many say nothing
    reader.encoders[base].wanted_pooling = reader.encoders[tuned].pooling
    gain: Gain | str = "No triplets were named, so what was gained in retrieval was not measured."
    moved = torch.zeros(len(groups.numbers), dtype=torch.float64)
    if triplets is not None:
        gain, moved = _retrieval(reader, triplets, groups, settings)
    ranges = some_documents(store.document_ranges(), settings.tokens)
    passed = feature_pass(member, store, hook_points, ranges, EXAMPLES, on_progress=on_progress)
    features = passed.features
    firings = Firings.of(features.sample, len(features.counts), FIRINGS_LOOKED_AT)
    return ModelDifference(
        (base, tuned),
        (reader.encoders[base].model, reader.encoders[tuned].model),
        groups,
        features,
        automatic_labels(typical_patterns(features.sample, firings, PATTERNS)),
        weaker_has(member, decoders, store, hook_points, some_documents(ranges, ROWS_FOR_SCALING)),
        moved,
        passed.scores["fvu"],
        gain,
        settings,
    )


def _retrieval(
    reader: LatentReader, triplets: TripletDataModule, groups: LatentGroups, settings: DifferenceSettings
) -> tuple[Gain, Tensor]:
    """What was gained, and how far each latent moves the texts [s]."""
    task = RetrievalTexts.of(example for _, example in examples_of(triplets, settings.split))
    base, tuned = reader.hook_points

    def both(texts: Sequence[str], column: str) -> BothRead:
        read = reader.read(texts, triplets.prompts.get(column, ""), by_token=False)
        return BothRead(read[base], read[tuned])

    queries, documents = both(task.queries, "anchor"), both(task.documents, "positive")
    gain = gain_of(task, queries, documents, groups.numbers, GROUPS, settings.seed)
    moved = moves(*queries) + moves(*documents)
    return gain, moved / moved.sum().clamp_min(torch.finfo(torch.float64).tiny)
