from pathlib import Path

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch import LightningModule
from torch import nn

from lightning_modules.hyperparameters import keep_plain


class Module(LightningModule):
    def __init__(self, size, rate, nested, layer, path, flag=True, missing=None):
        super().__init__()
        self.save_hyperparameters()
        keep_plain(self)


def test_settings_become_plain_values_and_objects_are_left_out():
    nested = {"sizes": [PositiveInt(3)], "rate": NonNegativeFloat(0.5)}
    module = Module(PositiveInt(4), NonNegativeFloat(0.1), nested, nn.Linear(1, 1), Path("a") / "b")
    assert dict(module.hparams) == {
        "size": 4,
        "rate": 0.1,
        "nested": {"sizes": [3], "rate": 0.5},
        "path": str(Path("a") / "b"),
        "flag": True,
        "missing": None,
    }
    kinds = {name: type(value) for name, value in module.hparams.items()}
    assert kinds == {"size": int, "rate": float, "nested": dict, "path": str, "flag": bool, "missing": type(None)}
    assert type(module.hparams["nested"]["sizes"][0]) is int
