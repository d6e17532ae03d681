import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from callbacks import CollapseAlarm
from run_store import UserError


class Figures(LightningModule):
    """Logs the figures of each validation, one after the other."""

    def __init__(self, **figures):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.figures = {name: iter(values) for name, values in figures.items()}
        self.validations = 0

    def training_step(self, batch, batch_idx):
        return self.weight.square()

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.validations += 1
            self.log_dict({f"val/{name}": next(values) for name, values in self.figures.items()})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def rows():
    return DataLoader(torch.zeros(2, 1), batch_size=1)


def trainer(alarm, epochs=3):
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[alarm],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=1,
    )


def test_a_training_stops_at_the_validation_that_finds_it_collapsed():
    model = Figures(mean_cosine=[0.3, 0.995, 0.3], effective_rank=[40.0, 1.5, 40.0])
    with pytest.raises(UserError) as error:
        trainer(CollapseAlarm()).fit(model, rows(), rows())
    assert model.validations == 2
    assert str(error.value).startswith(
        "at step 4 the embeddings have collapsed: two different texts have a mean cosine"
    )
    assert "0.9950 (limit 0.99)" in str(error.value)
    assert "1.50 (limit 2)" in str(error.value)


def test_a_healthy_training_goes_on():
    model = Figures(mean_cosine=[0.3, 0.6, 0.98], effective_rank=[40.0, 9.0, 2.1])
    trainer(CollapseAlarm()).fit(model, rows(), rows())
    assert model.validations == 3


def test_a_limit_can_be_left_out():
    model = Figures(effective_rank=[40.0, 40.0, 40.0])
    trainer(CollapseAlarm(mean_cosine=None)).fit(model, rows(), rows())
    assert model.validations == 3


def test_a_validation_alone_may_tell_of_a_collapse():
    trainer(CollapseAlarm()).validate(Figures(mean_cosine=[1.0], effective_rank=[1.0]), rows(), verbose=False)


def test_a_model_that_does_not_log_the_figure_is_refused():
    message = "effective_rank of callback CollapseAlarm is 2, and model Figures logs no val/effective_rank"
    with pytest.raises(UserError, match=message):
        trainer(CollapseAlarm()).fit(Figures(mean_cosine=[0.3]), rows(), rows())


def test_an_alarm_without_limits_is_refused():
    with pytest.raises(UserError, match="both null"):
        trainer(CollapseAlarm(None, None)).fit(Figures(), rows(), rows())
