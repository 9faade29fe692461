"""`check`: lists and recordings are examined, heard, shown, and mended in a copy."""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.cache_dir import cache_directory
from common.errors import DataError, UserError
from common.files import write_atomic
from corpus.amount import little_speech
from corpus.doctor import Examination, UnknownCharacters, examine, with_findings
from corpus.doctor_page import page
from corpus.filelists import usable_filelists
from corpus.findings import Finding, counts_by_kind
from corpus.fixing import CHANGES, LEFT_OUT, mend, reasons_to_leave_out
from corpus.hash_index import HashIndex
from corpus.json_index import JsonIndex
from corpus.list_checks import Places
from corpus.list_fixes import fixed_list
from corpus.listening import Clip, Heard, Listeners, check_heard, listen
from corpus.measuring import MeasureIndex
from corpus.preparation.lists_out import say_foreign_script, say_how_to_train
from corpus.preparation.shell import SHOWN, Shell
from corpus.recording_checks import Wanted
from corpus.speakers import with_agreed_speakers
from text.front_end import FrontEnd


def run(args: argparse.Namespace, shell: Shell) -> int:
    """0 where no error was found or a copy was written, else 3."""
    wanted = Wanted(args.sampling_rate, args.mel_fmax)
    contents: dict[Path, bytes] = {}
    changes: list[str] = []
    if args.fix is not None:
        _refuse_originals(args.fix, args.lists)
        contents, changes = _corrected_lists(args)
    examination = examination_of(
        args, shell, wanted, contents, unknown_characters=_unknown_characters(args.language, args.text_cleaners)
    )
    examination = with_findings(examination, _speaker_findings(examination))
    heard = _listened(args, examination, shell) if args.listen else {}
    examination = _with_heard(examination, heard)
    shell.findings(examination.findings)
    shell.say(summary(examination))
    say_little_speech(examination, shell)
    say_foreign_script((e.line.text for e in examination.lines), args.language, shell)
    say_where_recordings_are(examination, shell)
    if args.json is not None:
        write_json(args.json, as_json(examination, heard), shell)
    write_atomic(args.report, page(examination, name=", ".join(map(str, args.lists)), heard=heard))
    shell.written(args.report)
    if args.fix is not None:
        return _fix(args, examination, wanted, changes, shell)
    return DataError.exit_code if any(f.severity == "error" for f in examination.findings) else 0


def examination_of(
    args: argparse.Namespace,
    shell: Shell,
    wanted: Wanted,
    contents: Mapping[Path, bytes] | None = None,
    *,
    unknown_characters: UnknownCharacters | None = None,
) -> Examination:
    """The lists that were named, with measures and hashes kept in the cache."""
    hashes = HashIndex(cache_directory() / "features" / "index.json")
    try:
        return examine(
            args.lists,
            dataset_path=dataset_path(args),
            data_roots=args.data_root,
            wanted=wanted,
            hash_of=hashes.sha256,
            index=MeasureIndex(cache_directory() / "recordings.json"),
            contents=contents,
            unknown_characters=unknown_characters,
            progress=shell.progress("recordings"),
        )
    finally:
        hashes.write()


def say_where_recordings_are(examination: Examination, shell: Shell) -> None:
    """Where none was found, one folder is wrong, and not each line."""
    n = sum(finding.kind == "missing file" for finding in examination.findings)
    if n and not examination.lines:
        shell.say(f"none of {n} recordings was found: name the folder that their paths start from by --dataset-path")


def _speaker_findings(examination: Examination) -> list[Finding]:
    """As training sees it: the first list trains, each other one validates."""
    training, *others = usable_filelists(examination)
    agreed = [with_agreed_speakers(training, other) for other in others or [replace(training, utterances=())]]
    new = [p for pair in agreed for filelist in pair for p in filelist.problems if p.kind == "speaker"]
    return list(dict.fromkeys(new))


def _unknown_characters(language: str, cleaners: str) -> UnknownCharacters | None:
    """What the symbols of training lack. None for a language whose symbols are those of its corpus."""
    names = [name.strip() for name in cleaners.split(",") if name.strip()]
    front_end = FrontEnd.create(language=language, cleaners=names or None, corpus=())
    if front_end.table.name == "corpus":
        return None

    def unknown(text: str) -> Counter[str]:
        (reading,) = front_end.read([text])
        return sum((Counter(problem.characters) for problem in reading.problems), Counter())

    return unknown


def dataset_path(args: argparse.Namespace) -> Path:
    """What was named, else the folder of the first list, or the one above if that holds the recordings."""
    if args.dataset_path is not None:
        return Path(args.dataset_path)
    own = Path(args.lists[0]).absolute().parent
    return own.parent if not (own / "wavs").is_dir() and (own.parent / "wavs").is_dir() else own


# ---- listening


def _listened(args: argparse.Namespace, examination: Examination, shell: Shell) -> dict[Path, Heard]:
    listeners = Listeners(args.language, folder=args.model)
    for line in listeners.missing:
        shell.say(line)
    lines = [(e, e.measures.duration_s) for e in examination.lines if e.measures is not None]
    sound_s = sum(seconds for _, seconds in lines)
    minutes = max(1, round(listeners.estimated_s(sound_s) / 60))
    shell.say(f"listening to {sound_s / 60:.0f} minutes of sound takes about {minutes} minutes on one core")
    hashes = HashIndex(cache_directory() / "features" / "index.json")
    clips = _clips(examination, {e.line.audio_path for e, _ in lines})
    index = JsonIndex(cache_directory() / "heard.json")
    heard = listen(clips, listeners, hash_of=hashes.sha256, index=index, progress=shell.progress("clips heard"))
    return {clip.path: h for clip, h in zip(clips, heard, strict=True)}


def _clips(examination: Examination, paths: Mapping[Path, Any] | set[Path]) -> list[Clip]:
    lines = [e.line for e in examination.lines if e.line.audio_path in paths]
    return [Clip(line.audio_path, line.text, line.speaker or "") for line in lines]


def _with_heard(examination: Examination, heard: Mapping[Path, Heard]) -> Examination:
    clips = _clips(examination, heard)
    lines = [e for e in examination.lines if e.line.audio_path in heard]
    found = check_heard(clips, [heard[clip.path] for clip in clips])
    placed = [f.at(e.source, e.line.number) for e, own in zip(lines, found, strict=True) for f in own]
    return with_findings(examination, placed)


# ---- what is shown


def summary(examination: Examination) -> str:
    """In one line, how much is usable."""
    hours = sum(e.measures.duration_s for e in examination.usable if e.measures is not None) / 3600
    n = sum(len(checked.lines) for checked in examination.lists)
    return f"{len(examination.usable)} of {n} lines that could be read are usable, {hours:.2f} h"


def say_little_speech(examination: Examination, shell: Shell) -> None:
    """Of the first list, which is for training, where anything of it is usable."""
    listed = examination.lists[0].path
    seconds = sum(e.measures.duration_s for e in examination.usable if e.measures and e.source == listed)
    if seconds and (warning := little_speech(seconds, listed)):
        shell.say(warning)


def as_json(examination: Examination, heard: Mapping[Path, Heard]) -> dict[str, Any]:
    """All findings, and of each line all numbers, in plain types."""
    lines = [
        {
            "source": str(e.source),
            "line": e.line.number,
            "id": e.line.utterance_id,
            "audio": str(e.line.audio_path),
            "text": e.line.text,
            "speaker": e.line.speaker,
            "measures": e.measures.to_dict() if e.measures is not None else None,
            "time_ratio": e.rate.ratio if e.rate is not None else None,
            "heard": _heard_dict(heard.get(e.line.audio_path)),
        }
        for e in examination.lines
    ]
    return {"findings": [f.as_dict() for f in examination.findings], "lines": lines}


def _heard_dict(heard: Heard | None) -> dict[str, Any] | None:
    if heard is None:
        return None
    return {"text": heard.heard, "errors": heard.errors, "likeness": heard.likeness, "quality": heard.quality}


def write_json(path: Path, values: Any, shell: Shell) -> None:
    """Into a file, or for "-" onto the console."""
    text = json.dumps(values, ensure_ascii=False, indent=1, allow_nan=False)
    if str(path) == "-":
        shell.say(text)
    else:
        write_atomic(path, text)
        shell.written(path)


# ---- a corrected copy


def _refuse_originals(out: Path, lists: Sequence[Path]) -> None:
    """A copy never lies where its originals do."""
    for path in lists:
        if out.resolve() in (path.resolve().parent, path.resolve().parent.parent):
            raise UserError(f"--fix {out}: the originals lie there; name another folder")


def _corrected_lists(args: argparse.Namespace) -> tuple[dict[Path, bytes], list[str]]:
    contents: dict[Path, bytes] = {}
    changes: list[str] = []
    for path in args.lists:
        places = Places.of(path, dataset_path=dataset_path(args), data_roots=args.data_root)
        try:
            fixed = fixed_list(path, places)
        except OSError as caught:
            raise DataError(f"{path}: cannot read the filelist; {caught.strerror}; correct the path") from caught
        contents[path] = fixed.content
        changes += [f"{path}:{change.line}: {change.what}" for change in fixed.changes]
    return contents, changes


def _fix(
    args: argparse.Namespace, examination: Examination, wanted: Wanted, changes: Sequence[str], shell: Shell
) -> int:
    unwanted = [kind.strip() for kind in args.leave_out.split(",") if kind.strip()]
    if absent := [kind for kind in unwanted if kind not in {f.kind for f in examination.findings}]:
        found = counts_by_kind(examination.findings) or "nothing"
        shell.say(f"--leave-out {','.join(absent)}: no line has such a finding; found: {found}")
    if args.dry_run:
        n_out = sum(bool(reasons_to_leave_out(examined, unwanted)) for examined in examination.lines)
        n = len(examination.lines) - n_out
        shell.say(f"would write {n} lines into {args.fix}, and leave out {n_out} at least")
        for change in changes[:SHOWN]:
            shell.say(f"  {change}")
        return 0
    bar = shell.progress("recordings mended")
    fixed = mend(examination, args.fix, wanted=wanted, unwanted=unwanted, changes=changes, progress=bar)
    n_out = len(fixed.mended) - fixed.n_written
    shell.say(f"{fixed.n_written} lines written, {n_out} left out; what was changed: {args.fix / CHANGES}")
    shell.say(f"what was left out, and why: {args.fix / LEFT_OUT}")
    say_how_to_train(args.fix, fixed.lists, shell, dataset_path=args.fix, language=args.language)
    return 0
