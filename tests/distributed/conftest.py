"""The stream of the datamodules' tests."""

from tests.datamodules.conftest import (  # noqa: F401  (fixtures)
    held_out,
    make_extractor,
    make_streamed,
    make_text,
    stories,
    tiny_bert,
)
