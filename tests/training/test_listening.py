"""A listener beside training chooses `best`, holds nothing up, and changes no bit of what is trained."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train
from checkpointing import directory as checkpoint_dir
from checkpointing.background_writer import CheckpointWriter
from checkpointing.checkpoint_file import Checkpoint
from data_utils import load_corpus
from hparams import HParams
from listeners import packages
from listeners.recogniser import lacks
from monitoring.observer import RunInfo
from run_directory.records import Event
from support.corpora import tiny_settings
from support.runs import assert_same, logs_are_closed, trained, trainer_of, weights_of  # noqa: F401 - a fixture
from support.voices import save_voice
from training import listening
from training.listening import Child, Heard, Listening, Text, clearest_heard, listening_of
from training.trainer import Limits
from training.voice_info import voice_info_of

Tiny = Callable[..., HParams]
needs_recogniser = pytest.mark.skipif(bool(lacks("en")), reason="pip install -r requirements-eval.txt")


class Scripted(Child):
    """In place of a process: hears by step what a test says, and is done when the test says so."""

    heard: dict[int, Heard | str] = {}
    done = True

    def __init__(self, checkpoint: Path, language: str, texts: object) -> None:
        self.checkpoint, self.began = checkpoint, time.monotonic()

    @property
    def is_done(self) -> bool:
        return self.done

    def result(self) -> Heard | str:
        return self.heard[listening.step_of(self.checkpoint)]

    def end(self) -> None:
        pass


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setattr(listening, "Child", Scripted)
    monkeypatch.setattr(Scripted, "done", True)
    return Scripted


@pytest.fixture
def save(tiny: Tiny, tmp_path: Path) -> Callable[[int], Event]:
    hp = tiny()
    corpus = load_corpus(hp)

    def save_step(step: int) -> Event:
        return Event(step, "saved", save_voice(hp, corpus, tmp_path, step=step).name)

    return save_step


def listener(folder: Path, events: list[Event], *, every: int = 10) -> Listening:
    return Listening("en", [Text("hello", None)], every=every, directory=folder / "checkpoints", emit=events.append)


def test_best_moves_only_to_a_checkpoint_that_is_understood_as_well(
    save: Callable[[int], Event], scripted: type[Scripted], tmp_path: Path
) -> None:
    scripted.heard = {10: Heard(0.5, 0.3, 100), 20: Heard(0.2, 0.1, 100), 30: Heard(0.25, 0.1, 100)}
    scripted.heard[40] = Heard(0.2, 0.15, 100)
    events: list[Event] = []
    ears, best = listener(tmp_path, events), []
    for step in (10, 20, 30, 40):
        ears.on_record(save(step))
        ears.on_record(Event(step, "any", ""))
        best.append(checkpoint_dir.resolve(tmp_path).name)
    assert best == ["step_00000010.pt", "step_00000020.pt", "step_00000020.pt", "step_00000040.pt"]
    assert [(e.kind, e.data["is_best"]) for e in events] == [("heard", best) for best in (True, True, False, True)]
    assert events[2].message == (
        "step 30: 25.0 % of the words and 10.0 % of the characters misheard; step_00000020.pt stays best with 20.0 % "
        "of the words and 10.0 % of the characters misheard"
    )


def test_of_what_so_few_words_do_not_tell_apart_the_longest_trained_is_best(
    save: Callable[[int], Event], scripted: type[Scripted], tmp_path: Path
) -> None:
    """One standard error of 20 % of 100 words is 4 points, above the lowest so far and not above the last `best`."""
    heard = {10: 0.20, 20: 0.24, 30: 0.245, 40: 0.235, 50: 0.0, 60: 0.0, 70: 0.03}
    scripted.heard = {step: Heard(wer, 0.1, 100) for step, wer in heard.items()}
    events: list[Event] = []
    ears = listener(tmp_path, events)
    for step in heard:
        ears.on_record(save(step))
        ears.on_record(Event(step, "any", ""))
    assert [event.step for event in events if event.data["is_best"]] == [10, 20, 40, 50, 60]
    assert events[1].message == (
        "step 20: 24.0 % of the words and 10.0 % of the characters misheard; best, as 100 words don't tell it from "
        "20.0 % and it is trained longer"
    )


def test_training_never_waits_and_the_last_checkpoint_is_heard_in_the_end(
    save: Callable[[int], Event], scripted: type[Scripted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.heard = dict.fromkeys((10, 20, 24), Heard(0.5, 0.5, 100))
    events: list[Event] = []
    ears = listener(tmp_path, events)
    monkeypatch.setattr(scripted, "done", False)
    ears.on_record(save(4))  # too early
    for step in (10, 20, 24):
        ears.on_record(save(step))  # the first is still heard
    assert events == []
    monkeypatch.setattr(scripted, "done", True)
    ears.finish()
    assert [event.step for event in events] == [10, 24]


def test_what_a_launch_left_unheard_the_next_one_has_heard(
    save: Callable[[int], Event], scripted: type[Scripted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.heard = {10: Heard(0.5, 0.5, 100)}
    events: list[Event] = []
    ears = listener(tmp_path, events)
    monkeypatch.setattr(scripted, "done", False)
    ears.on_record(save(10))
    ears.finish(is_ending=lambda: True)
    assert events == [], "a signal ends it"
    monkeypatch.setattr(scripted, "done", True)
    for n_heard in (1, 1):  # once heard it is not heard again
        ears = listener(tmp_path, events)
        ears.on_start(RunInfo(tmp_path, tmp_path, {}, total_steps=10, first_step=10, command=""))
        ears.finish()
        assert [event.step for event in events] == [10] * n_heard
        (tmp_path / "events.jsonl").write_text(json.dumps({"kind": "heard", "step": 10}) + "\n")


def test_a_listener_that_fails_is_told_and_chooses_nothing(
    save: Callable[[int], Event], scripted: type[Scripted], tmp_path: Path
) -> None:
    scripted.heard = {10: "its process ended with code -9"}
    events: list[Event] = []
    ears = listener(tmp_path, events)
    ears.on_record(save(10))
    ears.finish()
    assert [event.kind for event in events] == ["not_heard"] and "code -9" in events[0].message
    assert clearest_heard(tmp_path / "checkpoints") is None


def test_once_heard_no_score_moves_best_and_what_is_heard_is_not_pruned(
    tiny: Tiny, save: Callable[[int], Event], scripted: type[Scripted], tmp_path: Path
) -> None:
    scripted.heard = {10: Heard(0.5, 0.3, 100)}
    ears, hp = listener(tmp_path, []), tiny()
    ears.on_record(save(10))
    ears.finish()
    writer = CheckpointWriter(tmp_path / "checkpoints", keep_last=2, milestone_every=0)
    voice = voice_info_of(hp, load_corpus(hp))
    for step in (20, 30, 40):
        writer.start(Checkpoint(step, {"weight": torch.ones(1)}, voice, None), is_best=True)
        written = writer.collect(wait=True)
        assert written is not None and not written.problem
    assert checkpoint_dir.resolve(tmp_path).name == "step_00000010.pt"
    left = [path.name for path in checkpoint_dir.all_checkpoints(tmp_path / "checkpoints")]
    assert left == ["step_00000040.pt", "step_00000030.pt", "step_00000010.pt"]


def test_a_run_that_goes_back_takes_the_checkpoint_in_hand_along_and_is_heard_anew(
    save: Callable[[int], Event], scripted: type[Scripted], tmp_path: Path
) -> None:
    scripted.heard = {10: Heard(0.5, 0.3, 100), 20: Heard(0.1, 0.1, 100), 12: Heard(0.4, 0.3, 100)}
    events: list[Event] = []
    ears = listener(tmp_path, events)
    ears.on_record(save(10))
    ears.on_record(save(20))
    checkpoint_dir.checkpoint_path(tmp_path / "checkpoints", 20).unlink()
    ears.on_record(save(12))
    ears.finish()
    assert [(event.kind, event.step) for event in events] == [("heard", 10), ("not_heard", 20), ("heard", 12)]
    assert "it is gone, as the run went back" in events[1].message
    assert checkpoint_dir.resolve(tmp_path).name == "step_00000012.pt"


def test_a_disk_that_refuses_is_told_and_does_not_end_training(
    save: Callable[[int], Event], scripted: type[Scripted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    scripted.heard = {10: Heard(0.5, 0.5, 100), 20: Heard(0.4, 0.4, 100)}
    events: list[Event] = []
    ears = listener(tmp_path, events)
    ears.on_record(save(10))
    ears.finish()
    monkeypatch.setattr(listening, "write_atomic", refuse)
    ears.on_record(save(20))
    ears.finish()
    saved = save(30)
    monkeypatch.setattr(checkpoint_dir, "write_atomic", refuse)
    ears.on_record(saved)
    ears.finish()
    assert [(event.kind, event.step) for event in events] == [("heard", 10), ("not_heard", 20), ("not_heard", 30)]
    assert all("No space left on device" in event.message for event in events[1:])
    assert checkpoint_dir.resolve(tmp_path).name == "step_00000010.pt"


@pytest.mark.slow
@needs_recogniser
def test_the_listener_hears_checkpoints_and_chooses_the_best(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("listen_every=2,iters_per_checkpoint=2")
    trainer = trainer_of(hp, tmp_path / "heard", limits=Limits(max_steps=2))
    ears = listening_of(hp, trainer.corpus, directory=tmp_path / "heard", emit=trainer.recorder.emit)
    assert ears is not None
    trainer.recorder.observers = [ears]
    trainer.fit()
    ears.finish()
    ears.close()
    (event,) = trainer.events("heard")
    assert event.step == 2 and event.data["is_best"] and event.data["texts"] == 2 and event.data["wer"] > 0.5  # noise
    pointer = json.loads((tmp_path / "heard/checkpoints/clearest.json").read_text())
    told = {name: event.data[name] for name in ("wer", "cer", "n_words")}
    assert pointer == {"file": "step_00000002.pt", **told, "lowest_wer": event.data["wer"]}
    deaf = trained(tiny("iters_per_checkpoint=2"), tmp_path / "deaf", 2)
    assert_same(weights_of(trainer), weights_of(deaf))


@pytest.mark.spec
@needs_recogniser
def test_the_child_process_says_in_one_line_what_a_user_can_mend(tmp_path: Path) -> None:
    child = Child(tmp_path / "step_00000001.pt", "en", [Text("hello", None)])
    while not child.is_done:
        time.sleep(0.1)
    said = child.result()
    assert isinstance(said, str) and said.endswith("no such checkpoint; name a .pt file or a run directory")


def test_without_its_packages_it_is_off_and_says_so(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    hp = tiny("listen_every=2")
    with caplog.at_level(logging.WARNING):
        assert listening_of(hp, load_corpus(hp), directory=tmp_path, emit=lambda event: None) is None
    assert "nobody listens, `best` goes by the score: counting word errors needs jiwer" in caplog.text
    assert listening_of(tiny(), load_corpus(hp), directory=tmp_path, emit=lambda event: None) is None


@pytest.mark.spec
@needs_recogniser
def test_a_run_ends_when_its_last_checkpoint_was_heard(corpus_folder: Path, tmp_path: Path) -> None:
    settings = tiny_settings(corpus_folder, "listen_every=1,validate_interval=2")
    command = ["-o", str(tmp_path / "run"), "-l", str(tmp_path / "logs"), "--max-steps", "4", "--hparams", settings]
    assert train.main(command) == 0
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    heard = [event for event in events if event.get("kind") == "heard"]
    assert heard[-1]["step"] == 4 and events[-1]["kind"] == "ended"
    best = [event for event in heard if event["data"]["is_best"]][-1]
    assert checkpoint_dir.resolve(tmp_path / "run").name == f"step_{best['step']:08d}.pt"
