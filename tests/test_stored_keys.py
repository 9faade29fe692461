"""Everything that a checkpoint or run.json stores is read by somebody: the keys, and who reads each."""

import ast
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from data_utils import load_corpus
from hparams import HParams
from monitoring.observer import Recorder
from recovery.ladder import RecoveryState
from run_directory.metrics_log import RunLog
from run_directory.paths import RunPaths
from support.paths import REPOSITORY
from support.runs import CPU, model_of
from training.options import Options
from training.resume import RunStart
from training.session import build_trainer, fit
from training.trainer import Limits, Trainer

RUN_INFO = {
    "command": "recovery/diagnosis.py",
    "attempt": "run_directory/run_info.py",
    "working_directory": "recovery/diagnosis.py",
    "host": "recovery/diagnosis.py",
    "pid": "recovery/diagnosis.py",
    "processes": "recovery/diagnosis.py",
    "launch_id": "training/resume.py",
    "data": "training/resume.py",
    "git_revision": "monitoring/report/page.py",
    "versions": "monitoring/report/page.py",
}
CHECKPOINT = {
    "format": "checkpointing/checkpoint_file.py",
    "step": "checkpointing/checkpoint_file.py",
    "model": "checkpointing/checkpoint_file.py",
    "training": "checkpointing/checkpoint_file.py",
    "voice": "checkpointing/checkpoint_file.py",
}
VOICE = {
    "hparams": "speech/voice.py",
    "symbols": "speech/voice.py",
    "mel_fingerprint": "speech/voice.py",
    "mel_mean": "speech/voice.py",
    "mel_std": "speech/voice.py",
    "frames_per_symbol": "speech/voice.py",
    "frames_per_step": "speech/voice.py",
    "speakers": "speech/voice.py",
    "front_end": "speech/voice.py",
    "symbol_counts": "speech/voice.py",
    "longest_text": "speech/voice.py",
}
TRAINING = {
    "optimizer": "training/train_step.py",
    "learning_rate": "training/train_step.py",
    "loss_scale": "training/train_step.py",
    "auxiliary": "training/train_step.py",
    "progress": "training/trainer.py",
    "recovery": "training/fault_handling.py",
    "torch_rng": "parallel/process_group.py",
    "cuda_rng": "parallel/process_group.py",
    "other_processes": "training/trainer.py",
    "corpus": "training/resume.py",
}
MANIFEST = {"sha256": "checkpointing/checkpoint_file.py", "bytes": "checkpointing/checkpoint_file.py"}
POINTER = {"file": "checkpointing/directory.py"}
PROGRESS = ("training/trainer.py", "training/progress.py", "training/fault_handling.py", "training/rollback.py")


@pytest.fixture(scope="module")
def run(tiny: Callable[..., HParams], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    hp = tiny()
    trainer = build_trainer(hp, load_corpus(hp), RunStart(directory, False, "test"), Options(max_steps=1))
    assert fit(trainer, RunPaths(directory, directory / "logs", is_chosen=True)) == 0
    return directory


def words_in(path: Path) -> set[str]:
    """Attributes and texts of a file: how a key can be read."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} | {
        node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_the_keys_that_are_stored_are_these(run: Path) -> None:
    path = checkpoint_dir.checkpoint_path(run / "checkpoints", 1)
    content = checkpoint_file.read(path)
    assert json.loads((run / "run.json").read_text()).keys() == RUN_INFO.keys()
    assert content.keys() == CHECKPOINT.keys() and content["voice"].keys() == VOICE.keys()
    assert content["training"].keys() == TRAINING.keys()
    assert json.loads(path.with_suffix(".json").read_text()).keys() == MANIFEST.keys()
    assert json.loads((run / "checkpoints" / "last.json").read_text()).keys() == POINTER.keys()


@pytest.mark.parametrize("table", [RUN_INFO, CHECKPOINT, VOICE, TRAINING, MANIFEST, POINTER])
def test_each_key_has_a_reader(table: dict[str, str]) -> None:
    assert [key for key, reader in table.items() if key not in words_in(REPOSITORY / reader)] == []


def test_each_counter_of_progress_and_of_the_policy_is_read(run: Path) -> None:
    content = checkpoint_file.read(checkpoint_dir.checkpoint_path(run / "checkpoints", 1))["training"]
    readers = set.union(*(words_in(REPOSITORY / name) for name in PROGRESS))
    assert set(content["progress"]) <= readers
    assert content["recovery"].keys() == asdict(RecoveryState()).keys() <= words_in(REPOSITORY / "recovery/ladder.py")


def test_a_checkpoint_with_keys_of_older_versions_goes_on(run: Path, tiny: Callable[..., HParams]) -> None:
    content = checkpoint_file.read(checkpoint_dir.checkpoint_path(run / "checkpoints", 1))
    voice = checkpoint_file.VoiceInfo.of({**content["voice"], "budget_offset": 30})
    hp = tiny()
    corpus = load_corpus(hp)
    recorder = Recorder(RunLog(run / "again", attempt=1))
    trainer = Trainer(
        hp, model_of(hp), corpus, directory=run / "again", recorder=recorder, device=CPU, limits=Limits(max_steps=2)
    )
    trainer.restore(checkpoint_file.Checkpoint(1, content["model"], voice, content["training"]))
    assert trainer.fit().step == 2
    recorder.close()
