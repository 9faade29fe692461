"""Speakers: which filelists agree, whose row is whose, what a speaker changes, and names that outlive their rows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing import weights as checkpoint_weights
from checkpointing.checkpoint_file import Checkpoint
from common.errors import DataError, UserError
from corpus.loader import make_loader
from data_utils import Corpus, load_corpus, plan_batches
from evaluation.judge import judge
from hparams import HParams, create_hparams
from model import DecodeLimits, Tacotron2
from monitoring.observer import Recorder
from run_directory.metrics_log import RunLog
from speech.decoding import speak
from speech.voice import Speaker
from support.corpora import TINY, write_corpus
from text.symbols import symbols
from training.options import Options
from training.resume import own_checkpoint
from training.trainer import Limits, Trainer
from training.validation import references_of
from training.voice_info import voice_info_of

CPU = torch.device("cpu")
Lists = Callable[..., HParams]
TRAINING, VALIDATION = ("bert", "anna", "bert", "anna", "anna"), ("anna", "bert")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("speakers") / "data")


@pytest.fixture
def lists(recordings: Path, tmp_path: Path) -> Lists:
    """`lists(training names, validation names, overrides)`: filelists with these third columns, "" for none."""

    def make(
        training: tuple[str, ...] = TRAINING, validation: tuple[str, ...] = VALIDATION, overrides: str = ""
    ) -> HParams:
        for name, speakers in (("train", training), ("val", validation)):
            lines = (recordings / f"{name}.txt").read_text().splitlines()
            named = [f"{line}|{who}" if who else line for line, who in zip(lines, speakers, strict=True)]
            (tmp_path / f"{name}.txt").write_text("\n".join(named) + "\n")
        data = f"training_files={tmp_path}/train.txt,validation_files={tmp_path}/val.txt,dataset_path={recordings}"
        return create_hparams(",".join(filter(None, [TINY, data, overrides])))

    return make


def model_of(hp: HParams, n_speakers: int = 2) -> Tacotron2:
    torch.manual_seed(hp.seed)
    return Tacotron2(hp, n_speakers=n_speakers)


def trained(hp: HParams, directory: Path, steps: int, *, saved: Checkpoint | None = None) -> Trainer:
    corpus = load_corpus(hp)
    recorder = Recorder(RunLog(directory, attempt=1))
    trainer = Trainer(hp, model_of(hp, len(corpus.speakers)), corpus, directory=directory, recorder=recorder,
                      limits=Limits(max_steps=steps), device=CPU)  # fmt: skip
    if saved is not None:
        torch.manual_seed(99)  # whatever the new process has drawn meanwhile
        trainer.restore(saved)
    trainer.fit()
    recorder.close()
    return trainer


def save_voice(hp: HParams, corpus: Corpus, run: Path) -> Path:
    weights = model_of(hp, len(corpus.speakers)).state_dict()
    return checkpoint_dir.save(Checkpoint(3, weights, voice_info_of(hp, corpus), None), run / "checkpoints")


# -- filelists


def test_speakers_are_those_of_the_training_list_in_alphabetical_order(lists: Lists) -> None:
    corpus = load_corpus(lists())
    assert corpus.speakers == ("anna", "bert")
    assert [corpus.train[i].speaker for i in range(5)] == [1, 0, 1, 0, 0]
    assert [corpus.validation[i].speaker for i in range(2)] == [0, 1]


def test_a_batch_says_who_speaks_each_utterance(lists: Lists) -> None:
    hp = lists()
    corpus = load_corpus(hp)
    rows = {corpus.train[i].utterance_id: corpus.train[i].speaker for i in range(5)}
    for batch in make_loader(corpus.train, plan_batches(corpus.train, hp), epoch=0, r=1):
        assert batch.speakers is not None and batch.to("cpu").speakers is not None
        assert batch.speakers.tolist() == [rows[name] for name in batch.utterance_ids]


def test_without_names_there_is_nobody(lists: Lists) -> None:
    hp = lists(("",) * 5, ("",) * 2)
    corpus = load_corpus(hp)
    (batch, *_) = make_loader(corpus.train, plan_batches(corpus.train, hp), epoch=0, r=1)
    assert corpus.speakers == () and batch.speakers is None and references_of(corpus)[0].speaker is None
    assert voice_info_of(hp, corpus).speakers == []


@pytest.mark.parametrize(
    ("training", "validation", "place", "expected"),
    [
        (("a", "a", "", "a", "a"), ("a", "a"), "train.txt:3", "names no speaker, as 6 other lines do; add |speaker"),
        (("a",) * 5, ("", "a"), "val.txt:1", "names no speaker"),
        (("", "", "", "a", ""), ("", ""), "train.txt:4", "names the speaker 'a', most lines name none"),
        (("",) * 5, ("", "a"), "val.txt:2", "names the speaker 'a', most lines name none"),
        (("a", "b", "b", "a", "a"), ("a", "c"), "val.txt:2", "training has no line of speaker 'c' (it has a, b)"),
    ],
)
def test_lists_that_disagree_are_a_data_error(
    lists: Lists, training: Any, validation: Any, place: str, expected: str
) -> None:
    hp = lists(training, validation)
    with pytest.raises(DataError) as caught:
        load_corpus(hp)
    assert place in str(caught.value) and expected in str(caught.value) and "1 speaker" in str(caught.value)
    corpus = load_corpus(hp, skip_bad=True)  # and without that line all is well
    assert len(corpus.problems) == 1 and len(corpus.train) + len(corpus.validation) == 6


def test_the_corpus_is_another_one_with_other_speakers(lists: Lists) -> None:
    first = load_corpus(lists()).fingerprint
    assert first != load_corpus(lists(("bert",) * 5, ("bert",) * 2)).fingerprint


# -- the model


def test_two_speakers_say_the_same_in_two_ways(lists: Lists) -> None:
    hp = lists()
    model = model_of(hp).eval()
    references = references_of(load_corpus(hp))[:1] * 2
    limits = DecodeLimits(max_frames=10, gate_threshold=1.0, dwell_frames=1000)
    anna, bert = (
        speak(model, [replace(references[0], speaker=row)], limits, seed=1, device=CPU)[0].mel for row in (0, 1)
    )
    assert (anna - bert).abs().max() > 1e-4
    model.speaker_embedding.table.weight.data[1] = model.speaker_embedding.table.weight.data[0]  # type: ignore
    same = speak(model, [replace(references[0], speaker=1)], limits, seed=1, device=CPU)[0].mel
    assert torch.equal(anna, same)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_text_said_in_two_ways_is_learnt_as_who_says_which(lists: Lists, seed: int) -> None:
    """Nothing but the speaker tells the two utterances apart: the decoder is not shown the recordings."""
    hp = lists(overrides=f"dropout_rate=0,seed={seed}")
    model = model_of(hp)
    mel = torch.ones(2, hp.n_mel_channels, 12) * torch.tensor([1.0, -1.0])[:, None, None]
    text, lengths = torch.full((2, 5), 11), (torch.tensor([5, 5]), torch.tensor([12, 12]))

    def error(speakers: list[int]) -> torch.Tensor:
        said = model(text, lengths[0], mel, lengths[1], speakers=torch.tensor(speakers), teacher=torch.zeros_like(mel))
        return (said.mel - mel).square().mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        error([0, 1]).backward()
        optimizer.step()
    model.eval()
    assert error([0, 1]) < 0.5 < 2.0 < error([1, 0])  # who knows no speaker does no better than 1


def test_the_width_of_a_speakers_vector_is_that_of_the_table(lists: Lists) -> None:
    hp = lists(overrides="speaker_embedding_dim=5")
    weights = model_of(hp, 3).state_dict()
    assert weights["speaker_embedding.table.weight"].shape == (3, 5)
    alone = model_of(hp, 0).state_dict()
    assert all(torch.equal(weights[key], tensor) for key, tensor in alone.items())
    assert {key.split(".")[0] for key in weights.keys() - alone.keys()} == {"speaker_embedding"}


def test_going_on_is_exact_with_style_and_speakers(lists: Lists, tmp_path: Path) -> None:
    hp = lists(overrides="use_gst=True,ref_enc_filters=[4,4],iters_per_checkpoint=2,keep_checkpoints=9")
    whole = trained(hp, tmp_path / "whole", 4)
    trained(hp, tmp_path / "parts", 2)
    newest = checkpoint_dir.newest_good(tmp_path / "parts" / "checkpoints")
    assert newest is not None
    parts = trained(hp, tmp_path / "parts", 4, saved=checkpoint_file.load(newest))
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[key]), key


def test_mixed_precision_trains_style_and_speakers(lists: Lists, tmp_path: Path) -> None:
    trainer = trained(lists(overrides="use_gst=True,ref_enc_filters=[4,4],fp16_run=True"), tmp_path, 2)
    assert trainer.progress.step == 2 and checkpoint_file.all_finite(trainer.model.state_dict())
    assert trainer.train_step.optimizer.state and "skipped" not in (tmp_path / "events.jsonl").read_text()


# -- checkpoints


def test_rows_come_over_by_name(lists: Lists, tmp_path: Path) -> None:
    hp = lists()
    content = checkpoint_file.read(save_voice(hp, load_corpus(hp), tmp_path))
    theirs, model = content["model"]["speaker_embedding.table.weight"], model_of(hp, 3)
    torch.nn.init.constant_(model.get_parameter("speaker_embedding.table.weight"), 9.0)
    done = checkpoint_weights.warm_start(model, content, ignore=[], symbols=symbols, speakers=("bert", "carl", "anna"))
    ours = model.get_parameter("speaker_embedding.table.weight")
    assert torch.equal(ours[0], theirs[1]) and torch.equal(ours[2], theirs[0]) and (ours[1] == 9.0).all()
    assert done.speaker_rows == 2 and "2 speakers copied by name" in str(done) and done.reshaped == []
    ignoring = ["speaker_embedding.table.weight"]
    assert (
        checkpoint_weights.warm_start(model, content, ignore=ignoring, symbols=symbols, speakers=("anna",)).speaker_rows
        == 0
    )


def test_every_weight_of_a_single_voice_fits_into_one_of_many_in_style(lists: Lists) -> None:
    hp = lists(overrides="use_gst=True,ref_enc_filters=[4]")
    single = model_of(hp.model_copy(update={"use_gst": False}), 0).state_dict()
    done = checkpoint_weights.warm_start(model_of(hp), single, ignore=[], symbols=symbols, speakers=("anna", "bert"))
    assert done.reshaped == [] and set(done.loaded) == set(single)
    assert {key.split(".")[0] for key in done.missing} == {"gst", "tpgst", "speaker_embedding"}


def test_going_on_with_other_speakers_is_refused(lists: Lists, tmp_path: Path) -> None:
    hp = lists()
    directory = tmp_path / "run"
    trained(hp, directory, 1)
    other = replace(load_corpus(hp), speakers=("anna", "carl"))
    options = Options(output=directory, resume_with_changes=True)
    with pytest.raises(UserError, match=r"of other speakers \(anna, bert there, anna, carl in the filelists\)"):
        own_checkpoint(directory, hp, other, options)


def test_an_older_checkpoint_names_nobody(lists: Lists, tmp_path: Path) -> None:
    hp = lists(("",) * 5, ("",) * 2)
    path = save_voice(hp, load_corpus(hp), tmp_path)
    content = checkpoint_file.read(path)
    del content["voice"]["speakers"]
    torch.save(content, tmp_path / "old.pt")
    assert Speaker.load(tmp_path / "old.pt").names == ()


# -- speaking


def test_a_voice_of_several_wants_to_know_which(lists: Lists, tmp_path: Path) -> None:
    hp = lists()
    voice = Speaker.load(save_voice(hp, load_corpus(hp), tmp_path))
    anna, bert = (voice.speak(["hi"], name=name, n_iter=1)[0].sample.mel for name in ("anna", "bert"))
    assert not np.array_equal(anna[:, :5], bert[:, :5])
    with pytest.raises(UserError, match=r"several speakers; choose one: --speaker anna \| bert"):
        voice.speak(["hi"])
    with pytest.raises(UserError, match="--speaker carl: no such speaker; the voice has anna, bert"):
        voice.speak(["hi"], name="carl")


def test_a_voice_of_one_needs_no_name(lists: Lists, tmp_path: Path) -> None:
    hp = lists(("bert",) * 5, ("bert",) * 2)
    voice = Speaker.load(save_voice(hp, load_corpus(hp), tmp_path))
    assert voice.row_of(None) == voice.row_of("bert") == 0
    with pytest.raises(UserError, match="trained without speaker names"):
        replace(voice, names=()).row_of("bert")


@pytest.mark.slow
def test_judging_lets_each_line_be_said_by_its_speaker(lists: Lists, tmp_path: Path, recordings: Path) -> None:
    hp = lists()
    path = save_voice(hp, load_corpus(hp), tmp_path / "run")
    how: dict[str, Any] = {"dataset_path": recordings, "n": 2, "seeds": [1]}
    rows = []
    for names in (("anna", "bert"), ("bert", "anna")):
        lines = [f"wavs/{i}.wav|the same words|{name}\n" for i, name in enumerate(names)]
        (tmp_path / "test.txt").write_text("".join(lines))
        rows.append(judge(path, filelist=tmp_path / "test.txt", output=tmp_path / names[0], **how).rows)
    assert all(a != b for a, b in zip(*rows, strict=True))
    assert rows[0][0]["id"] == rows[1][0]["id"] == "0"
    (tmp_path / "test.txt").write_text("wavs/0.wav|hi|carl\nwavs/1.wav|hi\n")
    with pytest.raises(DataError) as caught:
        judge(path, filelist=tmp_path / "test.txt", output=tmp_path / "no", **how)
    said = str(caught.value)
    assert "the voice has the speakers anna, bert" in said
    assert "test.txt:1: names the speaker 'carl'" in said and "test.txt:2: names no speaker" in said


@pytest.mark.parametrize("precision", ["", ",fp16_run=True"])
def test_speakers_styles_and_every_loss_go_on_together_to_the_last_bit(
    lists: Lists, tmp_path: Path, precision: str
) -> None:
    hp = lists(
        overrides="use_gst=True,ref_enc_filters=[4,4],token_embedding_size=8,use_mmi=True,use_ddc=True,"
        "attention_alignment_loss_weight=0.5,drop_frame_rate=0.2,use_balanced_sampling=True" + precision
    )
    whole = trained(hp, tmp_path / "whole", 4).model.state_dict()
    trained(hp, tmp_path / "parts", 2)
    saved = checkpoint_file.load(checkpoint_dir.resolve(tmp_path / "parts"))
    parts = trained(hp, tmp_path / "parts", 4, saved=saved).model.state_dict()
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    assert not any(torch.equal(whole[f"{part}.weight"], saved.model[f"{part}.weight"]) for part in (
        "speaker_embedding.table", "gst.projection.linear_layer", "tpgst.projection.linear_layer", "mmi.output",
    ))  # fmt: skip
    voice = Speaker.load(tmp_path / "whole")
    assert voice.speak(["hi"], name="anna", n_iter=1)[0].wav.size > 0
