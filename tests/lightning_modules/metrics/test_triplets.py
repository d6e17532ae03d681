import math

import pytest
import torch

from lightning_modules.metrics import TripletScores


def drawn(b=8, n=3, u=12, d=5):
    negatives = torch.randint(-1, u, (b, n))
    negatives[0] = -1
    return torch.randn(u, d), torch.randint(0, u, (b,)), torch.randint(0, u, (b,)), negatives


def naive(*batches):
    columns = {name: [] for name in ("wins", "by_example", "positive", "negative", "margin", "distance")}
    for texts, anchors, positives, negatives in batches:
        x = texts / texts.norm(dim=1, keepdim=True)
        for row in range(len(anchors)):
            anchor, positive = x[anchors[row]], x[positives[row]]
            score = float(anchor @ positive)
            columns["positive"].append(score)
            columns["distance"].append(float((anchor - positive).square().sum()))
            wins = []
            for place in negatives[row].tolist():
                if place >= 0:
                    negative = float(anchor @ x[place])
                    wins.append(score > negative + 1e-6)
                    columns["negative"].append(negative)
                    columns["margin"].append(score - negative)
            columns["wins"] += wins
            columns["by_example"] += [all(wins)] if wins else []
    return [sum(values) / len(values) for values in columns.values()]


NAMES = (
    "triplet_accuracy",
    "triplet_accuracy_by_example",
    "positive_cosine",
    "negative_cosine",
    "margin",
    "alignment",
)


def test_scores_are_those_of_loops_and_merge_over_ranks():
    batches = [drawn(), drawn(5, 1), drawn(3, 0)]
    metrics = [TripletScores() for _ in batches]
    for metric, batch in zip(metrics, batches, strict=True):
        metric.update(*batch)
        if metric is not metrics[0]:
            metrics[0].merge_state(metric)
    scores = metrics[0].compute()
    assert tuple(scores) == NAMES
    assert [float(scores[name]) for name in NAMES] == pytest.approx(naive(*batches), abs=1e-6)


def test_a_collapsed_model_has_no_accuracy():
    texts, *places = drawn()
    metric = TripletScores()
    metric.update(torch.ones_like(texts), *places)
    scores = metric.compute()
    assert float(scores["triplet_accuracy"]) == float(scores["triplet_accuracy_by_example"]) == 0
    assert float(scores["alignment"]) == pytest.approx(0, abs=1e-6)


def test_without_negatives_there_is_no_accuracy():
    metric = TripletScores()
    metric.update(*drawn()[:3], torch.empty(8, 0, dtype=torch.int64))
    scores = metric.compute()
    assert math.isnan(scores["triplet_accuracy"])
    assert math.isnan(scores["margin"])
    assert not math.isnan(scores["positive_cosine"])
