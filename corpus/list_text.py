"""From the bytes of a filelist to its lines: encoding, byte-order mark, line ends.

A list may be UTF-8 with or without a byte-order mark, with lines that end in LF, CRLF or CR. Anything else is named
with what it looks like; nothing is decoded by guess.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from common.encodings import wide_encoding
from common.files import read_given
from corpus.findings import Finding, error, note, shown

UTF8_MARK = b"\xef\xbb\xbf"
# asked in this order; of two that read equally well the first is named
LIKELY_ENCODINGS = (
    "cp1251",
    "koi8_r",
    "cp866",
    "mac_cyrillic",
    "cp1252",
    "cp1250",
    "cp1253",
    "cp1254",
    "cp1257",
    "mac_roman",
    "shift_jis",
    "gb18030",
    "big5",
    "euc_kr",
    "euc_jp",
)
GUESS_BYTES = 1 << 16
_SOUND_HEADS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"PK\x03\x04", b"\x1f\x8b", b"\x89PNG", b"%PDF")


@dataclass(frozen=True)
class Line:
    """One line that is not blank; number counts from 1, text is None where the bytes are not UTF-8."""

    number: int
    raw: bytes
    text: str | None


@dataclass(frozen=True)
class ListText:
    """The lines of a list, and what is wrong with it as a whole or with the bytes of single lines."""

    path: Path
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]


def read_list_text(path: Path) -> ListText:
    """The lines of a list on disk; OSError if it can't be read."""
    return list_text(path, read_given(path))


def list_text(path: Path, content: bytes) -> ListText:
    """The lines of `content`. Where the whole of it is no UTF-8 text, there are no lines but one error."""
    whole = _not_utf8_at_all(content)
    if whole is not None:
        return ListText(path, (), (whole.at(path),))
    lines = tuple(Line(number, raw, _decoded(raw)) for number, raw in split_lines(content.removeprefix(UTF8_MARK)))
    undecoded = [line for line in lines if line.text is None]
    if undecoded and 2 * len(undecoded) >= sum(not line.raw.isascii() for line in lines):
        return ListText(path, (), (_wrong_encoding(content).at(path),))
    findings = [_bad_bytes(line).at(path, line.number) for line in undecoded]
    if content.startswith(UTF8_MARK):
        findings.append(
            note(
                "byte-order mark",
                "begins with a byte-order mark",
                "other programs read it as part of the first path; save without",
            ).at(path)
        )
    if lines and (b"\r\n" in content or b"\n" not in content) and b"\r" in content:
        findings.append(
            note(
                "line ends", f"lines end in {_line_ends(content)}", "other programs want LF; save with Unix line ends"
            ).at(path)
        )
    if not lines:
        findings.append(error("empty list", "holds no line", "write wav|text lines").at(path))
    return ListText(path, lines, tuple(findings))


def split_lines(content: bytes) -> list[tuple[int, bytes]]:
    """Numbers and bytes of lines that are not blank. CR alone ends a line only where the list has no LF."""
    # not bytes.splitlines or str.splitlines: a text may hold form feeds or U+2028
    parts = content.split(b"\n") if b"\n" in content else content.split(b"\r")
    return [(number, raw.removesuffix(b"\r")) for number, raw in enumerate(parts, start=1) if raw.strip()]


def decoded_lines(content: bytes) -> tuple[list[tuple[int, str]], list[str]]:
    """Numbers and texts of a list's lines, read by the encoding that they most likely have, and what was assumed.

    Only for a person who asked for a corrected copy; what is no text in any encoding keeps replacement characters.
    """
    wide = wide_encoding(content)
    if wide is not None:
        content = content.decode(wide, errors="replace").encode("utf-8")
    lines = split_lines(content.removeprefix(UTF8_MARK))
    undecoded = b"\n".join(raw for _, raw in lines if _decoded(raw) is None)
    encoding = likely_encoding(undecoded) if undecoded else None
    changes = [f"read as {_common_name(wide)}"] if wide else []
    if encoding is not None:
        changes.append(f"read as {_common_name(encoding)}, which it most likely is")
    texts = [_decoded(raw) or raw.decode(encoding or "utf-8", errors="replace") for _, raw in lines]
    return [(number, text) for (number, _), text in zip(lines, texts, strict=True)], changes


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _line_ends(content: bytes) -> str:
    n_crlf, n_lf, n_cr = content.count(b"\r\n"), content.count(b"\n"), content.count(b"\r")
    kinds = {"CRLF": n_crlf, "LF": n_lf - n_crlf, "CR": n_cr - n_crlf}
    named = [f"{name} ({n})" for name, n in kinds.items() if n]
    return " and ".join(named) if len(named) > 1 else named[0].partition(" ")[0]


def _not_utf8_at_all(content: bytes) -> Finding | None:
    if content.startswith(_SOUND_HEADS):
        return error("not a list", f"is no text: it begins with {content[:4]!r}", "name a list of wav|text")
    wide = wide_encoding(content)
    return _encoded_in(wide, content) if wide else None


def _wrong_encoding(content: bytes) -> Finding:
    return _encoded_in(likely_encoding(content), content)


def _encoded_in(encoding: str | None, content: bytes) -> Finding:
    if encoding is None:
        return error("encoding", "is not UTF-8, and no encoding reads it as text", "save it as UTF-8")
    is_sure = encoding.startswith("utf")
    looks = f"{'is' if is_sure else 'is not UTF-8; it looks like'} {_common_name(encoding)}"
    return error(
        "encoding",
        f'{looks}: it begins "{_excerpt(content, encoding)}"',
        f"save it as UTF-8, as with: iconv -f {_common_name(encoding)} -t UTF-8",
    )


def _bad_bytes(line: Line) -> Finding:
    try:
        line.raw.decode("utf-8")
    except UnicodeDecodeError as caught:
        encoding = likely_encoding(line.raw)
        looks = f' (as {_common_name(encoding)}: "{shown(line.raw.decode(encoding))}")' if encoding else ""
        return error(
            "encoding",
            f"is not UTF-8 at byte {caught.start + 1}: {line.raw[caught.start : caught.end]!r}{looks}",
            "save the line as UTF-8",
        )
    raise AssertionError("the line is UTF-8")


def likely_encoding(content: bytes) -> str | None:
    """The encoding in which bytes that are not UTF-8 read best as text; None if in none."""
    from charset_normalizer import from_bytes  # here: most lists are UTF-8

    foreign = b"\n".join(line for line in content.split(b"\n") if not line.isascii())[:GUESS_BYTES] or content
    matches = from_bytes(foreign, cp_isolation=list(LIKELY_ENCODINGS), threshold=0.5)
    best = matches.best()
    if best is None:
        return None
    equal = {best.encoding, *best.could_be_from_charset}
    equal |= {match.encoding for match in matches if match.chaos <= best.chaos and match.coherence >= best.coherence}
    return next((name for name in LIKELY_ENCODINGS if name in equal), best.encoding)


def _excerpt(content: bytes, encoding: str) -> str:
    decoded = content[:400].decode(encoding, errors="replace").lstrip("\ufeff")
    return shown(next((line for line in re.split(r"[\r\n]+", decoded) if line.strip()), ""))


def _common_name(encoding: str) -> str:
    return encoding.upper().replace("_", "-").replace("16-", "16")
