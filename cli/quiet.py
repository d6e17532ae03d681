"""Keeps what is meant for Lightning's own developers, or advertises, away from the terminal; what a person can act on
stays.
"""

from __future__ import annotations

import logging
import os
import warnings

UNWANTED_LOGS = (
    "💡 Tip",
    "Loading `train_dataloader` to estimate",
    "TPU available",
    "`Trainer.fit` stopped",
    "`weights_only` was not set",
)
SPEAKERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
)
UNWANTED_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*does not have many workers.*",
    r".*is an instance of `nn.Module` and is already saved.*",
    # metrics are of all ranks when they are logged
    r".*It is recommended to use `self.log\(.*sync_dist=True.*",
)


def quiet() -> None:
    """Installs the filters. Call it before jsonargparse is used: it reads its switch from the environment."""
    # Lightning calls what jsonargparse has deprecated; both are pinned, and nobody here can mend it
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    for pattern in UNWANTED_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    for name in SPEAKERS:
        logging.getLogger(name).addFilter(_wanted)


def _wanted(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(UNWANTED_LOGS)
