"""Checks smart_tuner/config.yaml against hparams.py, as a command and as a test.

python test_hparams_compatibility.py                    the report; exit code 1 if anything is wrong
python test_hparams_compatibility.py --show-params      all parameters with values, ranges and meaning
pytest test_hparams_compatibility.py
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import Parser
from common.translations import Language, language_of, messages
from config.source_scan import declared_twice, program_files, syntax_problem

ROOT = Path(__file__).resolve().parent


def parser() -> Parser:
    p = Parser(description="Checks smart_tuner/config.yaml against hparams.py.")
    p.add_argument("--show-params", action="store_true", help="print all hyperparameters and exit")
    p.add_argument("--config", type=Path, metavar="YAML", help="file to check (default smart_tuner/config.yaml)")
    p.add_argument("--hparams", action="append", metavar="A=B,...", help="also check this value for --hparams")
    p.add_argument("--language", choices=("auto", "en", "ru"), default="auto", help="auto follows the locale")
    p.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    return p


def source_findings(root: Path = ROOT) -> list[tuple[str, dict[str, object]]]:
    """What hparams.py itself has wrong, as kind and facts; judged before it is imported, as it may not import."""
    source = root / "hparams.py"
    problem = syntax_problem(source)
    if problem is not None:
        return [("source_syntax", {"line": problem[0], "error": problem[1]})]
    return [
        ("duplicate_field", {"name": name, "first": first, "second": second})
        for name, first, second in declared_twice(source)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    language: Language = language_of(os.environ) if args.language == "auto" else args.language
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")  # the report has characters that a Latin-1 terminal's codec lacks
    if any(kind == "source_syntax" for kind, _ in source_findings()):
        return show_broken_source(language, as_json=args.json)
    if args.show_params:
        return show_params(language, as_json=args.json)
    from smart_tuner.config_check import CONFIG, Compatibility, Finding, as_json, check, format_findings

    overrides = None if args.hparams is None else ",".join(args.hparams)
    result = check(args.config or CONFIG, overrides=overrides)
    own = tuple(Finding(kind, str(facts.get("name", "")), facts) for kind, facts in source_findings())
    result = Compatibility(result.names, (*own, *result.findings), result.is_parsed)
    if args.json:
        print(json.dumps(as_json(result, language), indent=2, ensure_ascii=False))
    else:
        print(format_findings(result, language))
    return 0 if result.is_compatible else 1


def show_broken_source(language: Language, *, as_json: bool) -> int:
    """hparams.py can't be imported, so nothing else can be judged."""
    templates = messages("problems", language)
    said = [templates[kind].format(**facts) for kind, facts in source_findings()]
    problems = [{"kind": "source_syntax", "message": text} for text in said]
    print(json.dumps({"compatible": False, "problems": problems}, ensure_ascii=False) if as_json else "\n".join(said))
    return 1


def show_params(language: Language, *, as_json: bool) -> int:
    from config.show_params import show_params as table
    from hparams import field_names, resolve_hparams

    if not as_json:
        print(messages("compatibility", language)["available"].format(n=len(field_names())))
    print(table(resolve_hparams(), "json" if as_json else "text", language=language))
    return 0


# ---- the same as a test


def test_the_tuner_searches_only_what_hparams_declares_and_code_reads() -> None:
    from smart_tuner.config_check import check, format_findings

    result = check()
    assert result.is_compatible, format_findings(result, "en")


def test_no_hyperparameter_is_declared_twice() -> None:
    assert source_findings() == []


def test_every_source_file_can_be_read() -> None:
    assert {path.name: problem for path in program_files(ROOT) if (problem := syntax_problem(path))} == {}


if __name__ == "__main__":
    sys.exit(main())
