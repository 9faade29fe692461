"""Lists that want to break things, each with what must be said of it."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from support.speech_like import RATE, SENTENCES, voice_like


@dataclass(frozen=True)
class BadList:
    """What a list holds, and the findings expected: (line, kind), line 0 for the whole list. None: nothing is wrong."""

    name: str
    content: bytes
    expected: tuple[tuple[int, str], ...]


def good_lines(n: int = 8, *, speaker: str = "", separator: str = "|") -> list[str]:
    tail = f"{separator}{speaker}" if speaker else ""
    return [f"wavs/u{i}.wav{separator}{SENTENCES[i]}{tail}" for i in range(n)]


def with_line(line: str, *, at: int = 4) -> bytes:
    """Good lines with another in place of line `at`."""
    lines = good_lines()
    lines[at - 1] = line
    return ("\n".join(lines) + "\n").encode()


def _line(name: str, line: str, *kinds: str) -> BadList:
    return BadList(name, with_line(line), tuple((4, kind) for kind in kinds))


def _text(name: str, text: str, *kinds: str) -> BadList:
    return _line(name, f"wavs/u3.wav|{text}", *kinds)


def _listed(name: str, texts: Sequence[str], lines: Sequence[int], kind: str) -> BadList:
    content = "".join(f"wavs/u{i}.wav|{text}\n" for i, text in enumerate(texts)).encode()
    return BadList(name, content, tuple((line, kind) for line in lines))


RUSSIAN = (
    "\u041e\u043d\u0430 \u0437\u0430\u0432\u0435\u043b\u0430 \u043f\u0440\u044f\u0434\u044c "
    "\u0432\u043e\u043b\u043e\u0441 \u0437\u0430 \u0443\u0445\u043e \u0438 \u043f\u043e\u0448\u043b\u0430."
)
CAFE = "caf\u00e9"
CAFE_IN_PARTS = unicodedata.normalize("NFD", CAFE)
FRENCH = "O\u00f9 \u00e9tait-il pass\u00e9 cet \u00e9t\u00e9, \u00e7a m\u00eame?"


def _encoded(name: str, text: str, encoding: str) -> BadList:
    content = "".join(f"wavs/u{i}.wav|{text}\n" for i in range(8)).encode(encoding)
    return BadList(name, content, ((0, "encoding"),))


def bad_lists() -> list[BadList]:
    good = "\n".join(good_lines()) + "\n"
    texts = [*_texts(), *_unspoken(), *_lengths_and_languages()]
    return [*_whole_lists(good), *_encodings(good), *_columns(), *_paths(), *texts, *_layouts()]


def _whole_lists(good: str) -> list[BadList]:
    return [
        BadList("good", good.encode(), ()),
        BadList("no newline at the end", good.rstrip("\n").encode(), ()),
        BadList("blank lines", good.replace("\n", "\n\n  \n").encode(), ()),
        BadList("spaces around columns", good.replace("|", "  |  ").encode(), ()),
        BadList("empty file", b"", ((0, "empty list"),)),
        BadList("only newlines", b"\n\r\n\n", ((0, "empty list"),)),
        BadList("a wav for a list", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40), ((0, "not a list"),)),
        BadList("a zip for a list", b"PK\x03\x04" + bytes(range(200)), ((0, "not a list"),)),
        BadList("random bytes", np.random.default_rng(0).bytes(3000), ((0, "encoding"),)),
        BadList("zeros", bytes(5000), ((0, "layout"),)),
        BadList("one word", b"hello\n", ((0, "layout"),)),
        BadList("only text", "\n".join(SENTENCES).encode(), ((0, "layout"),)),
        BadList("only paths", b"wavs/u0.wav\nwavs/u1.wav\n", ((0, "layout"),)),
        BadList("a web page", b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n", ((0, "layout"),)),
        BadList("a line of two million letters", with_line("wavs/u3.wav|" + "word " * 400_000), ((4, "long text"),)),
        BadList("a line without end", b"|" * 300_000, ((0, "layout"),)),
        _listed("half in capitals", [(t, t.upper())[i % 2] for i, t in enumerate(SENTENCES)], (2, 4, 6, 8), "capitals"),
        _listed("abbreviations", [f"{t[:-1]} of NASA, OK." for t in SENTENCES], (), ""),
        _listed("phonemes in every line", [f"{{HH AH{i} L OW}} {{W ER L D}}" for i in range(3)], (), ""),
        _listed(
            "names before what they say",
            [f"{('Anna', 'Ben Smith')[i % 2]}: {t}" for i, t in enumerate(SENTENCES)],
            range(1, 9),
            "speaker prefix",
        ),
        _listed("one word and a colon", [f"Note: {SENTENCES[0]}", *SENTENCES[1:]], (), ""),
        BadList("the same line twice", (good + good_lines()[2] + "\n").encode(), ((9, "duplicate"),)),
    ]


def _encodings(good: str) -> list[BadList]:
    return [
        BadList("byte-order mark", b"\xef\xbb\xbf" + good.encode(), ((0, "byte-order mark"),)),
        BadList("CRLF", good.replace("\n", "\r\n").encode(), ((0, "line ends"),)),
        BadList("CR alone", good.replace("\n", "\r").encode(), ((0, "line ends"),)),
        BadList("mixed line ends", good.replace("\n", "\r\n", 3).encode(), ((0, "line ends"),)),
        _encoded("cp1251", RUSSIAN, "cp1251"),
        _encoded("koi8-r", RUSSIAN, "koi8-r"),
        _encoded("cp866", RUSSIAN, "cp866"),
        _encoded("utf-16", RUSSIAN, "utf-16"),
        _encoded("utf-16 without mark", RUSSIAN, "utf-16-le"),
        _encoded("utf-16 big-endian", RUSSIAN, "utf-16-be"),
        _encoded("utf-32", RUSSIAN, "utf-32"),
        _encoded("latin-1", FRENCH, "latin-1"),
        _encoded("cp1252", FRENCH, "cp1252"),
        _encoded("shift-jis", "\u4eca\u65e5\u306f\u3068\u3066\u3082\u3044\u3044\u5929\u6c17\u3067\u3059", "shift_jis"),
        BadList(
            "one line of cp1251",
            with_line(f"wavs/u3.wav|{SENTENCES[3]}")
            + f"wavs/x0.flac|{RUSSIAN}\n".encode()
            + f"wavs/x1.flac|{RUSSIAN} 2\n".encode()
            + f"wavs/x2.flac|{RUSSIAN}\n".encode("cp1251"),
            ((11, "encoding"),),
        ),  # fmt: skip
        BadList(
            "half a character at the end", good.encode() + "wavs/u0.flac|caf\u00e9".encode()[:-1], ((0, "encoding"),)
        ),
    ]


def _columns() -> list[BadList]:
    return [
        _line("no bar", "wavs/u3.wav Nobody knows where", "columns"),
        _line("tab for a bar in one line", f"wavs/u3.wav\t{SENTENCES[3]}", "columns"),
        _line("comma for a bar in one line", f"wavs/u3.wav,{SENTENCES[3]}", "columns"),
        _line("five columns", "wavs/u3.wav|a b|c|d|e", "columns"),
        _line("no path", f"|{SENTENCES[3]}", "columns"),
        _line("only bars", "|||", "columns"),
        _line("comment", "# these are the good ones", "comment line"),
        _line("comment with bars", "# wavs/u3.wav|Nobody knows.|anna", "comment line"),
        _line("comment of two slashes", "// wavs/u3.wav|Nobody knows", "comment line"),
        _line("an empty text", "wavs/u3.wav|", "empty text"),
        _line("a text of spaces", "wavs/u3.wav|   ", "empty text"),
        _line("a mel for a recording", "wavs/u3.npy|Nobody knows where.", "columns"),
        _line("a sentence for a speaker", f"wavs/u3.wav|{SENTENCES[3]}|{SENTENCES[3]}", "speaker"),
        _line("a speaker of 100 letters", f"wavs/u3.wav|{SENTENCES[3]}|{'x' * 100}", "speaker"),
        _line("a speaker nobody can see", f"wavs/u3.wav|{SENTENCES[3]}|an\u200bna", "speaker"),
        BadList(
            "speakers in two spellings",
            "\n".join(f"{line}|{'Anna' if i else 'anna '}" for i, line in enumerate(good_lines())).encode(),
            ((1, "speaker"),),
        ),  # fmt: skip
        BadList(
            "as many speakers as lines",
            "\n".join(f"{line}|name{i}" for i, line in enumerate(good_lines())).encode(),
            ((0, "speaker"),),
        ),  # fmt: skip
        BadList("header", ("wav|text\n" + "\n".join(good_lines())).encode(), ((1, "header line"),)),
        BadList(
            "header of Coqui",
            ("audio_file|text|speaker_name\n" + "\n".join(good_lines(speaker="anna"))).encode(),
            ((1, "header line"),),
        ),  # fmt: skip
    ]


def _paths() -> list[BadList]:
    text = SENTENCES[3]
    return [
        _line("a missing file", f"wavs/nowhere.wav|{text}", "missing file"),
        _line("wrong case", f"wavs/U3.WAV|{text}", "misspelled path"),
        _line("wrong case of the folder", f"Wavs/u3.wav|{text}", "misspelled path"),
        _line("backslash", f"wavs\\u3.wav|{text}", "misspelled path"),
        _line("a Windows path", f"C:\\data\\set\\wavs\\u3.wav|{text}", "misspelled path"),
        _line("another machine's path", f"/mnt/other/set/wavs/u3.wav|{text}", "misspelled path"),
        _line("wrong extension", f"wavs/u3.mp3|{text}", "misspelled path"),
        _line("no folder", f"u3.wav|{text}", "misspelled path"),
        _line("wrong folder", f"clips/u3.wav|{text}", "misspelled path"),
        _line("quotes", f'"wavs/u3.wav"|{text}', "misspelled path"),
        _line("percent signs", f"wavs/with%20space.wav|{text}", "misspelled path"),
        _line("other Unicode form", f"wavs/{CAFE_IN_PARTS}.wav|{text}", "misspelled path"),
        _line("a folder", f"wavs|{text}", "missing file"),
        _line("a folder called wav", f"wavs/folder.wav|{text}", "missing file"),
        _line("upwards", f"../outside.wav|{text}", "unsafe path"),
        _line("upwards and down", f"wavs/../../outside.wav|{text}", "unsafe path"),
        _line("a link that leads outside", f"wavs/link.wav|{text}", "unsafe path"),
        _line("a link to itself", f"wavs/loop.wav|{text}", "missing file"),
        _line("a pipe", f"wavs/pipe.wav|{text}", "missing file"),
        _line("a device", f"/dev/zero|{text}", "missing file"),
        _line("a system file", f"/etc/passwd|{text}", "missing file"),
        _line("a web address", f"https://example.org/u3.wav|{text}", "misspelled path"),
        _line("a path of 5000 letters", f"{'a/' * 2500}x.wav|{text}", "missing file"),
        _line("a NUL in the path", f"wavs/u3\0.wav|{text}", "missing file"),
        _line("a newline sign in the path", f"wavs/u3\u2028.wav|{text}", "missing file"),
        _line("the recording of line 1", f"wavs/u0.wav|{text}", "duplicate"),
        _line("the recording of line 1 by another path", f"./wavs/../wavs/u0.wav|{text}", "duplicate"),
        _line("the same id as line 1", f"wavs/u0.flac|{text}", "same id"),
    ]


def _texts() -> list[BadList]:
    cyrillic_a, cyrillic_c, greek_o = "\u0430", "\u0441", "\u03bf"
    return [
        _text("only punctuation", "...!?", "empty text"),
        _text("a NUL", "Nobody\0knows where.", "control character"),
        _text("an escape sequence", "Nobody \x1b[31mknows where.", "control character"),
        _text("a bell", "Nobody knows\x07 where.", "control character"),
        _text("a carriage return inside", "Nobody knows\rwhere it fell.", "control character"),
        _text("a line separator", "Nobody knows\u2028where it fell.", "control character"),
        _text("a zero-width space", "Nobody knows\u200b where it fell.", "invisible character"),
        _text("a soft hyphen", "Nobody kno\u00adws where it fell.", "invisible character"),
        _text("writing direction turned", "Nobody \u202eknows where it fell.", "invisible character"),
        _text("a private character", "Nobody knows \ue000 where.", "invisible character"),
        _text("letters in parts", "Caf\u0065\u0301 and na\u0069\u0308ve people.", "unicode form"),
        _text("a ligature", "Nobody could \ufb01nd the letter.", "unicode form"),
        _text("full-width letters", "Nobody \uff4b\uff4e\uff4f\uff57\uff53 where.", "unicode form"),
        _text(
            "Cyrillic letters in a Latin word", f"The small {cyrillic_c}{cyrillic_a}t was asleep.", "look-alike letters"
        ),
        _text("a Cyrillic word in Latin text", f"It was {cyrillic_a} very small dog.", "look-alike letters"),
        _text("a Greek letter in a Latin word", f"The small d{greek_o}g was asleep.", "look-alike letters"),
        _text("Latin letters in a Cyrillic word", RUSSIAN.replace("\u043e", "o"), "look-alike letters"),
        _text("UTF-8 read as latin-1", FRENCH.encode().decode("latin-1"), "damaged text"),
        _text(
            "UTF-8 read as cp1251",
            "\u043f\u0440\u0438\u0432\u0435\u0442".encode().decode("cp1251", "ignore"),
            "damaged text",
        ),
        _text("a lost character", "Caf\ufffd people.", "damaged text"),
        _text("entities", "Cats &amp; dogs are here.", "markup"),
        _text("tags", "Nobody <b>knows</b> where.", "markup"),
    ]


def _unspoken() -> list[BadList]:
    return [
        _text("the name of a file", "wavs/u3.wav", "no speech"),
        _text("times of subtitles", "00:00:01,000 --> 00:00:04,000", "no speech"),
        _text("an empty cell of a table", "#N/A", "no speech"),
        _text("an empty value of a program", "nan", "no speech"),
        _text("nothing yet", "[TODO]", "no speech"),
        _text("an address", "See https://example.org/a for more.", "no speech"),
        _text("a place left open", "Hello {{name}}, welcome.", "no speech"),
        _text("the name of the recording", "u3", "no speech"),
        _text("an id", "LJ001-0001", "no speech"),
        _text("an id with a speaker", "p225_003", "no speech"),
        _text("a number of a file", "0003", "no speech"),
        _text("the path of a transcript", "texts/u3.txt", "no speech"),
        _text("a mark for noise", "SIL", "no speech"),
        _text("an aeroplane", "A380."),
        _text("a small number", "7."),
        _text("a picture", "Nobody knows \U0001f600 where.", "emoji"),
        _text("a heart", "Nobody \u2764\ufe0f knows where.", "emoji"),
        _text("a star", "Nobody knows \u2b50 where.", "emoji"),
        _text("a note of music", "\u266a Nobody knows where.", "emoji"),
        _text("signs that are read", "It was 20 \u00b0C, \u00a9 2020, \u2116 5."),
        _text("who speaks", "ANNA: I will not go.", "speaker prefix"),
        _text("who speaks, in subtitles", ">> THE OLD MAN: I will not go.", "speaker prefix"),
        _text("a word and a colon", "Listen: nobody knows where."),
        _text("laughter", "(laughs) Nobody knows where.", "stage direction"),
        _text("music", "Nobody [soft music] knows where.", "stage direction"),
        _text("noise alone", "[door slams]", "stage direction"),
        _text("sighs between stars", "*sighs* Nobody knows where.", "stage direction"),
        _text(
            "laughter in Russian",
            "(\u0441\u043c\u0435\u0451\u0442\u0441\u044f) " + RUSSIAN,
            "stage direction",
        ),
        _text("an aside", "Nobody (said the man with the music) knows where."),
        _text("an addition", "He [said] so."),
        _text("letters lost to question marks", "A caf? and na?ve people, \u2026", "damaged text"),
        _text("words lost to question marks", "Nobody ???? knows ?? where", "damaged text"),
        _text("a question without a space", "Why?No. What??"),
        _text("capitals once", "STOP RIGHT THERE, I SAID!"),
        _text("a time and a price", "At 10:30 it cost $5, none of it mine."),
    ]


def _lengths_and_languages() -> list[BadList]:
    return [
        _text("600 letters", "word " * 120, "long text"),
        _text("10,000 letters", "word " * 2000, "long text"),
        _text("one word of 3000 letters", "a" * 3000, "long text"),
        _text("the text of line 1", SENTENCES[0], "repeated text"),
        _text("Russian", RUSSIAN),
        _text("Russian with stress", "\u0421\u0442\u043e\u0438\u0442 \u0437\u0430\u0301\u043c\u043e\u043a."),
        _text("Russian with an abbreviation", "\u041c\u043e\u0439 PC \u0438 USB-\u043a\u0430\u0431\u0435\u043b\u044c."),
        _text("French", FRENCH),
        _text("Chinese", "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002"),
        _text("Arabic", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645."),
        _text("phonemes", "Turn left on {HH AW1 S T AH0 N} street."),
        _text("curly quotes and dashes", "\u201cNobody \u2014 knows\u201d\u2026"),
    ]


def _layouts() -> list[BadList]:
    def listed(pattern: str, first: str = "") -> bytes:
        return (first + "".join(pattern.format(i=i, odd=i % 2, text=text) for i, text in enumerate(SENTENCES))).encode()

    return [
        BadList("VITS", listed("wavs/u{i}.wav|{odd}|{text}\n"), ((0, "layout"),)),
        BadList("VITS with names", listed("wavs/u{i}.wav|speaker{odd}|{text}\n"), ((0, "layout"),)),
        BadList("multilingual VITS", listed("wavs/u{i}.wav|anna|EN|{text}\n"), ((0, "layout"),)),
        BadList("Piper, several speakers", listed("u{i}|{odd}|{text}\n"), ((0, "layout"),)),
        BadList("text before path", listed("{text}|wavs/u{i}.wav\n"), ((0, "layout"),)),
        BadList("LJSpeech with paths", listed("wavs/u{i}.wav|{text}|{text}\n"), ((0, "layout"),)),
        BadList("LJSpeech", listed("u{i}|{text}|{text}\n"), ()),
        BadList("Piper, one speaker", listed("u{i}|{text}\n"), ()),
        BadList(
            "Common Voice",
            listed("c{odd}\tu{i}.mp3\t{text}\t2\n", "client_id\tpath\tsentence\tup_votes\n"),
            ((0, "layout"),),
        ),  # fmt: skip
        BadList("csv with header", listed('wavs/u{i}.wav,"{text}"\n', "file,text\n"), ((0, "separator"),)),
        BadList("durations", listed("wavs/u{i}.wav|{text}|1.{odd}5\n"), ((0, "layout"),)),
        BadList("commas", listed("wavs/u{i}.wav,{text}\n"), ((0, "separator"),)),
        BadList("semicolons", listed("wavs/u{i}.wav;{text}\n"), ((0, "separator"),)),
        BadList("tabs", listed("wavs/u{i}.wav\t{text}\n"), ((0, "separator"),)),
        BadList("Kaldi", listed("utt-{i} {text}\n"), ((0, "layout"),)),
        BadList(
            "JSON lines",
            b'{"audio_filepath": "wavs/u0.wav", "duration": 1.0, "text": "The old river."}\n',
            ((0, "layout"),),
        ),  # fmt: skip
        BadList("broken JSON", b'{"audio_filepath": "wavs/u0.wav", \n{"text"\n', ((0, "layout"),)),
    ]


def write_folder(folder: Path) -> Path:
    """The folder that the lists are about: u0.wav to u7.wav and traps; `outside.wav` lies beside it."""
    import os

    wavs = folder / "wavs"
    wavs.mkdir(parents=True)
    for i in range(8):
        soundfile.write(wavs / f"u{i}.wav", voice_like(1.0 + 0.05 * i, seed=i), RATE)
    for i, name in enumerate(("u0", "x0", "x1", "x2")):
        soundfile.write(wavs / f"{name}.flac", voice_like(1.1, seed=20 + i), RATE)
    for name in ("with space", CAFE):
        soundfile.write(wavs / f"{name}.wav", voice_like(seed=9), RATE)
    (wavs / "folder.wav").mkdir()
    soundfile.write(folder.parent / "outside.wav", voice_like(seed=10), RATE)
    (wavs / "link.wav").symlink_to(folder.parent / "outside.wav")
    (wavs / "loop.wav").symlink_to(wavs / "loop.wav")
    os.mkfifo(wavs / "pipe.wav")
    return folder
