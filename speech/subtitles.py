"""When what is said, as files that other programs read: SRT for players, TextGrid for Praat and the like."""

from collections.abc import Iterator, Mapping, Sequence

from speech.timing import TimedText

LINE_LENGTH = 42  # characters a line, two lines at a time: what subtitles are read at
LINES = 2


def srt(cues: Sequence[TimedText]) -> str:
    """SubRip: numbered cues, times in milliseconds."""
    blocks = [
        f"{i}\n{_srt_time(cue.start_s)} --> {_srt_time(cue.end_s)}\n{_folded(cue.text)}\n"
        for i, cue in enumerate(cues, start=1)
    ]
    return "\n".join(blocks)


def cues_of(sentence: TimedText, words: Sequence[TimedText]) -> list[TimedText]:
    """A sentence as cues of at most two lines; a longer one is cut between words, whose times it needs."""
    written = sentence.text.split()
    named = [word for word in written if any(character.isalnum() for character in word)]
    if len(sentence.text) <= LINE_LENGTH * LINES or [w.text for w in words] != named:
        return [sentence]
    cues, taken = [], 0
    for texts in _packed(written):
        n_words = sum(any(character.isalnum() for character in text) for text in texts)
        own = words[taken : taken + n_words]
        taken += n_words
        if own:
            cues.append(TimedText(" ".join(texts), own[0].start_s, own[-1].end_s))
        elif cues:
            last = cues[-1]
            cues[-1] = TimedText(f"{last.text} {' '.join(texts)}", last.start_s, last.end_s)
    return cues


def textgrid(tiers: Mapping[str, Sequence[TimedText]], *, duration_s: float) -> str:
    """Praat's long text format, one interval tier each; what lies between intervals is an empty one."""
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {duration_s:.6f}",
        "tiers? <exists>", f"size = {len(tiers)}", "item []:",
    ]  # fmt: skip
    for i, (name, timed) in enumerate(tiers.items(), start=1):
        lines += _tier(i, name, list(_gapless(timed, duration_s)), duration_s)
    return "\n".join(lines) + "\n"


def _tier(number: int, name: str, intervals: Sequence[TimedText], duration_s: float) -> Iterator[str]:
    yield f"    item [{number}]:"
    yield '        class = "IntervalTier"'
    yield f'        name = "{_quoted(name)}"'
    yield "        xmin = 0"
    yield f"        xmax = {duration_s:.6f}"
    yield f"        intervals: size = {len(intervals)}"
    for i, interval in enumerate(intervals, start=1):
        yield f"        intervals [{i}]:"
        yield f"            xmin = {interval.start_s:.6f}"
        yield f"            xmax = {interval.end_s:.6f}"
        yield f'            text = "{_quoted(interval.text)}"'


def _gapless(timed: Sequence[TimedText], duration_s: float) -> Iterator[TimedText]:
    """Intervals that follow on each other from 0 to the end; those without a length are left out, as Praat does."""
    at = 0.0
    for each in timed:
        start, end = max(each.start_s, at), min(each.end_s, duration_s)
        if round(end, 6) <= round(start, 6):
            continue
        if round(start, 6) > round(at, 6):
            yield TimedText("", at, start)
        yield TimedText(each.text, start, end)
        at = end
    if round(duration_s, 6) > round(at, 6) or at == 0.0:
        yield TimedText("", at, duration_s)


def _quoted(text: str) -> str:
    return text.replace('"', '""')


def _srt_time(seconds: float) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"


def _packed(words: Sequence[str]) -> Iterator[list[str]]:
    """Words in groups of at most two lines."""
    group: list[str] = []
    for word in words:
        if group and len(" ".join([*group, word])) > LINE_LENGTH * LINES:
            yield group
            group = []
        group.append(word)
    yield group


def _folded(text: str) -> str:
    """In two lines of about the same length, where one does not suffice."""
    if len(text) <= LINE_LENGTH:
        return text
    spaces = [i for i, character in enumerate(text) if character == " "]
    if not spaces:
        return text
    middle = min(spaces, key=lambda i: abs(i - len(text) / 2))
    return f"{text[:middle]}\n{text[middle + 1 :]}"
