"""The run directory: which one, what it may go on from, what --fresh does, and when the demo corpus stands in."""

import json
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import train
from checkpointing import directory as checkpoint_dir
from checkpointing.background_writer import CheckpointWriter
from checkpointing.checkpoint_file import Checkpoint
from common.errors import NothingToRecover, UserError
from config.hparams_diff import differences
from data_utils import load_corpus
from hparams import HParams, create_hparams, resolve_hparams
from recovery.diagnosis import diagnose
from run_directory.metrics_log import read_metrics
from run_directory.paths import DEMO, RunPaths, move_aside, run_paths
from run_directory.run_info import launch_id, read_run_info, write_run_info
from support.corpora import tiny_settings
from support.limits import disk_that_takes
from support.runs import run_to
from training.options import Options
from training.resume import RunStart, check_resumable, is_demo_wanted, is_fresh_start, kept_front_end
from training.session import build_trainer, fit
from training.trainer import Trainer


def saved(settings: str = "") -> dict[str, object]:
    return create_hparams(settings).canonical()


def write_run(directory: Path, **info: object) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text(json.dumps({"launch_id": launch_id(), **info}))
    (directory / "metrics.jsonl").write_text("old\n")


# ---- which directory


def test_a_setting_names_its_own_directory() -> None:
    paths = [run_paths(None, None, create_hparams(s)) for s in ("", "", "learning_rate=2e-3")]
    assert paths[0] == paths[1] != paths[2]
    assert paths[0].directory.name == paths[0].log_directory.name and not paths[0].is_chosen


def test_given_directories_are_taken_as_they_are() -> None:
    paths = run_paths(Path("a"), Path("b"), create_hparams())
    assert paths == RunPaths(Path("a"), Path("b"), True)


# ---- what may go on


@pytest.mark.parametrize(
    ("settings", "group"),
    [
        ("decoder_rnn_dim=512", "arch"),
        ("n_frames_per_step=2", "arch"),
        ("mel_fmax=7000", "features"),
        ("batch_size=7", "run"),
        ("text_cleaners=[basic_cleaners]", "features"),
    ],
)
def test_differences_are_grouped_by_what_they_affect(settings: str, group: str) -> None:
    found = differences(create_hparams(settings), saved())
    assert [name for name, lines in found.items() if lines] == [group]
    assert found[group][0].startswith(settings.partition("=")[0] + ": ")


@pytest.mark.parametrize("settings", ["", "epochs=3", "validate_interval=5", "gate_threshold=0.4", "num_workers=2"])
def test_fields_that_may_change_are_no_difference(settings: str) -> None:
    found = differences(create_hparams(settings), saved())
    assert found == {"arch": [], "features": [], "run": []}


def test_fields_that_an_older_version_lacks_are_no_difference() -> None:
    older = {name: value for name, value in saved().items() if name != "weight_decay"}
    assert differences(create_hparams("weight_decay=0.1"), older)["run"] == []


def check(settings: str, *, corpus_differs: bool = False, with_changes: bool = False) -> None:
    check_resumable(
        create_hparams(settings),
        saved(),
        corpus_differs=corpus_differs,
        with_changes=with_changes,
        where=Path("output/x"),
    )


def test_another_setting_is_refused_with_all_differences_and_the_ways_on() -> None:
    with pytest.raises(UserError, match="output/x was trained with other settings") as caught:
        check("batch_size=7,learning_rate=2e-3", corpus_differs=True)
    for part in ("batch_size: 48 there, 7 here", "learning_rate: 0.001 there, 0.002 here", "the training data"):
        assert part in str(caught.value)
    for way in ("--resume-with-changes", "--fresh", "another -o"):
        assert way in str(caught.value)
    check("batch_size=7,learning_rate=2e-3", corpus_differs=True, with_changes=True)


def test_a_place_that_is_no_directory_is_refused_for_both_at_once(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="(?s)-o .*taken is a file.*-l .*taken is a file, not a directory"):
        run_paths(tmp_path / "taken", tmp_path / "taken" / "deeper", create_hparams())
    run_paths(tmp_path / "not" / "yet", tmp_path, create_hparams())
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff"])
def test_a_damaged_run_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match="run.json is damaged .*; move it away to start anew"):
        read_run_info(tmp_path)


@pytest.mark.parametrize("with_changes", [False, True])
def test_another_shape_is_refused_whatever_was_asked(with_changes: bool) -> None:
    with pytest.raises(UserError, match="a model of another shape") as caught:
        check("prenet_dim=99", with_changes=with_changes)
    for way in ("--fresh", "another -o", "--warm-start"):
        assert way in str(caught.value)


def test_the_same_setting_goes_on() -> None:
    check("")


# ---- starting anew


def test_what_is_moved_aside_is_still_there(tmp_path: Path) -> None:
    contents = set()
    for i in range(3):  # within one second
        write_run(tmp_path, number=i)
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/step_00000001.pt").write_text(str(i))
        (tmp_path / "notes.txt").write_text("mine")
        aside = move_aside(tmp_path)
        assert aside is not None and aside.parent == tmp_path / "previous"
        contents.add((aside / "checkpoints/step_00000001.pt").read_text())
        assert not (tmp_path / "run.json").exists() and (tmp_path / "notes.txt").read_text() == "mine"
    kept = (tmp_path / "previous").glob("*/checkpoints/*.pt")
    assert contents == {path.read_text() for path in kept} == {"0", "1", "2"}


def test_nothing_is_moved_aside_where_there_is_nothing(tmp_path: Path) -> None:
    assert move_aside(tmp_path / "new") is None and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("variable", "first", "again", "acts"),
    [
        ("TACOTRON2_LAUNCH_ID", "a", "a", False),
        ("TACOTRON2_LAUNCH_ID", "a", "b", True),
        ("TORCHELASTIC_RUN_ID", "a", "a", False),
        ("TORCHELASTIC_RUN_ID", "a", "b", True),
        ("TORCHELASTIC_RUN_ID", "none", "none", False),  # the same parent process
    ],
)
def test_fresh_acts_once_a_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, first: str, again: str, acts: bool
) -> None:
    monkeypatch.setenv(variable, first)
    write_run(tmp_path)
    monkeypatch.setenv(variable, again)
    assert is_fresh_start(tmp_path, asked=True) == acts


def test_torchruns_nameless_launches_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    write_run(tmp_path, launch_id=f"none-{os.getppid() + 1}")
    assert is_fresh_start(tmp_path, asked=True)


def test_bf16_is_proposed_when_a_run_begins_and_not_when_it_goes_on(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.session.bf16_hint", lambda hp, device: "this processor multiplies in bf16")
    settings = tiny_settings(corpus_folder)
    for steps in (1, 2):
        command = ["-o", str(tmp_path / "run"), "-l", str(tmp_path / "logs"), "--max-steps", str(steps)]
        assert train.main([*command, "--hparams", settings]) == 0
        assert (tmp_path / "logs" / "train.log").read_text().count("multiplies in bf16") == 1


def test_without_fresh_a_run_goes_on(tmp_path: Path) -> None:
    write_run(tmp_path, launch_id="an earlier one")
    assert not is_fresh_start(tmp_path, asked=False)


def test_a_launch_id_is_handed_to_restarts() -> None:
    assert launch_id() == launch_id() == os.environ["TACOTRON2_LAUNCH_ID"]


def test_a_damaged_run_json_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        read_run_info(tmp_path)


def test_attempts_are_counted(tmp_path: Path) -> None:
    hp = create_hparams()
    attempts = [write_run_info(tmp_path, hp, data="x") for _ in range(3)]
    assert attempts == [1, 2, 3]
    again = resolve_hparams(hparams_file=tmp_path / "hparams.yaml").hparams
    assert again == hp


# ---- the demo corpus


@pytest.mark.parametrize(
    ("overrides", "existing", "before", "wanted"),
    [
        ("", None, None, True),
        ("batch_size=4", None, None, True),
        ("training_files=a.txt", None, None, False),
        ("validation_files=a.txt", None, None, False),
        ("training_files=data/dataset/train.csv", None, None, False),  # named, be it with the default's value
        ("", "data/dataset/train.csv", None, False),
        ("", "data/dataset/val.csv", None, False),
        ("", None, DEMO, True),
        ("", None, "data/dataset/train.csv", False),  # the run's own data has gone: an error, not other data
    ],
)
def test_the_demo_stands_in_only_where_nothing_is_configured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: str,
    existing: str | None,
    before: str | None,
    wanted: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    if existing:
        Path(existing).parent.mkdir(parents=True)
        Path(existing).write_text("")
    if before:
        write_run(tmp_path / "run", data=before)
    settings = resolve_hparams(overrides=overrides or None)
    assert is_demo_wanted(settings, tmp_path / "run") == wanted


# ---- going on, end to end


TWO_STEPS = Options(max_steps=2)


def test_a_checkpoint_of_another_run_goes_on_with_changes_where_asked(
    tmp_path: Path, tiny: Callable[..., HParams]
) -> None:
    run_to(tiny(), tmp_path / "a", TWO_STEPS)
    hp, source = tiny("learning_rate=2e-3"), tmp_path / "a"
    with pytest.raises(UserError, match="--resume-with-changes"):
        run_to(hp, tmp_path / "b", Options(checkpoint=source))
    assert run_to(hp, tmp_path / "c", Options(checkpoint=source, resume_with_changes=True, max_steps=3)) == 3


def test_a_fresh_start_may_take_its_weights_from_the_run_it_moves_aside(
    tmp_path: Path, tiny: Callable[..., HParams]
) -> None:
    hp = tiny()
    run_to(hp, tmp_path, TWO_STEPS)
    options = Options(checkpoint=tmp_path, warm_start=True, max_steps=1)
    assert run_to(hp, tmp_path, options, is_fresh=True) == 1
    assert len(list((tmp_path / "previous").glob("*/checkpoints/step_00000002.pt"))) == 1


def test_a_refused_fresh_start_leaves_the_old_run_where_it_is(tmp_path: Path, tiny: Callable[..., HParams]) -> None:
    run_to(tiny(), tmp_path, TWO_STEPS)
    (tmp_path / "foreign.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="foreign.pt"):
        run_to(tiny(), tmp_path, Options(checkpoint=tmp_path / "foreign.pt"), is_fresh=True)
    assert not (tmp_path / "previous").exists()


def test_a_run_whose_checkpoints_are_all_damaged_is_not_silently_begun_anew(
    tmp_path: Path, tiny: Callable[..., HParams]
) -> None:
    hp = tiny()
    run_to(hp, tmp_path, TWO_STEPS)
    for path in (tmp_path / "checkpoints").glob("*.pt"):
        os.truncate(path, 10)
    with pytest.raises(NothingToRecover, match="checkpoints are damaged.*--fresh"):
        run_to(hp, tmp_path, TWO_STEPS)


def test_a_run_killed_before_its_first_checkpoint_has_each_step_once(
    tmp_path: Path, tiny: Callable[..., HParams]
) -> None:
    hp = tiny()
    run_to(hp, tmp_path, TWO_STEPS)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    run_to(hp, tmp_path, TWO_STEPS)
    kinds = [(line["type"], line["step"], line["attempt"]) for line in read_metrics(tmp_path)]
    assert kinds == [("step", 2, 2), ("eval", 2, 2)]


def test_another_language_is_refused_before_texts_are_read_by_the_voices_own(
    tmp_path: Path, tiny: Callable[..., HParams]
) -> None:
    run_to(tiny(), tmp_path, TWO_STEPS)
    start, hp = RunStart(tmp_path, False, "test"), tiny("language=ru,text_cleaners=[]")
    with pytest.raises(UserError, match="language: en there, ru here"):
        kept_front_end(start, hp, Options())
    for same in (kept_front_end(start, hp, Options(resume_with_changes=True)),
                 kept_front_end(start, tiny("learning_rate=2e-3"), Options())):  # fmt: skip
        assert same is not None and same.language.code == "en"  # what else differs is told with all the rest, later


def test_with_other_batches_an_unfinished_epoch_ends_and_the_run_goes_on(
    tmp_path: Path, tiny: Callable[..., HParams]
) -> None:
    run_to(tiny("batch_size=1"), tmp_path, Options(max_steps=4))
    hp = tiny("batch_size=4")
    assert run_to(hp, tmp_path, Options(max_steps=6, resume_with_changes=True)) == 6


def test_training_goes_on_from_the_newest_of_a_run_and_says_so(
    tmp_path: Path, tiny: Callable[..., HParams], caplog: pytest.LogCaptureFixture
) -> None:
    hp = tiny("iters_per_checkpoint=1")
    run_to(hp, tmp_path / "a", Options(max_steps=3))
    directory = tmp_path / "a" / "checkpoints"
    checkpoint_dir.point(directory, "best", checkpoint_dir.checkpoint_path(directory, 2))
    with caplog.at_level(logging.INFO, "tacotron2"):
        run_to(hp, tmp_path / "b", Options(checkpoint=tmp_path / "a", max_steps=4))
    assert "going on from step 3" in caplog.text
    assert f"-c {tmp_path / 'a'}: its newest checkpoint, step_00000003.pt (the best is step_00000002.pt)" in caplog.text
    assert checkpoint_dir.resolve(tmp_path / "a").name == "step_00000002.pt"  # for speech


def test_a_newest_checkpoint_that_is_damaged_is_no_obstacle_to_c(tmp_path: Path, tiny: Callable[..., HParams]) -> None:
    hp = tiny("iters_per_checkpoint=1")
    run_to(hp, tmp_path / "a", Options(max_steps=3))
    os.truncate(checkpoint_dir.checkpoint_path(tmp_path / "a" / "checkpoints", 3), 100)
    assert run_to(hp, tmp_path / "b", Options(checkpoint=tmp_path / "a", max_steps=4)) == 4


# ---- saves that fail at the end


def test_a_run_whose_last_saves_failed_ends_with_an_error_that_names_the_lost_steps(
    tmp_path: Path, tiny: Callable[..., HParams]
) -> None:
    hp = tiny("iters_per_checkpoint=2")

    class FullFromStep3On(CheckpointWriter):
        def start(self, checkpoint: Checkpoint, *, is_best: bool) -> None:
            with disk_that_takes(100) if checkpoint.step > 2 else nullcontext():
                super().start(checkpoint, is_best=is_best)
                assert self._pending is not None
                self._pending.result()

    def make_trainer(*arguments: Any, directory: Path, **more: Any) -> Trainer:
        writer = FullFromStep3On(directory / "checkpoints", keep_last=3, milestone_every=0)
        return Trainer(*arguments, directory=directory, writer=writer, **more)

    start = RunStart(tmp_path, False, "test")
    trainer = build_trainer(hp, load_corpus(hp), start, Options(max_steps=5), make_trainer=make_trainer)
    told = r"not saved: steps 3 to 5 \(.*too large\); free space .* and run the same command"
    with pytest.raises(UserError, match=told):
        fit(trainer, RunPaths(tmp_path, tmp_path / "logs", True))
    assert diagnose(tmp_path).state == "interrupted"
    assert "steps 3 to 5 were not saved" in diagnose(tmp_path).why
    assert run_to(hp, tmp_path, Options(max_steps=5)) == 5
    assert diagnose(tmp_path).state == "finished"
