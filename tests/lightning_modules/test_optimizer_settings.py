import pytest
import torch

from lightning_modules.optimizer_settings import check_optimizer
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
        check_optimizer(lambda parameters: optimizer(parameters, **settings))


def test_settings_that_it_can_use_are_left_alone():
    check_optimizer(lambda parameters: torch.optim.Adam(parameters, lr=1e-9, weight_decay=0.0, fused=True))
