"""One evaluation from the voices to the files: everybody says the texts, every judge marks, all is summed up."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from audio.recordings import write_wav
from common.errors import UserError
from common.files import explain_write_errors
from common.log import LOG
from evaluation import measures
from evaluation.chosen_list import chosen_list
from evaluation.intervals import Estimate, estimate
from evaluation.measures import Marked
from evaluation.sounds import COPIES, RECORDINGS, NamedVoice, Source, all_sources, check_alike, vocoders_for
from evaluation.texts import Line, check_words, read_lines
from listeners.likeness import SpeakerLikeness
from listeners.quality import SoundQuality
from listeners.recogniser import Recogniser
from monitoring.plots import save_png
from monitoring.progress_bar import counted_progress
from monitoring.sample_files import figure_of
from speech.vocoders.vocoder import GRIFFIN_LIM
from speech.voice import Speaker

DRAWN_TEXTS = 4
ENHANCED = "voices are enhanced as synthesize.py does it; what was recorded is not"
FOLDERS = {COPIES: "copy_synthesis", RECORDINGS: "recordings"}


@dataclass(frozen=True)
class Judges:
    """Who is asked beside the attention and the mel, which always are."""

    words: bool = False
    recogniser_folder: Path | None = None
    quality: bool = False
    likeness: bool = False
    prosody: bool = False


@dataclass(frozen=True)
class Judgement:
    """What came out. estimates: by source and name; the first source is the voice that was asked about.

    rows: one for each reading of the first source. notes: who judged, and who could not.
    """

    step: int | None
    estimates: Mapping[str, Mapping[str, Estimate]]
    rows: Sequence[dict[str, Any]]
    marked: Mapping[str, Sequence[Marked]] = field(repr=False)
    notes: Sequence[str] = ()

    @property
    def summary(self) -> dict[str, float]:
        """The first source's means by name; those of copy-synthesis and of the recordings under their suffixes."""
        first = next(iter(self.estimates))
        values = {name: each.value for name, each in self.estimates[first].items()}
        for source, suffix in FOLDERS.items():
            for name, each in self.estimates.get(source, {}).items():
                values[f"{name}_{suffix}"] = each.value
        return values


def judge(
    run_or_checkpoint: Path,
    *,
    filelist: Path | None,
    dataset_path: Path | None,
    output: Path,
    n: int,
    seeds: Sequence[int],
    judges: Judges = Judges(),  # noqa: B008 - frozen
    load: Callable[[Path], Speaker] = Speaker.load,
    against: Sequence[Path] = (),
    vocoders: Sequence[str] = (GRIFFIN_LIM,),
    words: Path | None = None,
    skip_bad: bool = False,
    is_enhanced: bool = False,
) -> Judgement:
    """Speaks the first n texts of a filelist once with each seed, and compares with the recordings.

    load: of a voice, as it shall speak. against: other voices that say the same. words: a filelist of the same
    recordings with their words, where `filelist` holds phonemes. is_enhanced: the voices sound as synthesize.py makes
    them. Every seed is another reading. UserError before any sound is made if a judge, a vocoder or a voice can't be
    had, or the disk refuses `output`.
    """
    names = _names([run_or_checkpoint, *against])
    voices = [NamedVoice(name, load(path)) for name, path in names.items()]
    check_alike(voices)
    first = voices[0].speaker
    recogniser = _recogniser(first, judges)
    made = vocoders_for(first, vocoders)
    chosen = chosen_list(run_or_checkpoint, first, filelist, dataset_path)
    lines = read_lines(first, chosen, n=n, words=words, skip_bad=skip_bad)
    if recogniser is not None:
        check_words(lines)
    make_folder(output)
    sources = all_sources(voices, lines, made, seeds, counted_progress("speaking"), is_enhanced=is_enhanced)
    marked = measures.marked_clips(sources)
    with writing_to(output):
        write_files(sources, output)
    notes = [*filter(None, (chosen.note, ENHANCED if is_enhanced else ""))]
    notes += mark(marked, first, lines, judges, recogniser)
    for note in notes:
        LOG.info("%s", note)
    return Judgement(first.step, _estimates(marked), _rows(marked), marked, notes)


def _recogniser(speaker: Speaker, judges: Judges) -> Recogniser | None:
    """UserError where words are asked for and nobody can hear them."""
    if not judges.words:
        return None
    recogniser = Recogniser(speaker.front_end.language.code, judges.recogniser_folder)
    recogniser.check()
    return recogniser


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """Each voice under the shortest end of its path that tells it from the others."""
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        raise UserError("--against names a voice twice, or the one of -c; name each once")
    longest = max(len(path.parts) for path in resolved)
    for n in range(1, longest + 1):
        names = ["/".join(path.parts[-n:]) for path in resolved]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, paths, strict=True))


def mark(
    marked: Mapping[str, Sequence[Marked]],
    speaker: Speaker,
    lines: Sequence[Line],
    judges: Judges,
    recogniser: Recogniser | None,
) -> list[str]:
    """Asks every judge. -> notes on who judged, and which judges are missing"""
    notes = []
    everything = [one for clips in marked.values() for one in clips]
    measures.mark_attention(everything, std=speaker.stats.std)
    if recogniser is not None:
        notes.append(f"words heard by {recogniser.name}")
        measures.mark_words(everything, recogniser, progress=counted_progress("listening to the words"))
    if judges.quality:
        quality = SoundQuality()
        notes += [f"not asked, as it is missing - {each}" for each in quality.missing]
        if quality.has_dnsmos or quality.has_distillmos:
            measures.mark_quality(everything, quality, progress=counted_progress("listening to the sound"))
    if judges.likeness:
        likeness = SpeakerLikeness()
        notes += [f"not asked, as it is missing - {each}" for each in likeness.missing]
        if not likeness.missing:
            measures.mark_likeness(marked, likeness, progress=counted_progress("comparing voices"))
    if judges.prosody:
        references = speaker.references_for([line.text for line in lines], name=next(iter(speaker.names), None))
        symbols = {line.name: reference.symbols for line, reference in zip(lines, references, strict=True)}
        measures.mark_prosody(marked, speaker.hp, symbols, progress=counted_progress("following the pitch"))
    return notes


def _estimates(marked: Mapping[str, Sequence[Marked]]) -> dict[str, dict[str, Estimate]]:
    found: dict[str, dict[str, Estimate]] = {}
    for source, clips in marked.items():
        names = dict.fromkeys(name for one in clips for name in one.shares)
        texts = [one.clip.line.name for one in clips]
        estimates = {name: estimate([one.shares.get(name) for one in clips], texts) for name in names}
        found[source] = {name: each for name, each in estimates.items() if each is not None}
    return found


def _rows(marked: Mapping[str, Sequence[Marked]]) -> list[dict[str, Any]]:
    """One for each reading of the first source; those of the first seed say how the recording was heard, too."""
    first, *others = marked.items()
    rows = []
    for i, one in enumerate(first[1]):
        row: dict[str, Any] = {"id": one.clip.line.name, "text": one.clip.line.words, "seed": one.clip.seed}
        row |= {name: share.amount / share.weight for name, share in one.shares.items() if share.weight}
        row |= {} if one.free_running is None else asdict(one.free_running)
        row |= {} if one.heard is None else {"heard": one.heard}
        for name, clips in others:
            if name in FOLDERS and i < len(clips) and (heard := clips[i].heard) is not None:
                row[f"heard_{FOLDERS[name]}"] = heard
        rows.append(row)
    return rows


def writing_to(output: Path) -> AbstractContextManager[None]:
    """A disk that refuses is the user's to mend: UserError."""
    return explain_write_errors(f"-o {output}", next_step="free space there, or name another place")


def make_folder(output: Path) -> None:
    """Before anything is said: a place that can't be written is refused now, not after minutes of speaking."""
    with writing_to(output):
        output.mkdir(parents=True, exist_ok=True)


def write_files(sources: Sequence[Source], output: Path) -> None:
    """All sounds of the first seed, the first source's in the folder itself, and pictures of its first few."""
    for source in sources:
        folder = output if source is sources[0] else output / folder_of(source.name)
        seed = source.clips[0].seed
        for clip in (clip for clip in source.clips if clip.seed == seed):
            write_wav(folder / f"{clip.line.name}.wav", clip.wav, clip.sampling_rate)
    for clip in sources[0].clips[:DRAWN_TEXTS]:
        if clip.sample is not None:
            save_png(figure_of(clip.sample), output / f"{clip.line.name}.png")


def folder_of(source: str) -> str:
    return FOLDERS.get(source, "".join(c if c.isalnum() or c in "-." else "_" for c in source))
