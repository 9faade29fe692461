"""synthesize.py as a person meets it: texts from everywhere, files of every kind, and what it refuses."""

import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import synthesize
from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing.checkpoint_file import Checkpoint
from data_utils import load_corpus
from support.vocoders import write_golden
from support.voices import Tiny, save_voice

RATE, HOP = 8000, 128
BOOK = "The first one. The second!\nIt goes on.\n\n* * *\n\nA new part? [pause 0.5s] The end.\n"


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def voice(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A voice that never learnt to stop: each text takes the budget of its length."""
    hp = tiny()
    corpus = load_corpus(hp)
    return save_voice(hp, corpus, tmp_path_factory.mktemp("voice"))


@pytest.fixture
def say(voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, checkpoint: Path = voice) -> Said:
        quick = ["--no-pictures", *([] if "--vocoder" in arguments else ["--griffin-lim-iterations", "1"])]
        code = synthesize.main(["-c", str(checkpoint), *quick, *arguments])
        shown = capsys.readouterr()
        return Said(code, shown.out, shown.err)

    return call


def test_a_book_becomes_one_wav_with_subtitles(say, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(BOOK, encoding="utf-8")
    said = say("--file", "book.txt", "-o", "book.wav", "--srt", "--textgrid")
    assert said.code == 0, said.err
    assert re.match(r"book.wav: \d+\.\d\d s in 5 parts; real-time factor \d+\.\d\d\n", said.out)
    wav, rate = soundfile.read(tmp_path / "book.wav")
    cues = re.findall(r"^(\d\d:\d\d:\d\d,\d\d\d) --> (\S+)\n(.+)$", (tmp_path / "book.srt").read_text(), re.M)
    assert rate == RATE
    assert [text for _, _, text in cues] == ["The first one.", "The second!", "It goes on.", "A new part?", "The end."]
    starts, ends = zip(*[(seconds(a), seconds(b)) for a, b, _ in cues], strict=True)
    gaps = [round(start - end, 2) for start, end in zip(starts[1:], ends[:-1], strict=True)]
    assert gaps == [0.25, 0.25, 0.6, 0.5]
    assert ends[-1] == pytest.approx(len(wav) / rate, abs=0.002)
    grid = (tmp_path / "book.TextGrid").read_text()
    assert [grid.count(f'name = "{name}"') for name in ("sentences", "words", "symbols")] == [1, 1, 1]
    assert 'text = "second!"' in grid and f"xmax = {len(wav) / rate:.6f}" in grid


def seconds(time: str) -> float:
    hours, minutes, rest = time.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_silence_lies_where_a_pause_is_asked_for(say, tmp_path: Path) -> None:
    assert say("[pause 0.3s] hi [pause 1s] hi", "-o", "a.wav", "--no-enhancement").code == 0
    wav, _ = soundfile.read(tmp_path / "a.wav")
    (edges,) = np.nonzero(np.diff(np.concatenate([[0], wav == 0, [0]]).astype(int)))
    runs = [(a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 0.2 * RATE]
    assert runs[0][0] == 0 and [round(length / RATE, 1) for _, length in runs] == [0.3, 1.0]


def test_files_become_a_folder_of_wavs_by_their_names(say, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text("hi there", encoding="utf-8")
    assert say("hi", "--file", "one.txt", "--file", "two.txt", "-o", "folder").code == 0
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["0001.wav", "one.wav", "two.wav"]


def test_each_sentence_may_have_a_file_of_its_own(say, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(BOOK, encoding="utf-8")
    assert say("--file", "book.txt", "-o", "folder/", "--by-sentence").code == 0
    lines = (tmp_path / "folder/book.csv").read_text().splitlines()
    assert lines[1] == "book_0002.wav|The second!" and len(lines) == 5
    assert all((tmp_path / "folder" / line.partition("|")[0]).exists() for line in lines)


@pytest.mark.parametrize("raw", [(), ("--raw",)])
def test_sound_goes_to_standard_output(
    say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Sequence[str]
) -> None:
    pipe = io.BytesIO()
    stdout = io.TextIOWrapper(pipe, write_through=True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("One. Two."))
    monkeypatch.setattr(sys, "stdout", stdout)
    said = say("--stdin", "-o", "-", *raw)
    monkeypatch.undo()
    assert said.code == 0 and "stdin: " in said.err
    piped = pipe.getvalue()
    assert say("One. Two.", "-o", str(tmp_path / "file.wav")).code == 0
    samples = (tmp_path / "file.wav").read_bytes()[44:]
    assert piped == samples if raw else piped[44:] == samples and piped.startswith(b"RIFF\xff\xff\xff\xff")


def test_twice_the_speed_takes_half_the_time(say, tmp_path: Path) -> None:
    lengths = {}
    for speed in ("1", "2"):
        assert say("a low tone", "-o", f"{speed}.wav", "--speed", speed, "--no-enhancement").code == 0
        lengths[speed] = soundfile.info(tmp_path / f"{speed}.wav").frames
    assert lengths["2"] == pytest.approx(lengths["1"] / 2, abs=HOP)


def test_sentences_in_batches_are_as_many_and_as_long(say, tmp_path: Path) -> None:
    text = "A low tone. One more. And higher. The last one."
    ends = []
    for name, size in (("alone", "1"), ("three", "3")):
        assert say(text, "-o", f"{name}.wav", "--batch-size", size, "--srt", "--no-enhancement").code == 0
        ends.append(re.findall(r"--> (\S+)", (tmp_path / f"{name}.srt").read_text()))
    assert len(ends[0]) == 4 and ends[0] == ends[1]  # which is their budget


def test_a_text_that_names_a_file_earns_a_hint(say, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("hi", encoding="utf-8")
    said = say("book.txt")
    assert said.code == 2 and "book.txt is a file: to say what is in it, write --file book.txt" in said.err


@pytest.mark.spec
def test_a_text_in_one_go_must_fit_into_the_voices_limit(say, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("the last one of them all " * 200, encoding="utf-8")
    said = say("--file", "book.txt", "-o", "book.wav", "--no-split")
    assert said.code == 3 and "leave out --no-split, or set --max-seconds" in said.err
    assert not (tmp_path / "book.wav").exists()
    split = say("--file", "book.txt", "-o", "book.wav")
    assert split.code == 0, split.err
    assert soundfile.info(tmp_path / "book.wav").duration > 20


def test_a_long_text_with_words_missing_is_no_success(say, tmp_path: Path) -> None:
    said = say("A low tone. Hi.", "-o", "a.wav", "--max-seconds", "0.45")
    assert said.code == 3 and "were cut at max_decoder_steps, so words are missing" in said.err
    assert "'A low tone.'" in said.err and (tmp_path / "a.wav").exists()


def test_a_sentence_that_did_not_end_by_itself_is_warned_of(say) -> None:
    one, two = say("A low tone.", "-o", "a.wav"), say("A low tone. Hi.", "-o", "a.wav")
    assert one.code == two.code == 0
    assert one.err.startswith("warning: a sentence was cut at the length that its text may have")
    assert one.err.endswith("#it-never-stops: 'A low tone.'\n")
    assert two.err.startswith("warning: 2 sentences were cut")
    limited = say("A low tone.", "-o", "a.wav", "--max-seconds", "0.45")
    assert limited.code == 0 and "warning: a sentence was cut" in limited.err


@pytest.mark.parametrize("arguments", [("--device", "cuda"), ("--device", "cuda:7")])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_said(
    say, tmp_path: Path, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = say("hi", "-o", "a.wav", *arguments)
    assert said.code == 2 and said.err.count("\n") == 1 and f"device {arguments[1]}: " in said.err
    assert not (tmp_path / "a.wav").exists()


def test_memory_that_ends_is_one_message(say, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("speech.voice.speak", no_room)
    said = say("hi", "-o", "a.wav")
    assert said.code == 2 and "too little memory on cpu" in said.err and "Traceback" not in said.err


def test_a_prenet_dropout_that_leaves_nothing_is_refused(say) -> None:
    with pytest.raises(SystemExit, match="2"):
        say("hi", "-o", "no.wav", "--prenet-dropout", "1")


@pytest.mark.spec
def test_doubtful_sentences_are_said_again_and_listed(say) -> None:
    said = say("A low tone. One more.", "-o", "a.wav", "--check", "--attempts", "2")
    assert said.code == 0, said.err
    assert "checked: 2 said again, 2 still doubtful" in said.out
    assert "doubtful: 'A low tone.': did not stop" in said.out


def test_all_that_cannot_be_read_is_named_with_file_and_line(say, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("fine\n\n100 {QQ7}\n", encoding="utf-8")
    said = say("a {QQ8}", "--file", "book.txt")
    assert said.code == 3 and "2 of 3 texts can't be spoken" in said.err and "book.txt:3: '100 {QQ7}'" in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "nothing to say: give a text in quotes, --file TXT, or --stdin"),
        (("",), 3, "nothing to say in ' '"),
        (("...", "-o", "a.wav"), 3, "nothing to say in '...'"),
        (("hi", "--vocoder", "lj", "--griffin-lim-iterations", "9"), 2, "only griffin-lim has any; drop one"),
        (("--file", "absent.txt"), 2, "--file absent.txt: can't be read (No such file or directory)"),
        (("--file", "."), 2, "--file .: can't be read (Is a directory)"),
        (("--file", "latin.txt"), 2, "is not UTF-8 text (byte 2); save it as UTF-8"),
        (("a {QQ8}",), 3, "error: the text can't be spoken:"),
        (("hi", "--speed", "9"), 2, "--speed 9: must be from 0.25"),
        (("hi", "--attempts", "3"), 2, "--attempts needs --check"),
        (("hi", "--raw"), 2, "--raw is for standard output: add -o -"),
        (("hi", "-o", "-", "--srt"), 2, "standard output takes the sound alone"),
        (("hi", "-o", "a.wav", "--by-sentence"), 2, "-o a.wav is one; name a folder"),
        (("hi", "-o", "a", "--by-sentence", "--srt"), 2, "subtitles belong to a whole text"),
        (("hi", "-o", ""), 2, "-o is empty; name a .wav, a folder, or -"),
        (("hi", "--no-split", "--sentence-pause", "1"), 2, "and --no-split: a text in one go has no such"),
        (("hi", "-o", "a.mp3"), 2, "the suffix must be .wav"),
        (("hi", "--vocoder", "absent.pth"), 2, "absent.pth: no such file"),
        (("hi [pause soon]",), 3, "[pause soon]; write [pause 0.5s]"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    say, tmp_path: Path, arguments: Sequence[str], code: int, message: str
) -> None:
    (tmp_path / "latin.txt").write_bytes("s\u00fc\u00df".encode("latin-1"))
    said = say(*arguments)
    assert said.code == code and message in said.err, said
    assert "Traceback" not in said.err and not list(tmp_path.rglob("*.wav"))


@pytest.mark.filterwarnings("ignore:Empty filters")
def test_a_neural_vocoder_makes_the_sound(tiny: Tiny, say, tmp_path: Path) -> None:
    hp = tiny("filter_length=64,hop_length=8,win_length=64,n_mel_channels=80,max_decoder_steps=400")
    fine = save_voice(hp, load_corpus(hp), tmp_path / "fine")
    generator = write_golden(tmp_path / "generator")
    for name, vocoder in (("neural", str(generator)), ("plain", "griffin-lim")):
        assert say("hi", "-o", f"{name}.wav", "--vocoder", vocoder, "--no-enhancement", checkpoint=fine).code == 0
    neural, plain = ((tmp_path / f"{name}.wav").read_bytes() for name in ("neural", "plain"))
    assert len(neural) == len(plain) and neural != plain


def test_another_mel_than_the_vocoders_is_refused_before_a_sound_is_made(say, tmp_path: Path) -> None:
    said = say("hi", "-o", "a.wav", "--vocoder", str(write_golden(tmp_path / "generator")))
    assert said.code == 2 and "hop_length: 128 samples in the voice, 8 samples in the vocoder" in said.err


def test_symbols_that_training_never_met_are_named(voice: Path, say, tmp_path: Path) -> None:
    warned = say("a low zone?", "-o", "a.wav")
    assert warned.code == 0 and (tmp_path / "a.wav").exists()
    refused = say("{DH AH0} {G R IY1 N}.", "-o", "b.wav")
    assert refused.code == 3 and "the voice never met DH" in refused.err.replace("{", "").replace("}", "")
    assert not (tmp_path / "b.wav").exists()


def test_an_older_voice_that_counted_no_symbols_speaks_as_before(voice: Path, say, tmp_path: Path) -> None:
    saved = checkpoint_file.load(voice)
    info = saved.voice
    older = type(info)(**{**vars(info), "symbol_counts": None, "longest_text": None})
    path = checkpoint_dir.save(Checkpoint(saved.step, saved.model, older, None), tmp_path / "checkpoints")
    assert say("{DH AH0}.", "-o", "b.wav", checkpoint=path).code == 0
