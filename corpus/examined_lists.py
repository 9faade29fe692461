"""From an examination to the lists that training takes: usable utterances, and a problem for each line left out."""

from typing import cast

from corpus.doctor import Examination
from corpus.filelists import Filelist, Problem, ProblemKind, Utterance
from corpus.findings import Finding


def usable_filelists(examination: Examination) -> tuple[Filelist, ...]:
    """One list for each that was examined, in the same order. Warnings and notes are no problems: see `warnings_of`."""
    return tuple(
        Filelist(
            checked.path,
            tuple(
                Utterance(e.line.utterance_id, e.line.audio_path, e.line.text, e.line.speaker, e.source, e.line.number)
                for e in examination.usable
                if e.source == checked.path
            ),
            tuple(
                Problem(cast(ProblemKind, finding.kind), finding.message)
                for finding in examination.findings
                if finding.severity == "error" and finding.source == checked.path
            ),
        )
        for checked in examination.lists
    )


def warnings_of(examination: Examination) -> list[Finding]:
    """What trains, and should be listened to."""
    return [finding for finding in examination.findings if finding.severity == "warning"]
