"""report.html: what it shows of a run, whatever state the run's files are in, and that no text of a run acts in it."""

import base64
import io
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.errors import UserError
from monitoring.observer import BackgroundObserver
from monitoring.report import __main__, verdicts
from monitoring.report.media import picture_uri, sound_uri
from monitoring.report.observer import ReportFile
from monitoring.report.page import render, write_report
from run_directory.metrics_log import RunLog
from run_directory.reader import read_run
from run_directory.records import Event
from support.paths import REPOSITORY
from support.written_runs import eval_record, info_of, sample, step_record, write_run

HOSTILE = "<script>alert(1)</script><img src=x onerror='alert(1)'>\"' {{ 7 * 7 }} \u0434"


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(directory: Path, *, language: str = "en", now: float | None = None) -> Page:
    assert language in ("en", "ru")
    return Page(render(read_run(directory), language, now=time.time() if now is None else now))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "my run", texts=("a low tone", "one more"), is_ended=True)


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """That run, to be changed; it has not ended."""
    run = shutil.copytree(whole, tmp_path / "my run")
    events = (run / "events.jsonl").read_text().splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(line for line in events if '"ended"' not in line))
    return run


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path, attempt=1)


# ---- what it shows


def test_the_page_shows_curves_sounds_pictures_events_settings_and_facts(whole: Path) -> None:
    page = page_of(whole)
    assert page.count("svg") == 9 and page.count("audio") == 3  # one of them at the first glance
    assert page.count("img") == 1 + 2 + 2  # first glance, strips, samples
    for said in (
        "my run", "ended: all steps done", "step 400", "a low tone", "stopped by itself", "step skipped",
        "train.py -o 'a b'", "batch_size 7 48 Utterances per process and step.", "own.csv", "torch 2.13.0",
        "Alignment 0.97",
    ):  # fmt: skip
        assert said in page.text, said


def test_both_languages_say_it_all(whole: Path) -> None:
    english, russian = page_of(whole), page_of(whole, language="ru")
    assert [tag for tag, _ in english.elements] == [tag for tag, _ in russian.elements]
    words = "\u0437\u0430\u0432\u0435\u0440\u0448\u0451\u043d: \u0432\u0441\u0435 \u0448\u0430\u0433\u0438"
    assert words in russian.text and "Is it healthy" not in russian.text
    assert "step skipped the gradient was not finite" in english.text and "the gradient was" not in russian.text


def test_everything_is_in_the_one_file(whole: Path) -> None:
    page = page_of(whole)
    outside = [
        (tag, name, value)
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action") and not (value or "").startswith("data:")
    ]
    assert outside == []
    assert [a["http-equiv"] for _, a in page.elements if "http-equiv" in a] == ["Content-Security-Policy"]
    assert page.count("script") == page.count("link") == page.count("iframe") == 0


def test_parameters_at_their_defaults_are_not_listed(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, texts=(), settings="text_cleaners=[basic_cleaners]"))
    assert "text_cleaners [basic_cleaners] [english_cleaners]" in page.text
    assert "Parameters that differ" in page.text and "batch_size" not in page.text
    assert "Parameters that differ" not in page_of(write_run(tmp_path / "plain", texts=(), settings="")).text


def test_the_newest_and_the_best_samples_are_shown_apart(copied: Path) -> None:
    log = RunLog(copied, attempt=1)
    log.write(eval_record(500, score=0.4, is_best=False))
    log.close()
    shutil.copy(copied / "samples/step_00000400_0.wav", copied / "samples/step_00000500_0.wav")
    page = page_of(copied)
    assert "step 400 \u00b7 the best" in page.text and "step 500 \u00b7 the newest" in page.text
    assert page.text.count("The picture is from step 400.") == 1


def test_repeated_events_are_one_row_with_their_count(log: RunLog, tmp_path: Path) -> None:
    for step in range(100, 157):
        log.write(Event(step, "skipped", "not finite"))
    log.write(Event(160, "reduction", "2 frames"))
    log.close()
    page = page_of(tmp_path)
    assert "100-156 step skipped \u00d757 not finite" in page.text
    events = page.text.partition("Events, newest first")[2]
    assert events.index("frames per step") < events.index("skipped")
    assert [a["class"] for tag, a in page.elements if tag == "tr" and a.get("class")] == ["urgent"]


# ---- no text of a run acts in it


def test_no_text_of_a_run_becomes_part_of_the_page(copied: Path, tmp_path: Path) -> None:
    run = copied.rename(tmp_path / "run <script>&")
    (run / "samples/step_00000400.json").write_text(json.dumps([{"text": HOSTILE, "stop_reason": HOSTILE}] * 2))
    log = RunLog(run, attempt=1)
    log.write(Event(500, HOSTILE, HOSTILE, {HOSTILE: [HOSTILE]}))
    log.write(Event(500, "ended", HOSTILE))
    log._append("metrics.jsonl", {"type": "step", "step": 500, "losses": {HOSTILE: 1.0, "total": HOSTILE}})
    log.close()
    (run / "run.json").write_text(json.dumps(dict.fromkeys(("data", "git_revision", "attempt"), HOSTILE)))
    (run / "hparams.yaml").write_text(json.dumps({HOSTILE: HOSTILE, "optimizer": HOSTILE}))
    page = page_of(run)
    assert page.count("script") == 0 and "run <script>&" in page.text
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert [a["src"][:5] for tag, a in page.elements if tag == "img" and a["src"]] == ["data:"] * page.count("img")
    assert page.text.count("<script>alert(1)</script>") >= 10 and "{{ 7 * 7 }}" in page.text


# ---- whatever state the files are in


def cut_in_the_middle_of_a_line(run: Path) -> None:
    for name in ("metrics.jsonl", "events.jsonl"):
        (run / name).write_bytes((run / name).read_bytes()[:-20])


def cut_within_a_character(run: Path) -> None:
    with (run / "events.jsonl").open("ab") as f:
        f.write('{"step": 1, "kind": "x", "message": "\u0434'.encode()[:-1])


def garbage_between_lines(run: Path) -> None:
    for name in ("metrics.jsonl", "events.jsonl"):
        with (run / name).open("ab") as f:
            f.write(b'\x00\xff{"type": "step", "st\n[1]\n3\n\n{"type": "step"}\n{"step": "x", "kind": 1}\n')


def odd_values(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as f:
        f.write('{"type": "step", "step": 500, "losses": {"total": null, "mel": []}, "time": "noon"}\n')
        f.write('{"type": "eval", "step": 500, "losses": {}, "free_running": null, "score": null, "is_best": true}\n')


def halves_of_pictures_and_sounds(run: Path) -> None:
    for path in [*run.glob("samples/*"), *run.glob("alignments/*")]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_settings(run: Path) -> None:
    (run / "hparams.yaml").write_text("a: [")
    (run / "run.json").write_text('{"command": "x')


def only_settings(run: Path) -> None:
    for path in [*run.glob("samples/*"), *run.glob("alignments/*"), *run.glob("*.jsonl")]:
        path.unlink()


def empty_files(run: Path) -> None:
    for name in ("metrics.jsonl", "events.jsonl", "run.json", "hparams.yaml"):
        (run / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_in_the_middle_of_a_line, "running"),
        (cut_within_a_character, "running"),
        (garbage_between_lines, "metrics.jsonl: 4 unreadable lines"),
        (odd_values, "The loss is not finite: NaN or infinity (step 500)."),
        (halves_of_pictures_and_sounds, "Text 1"),
        (no_settings, "hparams.yaml: while parsing"),
        (only_settings, "nothing recorded yet"),
        (empty_files, "No training step is recorded yet."),
    ],
)
def test_a_damaged_run_directory_has_a_page(copied: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(copied)
    page_of(copied, language="ru")
    assert said in page_of(copied).text


def test_losses_that_are_not_finite_leave_gaps_and_are_pointed_at(log: RunLog, tmp_path: Path) -> None:
    for i, total in enumerate([1.0, 0.5, nan, inf, 0.4, nan]):
        log.write(step_record(10 * i, total=total))
    log.close()
    page = page_of(tmp_path)
    assert "The loss is not finite: NaN or infinity (step 50)." in page.text and "total NaN" in page.text
    assert page.text.count("Red: values that are not finite (NaN or infinity).") == 1
    assert not [a for _, a in page.elements if "nan" in (a.get("d") or "") or "inf" in (a.get("d") or "")]


def test_a_run_without_validations_has_curves_but_no_sound(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, texts=()))
    assert "No sound yet." in page.text and "The voice has not spoken on its own yet." in page.text
    assert page.text.count("This is normal before step 200, the first validation.") == 2
    assert page.count("svg") == 5 and page.count("audio") == 0


def test_what_a_rewind_superseded_is_not_drawn(log: RunLog, tmp_path: Path) -> None:
    for total in (5.0, 4.0):
        log.write(step_record(10, total=total))
        log.rewind(0)
    log.write(step_record(10, total=3.0))
    log.close()
    assert [record["losses"]["total"] for record in read_run(tmp_path).steps] == [3.0]


# ---- verdicts


@pytest.mark.parametrize(
    ("command", "step", "level", "said"),
    [
        ("train.py --preset small", 400, "watch", "This is normal before step 800: by then voices"),
        ("train.py --preset=demo", 400, "bad", "Usually attention is aligned by step 300. What to do"),
        ("train.py", 400, "watch", "This is normal before step 3000: up to there training still guides"),
        ("train.py", 3000, "bad", "Usually attention is aligned by step 3000."),
    ],
)
def test_a_voice_that_does_not_align_says_whether_that_is_normal(
    log: RunLog, tmp_path: Path, command: str, step: int, level: str, said: str
) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"command": command.split()}))
    log.write(eval_record(step, alignment=0.2))
    log.close()
    assert verdicts.alignment(read_run(tmp_path)).level == level
    assert said in page_of(tmp_path).text


def test_a_voice_that_aligns_needs_no_comfort(whole: Path) -> None:
    assert verdicts.what_is_usual(read_run(whole)) is None


# ---- sounds and pictures


def test_a_short_sound_loses_nothing_and_a_long_one_is_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 8000 * 60)
    kinds = {"short": "audio/wav", "usual": "audio/flac", "long": "audio/mpeg"}
    for (name, kind), wav in zip(kinds.items(), (noise[:4000], noise[:20000], noise), strict=True):
        soundfile.write(tmp_path / f"{name}.wav", wav, 8000)
        uri = sound_uri(tmp_path / f"{name}.wav")
        assert uri is not None and uri.startswith(f"data:{kind};base64,") and len(uri) < 700_000
        heard, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])), dtype="int16")
        written = soundfile.read(tmp_path / f"{name}.wav", dtype="int16")[0]
        assert rate == 8000 and abs(len(heard) - len(written)) < 0.1 * rate
        assert kind == "audio/mpeg" or np.array_equal(heard, written)


def test_a_sound_written_anew_under_the_same_name_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    found = []
    for seconds in (0.1, 0.2):
        wav = sample("x", seconds=seconds).wav
        assert wav is not None
        soundfile.write(path, wav, 8000)
        found.append(sound_uri(path))
    assert None not in found and found[0] != found[1]


def test_what_is_gone_meanwhile_is_left_out(tmp_path: Path) -> None:
    assert sound_uri(tmp_path / "a.wav") is None and picture_uri(tmp_path / "a.png", width=100) is None


# ---- cost


def test_a_long_run_costs_little_time_and_space(tmp_path: Path) -> None:
    write_run(tmp_path, n_steps=10_000, texts=())
    page_of(tmp_path)  # template and help texts are read once a process
    began = time.thread_time()
    text = render(read_run(tmp_path), "en", now=time.time())
    spent = time.thread_time() - began
    assert spent < 1.5, f"{spent:.2f} s of CPU"  # 0.2 s on an idle core; the rest is room for a busy machine
    assert len(text) < 250_000


def test_the_report_needs_no_torch() -> None:
    code = "import sys, monitoring.report.__main__, monitoring.report.observer; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---- the observer


def test_the_page_is_written_at_once_then_rarely_and_at_the_end(tmp_path: Path) -> None:
    write_run(tmp_path, texts=())
    (tmp_path / ".report.html.x7.tmp").write_bytes(b"half")  # a process was killed
    watching = ReportFile("en", every_s=3600)
    watching.on_start(info_of(tmp_path))
    watching.on_record(step_record(10))
    page = tmp_path / "report.html"
    first = page.stat().st_mtime_ns
    for step in range(20, 500, 10):
        watching.on_record(step_record(step))
    assert page.stat().st_mtime_ns == first
    watching.close()
    assert page.stat().st_mtime_ns > first and not list(tmp_path.glob(".*.tmp"))


def test_a_disk_that_refuses_is_told_of_once_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run(tmp_path, texts=())
    (tmp_path / "report.html").mkdir()  # a folder where the file is wanted
    watching = BackgroundObserver(ReportFile("en", every_s=0))
    watching.on_start(info_of(tmp_path))
    with caplog.at_level(logging.WARNING, "tacotron2"):
        for step in range(3):
            watching.on_record(step_record(step))
        watching.close()
    assert [r.getMessage()[:30] for r in caplog.records] == ["report.html can't be written ("]


# ---- the command


def test_the_command_writes_the_page_and_says_where(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([str(whole), "--language", "ru"]) == 0
    assert capsys.readouterr().out == f"{whole}/report.html\n"
    assert '<html lang="ru">' in (whole / "report.html").read_text(encoding="utf-8")


def test_the_command_refuses_what_is_no_run_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([str(tmp_path)]) == 2
    assert "is no run directory" in capsys.readouterr().err
    with pytest.raises(UserError, match="name the -o of a training"):
        write_report(tmp_path / "absent", "en")


def test_the_command_on_a_disk_that_refuses_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write_run(tmp_path, texts=()) / "report.html").mkdir()
    assert __main__.main([str(tmp_path)]) == 2
    assert f"error: cannot write {tmp_path}/report.html (" in capsys.readouterr().err
