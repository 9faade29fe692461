"""Speakers: which names the filelists agree on, and a learned vector for each.

The third column of a filelist names the speaker. Either every line of both lists names one or none does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from corpus.filelists import Filelist, Utterance
from corpus.findings import Finding, error


def speaker_names(training: Iterable[Utterance]) -> tuple[str, ...]:
    """The speakers of the training list, in the order of their rows; none where it names none."""
    return tuple(sorted({utterance.speaker for utterance in training if utterance.speaker is not None}))


def speaker_rows(utterances: Iterable[Utterance], names: Sequence[str]) -> list[int] | None:
    """The row of each utterance's speaker, None without speakers."""
    rows = {name: row for row, name in enumerate(names)}
    return [rows[utterance.speaker or ""] for utterance in utterances] if names else None


def row_tensor(rows: Sequence[int | None]) -> Tensor | None:
    """[B] int64, None where the utterances have no speaker."""
    known = [row for row in rows if row is not None]
    return torch.tensor(known, dtype=torch.int64) if known and len(known) == len(rows) else None


def with_agreed_speakers(training: Filelist, validation: Filelist) -> tuple[Filelist, Filelist]:
    """Both lists, with the lines whose speaker can't be used among their problems.

    Where some lines name a speaker and others none, the rarer kind is wrong; and validation may only name whom training
    knows.
    """
    everything = [*training.utterances, *validation.utterances]
    named = [utterance for utterance in everything if utterance.speaker is not None]
    has_names = len(named) * 2 >= len(everything)
    training, validation = (_without_odd_lines(each, has_names, len(named)) for each in (training, validation))
    known = speaker_names(training.utterances)
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    problems = {
        u: error(
            "speaker",
            f"training has no line of speaker {u.speaker!r} (it has {shown})",
            "train with one, or drop this line",
        )
        for u in validation.utterances
        if u.speaker is not None and u.speaker not in known
    }
    return training, _without(validation, problems)


def _without_odd_lines(filelist: Filelist, has_names: bool, n_named: int) -> Filelist:
    odd = [utterance for utterance in filelist.utterances if (utterance.speaker is not None) != has_names]
    if has_names:
        found = error("speaker", f"names no speaker, as {n_named} other lines do", "add |speaker")
        return _without(filelist, dict.fromkeys(odd, found))
    advice = "name all speakers or none"
    return _without(
        filelist,
        {u: error("speaker", f"names the speaker {u.speaker!r}, most lines name none", advice) for u in odd},
    )


def _without(filelist: Filelist, problems: dict[Utterance, Finding]) -> Filelist:
    return replace(
        filelist,
        utterances=tuple(utterance for utterance in filelist.utterances if utterance not in problems),
        problems=(*filelist.problems, *(found.at(u.source, u.line) for u, found in problems.items())),
    )
