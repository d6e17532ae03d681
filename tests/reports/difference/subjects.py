"""A real comparison of two tiny models, and what could have been found in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from explanations import GROUPS, DifferenceSettings, Gain, ModelDifference, compare_models
from explanations.gain import Part
from explanations.latent_groups import LatentGroups
from lightning_modules.functional import BootstrapInterval
from reports.difference import Subject
from tests.explanations.diffing import activations, both_models, crosscoder, triplets


def compared(folder: Path) -> Subject:
    """As it comes from the models. Neither was trained, nor was the crosscoder but for its start values."""
    torch.manual_seed(0)
    data, model = activations(folder, both_models(folder)), crosscoder()
    data.prepare_data()
    data.setup("fit")
    model.shapes = data.shapes
    model.configure_model()
    model.only.start_from_data(data.sample(200).activations)
    found = compare_models(model.only.eval(), data.store, list(data.shapes), triplets(folder), DifferenceSettings())
    return Subject("diff", found, data.store)


def with_groups(subject: Subject) -> Subject:
    """The same with latents in each group, and a gain that is sure."""
    found = subject.difference
    numbers = torch.arange(len(found.groups.numbers)) % len(GROUPS)
    across = torch.tensor([0.5, 0.45, 0.9, 0.1])[numbers]
    up = torch.tensor([0.95, 0.2, 0.4, 0.3])[numbers]
    return replace(subject, difference=replace(found, groups=LatentGroups(across, up, numbers), gain=a_gain()))


def a_gain(low: float = 0.05, high: float = 0.12) -> Gain:
    """One of (low + high) / 2."""
    shares = {"shared": 0.4, "rotated": 0.25, "born": 0.2, "died": -0.05, "bias": 0.05, "error": 0.15}
    middle = (low + high) / 2
    parts = [
        Part(
            name,
            BootstrapInterval(share * middle, share * low, share * high),
            BootstrapInterval(share, share - 0.1, share + 0.1),
            share + 0.05,
        )
        for name, share in shares.items()
    ]
    return Gain(500, 700, 0.6, 0.6 + middle, BootstrapInterval(middle, low, high), parts)


def difference_of(subject: Subject, **changed: object) -> ModelDifference:
    """That of a subject with something else in it."""
    return replace(subject.difference, **changed)
