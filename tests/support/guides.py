"""The commands of the guides, and a folder in which they can be typed as they are written."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from corpus.demo.builder import ensure_demo_corpus
from corpus.demo.sentences import DemoSentences
from corpus.demo.teachers import espeak
from support.commands import TINY, environment, run
from support.paths import REPOSITORY
from support.warm_commands import warm_python

TEXTS = {
    "en": (
        "My window is yellow.", "The horse is in the kitchen.", "It is windy today.", "I see a dog in the garden.",
        "She has seven white flowers.", "We walk home in the evening.", "He reads a book at night.", "The sun is warm.",
    ),
    "ru": (
        "Моё окно жёлтое.", "Лошадь стоит на кухне.", "Сегодня ветрено.", "Я вижу собаку в саду.",
        "У неё семь белых цветов.", "Вечером мы идём домой.", "Ночью он читает книгу.", "Солнце тёплое.",
    ),
}  # fmt: skip
VOICES = {"en": "en-us", "ru": "ru"}
SETTINGS = TINY.replace("max_decoder_steps=60", "max_decoder_steps=300")  # 3.5 s, for whole sentences
NOT_CLONED = {".git", ".venv", ".venv-ci", "data", "output", "logs"}
PROGRAMS = {
    "pip": 'for word; do case $word in requirements*) [ -f "$word" ] || exit 1;; esac; done',
    "pytest": "exit 0",  # this is it
    "aplay": "cat > /dev/null",
}


@dataclass(frozen=True)
class Block:
    """What a reader copies at once: the shell's part number `n` of the document `guide`."""

    guide: str
    n: int
    text: str

    def __str__(self) -> str:
        return f"{self.guide}-{self.n}"


def blocks_of(guide: str) -> list[Block]:
    text = (REPOSITORY / guide).read_text(encoding="utf-8")
    found = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [Block(guide, n, block) for n, block in enumerate(found, 1)]


class Reader:
    """Somebody with a clone of the project and recordings, who types what a guide says."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.home, self.cache = folder / "clone", folder / "home", cache
        self.folder.mkdir()
        for entry in REPOSITORY.iterdir():
            if entry.name not in NOT_CLONED:
                (self.folder / entry.name).symlink_to(entry)
        self._programs = folder / "programs"
        self._programs.mkdir()
        short = f'exec {sys.executable} -I -S {REPOSITORY}/tests/support/short_python.py "$@"'
        for name, script in {"python": short, **PROGRAMS}.items():
            (self._programs / name).write_text(f"#!/bin/bash\n{script}\n")
            (self._programs / name).chmod(0o755)
        self.records("en")
        self._files_of_others()

    def records(self, language: str, *, speaker: str = "", lists: bool = True) -> None:
        """data/dataset: recordings with a text beside each, and maybe lists of them, and a speaker."""
        said = TEXTS[language]
        sentences = DemoSentences(said[:-2], said[-2:-1], said[-1:])
        corpus = ensure_demo_corpus(self.cache, sentences=sentences, teacher=espeak(VOICES[language]))
        dataset = self.folder / "data" / "dataset"
        shutil.rmtree(dataset, ignore_errors=True)
        (dataset / "wavs").mkdir(parents=True)
        lines = []
        for path, text in zip(sorted((corpus.root / "wavs").iterdir()), said, strict=True):
            shutil.copy(path, dataset / "wavs" / path.name)
            (dataset / "wavs" / path.name).with_suffix(".txt").write_text(text, encoding="utf-8")
            lines.append("|".join(filter(None, (f"wavs/{path.name}", text, speaker))) + "\n")
        for name, part in {"train.csv": lines[:-2], "val.csv": lines[-2:]}.items() if lists else ():
            (dataset / name).write_text("".join(part), encoding="utf-8")

    def _files_of_others(self) -> None:
        wavs = self.folder / "data" / "dataset" / "wavs"
        shutil.copytree(wavs, self.home / "recordings")
        ljspeech = self.home / "LJSpeech-1.1"
        (ljspeech / "wavs").mkdir(parents=True)
        recordings, said = sorted(wavs.glob("*.wav")), TEXTS["en"]
        for path in recordings:
            shutil.copy(path, ljspeech / "wavs" / path.name)
        lines = (f"{path.stem}|{text}|{text}\n" for path, text in zip(recordings, said, strict=True))
        (ljspeech / "metadata.csv").write_text("".join(lines))
        (self.home / "lectures").mkdir()
        rate = soundfile.info(recordings[0]).samplerate
        quiet = 1e-4 * np.random.default_rng(0).standard_normal(rate)
        spoken = [part for path in recordings for part in (soundfile.read(path)[0], quiet)]
        soundfile.write(self.home / "lectures" / "lecture.flac", np.concatenate([quiet, *spoken]), rate)
        shutil.copy(recordings[0], self.folder / "calm.wav")
        (self.folder / "book.txt").write_text("\n\n".join(said))
        (self.folder / "one.txt").write_text(said[0])
        (self.folder / "two.txt").write_text(said[1])
        (self.folder / "mine.yaml").write_text("learning_rate: 0.001\n")
        lists = (self.folder / "data" / "dataset" / "val.csv").read_text()
        (self.folder / "test.csv").write_text(lists.replace("wavs/", "data/dataset/wavs/"))

    def has_trained(self, *directories: str) -> None:
        """A tiny voice after two steps in each."""
        for name in directories:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            limits = ("--max-steps", "2", "--hparams", SETTINGS)
            done = run("train.py", "-o", name, "-l", f"logs_of_{name}", *limits, cwd=self.folder, cache=self.cache)
            assert done.returncode == 0, done.stderr

    def types(self, text: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Bash ends at the first command that fails."""
        env = environment(self.cache)
        here = {
            "HOME": str(self.home),
            "PATH": f"{self._programs}:{env['PATH']}",
            "GUIDE_HOME": env["HOME"],
            "GUIDE_PATH": env["PATH"],
            "WARM_PYTHON": warm_python(),
            "TINY": SETTINGS,
            "SHORT_TRAINING": str(REPOSITORY / "tests" / "support" / "short_training.py"),
        }
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text], cwd=self.folder, env=env | here, timeout=timeout_s,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip


def without(text: str, skipped: re.Pattern[str]) -> str:
    """The lines that are to be typed."""
    return "".join(f"{line}\n" for line in text.splitlines() if not skipped.search(line))
