import pytest

from tests.callbacks.small_models import save_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """The folder of a BERT of two layers with random weights over bytes."""
    return save_bert(tmp_path_factory.mktemp("models") / "bert")
