"""What a file is that was named as a checkpoint and is none: by its first bytes, so that the advice fits."""

import struct
import zipfile
from pathlib import Path

HEAD_BYTES = 512  # a tar archive says what it is within them
SHOWN_CHARACTERS = 14  # of a text's beginning
AGAIN = "copy or download it again"
DOWNLOAD = "download it again, by the link of the file itself"
UNPACK = "unpack it and name the .pt file in it"
OTHER = "name a .pt file or a run directory"

BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "is a git-lfs pointer, without the file it points to",
     "run `git lfs pull` where it lies"),
    (b"\x1f\x8b", "is packed with gzip", f"{UNPACK} (gunzip, or tar xzf)"),
    (b"BZh", "is packed with bzip2", UNPACK),
    (b"\xfd7zXZ\0", "is packed with xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "is packed with zstd", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "is packed with 7-Zip", UNPACK),
    (b"Rar!", "is packed with RAR", UNPACK),
    (b"\x89PNG", "is a picture", OTHER),
    (b"\xff\xd8\xff", "is a picture", OTHER),
    (b"RIFF", "is a sound", OTHER),
    (b"fLaC", "is a sound", OTHER),
    (b"OggS", "is a sound", OTHER),
    (b"ID3", "is a sound", OTHER),
    (b"%PDF", "is a PDF document", OTHER),
)  # fmt: skip


def describe_foreign_file(path: Path) -> tuple[str, str] | None:
    """(what it is, as a predicate; what to do about it); None for what may be PyTorch's. OSError if unreadable."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return "is empty", AGAIN
    for beginning, what, advice in BEGINNINGS:
        if head.startswith(beginning):
            return f"{what}, {size} bytes", advice
    if head[257:262] == b"ustar":
        return f"is a tar archive, {size} bytes", UNPACK
    if head.startswith(b"PK\x03\x04"):
        return _zip(path, size)
    if len(head) > 9 and head[8:9] == b"{" and 1 < struct.unpack("<Q", head[:8])[0] < size:
        return f"is a safetensors file, {size} bytes", "convert it: torch.save(safetensors.torch.load_file(it), new)"
    return _text(head, size)


def _zip(path: Path, size: int) -> tuple[str, str] | None:
    """PyTorch's own files are zip archives too, with a `data.pkl` in them."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError):
        return f"is cut off after {size} bytes: a PyTorch file ends with a list of its parts", AGAIN
    if any(name.endswith("data.pkl") for name in names):
        return None
    return f"is a zip archive (of {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}), {size} bytes", UNPACK


def _text(head: bytes, size: int) -> tuple[str, str] | None:
    try:
        text = head.decode("utf-8-sig") if size <= HEAD_BYTES else head[:-3].decode("utf-8-sig", errors="strict")
    except UnicodeDecodeError:
        return None
    text = text.strip()
    if not text or not all(character.isprintable() or character.isspace() for character in text):
        return None
    shown = f"({text[:SHOWN_CHARACTERS].splitlines()[0]}...)"
    if text.lower().startswith(("<!doctype", "<html", "<?xml")):
        return f"is a web page {shown}, {size} bytes", DOWNLOAD
    if text[0] in "{[":
        return f"is a JSON text {shown}, {size} bytes", DOWNLOAD
    return f"is a text {shown}, {size} bytes", OTHER
