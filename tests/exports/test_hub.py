"""What is pushed to a hub: the real client against a server on this machine."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from exports import HubRepository
from exports.hub_names import hub_name
from run_store import UserError
from tests.exports.hub_server import OWNER, TOKEN


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "files"
    (path / "1_Pooling").mkdir(parents=True)
    (path / "README.md").write_text("---\nlibrary_name: saelens\n---\n# A model\n")
    (path / "model.safetensors").write_bytes(bytes(range(256)))
    (path / "1_Pooling" / "config.json").write_text("{}")
    return path


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_whole_folder_goes_up_in_one_commit(hub, folder):
    link = HubRepository(f"{OWNER}/model").push(folder, "Export")
    assert link == f"{hub.url}/{OWNER}/model"
    assert hub.commits == {f"{OWNER}/model@main": [("Export", content(folder))]}
    assert hub.private == {f"{OWNER}/model": False}
    assert set(hub.cards) == {(folder / "README.md").read_text()}


def test_to_a_repository_that_is_there_and_to_a_branch_that_is_not(hub, folder):
    HubRepository(f"{OWNER}/model", private=True).push(folder, "first")
    assert hub.private == {f"{OWNER}/model": True}
    (folder / "more.json").write_text("{}")
    link = HubRepository(f"{OWNER}/model", private=True, revision="step/9").push(folder, "second")
    assert link == f"{hub.url}/{OWNER}/model/tree/step/9"
    assert [message for message, _ in hub.commits[f"{OWNER}/model@main"]] == ["first"]
    assert hub.commits[f"{OWNER}/model@step/9"] == [("second", content(folder))]


def refused(repository, folder):
    before = content(folder)
    with pytest.raises(UserError) as error:
        repository.push(folder, "Export")
    assert content(folder) == before
    text = str(error.value)
    assert "\n" not in text
    assert f"`hf upload {repository.name} {folder} ." in text
    return text


def test_nothing_private_goes_where_everybody_reads(hub, folder):
    HubRepository(f"{OWNER}/model").push(folder, "first")
    assert "that everybody can read" in refused(HubRepository(f"{OWNER}/model", private=True), folder)
    assert len(hub.commits[f"{OWNER}/model@main"]) == 1


@pytest.mark.parametrize(
    ("part", "status", "reason"),
    [
        ("/api/repos/create", 401, "does not know the token"),
        ("/commit/", 403, "may not write there"),
        ("/preupload/", 404, "the hub answered 404 (gone away)"),
        ("/api/validate-yaml", 500, "the hub answered 500 (gone away)"),
        ("/info/lfs/", 400, "the hub answered 400 (gone away)"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub, folder, part, status, reason):
    hub.refuses[part] = (status, "gone away")
    assert reason in refused(HubRepository(f"{OWNER}/model"), folder)
    assert not any(hub.commits.values())


def test_no_right_to_a_namespace_and_a_token_that_is_unknown(hub, folder, monkeypatch):
    assert "may not write there" in refused(HubRepository("others/model"), folder)
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    assert "does not know the token" in refused(HubRepository(f"{OWNER}/model"), folder)


def test_no_network(folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    repository = HubRepository(f"{OWNER}/a model's", private=True, revision="x")
    with pytest.raises(UserError, match="is no name of a repository"):
        repository.check()
    repository = HubRepository(f"{OWNER}/model", private=True, revision="x")
    text = refused(repository, folder)
    assert "http://127.0.0.1:9 cannot be reached (" in text
    assert text.endswith(". --private --revision x` tries again")


@pytest.mark.parametrize("name", ["a/b/c", "owner/", "owner/na me", "owner/name.git", "-owner/name", ""])
def test_a_malformed_name_is_refused_before_anything_is_done(name, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError, match="is no name of a repository"):
        HubRepository(name).check()


def test_a_name_without_an_owner_and_no_token(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    HubRepository("owner/name").check()
    with pytest.raises(UserError, match="use OWNER/name"):
        HubRepository("name").check()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"there is no token for .*hf auth login"):
        HubRepository("owner/name").check()


def test_only_names_of_a_hub_stand_in_a_card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local" / "model").mkdir(parents=True)
    known = {"gpt2": "gpt2", "owner/name": "owner/name"}
    for name in ("gpt2", "owner/name", "package:some", "local/model", str(tmp_path), "~/model", "a/b/c", "", None):
        assert hub_name(name) == known.get(name)
