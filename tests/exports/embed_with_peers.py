"""Run in an environment that has sentence-transformers: embed_with_peers.py FOLDER.

FOLDER has a folder for each exported encoder, and texts.json: by name, "how" and the texts. What the real library makes
of them goes to embeddings.safetensors: NAME.query and NAME.document, all texts at once, and NAME.single, each alone.
Of a joined encoder it is the Python in the README that makes them.
"""

import json
import os
import re
import sys
from pathlib import Path

import numpy
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer


def alone(folder):
    model = SentenceTransformer(folder, device="cpu")
    by_column = {"query": model.encode_query, "document": model.encode_document}
    return lambda texts, column: by_column[column](texts, batch_size=4)


def by_the_card(folder):
    (code,) = re.findall(r"```python\n(.*?)```", (Path(folder) / "README.md").read_text("utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    return names["embed"]


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    found = {}
    for name, texts in json.loads(Path("texts.json").read_text("utf-8")).items():
        embed = by_the_card(name) if Path(name, "joined.json").exists() else alone(name)
        for column in ("query", "document"):
            found[f"{name}.{column}"] = embed(texts, column)
        found[f"{name}.single"] = numpy.concatenate([embed([text], "document") for text in texts])
    save_file({name: numpy.ascontiguousarray(value) for name, value in found.items()}, "embeddings.safetensors")
