"""Who reads the sentences of a synthetic corpus aloud: Hibari the demo and some English, espeak-ng the rest.

Each is a script that a process of its own runs: espeak-ng is under the GPL, and what a synthesiser loads is gone when
the corpus is made.
"""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from common.errors import UserError

HERE = Path(__file__).resolve().parent
RATE_WPM = 175
PITCH = 30  # of 0..99: a low voice has more harmonics under the 8 kHz that a mel shows


@dataclass(frozen=True)
class Teacher:
    """script FOLDER arguments... < sentences.jsonl; it ends with 3 where the package is missing."""

    package: str
    script: Path
    arguments: tuple[str, ...]
    shapes_sound: tuple[str | int, ...]  # what the sound depends on, beside the package's version
    notice: str  # for README.txt of the corpus

    @property
    def install_hint(self) -> str:
        return f"install it with: pip install {self.package}"

    def version(self) -> str:
        """UserError if the package is not installed."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            missing = f"synthetic speech needs the package {self.package}, which is missing"
            raise UserError(f"{missing}; {self.install_hint}") from None


def hibari() -> Teacher:
    """American English, a woman's voice."""
    notice = (
        "Hibari (voice heart) from the package hibari-tts {version}. Program and weights are under the Apache\n"
        "License, version 2.0, and are not in this folder."
    )
    return Teacher("hibari-tts", HERE / "hibari_speech.py", (), ("heart",), notice)


def espeak(voice: str) -> Teacher:
    """One of over a hundred languages; voice as espeak-ng names it."""
    notice = (
        f"espeak-ng (voice {voice}, {RATE_WPM} words a minute, pitch {PITCH}) from the package espeakng-loader "
        "{version}.\nespeak-ng is under the GNU General Public License, version 3. It ran as a separate program, and\n"
        "no part of it is in this folder. That licence covers the program; the sound that it makes is not\n"
        "covered by it."
    )
    arguments = (voice, str(RATE_WPM), str(PITCH))
    return Teacher("espeakng-loader", HERE / "espeak.py", arguments, (voice, RATE_WPM, PITCH), notice)
