"""The command prepare_data.py as a person types it: every verb, what it writes, what it refuses, how it ends."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import prepare_data
from corpus.list_checks import Places, check_list
from corpus.recording_checks import check_recording
from corpus.recording_files import read_recording
from corpus.recording_measures import measure_recording
from hparams import resolve_hparams
from support import hostile_lists, hostile_recordings
from support.paths import REPOSITORY
from support.speech_like import RATE, SENTENCES, voice_like

VERBS = ("check", "import", "cut", "record-next", "stats")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight good recordings with two lists; the tests run beside them."""
    folder = tmp_path / "data"
    (folder / "wavs").mkdir(parents=True)
    for i, text in enumerate(SENTENCES):
        soundfile.write(folder / "wavs" / f"u{i}.wav", voice_like(len(text) / 25, seed=i), RATE)
    lines = hostile_lists.good_lines()
    (folder / "train.csv").write_text("\n".join(lines[:6]) + "\n")
    (folder / "val.csv").write_text("\n".join(lines[6:]) + "\n")
    monkeypatch.chdir(tmp_path)
    return folder


def run(*arguments: str | Path) -> int:
    return prepare_data.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_by_example_and_loads_neither_torch_nor_numpy(verb: str) -> None:
    code = f"""
import sys
try: import prepare_data; prepare_data.main({[verb, "--help"] if verb else ["--help"]})
except SystemExit: pass
print({{"torch", "numpy", "rich", "soundfile"}} & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
    assert f"python prepare_data.py {verb}" in done.stdout if verb else all(name in done.stdout for name in VERBS)


# ---- check


def test_a_good_corpus_passes_with_a_page(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", data / "train.csv", data / "val.csv") == 0
    assert "8 of 8 lines" in capsys.readouterr().out
    page = Path("corpus_report.html").read_text(encoding="utf-8")
    assert "nothing wrong found" in page and "<script" not in page


def test_bad_lines_are_named_with_file_and_line_and_exit_3(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(data / "wavs" / "u1.wav", np.zeros(RATE), RATE)
    with (data / "train.csv").open("a") as file:
        file.write("wavs/U7.WAV|Nobody was here.\n")
    assert run("check", data / "train.csv", data / "val.csv") == 3
    out = capsys.readouterr().out
    assert f"{data}/train.csv:2: u1: digital silence" in out
    assert f'{data}/train.csv:7: no such file: "wavs/U7.WAV", but {data}/wavs/u7.wav is there' in out


def test_json_holds_every_finding_and_the_numbers_of_every_line(data: Path) -> None:
    soundfile.write(data / "wavs" / "u1.wav", np.zeros(RATE), RATE)
    assert run("check", data / "train.csv", "--json", "found.json") == 3
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert [(f["line"], f["kind"], f["severity"]) for f in found["findings"]] == [(2, "silent", "error")]
    assert len(found["lines"]) == 6
    assert all(line["measures"]["duration_s"] > 0 for line in found["lines"])


def test_overlap_of_the_lists_is_a_warning(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "val.csv").write_text((data / "train.csv").read_text())
    assert run("check", data / "train.csv", data / "val.csv") == 0
    assert "6 validation sound in training" in capsys.readouterr().out


def test_unknown_characters_are_counted_by_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "val.csv").write_text("wavs/u6.wav|There & there # again.\nwavs/u7.wav|He counted.\n")
    assert run("check", data / "val.csv") == 3
    assert "val.csv:1: '&' (U+0026) x1, '#' (U+0023) x1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("check", "nowhere.csv"), 3, "cannot read the filelist"),
        (("check", "data"), 3, "cannot read the filelist"),
        (("check", "data/train.csv", "--fix", "data"), 2, "the originals lie there"),
        (("check", "data/train.csv", "--report", "/proc/no/page.html"), 2, "can't be written"),
        (("import", "nowhere", "-o", "out"), 3, "is no folder"),
        (("import", "data", "-o", "out", "--as", "mp3"), 2, "no such layout"),
        (("cut", "nowhere.wav", "-o", "out"), 3, "is no file or folder"),
        (("cut", "data/train.csv", "-o", "out", "--longest", "1", "--shortest", "2"), 2, "--shortest 2.0"),
        (("record-next",), 2, "needs a FILELIST"),
        (("record-next", "--pool", "nowhere.txt"), 3, "can't be read"),
        (("stats", "nowhere.csv"), 3, "cannot read the filelist"),
        (("check", "data/train.csv", "--report", "data/train.csv"), 2, "--report data/train.csv: that is what is read"),
        (("check", "data/train.csv", "--json", "data/train.csv/x"), 2, "is a file where a folder should be"),
        (("stats", "data/train.csv", "--json", "./data/train.csv"), 2, "that is what is read; name another"),
        (("record-next", "data/train.csv", "-o", "data/train.csv"), 2, "-o data/train.csv: that is what is read"),
    ],
)
def test_mistakes_end_with_one_message_and_their_code(
    arguments: tuple[str, ...], code: int, words: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == code
    assert words in capsys.readouterr().err


def test_an_interrupted_check_keeps_what_it_measured(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from corpus import measuring

    real = measuring.measure_recording
    seen: list[int] = []

    def interrupted(recording):
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return real(recording)

    monkeypatch.setattr(measuring, "measure_recording", interrupted)
    assert run("check", data / "train.csv") == 130
    n_before = len(seen)
    monkeypatch.setattr(measuring, "measure_recording", lambda recording: seen.append(1) or real(recording))
    assert run("check", data / "train.csv") == 0
    assert 1 <= len(seen) - n_before < 6


# ---- check --fix


def test_a_corrected_copy_is_sound_and_the_originals_stay(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loud = voice_like(1.4, seed=1)
    silence = np.zeros(2 * RATE)
    soundfile.write(data / "wavs" / "u1.wav", np.concatenate([silence, loud, silence]), RATE)
    soundfile.write(data / "wavs" / "u2.wav", loud * 32768, RATE, subtype="FLOAT")
    soundfile.write(data / "wavs" / "u3.wav", np.stack([loud, -loud], 1), RATE)
    soundfile.write(data / "wavs" / "u4.wav", np.zeros(RATE), RATE)
    soundfile.write(data / "wavs" / "u5.wav", voice_like(1.4, rate=44100, seed=5), 44100)
    russian_c = "\u0441"
    (data / "train.csv").write_bytes(
        b"\xef\xbb\xbf# a comment\r\nwavs/u1.wav|Caf\xc3\xa9 e\xcc\x81t\xc3\xa9 now.\r\nWAVS\\u2.wav|A "
        + f"{russian_c}at &amp; dog.\r\n".encode()
        + b"wavs/u3.wav|The third one.\r\nwavs/u4.wav|The fourth one.\r\nwavs/u5.wav|The fifth one.\r\n"
    )
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    cleaners = ("--text-cleaners", "basic_cleaners")
    assert run("check", data / "train.csv", "--fix", "clean", "--dry-run", *cleaners) == 0
    assert not Path("clean").exists()
    # "&" and the accents are unknown to the symbols, which only the language's front end can spell
    (data / "train.csv").write_bytes((data / "train.csv").read_bytes().replace(b"&amp; ", b"and <b>a</b> "))
    before[data / "train.csv"] = (data / "train.csv").read_bytes()
    assert run("check", data / "train.csv", "--fix", "clean") == 0
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    out = Path("clean")
    checked = check_list(out / "train.csv", Places.of(out / "train.csv", dataset_path=out))
    assert [finding.message for finding in checked.findings] == []
    assert [line.text for line in checked.lines] == [
        "Caf\u00e9 \u00e9t\u00e9 now.", "A cat and a dog.", "The third one.", "The fifth one.",
    ]  # fmt: skip
    for line in checked.lines:
        recording = read_recording(line.audio_path)
        assert recording.sampling_rate == RATE and recording.samples.shape[0] == 1
        assert check_recording(measure_recording(recording)) == []
    left_out = (out / "left_out.txt").read_text()
    assert "train.csv:5: u4: digital silence" in left_out and left_out.count("\n") == 1
    changes = (out / "changes.txt").read_text()
    assert all(words in changes for words in ("quiet edges cut", "divided by 32768", "channel 1 of 2", "from 44100 Hz"))
    assert "train with: python train.py" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "utf-16", "utf-16-le", "utf-8-sig"])
def test_a_list_in_another_encoding_is_corrected(encoding: str, data: Path) -> None:
    text = hostile_lists.RUSSIAN
    (data / "val.csv").write_bytes(f"wavs/u6.wav|{text}\nwavs/u7.wav|{text[:-9]}.\n".encode(encoding))
    run("check", data / "val.csv", "--fix", "clean", "--language", "ru")
    assert Path("clean/val.csv").read_text(encoding="utf-8").startswith(f"wavs/u6.flac|{text}\n")


def test_a_list_of_vits_is_written_in_our_order(data: Path) -> None:
    (data / "val.csv").write_text(f"wavs/u6.wav|1|{SENTENCES[6]}\nwavs/u7.wav|2|{SENTENCES[7]}\n")
    assert run("check", data / "val.csv") == 3
    assert run("check", data / "val.csv", "--fix", "clean") == 0
    assert Path("clean/val.csv").read_text().splitlines() == [
        f"wavs/u6.flac|{SENTENCES[6]}|1", f"wavs/u7.flac|{SENTENCES[7]}|2",
    ]  # fmt: skip


def test_a_speaker_that_training_would_refuse_is_found_before(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (data / "train.csv").read_text().splitlines()
    (data / "train.csv").write_text("\n".join([f"{lines[0]}|anna", *lines[1:]]) + "\n")
    assert run("check", data / "train.csv") == 3
    assert "train.csv:1: names the speaker 'anna', most lines name none" in capsys.readouterr().out
    (data / "train.csv").write_text("".join(f"{line}|anna\n" for line in lines))
    other = [f"{line}|boris" for line in (data / "val.csv").read_text().splitlines()]
    (data / "val.csv").write_text("\n".join(other) + "\n")
    assert run("check", data / "train.csv") == 0
    assert run("check", data / "train.csv", data / "val.csv") == 3
    assert "val.csv:1: training has no line of speaker 'boris'" in capsys.readouterr().out


# ---- the hostile corpus through the command


@pytest.mark.spec
def test_hostile_lists_end_in_a_verdict_never_in_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hostile_lists.write_folder(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for case in hostile_lists.bad_lists()[::4]:  # each is checked by itself in test_corpus_hostile.py
        (folder / "list.csv").write_bytes(case.content)
        began = time.monotonic()
        code = run("check", folder / "list.csv", "--text-cleaners", "", "--report", "page.html")
        assert time.monotonic() - began < 20, case.name
        findings = capsys.readouterr().out
        wrong = {kind for _, kind in case.expected}
        assert code == (3 if "error" in findings else 0), case.name
        assert all(kind in findings for kind in wrong), case.name


@pytest.mark.spec
def test_hostile_recordings_end_in_a_verdict_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wavs").mkdir()
    cases = hostile_recordings.bad_recordings()
    lines = []
    for i, case in enumerate(cases):
        suffix = case.suffix if case.suffix != ".raw" else ".wav"
        (tmp_path / "wavs" / f"r{i}{suffix}").write_bytes(case.content())
        lines.append(f"wavs/r{i}{suffix}|{SENTENCES[i % len(SENTENCES)]}\n")
    (tmp_path / "train.csv").write_text("".join(lines))
    assert run("check", "train.csv", "--json", "found.json") == 3
    found = json.loads(Path("found.json").read_text(), parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    by_line: dict[int, set[str]] = {}
    for finding in found["findings"]:
        by_line.setdefault(finding["line"], set()).add(finding["kind"])
    for i, case in enumerate(cases, start=1):
        for wanted in hostile_recordings.kinds_of(case.kinds):
            assert by_line.get(i, set()) & wanted, case.name
    assert len(Path("corpus_report.html").read_bytes()) > 10_000
    assert run("check", "train.csv", "--fix", "clean") == 0
    kept = Path("clean/train.csv").read_text().splitlines()
    assert 20 < len(kept) < len(cases) - 20
    capsys.readouterr()


# ---- the other verbs


def test_import_writes_lists_that_check_accepts(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "metadata.csv").write_text("\n".join(f"u{i}|{text}|{text}" for i, text in enumerate(SENTENCES)))
    for name in ("train.csv", "val.csv"):
        (data / name).unlink()
    assert run("import", data, "-o", "out", "--validation", "0.25", "--dry-run") == 0
    assert not Path("out").exists()
    assert run("import", data, "-o", "out", "--validation", "0.25") == 0
    assert "taken for LJSpeech: metadata.csv and wavs/ are there" in capsys.readouterr().out
    assert run("check", "out/train.csv", "out/val.csv", "--dataset-path", data) == 0
    assert run("import", data, "-o", "out") == 2
    assert "already there; name another -o, or pass --overwrite" in capsys.readouterr().err
    assert run("import", data, "-o", "out", "--overwrite") == 0


def test_import_says_a_command_that_trains_whatever_the_names(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "my, own corpus", tmp_path / "out, two"
    (data / "wavs").rename(folder)
    for i, text in enumerate(SENTENCES):
        (folder / f"u{i}.txt").write_text(text)
    assert run("import", folder, "-o", out) == 0
    said = {line.split(": ")[0]: shlex.split(line.split(": ", 1)[1]) for line in capsys.readouterr().out.splitlines()
            if " with: " in line}  # fmt: skip
    assert run(*said["check with"][2:]) == 0
    hp = resolve_hparams(hparams_file=Path(said["train with"][-1])).hparams
    assert (hp.dataset_path, hp.training_files) == (str(folder), str(out / "train.csv"))
    assert hp.validation_files == str(out / "val.csv")


def test_texts_of_another_language_and_a_wrong_folder_are_named_once(
    data: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "wavs"
    (data / "wavs").rename(elsewhere)
    assert run("stats", data / "train.csv") == 3
    assert "none of 6 recordings was found: name the folder" in capsys.readouterr().out
    elsewhere.rename(data / "wavs")
    lines = [line.split("|")[0] for line in (data / "train.csv").read_text().splitlines()]
    russian = "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440"
    (data / "train.csv").write_text("".join(f"{name}|{russian} {i}.\n" for i, name in enumerate(lines)))
    assert run("check", data / "train.csv") == 3
    assert "most letters are cyrillic, and the language is en: check with --language ru" in capsys.readouterr().out
    assert run("check", data / "train.csv", "--language", "ru") == 0
    assert "most letters" not in capsys.readouterr().out
    assert run("check", data / "train.csv", "--language", "ru", "--fix", "clean") == 0
    assert resolve_hparams(hparams_file=Path("clean/hparams.yaml")).hparams.language == "ru"


def test_a_finding_that_no_line_has_is_not_left_out_silently(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", data / "train.csv", "--fix", "clean", "--leave-out", "queit,clipped") == 0
    assert "--leave-out queit,clipped: no line has such a finding; found: nothing" in capsys.readouterr().out


def test_lines_with_other_columns_are_not_left_out_unasked(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train.csv", "val.csv"):
        (data / name).unlink()
    lines = [f"wavs/u{i}.wav,{text},{'ab'[i % 2]}nna" for i, text in enumerate(SENTENCES)]
    (data / "list.csv").write_text("\n".join([*lines[:7], "wavs/u7.wav,Ten,twenty,anna"]) + "\n")
    assert run("import", data, "-o", "out") == 3
    said = capsys.readouterr().err
    assert f"{data / 'list.csv'}:8: 4 columns where 3 belong" in said and "leave them out by --skip-bad-data" in said
    assert not Path("out").exists()
    assert run("import", data, "-o", "out", "--skip-bad-data") == 0
    assert "list.csv:8: 4 columns" in capsys.readouterr().out
    assert Path("out/left_out.txt").read_text().startswith(f"{data / 'list.csv'}:8: 4 columns where 3 belong")
    assert sum(len(Path("out", name).read_text().splitlines()) for name in ("train.csv", "val.csv")) == 7


def test_a_dry_cut_says_how_much_there_is(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cut", data / "wavs", "-o", "out", "--dry-run") == 0
    assert "would cut 8 recordings" in capsys.readouterr().out
    assert not Path("out").exists()


def test_record_next_prints_gaps_and_writes_a_sheet(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("record-next", data / "train.csv") == 0
    assert "no question yet" in capsys.readouterr().out
    Path("book.txt").write_text("Who quizzed the jazz fox? Who quizzed a fox? The cat sat here. The old dog ran.\n")
    assert run("record-next", data / "train.csv", "--pool", "book.txt", "-n", "2", "-o", "sheet.html") == 0
    page = Path("sheet.html").read_text()
    assert "quizzed" in page and page.count("<li>") == 2
    assert run("record-next", "--pool", "book.txt", "-n", "1") == 0
    assert "0001|" in capsys.readouterr().out


def test_stats_are_hours_lengths_and_gaps(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", data / "train.csv", data / "val.csv", "--json", "stats.json") == 0
    numbers = json.loads(Path("stats.json").read_text())
    assert numbers["lines"] == 8 and numbers["rates, Hz"] == {str(RATE): 8}
    assert "hours:" in capsys.readouterr().out


def test_a_table_with_absolute_paths_is_imported_from_a_relative_folder(data: Path) -> None:
    (data / "wav.scp").write_text("".join(f"utt-{i} {data}/wavs/u{i}.wav\n" for i in range(8)))
    (data / "text").write_text("".join(f"utt-{i} {text}\n" for i, text in enumerate(SENTENCES)))
    assert run("import", "data", "-o", "out") == 0
    assert f"wavs/u0.wav|{SENTENCES[0]}\n" in Path("out/train.csv").read_text() + Path("out/val.csv").read_text()


def test_cutting_into_the_folder_of_the_originals_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train.csv", "val.csv"):
        (data / name).unlink()
    assert run("cut", data / "wavs", "-o", data) == 2
    assert "no original is written over" in capsys.readouterr().err
