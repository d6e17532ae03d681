"""The overlays of configs/text, and corpora set on a command line."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from cli import class_names
from datamodules.text import Corpus
from datamodules.text_contexts import TextContexts

OVERLAYS = sorted((Path(__file__).parents[2] / "configs" / "text").glob("*.yaml"))


@pytest.fixture
def parser():
    assert class_names.TextContexts is TextContexts
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TextContexts, "text")
    return parser


def classes(description):
    """The class names of a corpus's description and of the corpora in it; a source of triplets is none."""
    if not isinstance(description, dict):
        return set()
    inner = set().union(*(classes(value) for name, value in description.items() if name != "source"))
    return inner | ({description["class"]} if "class" in description else set())


@pytest.mark.parametrize("overlay", OVERLAYS, ids=[overlay.stem for overlay in OVERLAYS])
def test_every_overlay_makes_contexts_of_its_corpus(parser, overlay):
    text = parser.instantiate(parser.parse_args(["--text", str(overlay)])).text
    assert type(text) is TextContexts
    assert text.corpus.describe()["class"] == yaml.safe_load(overlay.read_text())["init_args"]["corpus"]["class_path"]


def test_every_corpus_has_an_overlay(parser):
    shown = [parser.instantiate(parser.parse_args(["--text", str(overlay)])).text for overlay in OVERLAYS]
    there = {name for name, value in vars(class_names).items() if isinstance(value, type) and issubclass(value, Corpus)}
    assert set().union(*(classes(text.corpus.describe()) for text in shown)) == there


def test_an_overlay_s_files_are_set_on_the_command_line(parser, tmp_path):
    (tmp_path / "one.jsonl").write_text('{"body": "first"}\n')
    overlay = next(overlay for overlay in OVERLAYS if overlay.stem == "text_files")
    settings = [f"--text.corpus.files={tmp_path}/*.jsonl", "--text.corpus.field=body"]
    text = parser.instantiate(parser.parse_args(["--text", str(overlay), *settings])).text
    assert [tuple(document) for document in text.corpus.documents()] == [("one.jsonl:1", "first")]
