"""A short name for a set of hyperparameters."""

import hashlib
import json

from hparams import HParams, field_info

HASH_DIGITS = 8
# Younger than the first runs, whose directories are named by all older values.
UNNAMED_AT_DEFAULT = frozenset(
    (
        *("language", "text_input", "symbol_set", "pronunciations", "sample_vocoder", "ema_decay", "listen_every"),
        "speaking_dropout_rate",
    )
)


def hparams_hash(hp: HParams) -> str:
    """8 hex digits that name these values: any difference gives another name."""
    named = {
        name: value
        for name, value in hp.canonical().items()
        if name not in UNNAMED_AT_DEFAULT or value != field_info(name).default
    }
    text = json.dumps(named, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
