"""Russian sounds by rule: IPA of a text whose stressed vowels have `+` before them.

The rules are those of the standard language: spelling conventions of single words, voicing and softness that spread
backwards, voiceless ends of words, vowels reduced by their distance from the stress. What they need to know of letters
and words stands in `data/russian_sounds.txt`. Stress is not guessed here: a word of several syllables without `+` keeps
its vowels half reduced and gets no mark.

IPA as VITS and Piper write it: the mark of stress directly before the vowel, softness as a letter of its own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from text.symbol_sets import DATA

RUSSIAN_VOWELS = "\u0430\u043e\u0443\u044b\u044d\u0438\u0435\u0451\u044e\u044f"
STRESS, SOFT, LONG = "\u02c8", "\u02b2", "\u02d0"
_SOFTENING = "\u0435\u0451\u0438\u044e\u044f\u044c"  # e yo i yu ya, soft sign
_SIGNS = "\u044a\u044c"
_ALWAYS_HARD = ("\u0290", "\u0282", "ts", "dz")
_ALWAYS_SOFT = ("j", "t\u0255", "d\u0291", "\u0255\u02d0", "\u0291\u02d0")
_DENTALS = ("t", "d", "s", "z", "n")
_HARD_L = "\u026b"
_WORDS = re.compile("[\u0430-\u044f\u0451+]+(?:[ -]+[\u0430-\u044f\u0451+]+)*")


@dataclass
class Sound:
    """One consonant or vowel on its way from letter to IPA."""

    ipa: str
    vowel: bool = False
    stressed: bool = False
    soft: bool = False
    voice: str = "-"
    partner: str = ""
    space_before: bool = False  # the first of a word that leans on another, or is leaned on
    long: bool = False
    letter: str = ""


def ipa_of_russian(text: str) -> str:
    """IPA of small letters with `+` before stressed vowels; everything else stays as it is.

    >>> ipa_of_russian("\u043c\u043e\u043b\u043e\u043a+\u043e") == "m\u0259\u026b\u0250k\u02c8o"
    True
    """
    return _WORDS.sub(lambda match: " ".join(_group_ipa(group) for group in _groups(match[0])), text)


def _groups(words: str) -> Iterator[tuple[str, ...]]:
    """Words that are said as one: with those that lean on the next or the one before."""
    group: list[str] = []
    leaning_only = True
    for word, is_attached in _words(words):
        enclitic = word in _rules().enclitics and group and not leaning_only
        if not (enclitic or is_attached or leaning_only):
            yield tuple(group)
            group, leaning_only = [], True
        group.append(word)
        leaning_only = leaning_only and word in _rules().proclitics
    if group:
        yield tuple(group)


def _words(words: str) -> Iterator[tuple[str, bool]]:
    """Single words, and whether a hyphen ties each to the one before as a particle."""
    for compound in words.split():
        for i, word in enumerate(compound.split("-")):
            if word.strip("+"):
                yield word, i > 0 and word.replace("+", "") in _rules().enclitics


@lru_cache(maxsize=65536)
def _group_ipa(words: tuple[str, ...]) -> str:
    sounds: list[Sound] = []
    alone = _rules().proclitics.issuperset(words)  # nothing to lean on: names of letters, or the end of a clause
    for word in words:
        spelled = _respelled(word)
        leans = not alone and len(words) > 1 and word in (*_rules().proclitics, *_rules().enclitics)
        new = list(_sounds(spelled, after=sounds[-1] if sounds else None))
        _set_stress(new, leans=leans)
        if sounds and new:
            new[0].space_before = True
        sounds += new
    _spread_voice(sounds)
    _spread_softness(sounds)
    _reduce(sounds)
    return "".join(_written(sound) for sound in _lengthened(sounds))


def _respelled(word: str) -> str:
    for pattern, replacement in _rules().spelling:
        word = pattern.sub(replacement, word)
    return word


def _sounds(word: str, *, after: Sound | None) -> Iterator[Sound]:
    """after: the last sound of a word that leans on this one: its hardness turns a first i into y."""
    stressed, before = False, ""  # before: the letter before
    for i, letter in enumerate(word):
        if letter == "+":
            stressed = True
            continue
        if letter in RUSSIAN_VOWELS:
            yield from _vowel(letter, before, stressed, after)
            stressed = False
        elif letter in _rules().consonants:
            sound, partner, voice = _rules().consonants[letter]
            following = word[i + 1 :].lstrip("+")[:1]
            soft = sound in _ALWAYS_SOFT or (bool(following) and following in _SOFTENING and sound not in _ALWAYS_HARD)
            yield Sound(sound, soft=soft, voice=voice, partner=partner, letter=letter)
        before = letter


def _vowel(letter: str, before: str, stressed: bool, after: Sound | None) -> Iterator[Sound]:
    sound, iotates = _rules().vowels[letter]
    open_before = not before or before in RUSSIAN_VOWELS or before in _SIGNS
    soft_sign_before = before == "\u044c" and letter in "\u0438\u043e"
    if (iotates and open_before) or soft_sign_before:
        yield Sound("j", soft=True, letter="\u0439")
    hard_before = bool(before) and _rules().consonants.get(before, ("",))[0] in _ALWAYS_HARD
    leaned_on = not before and after is not None and not after.vowel and not after.soft
    if sound == "i" and (hard_before or leaned_on):
        sound = "\u0268"
    elif sound == "e" and hard_before:
        sound = "\u025b"
    yield Sound(sound, vowel=True, stressed=stressed, letter=letter)


def _set_stress(sounds: list[Sound], *, leans: bool) -> None:
    """A word of one syllable is stressed unless it leans on another."""
    vowels = [sound for sound in sounds if sound.vowel]
    if len(vowels) == 1 and not leans:
        vowels[0].stressed = True


def _spread_voice(sounds: list[Sound]) -> None:
    """From the end: the last obstruent is voiceless, each takes the voice of the obstruent after it."""
    wanted = "u"
    for sound in reversed(sounds):
        if sound.voice == "-":
            wanted = ""
            continue
        if wanted and sound.voice != wanted:
            sound.ipa, sound.partner, sound.voice = sound.partner, sound.ipa, wanted
        if sound.ipa in ("v", "f") and sound.letter == "\u0432":
            wanted = wanted if sound.voice == "u" else ""  # v takes voice but gives none
        else:
            wanted = sound.voice


def _spread_softness(sounds: list[Sound]) -> None:
    """Dentals before soft dentals, n also before the soft affricates."""
    for sound, following in reversed(list(zip(sounds, sounds[1:], strict=False))):
        if not following.soft or following.vowel or sound.vowel or sound.soft:
            continue
        same = sound.ipa == following.ipa
        fricative = sound.ipa in ("s", "z") and following.ipa in _DENTALS
        nasal = sound.ipa == "n" and following.ipa in (*_DENTALS, *_ALWAYS_SOFT[1:])
        if same or fricative or nasal:
            sound.soft = True


def _reduce(sounds: list[Sound]) -> None:
    """Unstressed vowels by where they stand: directly before the stress, first in the word, or elsewhere."""
    vowels = [i for i, sound in enumerate(sounds) if sound.vowel]
    stresses = [n for n, i in enumerate(vowels) if sounds[i].stressed]
    for n, i in enumerate(vowels):
        if sounds[i].stressed:
            continue
        before = sounds[i - 1] if i else None
        strong = not stresses or n + 1 in stresses or before is None or before.vowel and n == 1
        after_stress = bool(stresses) and n > stresses[-1]
        last = i == vowels[-1]
        sounds[i].ipa = _reduced(sounds[i], before, strong=strong, final=after_stress and last)


def _reduced(vowel: Sound, before: Sound | None, *, strong: bool, final: bool) -> str:
    soft = before is not None and not before.vowel and before.soft
    if vowel.ipa == "u":
        return "\u028a"
    if vowel.ipa in ("i", "e") or (vowel.ipa == "\u025b" and before is None):
        return "\u026a"
    if vowel.ipa == "\u025b":
        return "\u025b" if vowel.letter == "\u044d" else "\u0268"
    if vowel.ipa in ("a", "o"):
        if vowel.letter == "\u0451":
            return "o"  # a second stress of compounds
        if soft and not final:
            return "\u026a"
        return "\u0250" if strong and not soft else "\u0259"
    return vowel.ipa


def _lengthened(sounds: list[Sound]) -> Iterator[Sound]:
    """Twice the same consonant is a long one."""
    for sound in sounds:
        sound.long = False
    kept: list[Sound] = []
    for sound in sounds:
        twin = kept and not sound.vowel and kept[-1].ipa == sound.ipa and not sound.space_before and sound.ipa != "j"
        if twin:
            kept[-1].long, kept[-1].soft = True, sound.soft
        else:
            kept.append(sound)
    yield from kept


def _written(sound: Sound) -> str:
    space = " " if sound.space_before else ""
    if sound.vowel:
        return space + (STRESS if sound.stressed else "") + sound.ipa
    ipa = _HARD_L if sound.ipa == "l" and not sound.soft else sound.ipa
    mark = SOFT if sound.soft and sound.ipa not in _ALWAYS_SOFT else ""
    return space + ipa + mark + (LONG if sound.long and not ipa.endswith(LONG) else "")


@dataclass(frozen=True)
class _Rules:
    consonants: dict[str, tuple[str, str, str]]
    vowels: dict[str, tuple[str, bool]]
    proclitics: frozenset[str]
    enclitics: frozenset[str]
    spelling: tuple[tuple[re.Pattern[str], str], ...]


@cache
def _rules() -> _Rules:
    sections: dict[str, list[list[str]]] = {}
    lines: list[list[str]] = []
    for line in (DATA / "russian_sounds.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("[") and line.endswith("]"):
            lines = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(line.split())
    spelling = [*sections["hard"], *sections["spelling"]]
    return _Rules(
        consonants={letter: (sound, partner, voice) for letter, sound, partner, voice in sections["consonants"]},
        vowels={letter: (sound, iotates == "y") for letter, sound, iotates in sections["vowels"]},
        proclitics=frozenset(word for line in sections["proclitics"] for word in line),
        enclitics=frozenset(word for line in sections["enclitics"] for word in line),
        spelling=tuple((re.compile(pattern), replacement) for pattern, replacement in spelling),
    )
