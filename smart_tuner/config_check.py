"""Whether smart_tuner/config.yaml and hparams.py agree: names, types, ranges, defaults, and whether each acts.

`check_config` and its neighbours return findings, not text: `report` says them in English or Russian.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.translations import Language, messages
from common.typed_values import convert
from config.source_scan import names_read, program_files, texts_found
from hparams import HParams, create_hparams, field_info, resolve_hparams, spellings
from settings.presets import preset_names
from smart_tuner.search_space import BUDGET, CONFIG, FIXED_BY, BadRange, Choices, Range, read_range
from tools import SettingProblem, SettingsError, format_overrides, format_value, nearest_name, read_yaml_layer

ROOT = Path(__file__).resolve().parents[1]
UNKNOWN_KINDS = ("unknown_name", "unknown_name_far")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `kind` names its message in messages.yaml, `facts` fill it in."""

    kind: str
    name: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    def say(self, language: Language) -> str:
        template = messages("problems", language)[self.kind]
        return template.format(**{"name": self.name, **self.facts})


@dataclass(frozen=True)
class Compatibility:
    """The result: the names that config.yaml searches, and everything that is wrong."""

    names: tuple[str, ...]
    findings: tuple[Finding, ...]
    is_parsed: bool

    @property
    def faulty(self) -> set[str]:
        return {finding.name for finding in self.findings}

    @property
    def missing(self) -> list[str]:
        return [finding.name for finding in self.findings if finding.kind in UNKNOWN_KINDS]

    @property
    def is_compatible(self) -> bool:
        return not self.findings and self.is_parsed


def check(config: Path = CONFIG, *, overrides: str | None = None, root: Path = ROOT) -> Compatibility:
    """Everything at once; `overrides` is a text for --hparams to check beside."""
    layer = read_yaml_layer(config, label=config.name)
    findings = file_findings(config, layer.problems)
    search = dict(layer.search)
    if not findings and not search:
        findings.append(Finding("no_search", facts={"config": config.name}))
    known = spellings()
    findings += check_search(search, config=config.name)
    usable = {name: raw for name, raw in search.items() if name in known}
    for preset in preset_names():
        findings += check_narrowed(f"preset {preset}", preset=preset)
    findings += check_effects({name: known[name] for name in usable}, root)
    findings += check_old_names(root)
    findings += check_layers(overrides)
    parsed = check_parsing(usable, known)
    return Compatibility(tuple(search), (*findings, *parsed), not parsed and bool(usable))


def file_findings(config: Path, problems: Iterable[SettingProblem]) -> list[Finding]:
    """What reading config.yaml found."""
    return [
        Finding("duplicate_key", problem.name, {"line": problem.line, "config": config.name})
        if problem.kind == "given_twice"
        else Finding("config_unreadable", facts={"error": problem.text, "config": config.name})
        for problem in problems
    ]


def check_search(search: Mapping[str, object], *, config: str) -> list[Finding]:
    """The names and the ranges of config.yaml."""
    known = spellings()
    findings = check_names(search, known, config=config)
    for name, raw in search.items():
        if name in known:
            findings += check_range(name, known[name], raw, config=config)
    return findings


def check_narrowed(where: str, *, beside: Mapping[str, object] | None = None, **layers: Any) -> list[Finding]:
    """The `search:` sections beside values that `resolve_hparams(**layers)` takes, and the ranges `beside`, by
    canonical name, that they leave standing. All must fit those values; what --hparams fixes is not searched.
    """
    try:
        settings = resolve_hparams(**layers)
    except SettingsError:
        return []  # said by check_layers, or by whoever resolved them before
    findings = []
    for name, raw in {**(beside or {}), **settings.search}.items():
        if raw is not None and settings.origins[name] != FIXED_BY:  # null: not searched
            default = getattr(settings.hparams, name)
            findings += check_range(name, name, raw, config=where, own_default=default, layers=layers)
    return findings


def check_names(search: Mapping[str, object], known: Mapping[str, str], *, config: str) -> list[Finding]:
    """Names that hparams.py doesn't have, with what was meant, and two spellings of one field."""
    findings = []
    spelt: dict[str, str] = {}
    for name in search:
        if name not in known:
            meant = HParams.renamed.get(name) or nearest_name(name, known)
            kind = "unknown_name" if meant else "unknown_name_far"
            findings.append(Finding(kind, name, {"config": config, "meant": meant}))
        elif known[name] in spelt:
            findings.append(Finding("two_spellings", name, {"config": config, "other": spelt[known[name]]}))
        spelt.setdefault(known.get(name, name), name)
    return findings


def check_range(
    spelling: str,
    name: str,
    raw: object,
    *,
    config: str,
    own_default: Any = None,
    layers: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """The form of a range, whether every value in it is one that the field allows, and its default.

    layers: what the values must fit beside the defaults. own_default: what the layers say themselves; a `default` may
    then be left out of the range.
    """
    spec = field_info(name)
    try:
        searched = read_range(raw)
    except BadRange as bad:
        return [Finding(bad.kind, spelling, {"config": config})]
    assert isinstance(raw, dict)
    if isinstance(searched, Range) and (searched.scale == "integer") != (spec.type == "int"):
        return [Finding("range_kind", spelling, {"config": config, "scale": searched.scale, "type": spec.type})]
    if name == BUDGET and not isinstance(searched, Range):
        return [Finding("range_budget", spelling, {"config": config})]
    findings = [
        finding
        for key, value in _values_of(searched)
        if (finding := _value_finding(spelling, name, key, value, config, layers or {})) is not None
    ]
    expected = spec.default if layers is None else own_default
    shown = {
        "config": config,
        "default": format_value(expected),
        "where": "hparams.py" if layers is None else config,
    }
    if "default" not in raw and layers is None:
        findings.append(Finding("no_default", spelling, shown))
    elif "default" in raw and not _is_same(raw["default"], name, expected):
        findings.append(Finding("drift", spelling, shown | {"value": format_value(raw["default"])}))
    return findings


def _values_of(searched: Choices | Range) -> list[tuple[str, object]]:
    if isinstance(searched, Choices):
        return [("choices", value) for value in searched.values]
    return [("low", searched.low), ("high", searched.high)]


def _is_same(value: object, name: str, expected: object) -> bool:
    try:
        return convert(value, field_info(name).annotation) == expected
    except ValueError:
        return False


def _value_finding(
    spelling: str, name: str, key: str, value: object, config: str, layers: Mapping[str, Any]
) -> Finding | None:
    facts = {"config": config, "key": key, "value": format_value(value), "allowed": field_info(name).allowed}
    try:
        resolve_hparams(**layers, trial={name: value})
    except SettingsError as error:
        problem = error.problems[-1]
        if problem.kind == "not_allowed":
            return Finding("not_allowed", spelling, facts)
        return Finding("not_with_defaults", spelling, facts | {"error": str(problem)})
    return None


def check_effects(names: Mapping[str, str], root: Path) -> list[Finding]:
    """Searched fields that no code outside hparams.py reads: `names` maps spellings to fields."""
    read = names_read(path for path in program_files(root) if path.name != "hparams.py")
    return [Finding("no_effect", spelling) for spelling, name in names.items() if name not in read]


def check_old_names(root: Path) -> list[Finding]:
    """The historical wrong names as strings in the tuner's code."""
    paths = [path for path in program_files(root) if path.parent.name == "smart_tuner"]
    return [
        Finding("old_name", name, {"place": place, "meant": HParams.renamed[name]})
        for name, place in texts_found(paths, HParams.renamed)
    ]


def check_layers(overrides: str | None) -> list[Finding]:
    """Presets, and a text for --hparams: everything that they would be refused for, duplicates included."""
    findings = []
    for preset in preset_names():
        findings += _refusal(f"preset {preset}", preset=preset)
    return findings + (_refusal("--hparams", overrides=overrides) if overrides is not None else [])


def _refusal(where: str, **layer: str) -> list[Finding]:
    try:
        resolve_hparams(**layer)  # type: ignore[arg-type]
    except SettingsError as error:
        return [Finding("refused", facts={"where": where, "error": problem.text}) for problem in error.problems]
    return []


def check_parsing(usable: Mapping[str, object], known: Mapping[str, str]) -> list[Finding]:
    """Every value of every range through the text of --hparams and back, to the declared type."""
    findings = []
    for spelling, raw in usable.items():
        try:
            values = [value for _, value in _values_of(read_range(raw))]
        except BadRange:
            continue  # reported already
        for value in values:
            findings += _parsing_finding(spelling, known[spelling], value)
    return findings


def _parsing_finding(spelling: str, name: str, value: object) -> list[Finding]:
    try:
        expected = convert(value, field_info(name).annotation)
        text = format_overrides({spelling: expected})
        parsed = getattr(create_hparams(text), name)
    except (ValueError, SettingsError):
        return []  # not a value of this field, which check_range reports
    if parsed == expected and type(parsed) is type(expected):
        return []
    return [Finding("not_parsed", spelling, {"text": text, "value": repr(parsed)})]


# ---- the report


def format_findings(result: Compatibility, language: Language) -> str:
    """One line for each parameter, the counts, the parsing test, and what to do."""
    texts = messages("compatibility", language)
    width = max((len(name) for name in result.names), default=0)
    mark = {True: texts["correct"].split()[0], False: texts["missing"].split()[0]}
    n_correct = sum(name not in result.faulty for name in result.names)
    n_other = len(result.findings) - len(result.missing)
    lines = [texts["found"].format(n=len(result.names))]
    lines += [f"   - {name.ljust(width)} {mark[name not in result.faulty]}" for name in result.names]
    lines += ["", texts["results"], f"   {texts['correct'].format(n=n_correct)}"]
    lines += [f"   {texts['missing'].format(n=len(result.missing))}"]
    if n_other:
        lines.append(f"   {texts['problems'].format(n=n_other)}")
    lines += ["", texts["parsing"].format(outcome=texts["passed" if result.is_parsed else "failed"])]
    lines += [texts["compatible" if result.is_compatible else "incompatible"]]
    if result.findings:
        lines += ["", texts["suggestions"], *(f"   - {finding.say(language)}" for finding in result.findings)]
    return "\n".join(lines)


def as_json(result: Compatibility, language: Language) -> dict[str, object]:
    """The same for machines."""
    return {
        "compatible": result.is_compatible,
        "parameters": {name: name not in result.faulty for name in result.names},
        "missing": result.missing,
        "parsing": result.is_parsed,
        "problems": [
            {"kind": f.kind, "name": f.name, "message": f.say(language), **{k: v for k, v in f.facts.items() if v}}
            for f in result.findings
        ],
    }
