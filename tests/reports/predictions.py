"""Runs and predictions that tests of the page are about."""

from typing import Any

from run_store.predictions import Prediction, RunEntry

HOSTILE = "<script>window.hacked = 1</script></script><img src=x onerror='window.hacked = 1'>\u2028&amp;${1}"


def entry(run: str, name: str = "embedder") -> RunEntry:
    return RunEntry(run, name, f"{name}/spec-{run}/v1", None, None, "2026-03-14T09:26:53.589793+00:00")


def retrieved(run: str, epoch: int, sample: int, texts: str, truth: str = "c", prompt: str = "") -> Prediction:
    """One whose retrieved texts are the words of `texts`."""
    rank = texts.split().index(truth) + 1
    items = [
        {"text": text, "score": 0.9 - 0.1 * at, "relevant": text == truth} for at, text in enumerate(texts.split())
    ]
    prediction = {"kind": "retrieval", "rank": rank, "of": 9, "margin": 0.25, "retrieved": items}
    prompt = prompt or f"prompt {sample}"
    return Prediction(run, "", epoch, 10 * epoch, sample, prompt, truth, prediction, {"rank": rank, "margin": 0.25})


def fired(run: str, member: str, epoch: int, latents: dict[str, list[list[float]]], spliced: str = "") -> Prediction:
    """One whose prompt is its tokens."""
    tokens = [{"text": text, "error": 0.1 * at, "latents": of_it} for at, (text, of_it) in enumerate(latents.items())]
    prediction: dict[str, Any] = {"kind": "latents", "tokens": tokens}
    if spliced:
        prediction["continuation"] = {"original": "return one thing", "spliced": spliced}
    return Prediction(run, member, epoch, 5 * epoch, 0, "".join(latents), None, prediction, {"fvu": 0.5 / (1 + epoch)})


ENTRIES = [entry("r2", "sweep"), entry("r1"), entry("r0", "just-started")]
PREDICTIONS = [
    retrieved("r1", 0, 0, "a b c"),
    retrieved("r1", 0, 1, "a b c", prompt="needle in a haystack"),
    retrieved("r1", 1, 0, "a c b"),
    retrieved("r1", 1, 1, "a b c", prompt="needle in a haystack"),
    retrieved("r1", 2, 0, "c d a"),
    retrieved("r1", 2, 1, "a b c", prompt="needle in a haystack"),
    fired("r2", "k32", 0, {"def": [[7, 4.0]], " f": [[9, 1.0]]}, "return another thing"),
    fired("r2", "k32", 1, {"def": [[7, 8.0]], " f": [[5, 2.0], [7, 4.0]]}, "return one thing"),
    fired("r2", "k64", 0, {"def": [], " f": []}),
]
