"""Tables against the rows that they were made of."""

import json
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.triplets import TripletColumns, TripletFiles, TripletTable, prepare_table
from run_store import UserError

PAIRS = TripletColumns(negatives=[])
WORDS = ["cat", "Cat", "dog", "sun", "sun ", "a long text that goes on and on", "a long text that goes on and off"]


def plain(tokenizer, text, max_length):
    return tokenizer(text, truncation=True, max_length=max_length)["input_ids"]


def tokens_of(texts):
    return [row.tolist() for row in texts.tokens.split(texts.lengths.tolist())]


def row(anchor, positive, *negatives, **more):
    return {"anchor": anchor, "positive": positive, "negative": list(negatives), **more}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.lists(st.sampled_from(WORDS), min_size=2, max_size=4, unique_by=str.strip), min_size=1, max_size=8
    ),
    max_length=st.integers(3, 9),
)
def test_a_batch_is_its_rows(tmp_path_factory, tokenizer, make_tokeniser, rows, max_length):
    """Against loops: tokens are those of the texts, equal tokens are one text, no negative is a positive."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "a.jsonl").write_text("".join(json.dumps(row(*texts)) + "\n" for texts in rows))
    tokens = [[tuple(plain(tokenizer, text, max_length)) for text in texts] for texts in rows]
    seen = {(texts[0], texts[1], *texts[2:]): row for row, texts in zip(tokens, rows, strict=True)}
    positives = {(row[0], row[1]) for row in tokens}
    expected = [
        (row[0], row[1], [text for text in row[2:] if text != row[0] and (row[0], text) not in positives])
        for row in seen.values()
        if row[0] != row[1]
    ]
    source = TripletFiles(str(folder / "a.jsonl"))
    if not expected:
        with pytest.raises(UserError, match="no example is left"):
            prepare_table(folder / "cache", source, [make_tokeniser(max_length)])
        return
    table = TripletTable(prepare_table(folder / "cache", source, [make_tokeniser(max_length)]))
    assert table.counts.duplicates == len(rows) - len(seen)
    numbers = torch.arange(len(table))
    batch = table.batch(numbers, table.negatives(numbers, table.most_negatives))
    (texts,) = batch.texts
    found = [tuple(ids) for ids in tokens_of(texts)]
    assert len(found) == len(batch.ids)
    assert sorted(found) == sorted({text for a, p, ns in expected for text in (a, p, *ns)})
    assert [
        (found[a], found[p], [found[n] for n in ns if n >= 0])
        for a, p, ns in zip(batch.anchors, batch.positives, batch.negatives, strict=True)
    ] == expected
    assert not (batch.negatives == batch.positives.unsqueeze(1)).any()


def test_texts_that_become_the_same_tokens_are_one(make_table):
    rows = [row("q", "The cat", "sun"), row("r", "THE CAT", "the cat sat"), row("q", "dog", "the  Cat", "moon")]
    table = make_table(rows)
    batch = table.batch(torch.arange(3), table.negatives(torch.arange(3), 2))
    assert batch.positives[0] == batch.positives[1]
    # the third row's first negative is the first row's positive, of the same anchor
    assert table.counts.dropped_negatives == 1
    assert (batch.negatives[2] >= 0).sum() == 1


def test_scores_come_with_their_texts(make_table):
    columns = TripletColumns(score="s", negative_scores=["t"])
    rows = [row("q", "d", "D", "x", "y", s=1, t=[2, 3, 4]), row("r", "e", s=5, t=[])]
    table = make_table(rows, columns)
    batch = table.batch(torch.tensor([1, 0]), table.negatives(torch.tensor([1, 0]), 2))
    assert batch.scores.tolist() == [[5, 0, 0], [1, 3, 4]]
    assert table.batch(torch.tensor([0]), table.negatives(torch.tensor([0]), 1)).scores.tolist() == [[1, 3]]
    pairs = make_table([{"anchor": "q", "positive": "d", "s": 0.25}], TripletColumns(negatives=[], score="s"))
    batch = pairs.batch(torch.tensor([0]), pairs.negatives(torch.tensor([0]), 0))
    assert batch.scores.tolist() == [0.25]
    assert batch.negatives.shape == (1, 0)


def test_prompts_go_by_column(make_table, make_tokeniser, tokenizer):
    tokeniser = make_tokeniser(16, anchor="query: ", positive="document: ")
    table = make_table([row("cat", "dog", "sun")], None, tokeniser, make_tokeniser(5))
    batch = table.batch(torch.tensor([0]), table.negatives(torch.tensor([0]), 1))
    first, second = (tokens_of(part) for part in batch.texts)
    places = [int(batch.anchors), int(batch.positives), int(batch.negatives)]
    assert [first[place] for place in places] == [
        plain(tokenizer, text, 16) for text in ("query: cat", "document: dog", "document: sun")
    ]
    assert [second[place] for place in places] == [plain(tokenizer, text, 5) for text in ("cat", "dog", "sun")]
    with pytest.raises(UserError, match="prompts: negative 'x' differs from positive ''"):
        make_table([row("cat", "dog", "sun")], None, make_tokeniser(16, negative="x"))


def test_a_task_of_retrieval(make_table):
    table = make_table([row("q", "a", "b"), row("r", "a", "c"), row("q", "d"), row("s", "e", "a")])
    task = table.retrieval(torch.tensor([0, 1, 2]))
    assert len(task.queries) == 2
    assert len(task.documents) == 4
    ids = table.batch(torch.tensor([0, 2]), torch.empty(2, 0, dtype=torch.int64))
    q, a, d = ids.ids[ids.anchors[0]], ids.ids[ids.positives[0]], ids.ids[ids.positives[1]]
    found = {(int(task.queries[i]), int(task.documents[j])) for i, j in task.relevant}
    assert {(int(q), int(a)), (int(q), int(d))} <= found
    assert len(found) == 3


def test_a_second_run_tokenises_nothing(tmp_path, write_rows, make_tokeniser):
    source = TripletFiles(str(write_rows([row("q", "d", "n"), row("q", "e", "n"), row("q", "d", "n")])))
    first, second = make_tokeniser(), make_tokeniser()
    folder = prepare_table(tmp_path / "cache", source, [first])
    assert sorted(first.given) == ["d", "e", "n", "q"]
    assert prepare_table(tmp_path / "cache", source, [second]) == folder
    assert not hasattr(second, "given")
    assert TripletTable(folder).counts.duplicates == 1
    assert TripletTable(folder).place(1) == f"{source.files[0]}:2"


def test_other_text_prompts_lengths_and_tokenizers_are_other_tables(tmp_path, write_rows, make_tokeniser):
    cache, path = tmp_path / "cache", write_rows([row("q", "d")])
    source = TripletFiles(str(path))
    tokenisers = [
        make_tokeniser(),
        make_tokeniser(8),
        make_tokeniser(sha256="1" * 64),
        make_tokeniser(anchor="query: "),
    ]
    folders = {prepare_table(cache, source, [tokeniser]) for tokeniser in tokenisers}
    write_rows([row("q", "e")])
    assert len({*folders, prepare_table(cache, source, tokenisers[:1])}) == 5


def _cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def _change(path):
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.parametrize("damage", [_cut, _change, Path.unlink], ids=["cut", "changed", "gone"])
@pytest.mark.parametrize("name", ["tokens-0.bin", "positives.bin", "manifest.json"])
def test_a_damaged_table_is_made_again(tmp_path, write_rows, make_tokeniser, damage, name):
    source = TripletFiles(str(write_rows([row("q", "d", "n"), row("r", "e")])))
    folder = prepare_table(tmp_path / "cache", source, [make_tokeniser()])
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder.parent / f"{folder.name}.99999.partial").mkdir()
    damage(folder / name)
    again = make_tokeniser()
    assert prepare_table(tmp_path / "cache", source, [again]) == folder
    assert again.given
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert [path.name for path in folder.parent.glob("*.partial")] == []


def test_a_failed_reading_leaves_nothing(tmp_path, write_rows, make_tokeniser):
    source = TripletFiles(str(write_rows([row("q", "d"), row("q", "q")])))
    with pytest.raises(UserError, match=r"rows\.jsonl:2 has an anchor equal to its positive"):
        prepare_table(tmp_path / "cache", source, [make_tokeniser()])
    assert list((tmp_path / "cache").glob("triplets-*")) == []
    source.bad_rows = "skip"
    assert TripletTable(prepare_table(tmp_path / "cache", source, [make_tokeniser()])).counts.bad_rows == 1


def test_those_who_come_at_once_tokenise_once(tmp_path, write_rows, make_tokeniser):
    source = TripletFiles(str(write_rows([row(f"query {n}", f"document {n}") for n in range(50)])))
    tokenisers = [make_tokeniser() for _ in range(4)]
    found = []
    threads = [
        threading.Thread(target=lambda t=t: found.append(prepare_table(tmp_path / "cache", source, [t])))
        for t in tokenisers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert sum(hasattr(tokeniser, "given") for tokeniser in tokenisers) == 1
