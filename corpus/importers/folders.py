"""Folders without a list: a text file beside each recording, VCTK, Kaldi's tables."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from corpus.findings import Finding, error, shown
from corpus.importers.items import Imported, Item, one_line
from corpus.list_text import list_text
from corpus.near_files import SOUND_EXTENSIONS

TEXT_EXTENSIONS = (".normalized.txt", ".txt", ".lab")
VCTK_SOUNDS = ("wav48_silence_trimmed", "wav48", "wav22", "wav16", "wav")
MAX_TEXT_BYTES = 1 << 20


def read_vctk(folder: Path) -> Imported | None:
    """`txt/p225/p225_001.txt` with `wav48_silence_trimmed/p225/p225_001_mic1.flac` (or wav48/...wav)."""
    sounds = next((folder / name for name in VCTK_SOUNDS if (folder / name).is_dir()), None)
    if sounds is None or not (folder / "txt").is_dir():
        return None
    items, findings = [], []
    for text_path in sorted((folder / "txt").glob("*/*.txt")):
        speaker = text_path.parent.name
        names = [f"{text_path.stem}{tail}{e}" for tail in ("_mic1", "", "_mic2") for e in SOUND_EXTENSIONS]
        found = next((p for name in names if (p := sounds / speaker / name).is_file()), None)
        if found is None:
            findings.append(
                error("missing file", f"no recording in {sounds.name}/{speaker}", "leave it out").at(text_path)
            )
        else:
            text, unread = _read_text(text_path)
            findings += unread
            items += [] if unread else [Item(found, text, speaker, text_path)]
    why = f"txt/ and {sounds.name}/ hold the same speakers' folders"
    return Imported("VCTK", why, tuple(items), tuple(findings)) if items else None


def read_kaldi(folder: Path) -> Imported | None:
    """`wav.scp`, `text` and `utt2spk`. A recording that is a command is never run, but named."""
    scp, text = folder / "wav.scp", folder / "text"
    if not scp.is_file() or not text.is_file():
        return None
    speakers = dict(_pairs(folder / "utt2spk")) if (folder / "utt2spk").is_file() else {}
    if (folder / "segments").is_file():
        cut = error("segments", "its utterances are parts of longer recordings", "cut them first, as by sox or ffmpeg")
        return Imported("Kaldi", "wav.scp, text and segments are there", (), (cut.at(folder / "segments"),))
    recordings = dict(_pairs(scp))
    items, findings = [], []
    for number, (utterance, said) in enumerate(_pairs(text), start=1):
        outcome = _kaldi_recording(recordings.get(utterance, ""), folder, utterance)
        if isinstance(outcome, Finding):
            findings.append(outcome.at(text, number))
        else:
            items.append(Item(outcome, one_line(said), speakers.get(utterance), text, number))
    named = [name for name in ("wav.scp", "text", "utt2spk") if (folder / name).is_file()]
    return Imported("Kaldi", f"{', '.join(named)} are there", tuple(items), tuple(findings))


def _kaldi_recording(entry: str, folder: Path, utterance: str) -> Path | Finding:
    if entry.rstrip().endswith("|"):
        words = shlex.split(entry.rstrip().rstrip("|"), posix=True) if entry.count('"') % 2 == 0 else []
        inside = next((word for word in words if Path(word).suffix.lower() in SOUND_EXTENSIONS), None)
        if inside is None or len(words) != 2 or words[0] != "cat":
            return error("command", f"wav.scp makes {shown(utterance)} by a command, which is not run: {shown(entry)}",
                         "run it yourself, and name the file")  # fmt: skip
        entry = inside
    if not entry:
        return error("missing file", f"wav.scp has no {shown(utterance)}", "add it, or leave the line out")
    path = next((base / entry for base in (folder, folder.parent, Path()) if (base / entry).is_file()), None)
    return path or error("missing file", f"no recording {shown(entry)}", "restore it, or leave the line out")


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        first, _, rest = line.strip().partition(" ")
        if first:
            yield first, rest.strip()


def read_pairs(folder: Path) -> Imported | None:
    """A text beside each recording, `a.wav` and `a.txt`; folders of the first level are speakers if all recordings lie
    in some, and there are several."""
    recordings = [
        path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SOUND_EXTENSIONS and path.is_file()
    ]
    texts = {path: beside for path in recordings if (beside := _text_beside(path)) is not None}
    if not texts:
        return None
    tops = {path.relative_to(folder).parts[0] for path in texts if len(path.relative_to(folder).parts) > 1}
    has_speakers = len(tops) > 1 and all(len(path.relative_to(folder).parts) > 1 for path in texts)
    findings = [
        error("missing text", "no text lies beside it", "write one, or leave it out").at(path)
        for path in recordings
        if path not in texts
    ]
    items: list[Item] = []
    for path, text_path in texts.items():
        text, unread = _read_text(text_path)
        findings += unread
        speaker = path.relative_to(folder).parts[0] if has_speakers else None
        items += [] if unread else [Item(path, text, speaker, text_path)]
    extension = next(iter(texts.values())).name[len(next(iter(texts)).stem) :]
    why = f"{len(texts)} of {len(recordings)} recordings have a {extension} of their name beside them"
    why += f"; {len(tops)} folders taken for speakers" if has_speakers else ""
    return Imported("pairs of recording and text", why, tuple(items), tuple(findings))


def _text_beside(path: Path) -> Path | None:
    names = (path.with_name(path.stem + extension) for extension in TEXT_EXTENSIONS)
    return next((name for name in names if name.is_file()), None)


def _read_text(path: Path) -> tuple[str, list[Finding]]:
    """The text, and why it can't be read, such as its encoding; an empty one is left to who checks items."""
    read = list_text(path, path.read_bytes()[:MAX_TEXT_BYTES])
    unread = [finding for finding in read.findings if finding.severity == "error" and finding.kind != "empty list"]
    return one_line(" ".join(line.text or "" for line in read.lines)), unread
