"""The demo voice: what it says, how it is spoken, and that only a whole corpus is ever taken for one."""

import json
import os
import shlex
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.cache_dir import cache_directory
from common.errors import UserError
from corpus.demo.builder import MARKER, DemoCorpus, demo_fingerprint, ensure_demo_corpus
from corpus.demo.sentences import SLOTS, TEMPLATES, DemoSentences, demo_sentences
from corpus.demo.teachers import Teacher, espeak, hibari
from support.paths import REPOSITORY

FEW = DemoSentences(("The dog is in the garden.", "My box is red."), ("My box is brown.",), ("The dog is red.",))
SAID = demo_sentences()
THREE_BATCHES = DemoSentences(SAID.training[:90], SAID.validation[:15], SAID.test[:15])
BUILD = "import sys; from pathlib import Path; from corpus.demo.builder import *; from corpus.demo.sentences import *; "
BUILD += "said = demo_sentences(); said = DemoSentences(said.training[:90], said.validation[:15], said.test[:15]); "


def words(sentences: tuple[str, ...]) -> set[str]:
    return {word for sentence in sentences for word in sentence.rstrip(".").lower().split()}


def content(corpus: DemoCorpus) -> dict[str, bytes]:
    return {path.relative_to(corpus.root).as_posix(): path.read_bytes() for path in corpus.root.rglob("*.*")}


def start_python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("teacher", ("hibari()", "espeak('en-us')"))
def test_a_disk_that_is_full_while_a_teacher_speaks_is_told_as_such(teacher: str, tmp_path: Path) -> None:
    code = "from pathlib import Path; from corpus.demo.builder import *; from corpus.demo.teachers import *; "
    code += f"ensure_demo_corpus(Path({str(tmp_path)!r}), teacher={teacher})"
    mount = f"mount -t tmpfs -o size=600k tmpfs {tmp_path} && exec {shlex.join((sys.executable, '-c', code))}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip(f"no private mount here: {done.stderr.strip()}")
    last = done.stderr.strip().splitlines()[-1]
    assert f"cannot be written to {tmp_path}: [Errno 28] No space left on device; make room there" in last, done.stderr


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> DemoCorpus:
    return ensure_demo_corpus(tmp_path_factory.mktemp("cache"), sentences=FEW)


# ---- sentences


def test_the_splits_hold_600_20_and_100_distinct_sentences() -> None:
    said = demo_sentences()
    assert (len(said.training), len(said.validation), len(said.test)) == (600, 20, 100)
    assert len({sentence.lower() for sentence in said.all}) == 720


def test_held_out_sentences_use_only_words_that_are_trained_on() -> None:
    said = demo_sentences()
    assert words(said.validation + said.test) <= words(said.training)
    assert 80 <= len(words(said.training)) <= 120


def test_held_out_splits_go_through_all_templates_in_turn() -> None:
    said = demo_sentences()
    for sentences in (said.validation, said.test):
        for template, sentence in zip(cycle(TEMPLATES), sentences, strict=False):
            fixed = words((template,)) - {"{" + slot + "}" for slot in SLOTS}
            assert fixed <= words((sentence,))


def test_every_sentence_starts_with_a_capital_and_ends_in_a_full_stop() -> None:
    assert all(sentence[0].isupper() and sentence[-1] == "." for sentence in demo_sentences().all)
    assert not any("{" in sentence for sentence in demo_sentences().all)


def test_another_process_draws_the_same_sentences_and_fingerprint() -> None:
    code = "from corpus.demo.builder import *; print(demo_fingerprint(), *demo_sentences().all, sep='\\n')"
    child = start_python(code)
    printed, _ = child.communicate(timeout=30)
    assert printed.splitlines() == [demo_fingerprint(), *demo_sentences().all]


def test_the_fingerprint_changes_with_one_sentence() -> None:
    changed = DemoSentences(("The cat is in the garden.", FEW.training[1]), FEW.validation, FEW.test)
    assert demo_fingerprint(changed) != demo_fingerprint(FEW)


# ---- sound and filelists


def test_recordings_are_mono_pcm_at_22050_hz_with_a_peak_of_0_8(few: DemoCorpus) -> None:
    for path in sorted((few.root / "wavs").iterdir()):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (22050, 1, "PCM_16")
        assert np.abs(soundfile.read(path)[0]).max() == pytest.approx(0.8, abs=1e-4)  # half a 16-bit step and more


def test_recordings_last_as_long_as_a_short_sentence_without_silence_at_the_ends(few: DemoCorpus) -> None:
    for path in sorted((few.root / "wavs").iterdir()):
        wav, rate = soundfile.read(path)
        assert 0.6 < len(wav) / rate < 2.2
        near_ends = np.concatenate([wav[:660], wav[-1320:]])  # 30 ms and 60 ms: beyond what trimming keeps
        assert np.abs(near_ends).max() > 0.8 * 10 ** (-40 / 20)


def test_different_sentences_sound_different(few: DemoCorpus) -> None:
    assert len({path.read_bytes() for path in (few.root / "wavs").iterdir()}) == 4


def test_filelists_name_existing_recordings_and_their_texts_split_by_split(few: DemoCorpus) -> None:
    listed = []
    for path, sentences in zip(
        (few.training_files, few.validation_files, few.test_files),
        (FEW.training, FEW.validation, FEW.test),
        strict=True,
    ):
        rows = [line.split("|") for line in path.read_text().splitlines()]
        assert tuple(text for _, text in rows) == sentences
        listed += [recording for recording, _ in rows]
    assert listed == [f"wavs/demo_{i:04d}.wav" for i in (1, 2, 3, 4)]
    assert all((few.root / recording).is_file() for recording in listed)


def test_the_cache_says_what_made_it_and_under_which_licence(few: DemoCorpus) -> None:
    text = (few.root / "README.txt").read_text()
    assert "hibari-tts 0." in text and "Apache" in text and "{" not in text


def test_another_teacher_makes_another_corpus_which_says_so(few: DemoCorpus, tmp_path: Path) -> None:
    german = ensure_demo_corpus(tmp_path, sentences=FEW, teacher=espeak("de"))
    text = (german.root / "README.txt").read_text()
    assert "espeakng-loader 0." in text and "voice de," in text and "GNU General Public License" in text
    assert german.digest != few.digest and {*content(german)} == {*content(few)}


def test_the_digest_of_speech_by_espeak_stays_so_base_voices_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Teacher, "version", lambda self: "0.2.4")
    assert demo_fingerprint(FEW, espeak("en-us")) == "00fe7bf7e156"


def test_a_sentence_sounds_the_same_whoever_else_is_in_the_batch(few: DemoCorpus, tmp_path: Path) -> None:
    others = DemoSentences(FEW.training, ("Anna likes cheese.",), ("We need milk and bread.",))
    again = ensure_demo_corpus(tmp_path, sentences=others)
    assert content(again)["wavs/demo_0002.wav"] == content(few)["wavs/demo_0002.wav"]


def test_making_it_twice_gives_the_same_bytes(few: DemoCorpus, tmp_path: Path) -> None:
    again = ensure_demo_corpus(tmp_path, sentences=FEW)
    assert again.root != few.root
    assert content(again) == content(few)


def test_progress_counts_up_to_all_sentences_and_is_silent_on_reuse(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        ensure_demo_corpus(tmp_path, sentences=THREE_BATCHES, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(40, 120), (80, 120), (120, 120)]


# ---- whole or not there


def test_a_complete_corpus_is_reused_untouched(tmp_path: Path) -> None:
    first = ensure_demo_corpus(tmp_path, sentences=FEW)
    made_at = (first.root / MARKER).stat().st_mtime_ns
    assert ensure_demo_corpus(tmp_path, sentences=FEW) == first
    assert (first.root / MARKER).stat().st_mtime_ns == made_at


@pytest.mark.parametrize("damage", ["missing marker", "torn marker", "foreign marker", "lost wav", "truncated wav"])
def test_a_damaged_corpus_is_made_again(tmp_path: Path, damage: str) -> None:
    corpus = ensure_demo_corpus(tmp_path, sentences=FEW)
    whole, marker, wav = content(corpus), corpus.root / MARKER, corpus.root / "wavs" / "demo_0002.wav"
    if damage == "missing marker":
        marker.unlink()
    elif damage == "torn marker":
        marker.write_bytes(marker.read_bytes()[:40])
    elif damage == "foreign marker":
        marker.write_text(json.dumps(["of another program"]))
    elif damage == "lost wav":
        wav.unlink()
    else:
        wav.write_bytes(wav.read_bytes()[:1000])
    assert content(ensure_demo_corpus(tmp_path, sentences=FEW)) == whole
    assert os.listdir(tmp_path) == [corpus.root.name]


def test_a_killed_build_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    stop = "lambda done, total: (print(done, flush=True), sys.stdin.read())"  # waits in the middle to be killed
    child = start_python(BUILD + f"ensure_demo_corpus(Path({str(tmp_path)!r}), sentences=said, progress={stop})")
    assert child.stdout is not None and child.stdout.readline() == "40\n"
    child.kill()
    child.communicate(timeout=30)
    left = os.listdir(tmp_path)
    assert len(left) == 1 and left[0].endswith(".building")
    corpus = ensure_demo_corpus(tmp_path, sentences=THREE_BATCHES)
    assert len(list((corpus.root / "wavs").iterdir())) == 120


def test_only_old_unfinished_folders_are_swept_away(tmp_path: Path) -> None:
    old, young = tmp_path / ".demo-0.a.building", tmp_path / ".demo-0.b.building"
    old.mkdir()
    young.mkdir()
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    ensure_demo_corpus(tmp_path, sentences=FEW)
    assert young.exists() and not old.exists()


@pytest.mark.spec
def test_two_processes_at_once_end_with_one_whole_corpus(tmp_path: Path) -> None:
    code = BUILD + f"print(ensure_demo_corpus(Path({str(tmp_path)!r}), sentences=said).root)"
    children = [start_python(code) for _ in range(2)]
    results = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], results
    corpus = ensure_demo_corpus(tmp_path, sentences=THREE_BATCHES)
    assert {printed.strip() for printed, _ in results} == {str(corpus.root)}
    assert os.listdir(tmp_path) == [corpus.root.name]


# ---- what a user can get wrong


def test_without_the_synthesiser_the_error_says_how_to_install_it(tmp_path: Path) -> None:
    code = (
        "import corpus.demo.builder as d, common.errors as errors\n"
        "try: d.ensure_demo_corpus()\nexcept errors.UserError as e: print(e)"
    )
    bare = [sys.executable, "-S", "-c", code]  # -S: no site-packages, so no third-party package
    child = subprocess.run(bare, cwd=REPOSITORY, env={"HOME": str(tmp_path)}, capture_output=True, text=True)
    assert "pip install hibari-tts" in child.stdout, child.stderr


def test_the_speaking_processes_report_a_missing_package_and_a_bad_voice(tmp_path: Path) -> None:
    def speak(teacher: Teacher, *flags: str) -> subprocess.CompletedProcess[str]:
        script = [sys.executable, *flags, str(teacher.script), str(tmp_path), *teacher.arguments]
        return subprocess.run(script, input="", capture_output=True, text=True)

    for teacher in (hibari(), espeak("en-us")):
        missing = speak(teacher, "-S")
        assert missing.returncode == 3 and f"{teacher.package} cannot be imported" in missing.stderr
    unknown = speak(espeak("no-such-voice"))
    assert unknown.returncode == 4 and "voice 'no-such-voice'" in unknown.stderr


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(UserError, match=r"cannot be written to .*file.*TACOTRON2_CACHE"):
        ensure_demo_corpus(in_the_way, sentences=FEW)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TACOTRON2_CACHE": "/a/cache", "XDG_CACHE_HOME": "/x"}, "/a/cache"),
        ({"TACOTRON2_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/tacotron2-trainer"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/tacotron2-trainer"),
        ({"HOME": "/h"}, "/h/.cache/tacotron2-trainer"),
        ({"TACOTRON2_CACHE": "~/own", "HOME": "/h"}, "/h/own"),
    ],
)
def test_the_cache_directory_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name in ("TACOTRON2_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(expected)
