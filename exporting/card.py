"""What a voice says of itself: where its data come from, what one may do with it, what was measured."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError

NOT_STATED = "not stated"
LONGEST_FIELD = 2000  # characters


@dataclass(frozen=True)
class Card:
    """licence, origin: of the recordings, as the person says who exports. measured: evaluate.py's means by name."""

    name: str
    licence: str = NOT_STATED
    origin: str = NOT_STATED
    measured: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def card_of(name: str, *, licence: str | None, origin: str | None, evaluation: Path | None) -> Card:
    """UserError where something is too long, or an evaluation can't be read."""
    for switch, value in (("--licence", licence), ("--origin", origin)):
        if value is not None and not 0 < len(value.strip()) <= LONGEST_FIELD:
            raise UserError(f"{switch}: from 1 to {LONGEST_FIELD} characters, and these are {len(value)}")
    measured = {} if evaluation is None else _measured(evaluation)
    return Card(name, licence or NOT_STATED, origin or NOT_STATED, measured)


def _measured(path: Path) -> dict[str, Any]:
    """The means of an evaluation.json, or of the folder that evaluate.py wrote."""
    path = path / "evaluation.json" if path.is_dir() else path
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        means = {name: value for name, value in kept.items() if isinstance(value, int | float)}
        return {**means, "texts": len(kept["texts"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--evaluation {path}: not written by evaluate.py ({error}); run it with -o FOLDER") from None
