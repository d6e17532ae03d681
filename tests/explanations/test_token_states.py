import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from backbones import ConcatenatedEncoder, TextEncoder, load_tokenizer
from datamodules.triplets import TokenisedTexts
from explanations import StateReader, single_state
from lightning_modules.autoencoders import Crosscoder, TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from tests.callbacks.small_models import WIDTH
from tests.explanations.final_states import autoencoder_of

TEXTS = ["a", "import os", "def function(of, several): arguments", "bc", "class Widget: pass", "x = 1"]


def built(folder, **settings):
    encoder = TextEncoder(folder, **{"pooling": "mean", "max_length": 32, "precision": "float32", **settings})
    encoder.build()
    return encoder.eval()


def tokenised(folder, texts=TEXTS):
    ids = [torch.tensor(load_tokenizer(folder)(text)["input_ids"]) for text in texts]
    return (TokenisedTexts(torch.cat(ids).int(), torch.tensor([len(text) for text in ids])),)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last_token", "weighted_mean"])
def test_what_is_pooled_of_the_states_is_the_embedding(bert, pooling):
    encoder = built(bert, pooling=pooling, tokens_at_once=40)
    texts = tokenised(bert)
    with torch.no_grad():
        embeddings = encoder.encode(texts)
    seen = []
    for part in StateReader(encoder, autoencoder_of(WIDTH)).read(texts):
        assert_close(normalize(part.pooled, dim=1), embeddings[part.places])
        assert_close(torch.zeros(len(part.places)).index_add(0, part.texts, part.weights), torch.ones(len(part.places)))
        seen += part.places.tolist()
    assert sorted(seen) == list(range(len(TEXTS)))


def test_codes_and_reconstructions_are_those_of_the_autoencoder_on_the_states_of_each_text_alone(bert):
    encoder, model = built(bert), autoencoder_of(WIDTH)
    texts = tokenised(bert)
    starts = texts[0].lengths.cumsum(0) - texts[0].lengths
    for part in StateReader(encoder, model).read(texts):
        for place, number in enumerate(part.places.tolist()):
            mine = part.texts == place
            ids = texts[0].tokens[starts[number] : starts[number] + texts[0].lengths[number]].long()
            assert part.tokens[mine].tolist() == ids.tolist()
            with torch.no_grad():
                states = encoder.backbone(input_ids=ids.unsqueeze(0)).last_hidden_state[0]
                codes, (reconstructions,) = model(states)
            assert_close(part.states[mine], states)
            assert_close(part.codes.dense()[mine], codes.dense())
            assert_close(part.reconstructions[mine], reconstructions)


def test_the_states_follow_the_encoder_as_it_is_trained(bert):
    encoder = built(bert)
    reader, texts = StateReader(encoder, autoencoder_of(WIDTH)), tokenised(bert)
    before = torch.cat([part.states for part in reader.read(texts)])
    with torch.no_grad():
        encoder.backbone.encoder.layer[1].output.LayerNorm.bias.add_(1)
    assert_close(torch.cat([part.states for part in reader.read(texts)]), before + 1)


def test_no_texts_are_read_without_a_word(bert):
    none = (TokenisedTexts(torch.empty(0, dtype=torch.int32), torch.empty(0, dtype=torch.int64)),)
    assert list(StateReader(built(bert), autoencoder_of(WIDTH)).read(none)) == []


def test_an_autoencoder_of_an_earlier_layer_is_refused(bert):
    with pytest.raises(UserError, match=r"hook point 'encoder.layer.0' is not what .* pools: .* encoder.layer.1"):
        list(StateReader(built(bert), autoencoder_of(WIDTH, "encoder.layer.0")).read(tokenised(bert)))


def test_what_has_no_single_state_is_refused(bert):
    with pytest.raises(UserError, match="pooling max is no weighted mean"):
        StateReader(built(bert, pooling="max"), autoencoder_of(WIDTH))
    with pytest.raises(UserError, match="width 8, and the encoder's states have 16"):
        StateReader(built(bert), autoencoder_of(8))
    with pytest.raises(UserError, match="ConcatenatedEncoder is made of several"):
        StateReader(ConcatenatedEncoder([TextEncoder(bert), TextEncoder(bert)]), autoencoder_of(WIDTH))
    two = SparseAutoencoding(TopK(24, 3, wiring=Crosscoder()), shapes={"a": 4, "b": 4})
    two.configure_model()
    with pytest.raises(UserError, match="of the hook points a, b: choose one"):
        single_state(two)
