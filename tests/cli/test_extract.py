from pathlib import Path

import yaml

from cli import main
from datamodules.shards import ActivationStore

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_the_config_makes_a_store_that_the_main_job_would_take(tmp_path):
    settings = {"data.max_tokens": "2048", "trainer.callbacks.init_args.store": str(tmp_path / "store")}
    overrides = [f"--{name}={value}" for name, value in settings.items()]
    assert main(["predict", "--config", str(CONFIGS / "extract.yaml"), *overrides]) == 0

    store = ActivationStore(tmp_path / "store")
    extractor = yaml.safe_load((CONFIGS / "extractor" / "minilm.yaml").read_text())["init_args"]
    text = yaml.safe_load((CONFIGS / "text" / "standard_library.yaml").read_text())["init_args"]
    assert store.manifest.source["extractor"]["model"] == extractor["model"] == text["tokenizer"]
    assert list(store.hook_points) == extractor["hook_points"]
    assert store.manifest.source["text"]["context_length"] == text["context_length"] == 128
    # Of each context the first token is [CLS], and a few end a document.
    assert 0.95 * 2048 < store.rows < 2048 - 16 + 1


def test_the_configs_name_one_place_for_the_store():
    extract, sae = (yaml.safe_load((CONFIGS / name).read_text()) for name in ("extract.yaml", "sae.yaml"))
    (writer,) = (
        callback for callback in extract["trainer"]["callbacks"] if callback["class_path"] == "ActivationWriter"
    )
    assert writer["init_args"]["store"] == sae["data"]["init_args"]["store"]
    assert extract["model"]["init_args"]["extractor"] == sae["data"]["init_args"]["extractor"]
    assert extract["data"] == sae["data"]["init_args"]["text"]
