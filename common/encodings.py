"""Bytes to text: UTF-8, and what else they look like where they are not."""

WIDE_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
LOOKED_AT = 1 << 16  # bytes
ALPHABETS_END = "\u0590"  # Latin, Greek, Cyrillic: of UTF-8 with stray NULs UTF-16 makes Chinese


class NotText(ValueError):
    """Why a file can't be read as text, and what to do: "is UTF-16, ..." to be put behind its name."""


def as_text(content: bytes) -> str:
    """What `read_given_text` makes of a file's bytes."""
    if (wide := wide_encoding(content)) is not None:
        name = wide.upper().replace("-LE", "LE").replace("-BE", "BE")
        raise NotText(f"is {name}, and not UTF-8; save it as UTF-8, as with: iconv -f {name} -t UTF-8")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise NotText(f"is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from error


def wide_encoding(content: bytes) -> str | None:
    """The encoding of text with two or four bytes a character, by its mark or, of UTF-16, by what it holds; else None.

    Without a mark it passes for UTF-8 that is full of NULs.
    """
    for mark, name in WIDE_MARKS.items():
        if content.startswith(mark):
            return name
    if b"\0" not in content:
        return None
    for name in ("utf-16-le", "utf-16-be"):
        text = content[:LOOKED_AT].decode(name, errors="ignore")
        if sum("\0" < char < ALPHABETS_END for char in text) > 0.8 * len(text) or ("|" in text and "\n" in text):
            return name
    return None
