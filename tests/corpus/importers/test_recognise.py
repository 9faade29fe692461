"""Claims about imports: each published layout in miniature becomes our lists, and what is foreign is named."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from common.errors import DataError, UserError
from corpus.importers.recognise import READERS, read_folder
from corpus.list_checks import Places, check_list
from corpus.list_writing import Entry, split_entries, write_list
from support.speech_like import RATE, SENTENCES, voice_like

SOUND = voice_like(0.5)


def record(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, SOUND, RATE)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def lj_speech(root: Path) -> None:
    record(*(root / "wavs" / f"LJ001-000{i}.wav" for i in range(8)))
    write(root / "metadata.csv", *(f"LJ001-000{i}|{s} (raw)|{s}" for i, s in enumerate(SENTENCES)))
    write(root / "README", "The LJ Speech dataset")


def m_ailabs(root: Path) -> None:
    for sex, reader, book, part in (("female", "judy", "key", range(4)), ("male", "elliot", "mines", range(4, 8))):
        folder = root / "en_US" / "by_book" / sex / reader / book
        record(*(folder / "wavs" / f"{book}_{i}.wav" for i in part))
        write(folder / "metadata.csv", *(f"{book}_{i}|{SENTENCES[i]}|{SENTENCES[i]}" for i in part))


def vctk(root: Path) -> None:
    for k, speaker in enumerate(("p225", "p226")):
        for i in range(4):
            name = f"{speaker}_00{i}"
            record(root / "wav48_silence_trimmed" / speaker / f"{name}_mic1.flac")
            record(root / "wav48_silence_trimmed" / speaker / f"{name}_mic2.flac")
            write(root / "txt" / speaker / f"{name}.txt", SENTENCES[4 * k + i])
    write(root / "speaker-info.txt", "ID  AGE  GENDER", "p225  23  F", "p226  22  M")


def common_voice(root: Path) -> None:
    head = "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\taccents\tlocale"
    rows = [f"{'ab'[i % 2] * 8}\tcv_{i}.mp3\t{i}{i}\t{s}\t\t2\t0\t\t\t\ten" for i, s in enumerate(SENTENCES)]
    record(*(root / "clips" / f"cv_{i}.mp3" for i in range(8)))
    write(root / "validated.tsv", head, *rows)
    write(root / "train.tsv", head, *rows[:4])
    write(root / "invalidated.tsv", head, rows[0].replace("old", "odd"))


def kaldi(root: Path) -> None:
    record(*(root / "audio" / f"{i}.wav" for i in range(8)))
    write(root / "wav.scp", *(f"spk{i % 2}-utt{i} {root / 'audio' / f'{i}.wav'}" for i in range(8)))
    write(root / "text", *(f"spk{i % 2}-utt{i} {s}" for i, s in enumerate(SENTENCES)))
    write(root / "utt2spk", *(f"spk{i % 2}-utt{i} spk{i % 2}" for i in range(8)))


def piper(root: Path) -> None:
    record(*(root / "wav" / f"{i:04d}.wav" for i in range(8)))
    write(root / "metadata.csv", *(f"{i:04d}|{s}" for i, s in enumerate(SENTENCES)))


def piper_speakers(root: Path) -> None:
    record(*(root / "wav" / f"{i:04d}.wav" for i in range(8)))
    write(root / "metadata.csv", *(f"{i:04d}|{i % 2}|{s}" for i, s in enumerate(SENTENCES)))


def coqui(root: Path) -> None:
    record(*(root / "wavs" / f"audio{i}.wav" for i in range(8)))
    rows = [f"wavs/audio{i}.wav|{s}|{'me' if i % 2 else 'you'}" for i, s in enumerate(SENTENCES)]
    write(root / "metadata_train.csv", "audio_file|text|speaker_name", *rows[:6])
    write(root / "metadata_eval.csv", "audio_file|text|speaker_name", *rows[6:])


def vits(root: Path) -> None:
    record(*(root / "DUMMY" / f"{i}.wav" for i in range(8)))
    rows = [f"DUMMY/{i}.wav|{i % 2}|{s}" for i, s in enumerate(SENTENCES)]
    write(root / "filelists" / "train.txt", *rows[:6])
    write(root / "filelists" / "val.txt", *rows[6:])


def csv_with_header(root: Path) -> None:
    record(*(root / "clips" / f"{i}.wav" for i in range(8)))
    write(root / "data.csv", "file_name,transcription", *(f'{i}.wav,"{s}"' for i, s in enumerate(SENTENCES)))


def json_lines(root: Path) -> None:
    record(*(root / "audio" / f"{i}.wav" for i in range(8)))
    rows = [{"audio_filepath": f"audio/{i}.wav", "duration": 0.5, "text": s} for i, s in enumerate(SENTENCES)]
    write(root / "manifest.json", *map(json.dumps, rows))


def pairs(root: Path) -> None:
    for i, s in enumerate(SENTENCES):
        record(root / f"take {i}.wav")
        write(root / f"take {i}.txt", *s.split(" ", 2))  # a text of several lines


def pairs_by_speaker(root: Path) -> None:
    for i, s in enumerate(SENTENCES):
        record(root / "ab"[i % 2] / "chapter" / f"{i}.flac")
        write(root / "ab"[i % 2] / "chapter" / f"{i}.normalized.txt", s)
        write(root / "ab"[i % 2] / "chapter" / f"{i}.original.txt", s.upper())


LAYOUTS: list[tuple[Callable[[Path], None], str, set[str | None]]] = [
    (lj_speech, "LJSpeech", {None}),
    (m_ailabs, "M-AILABS", {"judy", "elliot"}),
    (vctk, "VCTK", {"p225", "p226"}),
    (common_voice, "Common Voice", {"aaaaaaaa", "bbbbbbbb"}),
    (kaldi, "Kaldi", {"spk0", "spk1"}),
    (piper, "our id|text", {None}),
    (piper_speakers, "Piper's list of several speakers", {"0", "1"}),
    (coqui, "a list with a header", {"me", "you"}),
    (vits, "VITS's list", {"0", "1"}),
    (csv_with_header, "a csv table with a header", {None}),
    (json_lines, "a manifest in JSON", {None}),
    (pairs, "pairs of recording and text", {None}),
    (pairs_by_speaker, "pairs of recording and text", {"a", "b"}),
]


@pytest.mark.parametrize(("make", "layout", "speakers"), LAYOUTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_published_layout_is_recognised_and_read_whole(
    make: Callable[[Path], None], layout: str, speakers: set[str | None], tmp_path: Path
) -> None:
    make(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    found = read_folder(tmp_path)
    assert (found.layout, found.findings) == (layout, ())
    assert found.why
    assert Counter(item.text for item in found.items) == Counter(SENTENCES)
    assert {item.speaker for item in found.items} == speakers
    assert all(item.audio_path.is_file() for item in found.items)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("make", [case[0] for case in LAYOUTS], ids=lambda make: make.__name__)
def test_what_was_imported_passes_the_checks_of_our_lists(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "set")
    entries = [
        Entry(item.audio_path.relative_to(tmp_path / "set").as_posix(), item.text, item.speaker)
        for item in read_folder(tmp_path / "set").items
    ]
    split = split_entries(entries, seed=1, share=0.25)
    write_list(tmp_path / "all.csv", [*split.training, *split.validation], has_speakers=split.has_speakers)
    checked = check_list(tmp_path / "all.csv", Places.of(tmp_path / "all.csv", dataset_path=tmp_path / "set"))
    assert [f.message for f in checked.findings] == []
    assert len(checked.lines) == len(SENTENCES)


def test_a_command_in_wav_scp_is_named_and_never_run(tmp_path: Path) -> None:
    kaldi(tmp_path)
    lines = (tmp_path / "wav.scp").read_text().splitlines()
    lines[2] = f"spk0-utt2 touch {tmp_path / 'ran'} |"
    write(tmp_path / "wav.scp", *lines)
    found = read_folder(tmp_path)
    assert len(found.items) == 7
    assert [f.kind for f in found.findings] == ["command"]
    assert not (tmp_path / "ran").exists()


def test_lines_without_recordings_are_named_with_file_and_line(tmp_path: Path) -> None:
    lj_speech(tmp_path)
    (tmp_path / "wavs" / "LJ001-0003.wav").unlink()
    found = read_folder(tmp_path)
    assert len(found.items) == 7
    assert found.findings[0].message.startswith(f"{tmp_path / 'metadata.csv'}:4: no recording")


def test_recordings_outside_the_folder_and_bars_in_texts_are_refused(tmp_path: Path) -> None:
    csv_with_header(tmp_path / "set")
    record(tmp_path / "outside.wav")
    (tmp_path / "set" / "clips" / "9.wav").symlink_to(tmp_path / "outside.wav")
    with (tmp_path / "set" / "data.csv").open("a") as file:
        file.write('9.wav,"Nobody knows."\n1.wav,"a | b c"\n')
    assert {f.kind for f in read_folder(tmp_path / "set").findings} == {"unsafe path", "bar in a column"}


COMMA_TEXTS = ("One, two and three.", "No comma here.", "Ten,twenty, 30,000.", "First, second, third, fourth.")


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("texts", [COMMA_TEXTS, COMMA_TEXTS[:1] * 4])
def test_texts_that_hold_the_separator_without_quotes_are_read_whole(
    texts: tuple[str, ...], separator: str, tmp_path: Path
) -> None:
    texts = tuple(f"{text[:-1]} {i}.".replace(",", separator) for i, text in enumerate(texts))
    record(*(tmp_path / "wavs" / f"{i}.wav" for i in range(len(texts))))
    write(tmp_path / "list.csv", *(f"wavs/{i}.wav{separator}{text}" for i, text in enumerate(texts)))
    found = read_folder(tmp_path)
    assert [(item.text, item.speaker) for item in found.items] == [(text, None) for text in texts]
    assert not found.findings


def test_a_list_whose_columns_cannot_be_told_is_named(tmp_path: Path) -> None:
    record(*(tmp_path / "wavs" / f"{i}.wav" for i in range(4)))
    write(tmp_path / "list.csv", *(f"wavs/{i}.wav,{COMMA_TEXTS[2 + i % 2][:-1]} {i}." for i in range(4)))
    with pytest.raises(DataError, match=r"what stands in which column of list\.csv could not be told"):
        read_folder(tmp_path)


def test_a_text_between_other_columns_is_not_guessed(tmp_path: Path) -> None:
    record(*(tmp_path / "wavs" / f"{i}.wav" for i in range(6)))
    lines = [f"wavs/{i}.wav,{SENTENCES[i]},{'ab'[i % 2]}nna" for i in range(6)]
    write(tmp_path / "list.csv", *lines[:5], "wavs/5.wav,Ten,twenty,anna")
    found = read_folder(tmp_path)
    assert [item.speaker for item in found.items] == ["anna", "bnna", "anna", "bnna", "anna"]
    assert [finding.message for finding in found.findings] == [
        f'{tmp_path / "list.csv"}:6: 4 columns where 3 belong: "wavs/5.wav,Ten,twenty,anna"; correct the line, or put '
        "a text that holds commas in quotes"
    ]


def test_a_folder_without_texts_says_what_to_do(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    with pytest.raises(DataError, match=r"prepare_data\.py cut"):
        read_folder(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such layout; known: common-voice"):
        read_folder(tmp_path, layout="mp3")


def test_a_named_layout_asks_no_other_reader(tmp_path: Path) -> None:
    lj_speech(tmp_path)
    assert read_folder(tmp_path, layout="list").layout == "our id|text|normalised text"
    with pytest.raises(DataError, match="no vctk"):
        read_folder(tmp_path, layout="vctk")
    assert set(READERS) >= {"ljspeech", "vctk", "m-ailabs", "common-voice", "kaldi", "list", "pairs"}
