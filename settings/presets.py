"""Named sets of values, config/presets/NAME.yaml."""

from pathlib import Path

from tools import Layer, read_yaml_layer

PRESETS = Path(__file__).parent.parent / "config/presets"


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_layer(name: str) -> Layer:
    if name not in preset_names():  # also keeps paths out
        return Layer.unusable(f"--preset {name}", f"no such preset; there are {', '.join(preset_names())}")
    return read_yaml_layer(PRESETS / f"{name}.yaml", label=f"preset {name}")
