"""Differences between two settings of the hyperparameters, and which a resumed run may have."""

from collections.abc import Mapping
from typing import Any

from hparams import HParams, field_info


def differences(hp: HParams, saved: Mapping[str, Any]) -> dict[str, list[str]]:
    """What differs from a saved run, by what it affects: arch, features, run. Fields that may change are left out."""
    found: dict[str, list[str]] = {"arch": [], "features": [], "run": []}
    for name, value in hp.canonical().items():
        if name in saved and saved[name] != value and not field_info(name).mutable:
            found[field_info(name).affects].append(f"{name}: {saved[name]} there, {value} here")
    return found
