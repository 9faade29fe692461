"""What each hyperparameter means, config/hparams_help.yaml."""

from pathlib import Path

from common.yaml_file import read_own_yaml

HELP_FILE = Path(__file__).parent.parent / "config/hparams_help.yaml"


def read_help() -> dict[str, dict[str, str]]:
    """One sentence for each field: `{name: {"en": ..., "ru": ...}}`."""
    return read_own_yaml(HELP_FILE)
