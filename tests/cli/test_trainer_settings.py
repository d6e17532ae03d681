import pytest

from cli.trainer_settings import refuse_impossible
from run_store import UserError


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_steps": 0}, r"trainer\.max_steps is 0: it must be above 0, or -1 for no end"),
        ({"max_epochs": 0}, r"trainer\.max_epochs is 0"),
        ({"max_epochs": -2}, r"trainer\.max_epochs is -2"),
        ({"log_every_n_steps": 0}, r"trainer\.log_every_n_steps is 0: .*leave it out for 50"),
        ({"gradient_clip_val": 0.0}, r"trainer\.gradient_clip_val is 0\.0: .*null does not clip"),
        ({"gradient_clip_val": float("nan")}, r"trainer\.gradient_clip_val is nan"),
    ],
)
def test_what_would_train_nothing_is_refused_by_name(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        refuse_impossible(settings)


def test_what_means_something_is_left_alone():
    refuse_impossible({"max_steps": -1, "max_epochs": None, "log_every_n_steps": 1, "gradient_clip_val": 1e-9})
    refuse_impossible({"max_steps": 1, "max_epochs": -1, "gradient_clip_val": None})
    refuse_impossible({})
