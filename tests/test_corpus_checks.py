"""Claims about checks of whole corpora: speech rate, duplicates, overlap, layouts, other people's mels."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpus.doctor import examine
from corpus.duplicates import Heard, check_duplicate_sound, check_overlap
from corpus.layouts import recognise, refusal
from corpus.list_checks import Places, check_list
from corpus.measuring import MeasureIndex, measure_file, measure_files
from corpus.mel_scale import check_mel_scale
from corpus.near_files import FileFinder
from corpus.recording_checks import Wanted, check_recording
from corpus.recording_files import read_recording
from corpus.recording_measures import RecordingMeasures, measure, measure_recording
from corpus.speech_rate import Spoken, check_speech_rate, speech_rates
from hostile_corpus import RATE, SENTENCES, encoded, voice_like

KATHLEEN = Path(os.environ.get("TACOTRON2_TEST_DATA", Path(__file__).parents[2] / "shared" / "data" / "kathleen"))
WORDS = "red green blue old new big small cat dog house river tree apple walks sings near far".split()


def natural_lines(n: int, *, seed: int = 0, rate: float = 15.0) -> list[Spoken]:
    """Sentences of 3 to 12 words, read at about `rate` characters a second, give or take 10 %."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 13))) + "." for _ in range(n)]
    return [Spoken(text, float(len(text) / rate * np.exp(0.1 * rng.standard_normal()))) for text in texts]


# ---- speech rate


def test_a_minute_for_four_words_is_an_error_among_others() -> None:
    lines = [*natural_lines(12), Spoken("The long one.", 160.0)]
    findings = check_speech_rate(lines)
    assert findings[-1] is not None and findings[-1].severity == "error"
    assert "160.0 s of sound for 13 characters" in findings[-1].message
    assert findings[:-1] == [None] * 12


@pytest.mark.parametrize("n", [60, 400])
def test_lines_that_take_half_or_double_time_are_found_in_a_corpus(n: int) -> None:
    lines = natural_lines(n)
    odd = {3: 0.45, 20: 2.2, 40: 2.5}
    lines = [Spoken(line.text, line.sound_s * odd.get(i, 1.0)) for i, line in enumerate(lines)]
    found = {i for i, finding in enumerate(check_speech_rate(lines)) if finding is not None}
    assert found >= set(odd)
    assert len(found - set(odd)) <= max(1, n // 100)


def test_a_slow_speaker_is_not_odd_beside_a_fast_one() -> None:
    slow = [Spoken(line.text, line.sound_s, "slow") for line in natural_lines(60, seed=1, rate=7)]
    fast = [Spoken(line.text, line.sound_s, "fast") for line in natural_lines(60, seed=2, rate=21)]
    assert sum(finding is not None for finding in check_speech_rate([*slow, *fast])) <= 1


def test_one_line_and_a_line_without_sound_have_nothing_to_be_compared_with() -> None:
    assert check_speech_rate([Spoken("alone", 3.0)]) == [None]
    assert check_speech_rate([]) == []
    rates = speech_rates([*natural_lines(60), Spoken("silent", 0.0), Spoken("  ", 1.0)])
    assert rates[-2:] == [None, None] and all(rate is not None for rate in rates[:-2])


def test_a_third_of_wrong_pairs_changes_no_verdict_on_the_others() -> None:
    lines = natural_lines(300)
    swapped = [Spoken(lines[i].text, lines[(i + 100) % 300].sound_s) if i < 100 else lines[i] for i in range(300)]
    findings = check_speech_rate(swapped)
    assert sum(finding is not None for finding in findings[100:]) <= 4
    assert sum(finding is not None for finding in findings[:100]) >= 25


# ---- duplicates


def heard(line: int, content: str, text: str, *, source: str = "train.csv", speaker: str | None = None) -> Heard:
    return Heard(Path(source), line, content, text, speaker)


def test_one_sound_with_two_texts_is_an_error_with_both_places() -> None:
    (finding,) = check_duplicate_sound([heard(1, "a", "One."), heard(2, "b", "One."), heard(3, "a", "Two.")])
    assert finding.severity == "error"
    assert finding.message.startswith("train.csv:3: same sound as line 1, there with")


def test_one_sound_twice_with_one_text_is_a_warning() -> None:
    (finding,) = check_duplicate_sound([heard(1, "a", "One."), heard(2, "a", "one!")])
    assert (finding.kind, finding.severity) == ("duplicate sound", "warning")


def test_one_sound_by_two_speakers_is_an_error() -> None:
    (finding,) = check_duplicate_sound([heard(1, "a", "One.", speaker="x"), heard(2, "a", "One.", speaker="y")])
    assert finding.kind == "same sound, other speaker"


def test_overlap_of_the_lists_names_sounds_and_texts() -> None:
    training = [heard(1, "a", "One."), heard(2, "b", "Two.")]
    validation = [heard(1, "a", "One.", source="val.csv"), heard(2, "c", "TWO!", source="val.csv"),
                  heard(3, "d", "Three.", source="val.csv")]  # fmt: skip
    kinds = [(f.line, f.kind) for f in check_overlap(training, validation)]
    assert kinds == [(1, "validation sound in training"), (2, "validation text in training")]


# ---- layouts


def rows(pattern: str) -> list[str]:
    return [pattern.format(i=i, odd=i % 2, text=text, word=WORDS[i]) for i, text in enumerate(SENTENCES)]


@pytest.mark.parametrize(
    ("pattern", "columns"),
    [
        ("wavs/{i}.wav|{text}", "wav|text"),
        ("wavs/{i}.wav|{text}|anna", "wav|text|speaker"),
        ("wavs/{i}.wav|{text}|Bob Smith {odd}", "wav|text|speaker"),
        ("wavs/{i}.wav|{word}|anna", "wav|text|speaker"),
        ("wavs/{i}.wav|{i}00|anna", "wav|text|speaker"),
        ("wavs/{i}.wav|{i}00", "wav|text"),
        ("LJ001-{i}|{text}|{text}", "id|text|normalised text"),
        ("LJ001-{i}|{text}", "id|text"),
        ("wavs/{i}.wav|{odd}|{text}", "wav|speaker|text"),
        ("wavs/{i}.wav|ann|{word}", "wav|speaker|text"),
        ("wavs/{i}.wav|ann|EN|{text}", "wav|speaker|language|text"),
        ("u{i}|{odd}|{text}", "id|speaker|text"),
        ("{text}|wavs/{i}.wav", "text|wav"),
        ("wavs/{i}.wav\t{text}", "wav<tab>text"),
        ("wavs/{i}.wav,{text}", "wav,text"),
        ("utt_{i} {text}", "id text"),
    ],
)
def test_columns_are_told_by_what_stands_in_them(pattern: str, columns: str) -> None:
    layout = recognise(rows(pattern))
    assert layout is not None and layout.columns == columns
    ours = columns in ("wav|text", "wav|text|speaker", "id|text", "id|text|normalised text")
    assert (refusal(layout) is None) == ours


@pytest.mark.parametrize("n", [1, 2, 12])
def test_a_list_of_vits_is_refused_with_the_order_to_write(n: int) -> None:
    texts = [SENTENCES[i % len(SENTENCES)] for i in range(n)]
    layout = recognise([f"wavs/u{i}.wav|{i % 2}|{text}" for i, text in enumerate(texts)])
    finding = refusal(layout)
    assert finding is not None and "write wav|text|speaker" in finding.advice and "VITS" in finding.detail


def test_which_column_names_recordings_is_looked_up() -> None:
    layout = recognise(["hello there|u1", "good day|u2"], exists=lambda column: column in ("u1", "u2"))
    assert layout is not None and layout.roles == ("text", "id") and "name recordings that are there" in layout.why


# ---- files that are there under another name


def test_the_index_of_near_files_never_leaves_its_folders(tmp_path: Path) -> None:
    (tmp_path / "data" / "wavs").mkdir(parents=True)
    (tmp_path / "secret.wav").touch()
    (tmp_path / "data" / "wavs" / "A b.flac").touch()
    finder = FileFinder([tmp_path / "data"])
    assert finder.near("../secret.wav") is None
    assert finder.near("secret.wav") is None
    near = finder.near("WAVS\\a B.wav")
    assert near is not None and near.path == tmp_path / "data" / "wavs" / "A b.flac"
    assert near.difference == "backslashes, extension"


# ---- measures


def test_measures_are_kept_by_content_and_made_once(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(voice_like()))
    index = MeasureIndex(tmp_path / "recordings.json")
    (made,) = measure_files([path], hash_of=lambda path: "key", index=index)
    path.write_bytes(b"")  # a look at the file would fail now
    known = measure_file(path, hash_of=lambda path: "key", index=MeasureIndex(tmp_path / "recordings.json"))
    assert isinstance(known, RecordingMeasures) and known == made


def test_a_damaged_index_is_said_and_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "recordings.json").write_text("{broken")
    assert MeasureIndex(tmp_path / "recordings.json").get("key") is None
    assert "measured again" in caplog.text


def test_the_same_take_in_another_format_has_the_same_content(tmp_path: Path) -> None:
    contents = set()
    for name, kind in (("a.wav", "WAV"), ("a.flac", "FLAC")):
        pcm = np.rint(voice_like() * 20000).astype(np.int16)
        (tmp_path / name).write_bytes(encoded(pcm, format=kind))
        contents.add(measure_recording(read_recording(tmp_path / name)).content)
    assert len(contents) == 1


def test_edges_and_pauses_are_measured_to_a_frame() -> None:
    silence = np.zeros(RATE // 2)
    m = measure(np.concatenate([silence, voice_like(1.0), silence, voice_like(1.0), silence])[None], RATE)
    assert m.leading_s == pytest.approx(0.5, abs=0.02)
    assert m.longest_pause_s == pytest.approx(0.63, abs=0.15)  # the pause and what is quiet of a syllable beside it
    assert m.duration_s == pytest.approx(3.5)


@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_noise_of_any_colour_has_no_harmonics(colour: str, rate: int) -> None:
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(2 * rate))
    power = {"white": 0.0, "pink": 0.5, "brown": 1.0}[colour]
    noise = np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** power)
    assert measure(0.1 * (noise / noise.std())[None], rate).peakiness < 4.2
    assert measure(voice_like(2.0, rate=rate)[None], rate).peakiness > 5


def test_the_band_needed_follows_the_mels() -> None:
    m = measure(voice_like(rate=8000)[None], 8000)
    assert [f.kind for f in check_recording(m)] == ["narrow band"]
    assert check_recording(m, Wanted(sampling_rate=8000, mel_fmax=4000.0)) == []


# ---- mels of others


@pytest.mark.parametrize(
    ("minimum", "maximum", "words"),
    [
        (-11.51, 1.2, None), (-10.2, -0.2, None), (-9.1, 0.5, None),
        (-5.0, 0.5, "base 10"), (-4.4, -0.1, "base 10"), (-4.0, 4.0, "-4..4"), (0.0, 1.0, "0..1"),
        (-1.0, 1.0, "-1..1"), (-100.0, 0.0, "decibels"), (-23.0, 2.4, "power"), (-1.9, 3.1, "standardised"),
    ],
)  # fmt: skip
def test_mels_on_another_scale_are_named(minimum: float, maximum: float, words: str | None) -> None:
    finding = check_mel_scale(minimum, maximum)
    assert finding is None if words is None else finding is not None and words in finding.detail


# ---- a real corpus


@pytest.mark.skipif(not KATHLEEN.is_dir(), reason="the real corpus is not beside the checkout")
def test_a_real_corpus_gives_no_error_and_few_warnings(tmp_path: Path) -> None:
    path = KATHLEEN / "filelists" / "val.txt"
    checked = check_list(path, Places.of(path, dataset_path=KATHLEEN))
    assert checked.findings == () and len(checked.lines) == 50
    began = time.process_time()
    index = MeasureIndex(tmp_path / "index.json")
    measured = measure_files([line.audio_path for line in checked.lines], hash_of=str, index=index)
    assert time.process_time() - began < 5
    assert [check_recording(m) for m in measured if isinstance(m, RecordingMeasures)] == [[]] * 50
    spoken = [Spoken(line.text, m.sound_s) for line, m in zip(checked.lines, measured, strict=True)
              if isinstance(m, RecordingMeasures)]  # fmt: skip
    assert sum(finding is not None for finding in check_speech_rate(spoken)) <= 1


def test_two_silent_recordings_are_not_called_the_same_sound(tmp_path: Path) -> None:
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(RATE), RATE)
    (tmp_path / "train.csv").write_text("a.wav|One thing.\nb.wav|Another thing.\n")
    found = examine(
        [tmp_path / "train.csv"], dataset_path=tmp_path, hash_of=str, index=MeasureIndex(tmp_path / "index.json")
    )
    assert [finding.kind for finding in found.findings] == ["silent", "silent"]
