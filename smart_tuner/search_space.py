"""What is searched: the ranges of `smart_tuner/config.yaml`, which presets and files narrow and `--hparams` fixes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.typed_values import convert
from hparams import HParams, Resolved, field_info, spellings
from tools import read_yaml_layer

CONFIG = Path(__file__).parent / "config.yaml"
WIDE = CONFIG.with_name("config_wide.yaml")  # what --search-space wide adds
BUDGET = "epochs"  # its range is the budget of every trial, see objective.py; it is not sampled
FIXED_BY = "--hparams"  # the origin of values that the user fixed; presets and files give the first trial's values

# Where a hyperparameter changes nothing under some value of another, it is not asked for: the search space is a tree.
ACTS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "use_guided_attn": lambda values: not values["no_dga"],
    "guide_loss_weight": lambda values: values["use_guided_attn"] and not values["no_dga"],
    "guide_sigma": lambda values: values["use_guided_attn"] and not values["no_dga"],
    "ddc_loss_weight": lambda values: values["use_ddc_loss"],
    "mmi_weight": lambda values: values["use_mmi"],
}

Scale = Literal["integer", "linear", "log"]
SCALES: tuple[Scale, ...] = ("integer", "linear", "log")


class BadRange(ValueError):
    """A range that means nothing; `kind` says why."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True)
class Choices:
    """One of a few values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """From low to high, both included."""

    low: Any
    high: Any
    scale: Scale


def read_range(raw: object) -> Choices | Range:
    """`{choices: [...]}` or `{low:, high:, scale:}`, `default` beside either. Raises BadRange."""
    keys = set(raw) - {"default"} if isinstance(raw, dict) else set()
    if not isinstance(raw, dict) or keys not in ({"choices"}, {"low", "high", "scale"}):
        raise BadRange("range_keys")
    if "choices" in keys:
        return _choices(raw["choices"])
    if raw["scale"] not in SCALES:
        raise BadRange("range_scale")
    ends = (raw["low"], raw["high"])
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        raise BadRange("range_numbers")
    if not ends[0] < ends[1]:
        raise BadRange("range_order")
    if raw["scale"] == "log" and ends[0] <= 0:
        raise BadRange("range_log")
    return Range(*ends, raw["scale"])


def _choices(values: object) -> Choices:
    if not isinstance(values, list) or len(values) < 2:
        raise BadRange("choices_few")
    if len({repr(value) for value in values}) < len(values):
        raise BadRange("choices_twice")
    return Choices(tuple(values))


@dataclass(frozen=True)
class SearchSpace:
    """Canonical names with the range of each, in the order of sampling, and the range of the budget in epochs."""

    ranges: Mapping[str, Choices | Range]
    budget: Range | None


def canonical_search(search: Mapping[str, object]) -> dict[str, object]:
    """The ranges of a `search:` section by canonical names; unknown ones are left out."""
    known = spellings()
    return {known[spelling]: raw for spelling, raw in search.items() if spelling in known}


def standing_ranges(configs: Sequence[Path]) -> dict[str, object]:
    """What the files search, by canonical names; a later file's range replaces an earlier one's."""
    found: dict[str, object] = {}
    for config in configs:
        found |= canonical_search(read_yaml_layer(config, label=config.name).search)
    return found


def search_space(settings: Resolved, *, configs: Sequence[Path] = (CONFIG,)) -> SearchSpace:
    """The checked ranges: those of `configs`; a `search:` section beside a preset's or file's values replaces a range,
    adds one, or takes one out (`name: null`); whatever --hparams sets is fixed. Raises BadRange where there is one.
    """
    found = standing_ranges(configs) | settings.search
    open_names = [name for name, raw in found.items() if raw is not None and settings.origins[name] != FIXED_BY]
    ranges = {name: typed(name, read_range(found[name])) for name in open_names}
    budget = ranges.pop(BUDGET, None)
    if budget is not None and not isinstance(budget, Range):
        raise BadRange("range_budget")
    conditions_last = sorted(ranges, key=lambda name: (name in ACTS and name != "use_guided_attn", name))
    return SearchSpace({name: ranges[name] for name in conditions_last}, budget)


def typed(name: str, searched: Choices | Range) -> Choices | Range:
    """Choices as the values that the field declares: 1 may stand for 1.0."""
    if isinstance(searched, Range):
        return searched
    return Choices(tuple(convert(value, field_info(name).annotation) for value in searched.values))


def acts(name: str, values: Mapping[str, Any]) -> bool:
    """Whether the hyperparameter changes anything beside these values."""
    return name not in ACTS or ACTS[name](values)


def contains(searched: Choices | Range, value: Any) -> bool:
    if isinstance(searched, Choices):
        return value in searched.values
    return bool(searched.low <= value <= searched.high)


def first_trial(space: SearchSpace, hp: HParams) -> dict[str, Any]:
    """What the settings say themselves, where the ranges hold it: the search begins with what it has to beat."""
    values = hp.canonical()
    return {name: values[name] for name, searched in space.ranges.items() if contains(searched, values[name])}
