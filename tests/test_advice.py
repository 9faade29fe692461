"""What messages advise can be done: commands parse; switches, files, settings and links that they name are there."""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache

import pytest

from common.cli import with_dashes
from common.errors import UserError
from hparams import HParams, field_names, resolve_hparams
from support.links import problem_of_link
from support.messages import Message, all_messages
from support.paths import REPOSITORY
from support.sources import all_imports

# Commands by the module that holds their parser
COMMANDS = {
    "train.py": "train", "synthesize.py": "synthesize", "evaluate.py": "evaluate", "export.py": "export",
    "serve.py": "serve", "prepare_data.py": "prepare_data", "emergency_recovery.py": "emergency_recovery",
    "multiproc.py": "multiproc", "test_hparams_compatibility.py": "test_hparams_compatibility",
    "-m monitoring.report": "monitoring.report.__main__", "-m player": "player.__main__",
    "-m exporting": "exporting.__main__", "-m text": "text.__main__", "-m text ledger": "text.__main__",
    "-m config.reference_docs": "config.reference_docs",
}  # fmt: skip
# Where a message speaks to fewer commands than import its module. Elsewhere a switch must be one of all of them; with a
# bar in between, of any: the message is made for the one that says it.
SPEAKS_TO = {
    "audio.recordings": "train.py",  # "train with"
    "common.cli": "train.py",  # where there is --hparams
    "corpus.amount": "train.py",  # what to train with
    "corpus.filelists": "train.py, evaluate.py, -m exporting",  # the others read no lists
    "corpus.doctor": "prepare_data.py",  # training reads its lists otherwise
    "corpus.levels": "prepare_data.py",
    "corpus.list_checks": "train.py",  # "to train with"
    "data_utils": "train.py",  # the others name their lists before
    "hparams": "train.py",
    "parallel.devices": "synthesize.py, evaluate.py, serve.py",  # training asks for auto, exports for cpu
    "parallel.rendezvous": "train.py | multiproc.py",
    "recovery.advice": "train.py",
    "recovery.repair": "emergency_recovery.py",
    "serving.speech_request": "synthesize.py",  # of which it takes the switches away
    "speech.delivery": "synthesize.py", "speech.self_check": "synthesize.py", "speech.tempo": "synthesize.py",
    "speech.voice": "synthesize.py",  # serve.py puts fields in the place of switches, evaluate.py asks for none
    "speech.vocoders.foreign_files": "synthesize.py", "speech.vocoders.generator_file": "synthesize.py",
    "speech.vocoders.packaged_weights": "synthesize.py", "speech.vocoders.vocoder": "synthesize.py",
    "settings.presets": "train.py",
    "text.__main__": "-m text | -m text ledger", "tools": "train.py",
    "common/messages.yaml": "train.py", "config/hparams_help.yaml": "train.py", "monitoring/telegram.yaml": "train.py",
}  # fmt: skip
FOREIGN = re.compile(r"\b(?:pip|docker|mlflow|tensorboard|curl|iconv|ffmpeg)\s(?:[^;,:)`\n]|:(?=\S))*")
# A command ends where its quotes end, or else where prose must go on
OURS = re.compile(
    r"`python ([^`]+)`|\bpython ((?:-m [a-z_.]+|\w+\.py)\b(?:\"[^\"\n]*\"|'[^'\n]*'|(?!  |; |, | \(|[.] |[`\n|\"']).)*)"
)
SWITCH = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# Snake case that is no setting of ours
OTHER_NAMES = frozenset(
    # figures in metrics and logs
    "grad_norm mel_distance smel_post "
    # what files, folders and formats hold
    "state_dict evaluation_results hifigan_data smart_tuner artifact_location artifact_uri journal_mode hp_field "
    "upsample_rates upsample_kernel_sizes resblock_kernel_sizes resblock_dilation_sizes upsample_initial_channel "
    "hop_size snake_logscale bigvgan_v2_22khz_80band_fmax8k_256x voice_files "
    # Python
    "frame_multiple non_blocking why_unsupported corpus_table "
    # what libraries say where memory ends
    "alloc_failed bad_alloc allocation_failed device_memory host_memory".split()
)
NAMES_OF_OTHERS = frozenset(("corpus.layouts", "corpus.record_sheet"))  # column names of other programs; HTML
COMMANDS_OF_OTHERS = frozenset(("speech.vocoders.hifigan_dataset",))  # "in a checkout of HiFi-GAN: python train.py"
BROUGHT_BY_OTHERS = frozenset(("av",))  # a package that faster-whisper needs
CHOICES = {"--text-input {}": "--text-input phonemes"}  # where the number that fills placeholders is no value


def aliases() -> set[str]:
    return {alias for name in field_names() for alias in HParams.model_fields[name].json_schema_extra["aliases"]}  # type: ignore[index, call-overload]


# ---- commands


@cache
def parser_of(command: str) -> argparse.ArgumentParser:
    module = importlib.import_module(COMMANDS[command])
    return module.ledger_parser() if command.endswith("ledger") else module.parser()


@cache
def switches_of(command: str) -> frozenset[str]:
    """Its own and those of its verbs, with dashes."""
    found, waiting = set(), [parser_of(command)]
    while waiting:
        for action in waiting.pop()._actions:
            found |= set(with_dashes(action.option_strings))
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
    return frozenset(found)


def commands_in(text: str) -> Iterator[str]:
    """What follows `python` in every command of ours, without placeholders and what a shell does next."""
    if re.fullmatch(r"python -m [\w.]+(?: ledger)?", text):
        return  # how the usage names itself
    for quoted, plain in OURS.findall(text):
        line = re.sub(r"\s(?:[|>&]|\.\.\.).*?(?=\s--|$)", "", quoted or plain)
        for placeholder, value in CHOICES.items():
            line = line.replace(placeholder, value)
        yield re.sub(r"\{\}|\b[A-Z]\b", "1", line).strip(" .:")


def problem_of_command(line: str) -> str | None:
    """Why its arguments are refused."""
    words = shlex.split(line)
    name = " ".join(words[:2]) if words[0] == "-m" else words[0]
    if words[:3] == ["-m", "text", "languages"]:
        return None
    if words[:3] == ["-m", "text", "ledger"]:
        name += " ledger"
    if name not in COMMANDS:
        return f"{name}: no such command"
    arguments = words[len(name.split()) :]
    try:
        if name == "multiproc.py":
            module = importlib.import_module("multiproc")
            args, rest = module.parser().parse_known_args(arguments)
            module.check(args, rest)
            name, arguments = "train.py", list(rest[1:])
        parsed = parser_of(name).parse_args(arguments)
        for settings in getattr(parsed, "hparams", None) or []:
            resolve_hparams(overrides=re.sub("(?<=,)1$", "", settings).strip(","))
    except (SystemExit, UserError) as error:
        return f"python {line}: refused ({error})"
    return None


# ---- switches


@cache
def speakers() -> dict[str, frozenset[str]]:
    """Commands by the modules that they import, wherever in a file."""
    imports: dict[str, set[str]] = {}
    for _, importing, imported in all_imports():
        imports.setdefault(importing, set()).add(imported)
    found: dict[str, set[str]] = {}
    for command, module in COMMANDS.items():
        seen, waiting = set(), [module]
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                waiting += imports.get(one, ())
        for one in seen:
            found.setdefault(one, set()).add(command)
    return {module: frozenset(commands) for module, commands in found.items()}


def problems_of_switches(message: Message) -> list[str]:
    """Switches that are not those of a command which the message names, nor of all that may say it."""
    left = OURS.sub("", FOREIGN.sub("", message.text))
    named = {name for name in COMMANDS if re.search(rf"(?<![\w/]){re.escape(name)}\b", message.text)}
    spoken_to = SPEAKS_TO.get(message.module)
    if spoken_to and "|" in spoken_to:
        named |= set(spoken_to.split(" | "))
    about = frozenset(spoken_to.split(", ")) if spoken_to else speakers().get(message.module, frozenset())
    problems = []
    for switch in map(str, SWITCH.findall(left)):
        wanted = with_dashes([switch])[0]
        if any(wanted in switches_of(command) for command in named):
            continue
        lacking = sorted(each for each in about if each not in COMMANDS or wanted not in switches_of(each))
        if lacking or not about:
            problems.append(f"{message.place}: {switch} is none of {', '.join(lacking) or 'any command'}")
    return problems


# ---- files, settings, links, packages


@cache
def python_files() -> frozenset[str]:
    return frozenset(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.rglob("*.py"))


def problems_of_names(message: Message) -> list[str]:
    """Programs, documents and requirements that are not there, and what looks like a setting and is none."""
    text, place = message.text, message.place
    found = [f"{place}: {name}: no such program" for name in re.findall(r"(?<![\w{}*])[\w/]+\.py\b", text)
             if name not in python_files()]  # fmt: skip
    for link in re.findall(r"\bdocs/[\w./]+\.md(?:#[\w-]+)?", text):
        found += [f"{place}: {problem}"] if (problem := problem_of_link(REPOSITORY / "README.md", link)) else []
    for name in re.findall(r"\brequirements[\w-]*\.txt", text):
        found += [] if (REPOSITORY / name).is_file() else [f"{place}: {name}: no such file"]
    for words in re.findall(r"\bpip install ([^;,:)`\n]+)", text):
        found += [f"{place}: pip install {word}: in no requirements" for word in packages(words)
                  if word.lower() not in required() | BROUGHT_BY_OTHERS]  # fmt: skip
    if message.module not in NAMES_OF_OTHERS:
        known = {*field_names(), *aliases(), *OTHER_NAMES}
        plain = re.sub(r"<[^<>]*>|https?://\S+", "", OURS.sub("", FOREIGN.sub("", text)))
        named = re.findall(r"(?<![\w/.{}-])[a-z]+(?:_[a-z0-9]+)+(?![\w./({])", plain)
        found += [f"{place}: {name}: no such setting" for name in named if name not in known]
    return found


def packages(words: str) -> list[str]:
    names = [word.partition("==")[0] for word in words.split()]
    return [name for name in names if re.fullmatch(r"[A-Za-z][\w-]*", name) and not name.startswith("requirements")]


@cache
def required() -> frozenset[str]:
    lines = [line for path in REPOSITORY.glob("requirements*.txt") for line in path.read_text("utf-8").splitlines()]
    return frozenset(found[0].lower() for line in lines if (found := re.match(r"[A-Za-z][\w-]*", line)))


# ---- the claims


def problems_of(message: Message) -> list[str]:
    if message.module in COMMANDS_OF_OTHERS:
        return []
    of_commands = [problem for line in commands_in(message.text) if (problem := problem_of_command(line))]
    return [
        *(f"{message.place}: {problem}" for problem in of_commands),
        *problems_of_switches(message),
        *problems_of_names(message),
    ]


@pytest.mark.spec
def test_what_messages_advise_can_be_done() -> None:
    assert [problem for message in all_messages() for problem in problems_of(message)] == []


def test_many_messages_are_looked_at() -> None:
    texts = [message.text for message in all_messages()]
    n_commands = sum(len(list(commands_in(text))) for text in texts)
    n_switches = sum(len(SWITCH.findall(text)) for text in texts)
    assert (n_commands, n_switches) > (40, 150), (n_commands, n_switches)


@pytest.mark.parametrize(
    ("module", "text", "problem"),
    [
        ("train", "go on with --resume-with-change", "--resume-with-change is none of train.py"),
        ("speech.tempo", "say it slower with --max-steps", "--max-steps is none of synthesize.py"),
        ("training.resume", "see it with synthesize.py --no-such", "--no-such is none of"),
        ("evaluation.texts", "leave it out with --no-split", "--no-split is none of evaluate.py"),
        ("train", "run python train.py --fresh --max-steps ten", "refused"),
        ("train", "run `python prepare_data.py cut` first", "refused"),
        ("train", 'run python train.py --hparams "batch_sise=2"', "batch_sise"),
        ("train", "look at python -m monitoring.reports output", "no such command"),
        ("train", "tell recover.py of it", "recover.py: no such program"),
        ("train", "lower learning_rates a little", "learning_rates: no such setting"),
        ("train", "see docs/turning.md", "no such file"),
        ("train", "see docs/tuning.md#nowhere", "no such heading"),
        ("train", "it needs optuna: pip install -r requirements-search.txt", "no such file"),
        ("train", "it needs optuna: pip install optunna", "in no requirements"),
    ],
)
def test_wrong_advice_would_be_found(module: str, text: str, problem: str) -> None:
    assert any(problem in found for found in problems_of(Message("here", module, text))), problems_of(
        Message("here", module, text)
    )


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("train", "go on with --resume-with-changes or synthesize.py --no-split; lower learning_rate"),
        ("train", "python train.py -o {} --fresh (the old run is moved aside)"),
        ("corpus.loader", "give it room: docker run --shm-size=1g gives more"),
        ("train", 'python multiproc.py train.py ... --n_gpus N --hparams "batch_size=3"'),
    ],
)
def test_right_advice_is_no_problem(module: str, text: str) -> None:
    assert problems_of(Message("here", module, text)) == []


def test_what_is_said_of_modules_here_is_of_modules_that_speak() -> None:
    assert {*SPEAKS_TO, *NAMES_OF_OTHERS, *COMMANDS_OF_OTHERS} <= {message.module for message in all_messages()}
