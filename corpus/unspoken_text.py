"""What stands in a list by mistake where the words of a recording belong: names, times, stage directions, pictures."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from corpus.findings import Finding, error, shown, warning
from text.inspection import PICTURES

WRITE_WORDS = "write what is said in the recording"
# What a table, a program or a transcriber leaves where there is no text, written as they write it
_LEFT_EMPTY = re.compile(
    r"nan|NaN|NULL|null|None|undefined|\[?(?:TODO|TBD|FIXME)\]?|#?N/A|#(?:VALUE|REF|NAME|NULL)[!?]|xxx+|SIL|sil|spn|SPN"
)
_TIME = re.compile(r"\d{1,2}:\d{2}:\d{2}[.,]\d+|-->")
_FILE = re.compile(r"(?i)\S+\.(?:wav|flac|ogg|opus|mp3|m4a|npy|txt|lab|textgrid)")
# LJ001-0001, p225_001, utt0003, wavs/u3, but neither A380 nor COVID-19
_ID = re.compile(r"(?=.*\d)(?:\w+_[\w-]+|[^\W\d]+\d{2,}-\d+|[^\W\d]+[-_]?0\d+|0\d{2,}|[\w-]+(?:/[\w-]+)+)")
_ADDRESS = re.compile(r"(?i)\b(?:https?://|www\.)\S+")
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\$\{?[A-Za-z_]\w*\}?|%\([a-z_]+\)[sd]")
_ROUND = re.compile(r"\(([^()]{2,40})\)")
_SQUARE = re.compile(r"\[([^\[\]]{2,60})\]")
_STARRED = re.compile(r"\*([^*\n]{2,60})\*")
_WORD = re.compile(r"[^\W\d_]+")
ROUND_WORDS, SQUARE_WORDS = 2, 4  # at most: what is longer is mostly said
STAGE_WORDS = Path(__file__).with_name("stage_words.txt")
LONGEST_NAME = 30  # characters before a colon
NAME_WORDS = 3


def unspoken(text: str) -> Iterator[Finding]:
    """What nobody says in a text that has letters."""
    if pictures := "".join(dict.fromkeys(PICTURES.findall(text))):
        yield error("emoji", f'{shown(pictures)} in "{shown(text)}"', "spell it out, or delete it")
    if _FILE.fullmatch(text):
        yield error("no speech", f'the name of a file: "{shown(text)}"', WRITE_WORDS)
    elif _TIME.search(text):
        yield error("no speech", f'times of subtitles: "{shown(text)}"', WRITE_WORDS)
    elif _LEFT_EMPTY.fullmatch(text):
        why = f'"{text}" is what programs write where a text is missing'
        yield warning("no speech", why, "write what is said, or drop the line")
    elif _ID.fullmatch(text):
        yield warning("no speech", f'it looks like the id of a recording: "{shown(text)}"', WRITE_WORDS)
    else:
        for pattern, what in ((_ADDRESS, "an address"), (_TEMPLATE, "a place left open")):
            if found := pattern.search(text):
                yield warning("no speech", f'{what}, "{shown(found[0])}", in "{shown(text)}"', "write what is said")
        yield from _beside_speech(text)


def names_itself(text: str, stem: str) -> Finding | None:
    """An error where the text is the recording's own name, without its ending. "yes" and "7" may be what is said."""
    is_name = text.casefold() == stem.casefold() and not text.isalpha() and not (text.isdigit() and text[0] != "0")
    return error("no speech", f'the name of the recording: "{shown(text)}"', WRITE_WORDS) if is_name else None


def _beside_speech(text: str) -> Iterator[Finding]:
    if direction := stage_direction(text):
        detail = f'"{shown(direction)}" in "{shown(text)}" is heard, but not as these words'
        yield warning("stage direction", detail, "delete it, or leave the line out")
    if (name := speaker_prefix(text)) and name.isupper() and sum(char.isalpha() for char in name) > 1:
        yield named_speaker(name, text)


def named_speaker(name: str, text: str) -> Finding:
    """Of a text that begins with who says it."""
    detail = f'begins with "{shown(name)}:", as if it named who speaks: "{shown(text)}"'
    return warning("speaker prefix", detail, "delete it, unless it is said; speakers are a column: wav|text|speaker")


def speaker_prefix(text: str) -> str:
    """`Anna` of `Anna: I will not go.`: up to three words that begin with capitals, before a colon; else ""."""
    name, colon, rest = text.lstrip(">- \u2013\u2014").partition(":")
    words = re.sub(r"\([^()]*\)", "", name).split()
    is_name = colon and len(name) <= LONGEST_NAME and 0 < len(words) <= NAME_WORDS and rest[:1].isspace()
    return name if is_name and all(word[0].isupper() for word in words) and _WORD.search(rest) else ""


def stage_direction(text: str) -> str:
    """The first of `(laughs)`, `[music]`, `*sighs*` in a text; "" where there is none."""
    for pattern, most in ((_ROUND, ROUND_WORDS), (_SQUARE, SQUARE_WORDS)):
        for found in pattern.finditer(text):
            words = _WORD.findall(found[1].lower())
            if 0 < len(words) <= most and (_is_stage(words) or (pattern is _SQUARE and found[0] == text.strip())):
                return found[0]
    starred = _STARRED.search(text)
    return starred[0] if starred and 0 < len(_WORD.findall(starred[1])) <= SQUARE_WORDS else ""


def _is_stage(words: Sequence[str]) -> bool:
    return not _stage_words().isdisjoint(words)


@cache
def _stage_words() -> frozenset[str]:
    lines = STAGE_WORDS.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())
