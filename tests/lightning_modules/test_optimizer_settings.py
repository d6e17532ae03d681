import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision

from lightning_modules.optimizer_settings import check_optimizer, clip_gradients
from lightning_modules.schedules import WarmupDecay
from run_store import UserError


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lr": 0.0}, r"model\.optimizer\.lr is 0\.0: it must be above 0"),
        ({"lr": -1e-3}, r"model\.optimizer cannot be made: .*learning rate: -0\.001"),
        ({"lr": 1e-3, "weight_decay": -1.0}, r"model\.optimizer cannot be made: .*weight_decay .*-1"),
    ],
)
def test_settings_that_an_optimiser_cannot_use_are_one_sentence(optimizer, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        check_optimizer(lambda parameters: optimizer(parameters, **settings), WarmupDecay)


def test_settings_that_exclude_each_other_are_one_sentence():
    with pytest.raises(UserError, match=r"model\.optimizer cannot be made: .*fused.*foreach"):
        check_optimizer(lambda parameters: torch.optim.Adam(parameters, fused=True, foreach=True), WarmupDecay)


def test_so_are_those_of_a_schedule_that_does_not_suit_the_optimiser():
    def schedule(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=20)

    check_optimizer(torch.optim.Adam, schedule)
    with pytest.raises(UserError, match=r"model\.lr_scheduler cannot be made: .*momentum"):
        check_optimizer(torch.optim.Adagrad, schedule)


def test_settings_that_it_can_use_are_left_alone():
    check_optimizer(lambda parameters: torch.optim.Adam(parameters, lr=1e-9, weight_decay=0.0, fused=True), WarmupDecay)


def pulled(fused):
    """An optimiser of one weight with the gradient (3, -4)."""
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, -4.0])
    return torch.optim.SGD([weight], lr=0.1, fused=fused), weight


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize(
    ("largest", "algorithm", "expected"),
    [
        (1.0, None, [0.6, -0.8]),
        (1.0, "norm", [0.6, -0.8]),
        (2.0, "value", [2.0, -2.0]),
        (10.0, "norm", [3.0, -4.0]),
        (None, None, [3.0, -4.0]),
    ],
)
def test_gradients_are_clipped_whatever_the_precision_and_the_optimiser(precision, fused, largest, algorithm, expected):
    optimizer, weight = pulled(fused)
    trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
    clip_gradients(trainer, optimizer, largest, algorithm)
    torch.testing.assert_close(weight.grad, torch.tensor(expected), rtol=1e-4, atol=0)


def test_scaled_gradients_of_a_fused_optimiser_are_not_clipped_and_others_are():
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    trainer = Trainer(accelerator="cpu", plugins=[plugin], logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match=r"gradient_clip_val is 1\.0, and under trainer\.precision 16-mixed .* fused"):
        clip_gradients(trainer, pulled(True)[0], 1.0, None)
    optimizer, weight = pulled(False)
    clip_gradients(trainer, optimizer, 1.0, None)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, -0.8]), rtol=1e-4, atol=0)
