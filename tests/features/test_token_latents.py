import pytest
import torch

from features import Keeping, token_latents
from tests.features.streams import Stream

ALL = Keeping(strongest=1, sampled=1, reach=0, sampled_entries=10**6)


def test_latents_of_a_token_are_those_that_fire_on_it_more_than_elsewhere():
    stream = Stream.drawn(200, 6, seed=4)
    sample = stream.features(64, ALL).sample
    found = token_latents(sample, 6, 6)
    on = stream.dense != 0
    assert found.tokens.tolist() == [0, 1, 2, 3]
    for token, latents, shares in zip(*(column.tolist() for column in found), strict=True):
        here = on[stream.tokens == token]
        expected = {latent: float(here[:, latent].float().mean()) for latent in range(6)}
        density = on.float().mean(dim=0).tolist()
        mine = [latent for latent in latents if latent >= 0]
        assert set(mine) == {latent for latent, share in expected.items() if share > density[latent]}
        assert shares[: len(mine)] == pytest.approx([expected[latent] for latent in mine])


def test_a_long_sample_is_looked_at_in_part():
    stream = Stream.drawn(400, 6, seed=4)
    sample = stream.features(64, ALL).sample
    part = token_latents(sample, 6, 6, most_entries=len(sample.latents) // 4 + 1)
    on, tokens = (stream.dense != 0)[::4], stream.tokens[::4]
    for token, latents, shares in zip(*(column.tolist() for column in part), strict=True):
        expected = [float(on[tokens == token, latent].float().mean()) for latent in latents if latent >= 0]
        assert shares[: len(expected)] == pytest.approx(expected)


def test_rare_tokens_and_no_rows_say_nothing():
    stream = Stream.drawn(3, 2, seed=0)
    assert token_latents(stream.features(4, ALL).sample, 2, 3).tokens.tolist() == []
    nothing = Stream(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert token_latents(nothing.features(4, ALL).sample, 2, 3).tokens.tolist() == []
