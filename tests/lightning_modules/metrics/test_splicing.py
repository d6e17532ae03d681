import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div

from datamodules.text import TokenBatch
from lightning_modules.metrics import SplicedEmbedding, SplicedLanguageModel
from lightning_modules.metrics.splicing import WAYS


def make_batch(contexts, length, padding=0):
    """Contexts that begin with a special token; the last has `padding` tokens less."""
    tokens, lengths = torch.randint(0, 9, (contexts, length)), torch.full((contexts,), length)
    positions = (torch.arange(length) - 1).repeat(contexts, 1)
    lengths[-1] -= padding
    positions[-1, length - padding :] = -1
    return TokenBatch(tokens, torch.zeros_like(tokens), positions, lengths)


@pytest.fixture
def readings():
    """Two batches of different sizes with an output for each way."""
    batches = [make_batch(3, 6, padding=2), make_batch(1, 4)]
    return [(batch, {way: torch.randn(*batch.tokens.shape, 9) for way in WAYS}) for batch in batches]


def fed(metric, readings):
    for batch, outputs in readings:
        for way, output in outputs.items():
            metric.update(way, output, outputs["clean"], batch)
    return {name: float(value) for name, value in metric.compute().items()}


def test_losses_are_means_over_the_tokens_of_all_batches(readings):
    scores = fed(SplicedLanguageModel(), readings)
    losses = {}
    for way in WAYS:
        chosen = [
            (output[way][:, :-1][batch.positions[:, 1:] >= 0], output["clean"][:, :-1][batch.positions[:, 1:] >= 0])
            for batch, output in readings
        ]
        logits, clean = (torch.cat(part) for part in zip(*chosen, strict=True))
        targets = torch.cat([batch.tokens[:, 1:][batch.positions[:, 1:] >= 0] for batch, _ in readings])
        assert len(targets) == 5 + 5 + 3 + 3
        losses[way] = float(cross_entropy(logits, targets))
        assert scores[f"ce_{way}"] == pytest.approx(losses[way], rel=1e-5)
        divergence = kl_div(logits.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True)
        if way != "clean":
            assert scores["kl" if way == "spliced" else f"kl_{way}"] == pytest.approx(float(divergence), rel=1e-5)
    for reference, name in (("zero_ablation", "ce_loss_score"), ("mean_ablation", "ce_loss_score_mean_ablation")):
        share = (losses[reference] - losses["spliced"]) / (losses[reference] - losses["clean"])
        assert scores[name] == pytest.approx(share, rel=1e-4)


def test_cosines_are_means_over_contexts_of_their_pooled_real_tokens(readings):
    scores = fed(SplicedEmbedding(), readings)
    cosines = {}
    for way in WAYS:
        each = []
        for batch, output in readings:
            for context, length in enumerate(batch.lengths):
                pair = [output[name][context, :length].mean(dim=0) for name in (way, "clean")]
                each.append(float(cosine_similarity(*pair, dim=0)))
        cosines[way] = sum(each) / len(each)
    assert scores["embedding_cosine"] == pytest.approx(cosines["spliced"], rel=1e-5)
    for way, name in (("zero_ablation", "embedding_score"), ("mean_ablation", "embedding_score_mean_ablation")):
        assert scores[f"embedding_cosine_{way}"] == pytest.approx(cosines[way], rel=1e-5)
        share = (cosines["spliced"] - cosines[way]) / (1 - cosines[way])
        assert scores[name] == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize("metric", [SplicedLanguageModel, SplicedEmbedding])
def test_the_sums_of_ranks_add_up_to_those_of_one(readings, metric):
    alone, (one, other) = fed(metric(), readings), (metric(), metric())
    for rank, (batch, outputs) in zip((one, other), readings, strict=True):
        for way, output in outputs.items():
            rank.update(way, output, outputs["clean"], batch)
    one.merge_state(other)
    assert {name: float(value) for name, value in one.compute().items()} == pytest.approx(alone)
