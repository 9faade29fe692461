"""What each hyperparameter does, as an observation with it and without."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from checkpointing import directory as checkpoint_dir
from checkpointing.checkpoint_file import Checkpoint
from common.errors import DataError
from common.log import LOG
from corpus.loader import make_loader
from data_utils import load_corpus, plan_batches
from hparams import HParams, Resolved, field_names
from loss_function import tacotron2_loss
from model import Tacotron2
from monitoring.observer import BackgroundObserver
from monitoring.setup import observers
from speech.decoding import Reference, speak
from support.corpora import write_corpus
from support.runs import model_of, trained, validated, weights_of
from training import session
from training.options import Options
from training.progress import Progress
from training.resume import load_initial_weights
from training.schedules import guide_weight, learning_rate, teacher_forcing_ratio
from training.voice_info import decode_limits, voice_info_of

CPU = torch.device("cpu")
Observed = object
Observer = Callable[[HParams, Path], Observed]


@dataclass(frozen=True)
class Seen:
    """`change` (over `base`) changes what `observe` sees."""

    observe: Observer
    change: str
    base: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """Another test, `file.py::test_name`, shows the effect."""

    by: str


# ---- what can be observed


def shapes(hp: HParams, folder: Path) -> Observed:
    return {name: tuple(t.shape) for name, t in Tacotron2(hp, n_speakers=2).state_dict().items()}


def mels(hp: HParams, folder: Path) -> Observed:
    corpus = load_corpus(hp)
    return [round(corpus.stats.mean, 6), *corpus.train[0].mel.numpy().round(4).flatten().tolist()]


def corpus_in(folder: Path, hp: HParams) -> HParams:
    """The parameters, with a corpus of their own in the folder."""
    write_corpus(folder)
    lists = {"training_files": str(folder / "train.txt"), "validation_files": str(folder / "val.txt")}
    return hp.model_copy(update={**lists, "dataset_path": str(folder)})


def ids(hp: HParams, folder: Path) -> Observed:
    hp = corpus_in(folder, hp)
    train = Path(hp.training_files)
    train.write_text(train.read_text(encoding="utf-8").replace("a low tone", "Dr. No"), encoding="utf-8")
    return [item.text.tolist() for item in load_corpus(hp).train]


def found(hp: HParams) -> Observed:
    """How many recordings the lists lead to."""
    try:
        return len(load_corpus(hp).train)
    except DataError:
        return "none"


def named_from_the_root(hp: HParams, folder: Path) -> Observed:
    """Utterances of lists that name the recordings as seen from the root of all files."""
    hp = corpus_in(folder / "data", hp).model_copy(update={"dataset_path": hp.dataset_path})
    for path in map(Path, (hp.training_files, hp.validation_files)):
        wavs = (path.parent / "wavs").resolve().relative_to("/")
        path.write_text(path.read_text(encoding="utf-8").replace("wavs", str(wavs)), encoding="utf-8")
    return found(hp)


def strangers(hp: HParams, folder: Path) -> Observed:
    """Utterances of a corpus whose recordings lie outside its folder, behind a link."""
    hp = corpus_in(folder / "data", hp)
    (folder / "data/wavs").rename(folder / "wavs")
    (folder / "data/wavs").symlink_to(folder / "wavs")
    return found(hp)


def batches(hp: HParams, folder: Path) -> Observed:
    plan = plan_batches(load_corpus(hp).train, hp)
    return [(plan.epoch(epoch), [plan.shape(batch) for batch in plan.epoch(epoch)]) for epoch in range(6)]


def loss(hp: HParams, folder: Path) -> Observed:
    """Of one teacher-forced pass in training mode."""
    corpus = load_corpus(hp)
    batch = next(iter(make_loader(corpus.train, plan_batches(corpus.train, hp), epoch=0, r=hp.n_frames_per_step)))
    model = model_of(hp)
    outputs = model(batch.text, batch.text_lengths, batch.mel, batch.mel_lengths)
    terms = tacotron2_loss(
        outputs, batch.mel, batch.gate, text_lengths=batch.text_lengths, mel_lengths=batch.mel_lengths, hp=hp,
        r=hp.n_frames_per_step, mask_padding=hp.mask_padding, guide=guide_weight(1, hp),
    )  # fmt: skip
    return terms.total.item()


def update(hp: HParams, folder: Path) -> Observed:
    """The weights after two optimiser steps."""
    return [t.double().sum().item() for t in weights_of(trained(hp, folder, 2)).values()]


def length(hp: HParams, folder: Path) -> Observed:
    """Steps of a run that twenty would stop."""
    return trained(hp, folder, 20).progress.step


def decoder_loop(hp: HParams, folder: Path) -> Observed:
    model = Tacotron2(hp)
    outputs = model(torch.ones(1, 3, dtype=torch.long), torch.tensor([3]), torch.zeros(1, 8, 4), torch.tensor([4]))
    return outputs.alignments.grad_fn.next_functions[0][0].name()  # type: ignore[union-attr]


def rates(hp: HParams, folder: Path) -> Observed:
    return [learning_rate(step, hp, scale=scale) for step in (1, 100, 5000) for scale in (1.0, 1e-9)]


def guides(hp: HParams, folder: Path) -> Observed:
    return [guide_weight(step, hp) for step in (1, 3500, 40000)]


def taught(hp: HParams, folder: Path) -> Observed:
    return [teacher_forcing_ratio(step, hp) for step in (1, 20000, 100000)]


def patience(hp: HParams, folder: Path) -> Observed:
    """Rate cuts and the early stop of a run whose score falls slowly and whose alignment is 0.6."""
    progress, seen = Progress(), []
    for progress.step in range(100, 6000, 100):
        score = 1.0 - progress.step * 5e-8
        progress.update_best(score, 0.6, hp)
        progress.plateau_reached(score, hp)
        seen.append((progress.learning_rate_scale, progress.should_stop_early(hp)))
    return seen


def speech(hp: HParams, folder: Path) -> Observed:
    """Length and end of what an untrained voice says."""
    limits = decode_limits(hp, load_corpus(hp))
    (spoken,) = speak(model_of(hp).eval(), [Reference("", [5, 6, 7], "abc", None)], limits, seed=1, device=CPU)
    return spoken.mel.shape[1], spoken.stop_reason, spoken.mel.double().sum().item()


def sounds(hp: HParams, folder: Path) -> Observed:
    samples = validated(hp, model_of(hp), load_corpus(hp)).samples
    return [sample.wav.tolist() for sample in samples if sample.wav is not None]


def watchers(hp: HParams, folder: Path) -> Observed:
    """Who would watch a run, and with which settings. Never started, so there is nothing to close."""
    watching = [watcher.observer for watcher in observers(hp) if isinstance(watcher, BackgroundObserver)]
    return [(type(watcher).__name__, vars(watcher)) for watcher in watching]


def warm_start(hp: HParams, folder: Path) -> Observed:
    corpus = load_corpus(hp)
    torch.manual_seed(77)
    path = checkpoint_dir.save(Checkpoint(1, Tacotron2(hp).state_dict(), voice_info_of(hp, corpus), None), folder)
    model = model_of(hp)
    load_initial_weights(path, model, hp, corpus, Options(warm_start=True, checkpoint=path))
    return [t.double().sum().item() for t in model.state_dict().values()]


def launches(hp: HParams, folder: Path) -> Observed:
    """Two launches of one step: cuDNN's switches, and whether the first run was moved aside."""
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark
    level, propagate = LOG.level, LOG.propagate
    try:
        for _ in range(2):
            os.environ.pop("TACOTRON2_LAUNCH_ID", None)
            settings = Resolved(hp, dict.fromkeys(field_names(), "--hparams"), {})
            session.train(settings, Options(output=folder / "o", logs=folder / "l", max_steps=1))
        return cudnn.enabled, cudnn.benchmark, (folder / "o/previous").exists()
    finally:
        cudnn.enabled, cudnn.benchmark = before
        for handler in list(LOG.handlers):
            LOG.removeHandler(handler)
            handler.close()
        LOG.propagate = propagate
        LOG.setLevel(level)


SCHEDULED = "use_scheduled_teacher_forcing=True"
EFFECTS: dict[str, Seen | Elsewhere] = {
    # audio
    "n_mel_channels": Seen(mels, "n_mel_channels=9"),
    "max_wav_value": Seen(mels, "max_wav_value=20000"),
    "sampling_rate": Seen(mels, "sampling_rate=10000"),
    "resample": Elsewhere("audio/test_mel.py::test_another_rate_is_an_error_when_resampling_is_off"),
    "filter_length": Seen(mels, "filter_length=512"),
    "hop_length": Seen(mels, "hop_length=64"),
    "win_length": Seen(mels, "win_length=200"),
    "mel_fmin": Seen(mels, "mel_fmin=100"),
    "mel_fmax": Seen(mels, "mel_fmax=3000"),
    # text and data
    "language": Seen(ids, "language=de"),
    "text_input": Seen(ids, "text_input=phonemes"),
    "text_cleaners": Seen(ids, "text_cleaners=[basic_cleaners]"),
    "symbol_set": Seen(ids, "symbol_set=corpus"),
    "pronunciations": Elsewhere("speech/test_voice.py::test_a_voice_reads_with_its_own_symbols_and_pronunciations"),
    "dataset_path": Seen(named_from_the_root, "dataset_path=/"),
    "training_files": Elsewhere(
        "corpus/test_mel_cache.py::test_missing_filelists_are_named_with_where_the_paths_came_from"
    ),
    "validation_files": Elsewhere(
        "corpus/test_mel_cache.py::test_missing_filelists_are_named_with_where_the_paths_came_from"
    ),
    "data_roots": Seen(strangers, "data_roots=[/]"),
    "load_mel_from_disk": Elsewhere(
        "corpus/test_precomputed_mels.py::test_mels_from_disk_train_to_the_same_bits_as_their_recordings"
    ),
    "normalize_mel": Seen(mels, "normalize_mel=False"),
    "batch_size": Seen(batches, "batch_size=3"),
    "use_bucket_batching": Seen(batches, "use_bucket_batching=False"),
    "use_balanced_sampling": Seen(batches, "use_balanced_sampling=True"),
    "max_batch_frames": Seen(batches, "max_batch_frames=24"),
    "num_workers": Elsewhere("training/test_trainer.py::test_resuming_with_loader_processes_is_bit_exact_too"),
    # model
    "n_symbols": Elsewhere(
        "losses/test_mmi.py::test_a_checkpoints_own_number_of_symbols_sizes_embedding_and_recogniser"
    ),
    "symbols_embedding_dim": Seen(shapes, "symbols_embedding_dim=6"),
    "encoder_kernel_size": Seen(shapes, "encoder_kernel_size=5"),
    "encoder_n_convolutions": Seen(shapes, "encoder_n_convolutions=2"),
    "encoder_embedding_dim": Seen(shapes, "encoder_embedding_dim=6"),
    "encoder_dropout_rate": Seen(loss, "encoder_dropout_rate=0.5"),
    "n_frames_per_step": Seen(shapes, "n_frames_per_step=2"),
    "reduction_schedule": Seen(shapes, "reduction_schedule=[0:3,9:1]"),
    "decoder_rnn_dim": Seen(shapes, "decoder_rnn_dim=6"),
    "prenet_dim": Seen(shapes, "prenet_dim=6"),
    "dropout_rate": Seen(loss, "dropout_rate=0"),
    "speaking_dropout_rate": Seen(speech, "speaking_dropout_rate=0", "gate_threshold=1"),
    "max_decoder_steps": Seen(speech, "max_decoder_steps=3", "gate_threshold=1"),
    "gate_threshold": Seen(speech, "gate_threshold=1"),
    "p_attention_dropout": Seen(loss, "p_attention_dropout=0.5"),
    "p_decoder_dropout": Seen(loss, "p_decoder_dropout=0.5"),
    "attention_rnn_dim": Seen(shapes, "attention_rnn_dim=6"),
    "attention_dim": Seen(shapes, "attention_dim=6"),
    "attention_location_n_filters": Seen(shapes, "attention_location_n_filters=3"),
    "attention_location_kernel_size": Seen(shapes, "attention_location_kernel_size=5"),
    "use_location_sensitive_attention": Seen(loss, "use_location_sensitive_attention=False"),
    "use_forward_attention": Seen(loss, "use_forward_attention=True"),
    "use_attention_smoothing": Seen(loss, "use_attention_smoothing=True"),
    "attention_smoothing_factor": Seen(loss, "attention_smoothing_factor=0.5", "use_attention_smoothing=True"),
    "use_memory_efficient_attention": Elsewhere(
        "modules/test_decoder_loops.py::test_less_is_kept_for_the_backward_pass"
    ),
    "attention_chunk_size": Elsewhere(
        "modules/test_decoder_loops.py::test_the_steps_are_computed_again_in_such_chunks"
    ),
    "postnet_embedding_dim": Seen(shapes, "postnet_embedding_dim=6"),
    "postnet_kernel_size": Seen(shapes, "postnet_kernel_size=5"),
    "postnet_n_convolutions": Seen(shapes, "postnet_n_convolutions=3"),
    "postnet_dropout_rate": Seen(loss, "postnet_dropout_rate=0.5"),
    "mask_padding": Seen(update, "mask_padding=False"),
    "xavier_init": Seen(loss, "xavier_init=False"),
    "decoder_backend": Seen(decoder_loop, "decoder_backend=plain"),
    "use_mmi": Seen(shapes, "use_mmi=True"),
    "use_ddc_loss": Seen(shapes, "use_ddc_loss=True"),
    "ddc_reduction_factor": Seen(shapes, "ddc_reduction_factor=4", "use_ddc_loss=True"),
    # style and speakers
    "use_gst": Seen(shapes, "use_gst=True"),
    "ref_enc_filters": Seen(shapes, "ref_enc_filters=[4,4]", "use_gst=True"),
    "ref_enc_size": Seen(shapes, "ref_enc_size=[5,3]", "use_gst=True"),
    "ref_enc_strides": Seen(shapes, "ref_enc_strides=[2,1]", "use_gst=True"),
    "ref_enc_pad": Seen(shapes, "ref_enc_pad=[1,2]", "use_gst=True"),
    "ref_enc_gru_size": Seen(shapes, "ref_enc_gru_size=6", "use_gst=True"),
    "token_embedding_size": Seen(shapes, "token_embedding_size=8", "use_gst=True"),
    "token_num": Seen(shapes, "token_num=5", "use_gst=True"),
    "num_heads": Seen(shapes, "num_heads=2", "use_gst=True"),
    "speaker_embedding_dim": Seen(shapes, "speaker_embedding_dim=6"),
    # what a step hears
    "p_teacher_forcing": Seen(update, "p_teacher_forcing=0"),
    "use_scheduled_teacher_forcing": Seen(
        update, "use_scheduled_teacher_forcing=True", "teacher_forcing_start_ratio=0"
    ),
    "teacher_forcing_start_ratio": Seen(taught, "teacher_forcing_start_ratio=0.8", SCHEDULED),
    "teacher_forcing_end_ratio": Seen(taught, "teacher_forcing_end_ratio=0.1", SCHEDULED),
    "teacher_forcing_decay_start": Seen(taught, "teacher_forcing_decay_start=500", SCHEDULED),
    "teacher_forcing_decay_steps": Seen(taught, "teacher_forcing_decay_steps=500", SCHEDULED),
    # losses
    "use_guided_attn": Seen(loss, "use_guided_attn=False"),
    "no_dga": Seen(loss, "no_dga=True"),
    "guide_loss_weight": Seen(loss, "guide_loss_weight=2"),
    "guide_sigma": Seen(loss, "guide_sigma=0.4"),
    "use_dynamic_guide_loss": Seen(guides, "use_dynamic_guide_loss=False"),
    "guide_loss_initial_weight": Seen(loss, "guide_loss_initial_weight=2"),
    "guide_loss_final_weight": Seen(guides, "guide_loss_final_weight=0.1"),
    "guide_loss_decay_start": Seen(guides, "guide_loss_decay_start=1000"),
    "guide_loss_decay_steps": Seen(guides, "guide_loss_decay_steps=1000"),
    # other losses
    "mmi_weight": Seen(update, "mmi_weight=2", "use_mmi=True,use_gaf=False"),
    "use_gaf": Seen(update, "use_gaf=False", "use_mmi=True"),
    "update_gaf_every_n_step": Seen(update, "update_gaf_every_n_step=1", "use_mmi=True,max_gaf=1e9"),
    "max_gaf": Seen(update, "max_gaf=1e-9", "use_mmi=True"),
    "mmi_ignore_layers": Elsewhere("losses/test_auxiliary.py::test_ignore_mmi_layers_keeps_the_head_new"),
    "ddc_loss_weight": Seen(update, "ddc_loss_weight=1", "use_ddc_loss=True"),
    "attention_alignment_loss_weight": Seen(update, "attention_alignment_loss_weight=1"),
    "drop_frame_rate": Seen(update, "drop_frame_rate=0.5"),
    "global_mean_npy": Elsewhere("corpus/test_mean_frame.py::test_a_place_that_takes_no_file_is_named"),
    # optimisation
    "learning_rate": Seen(rates, "learning_rate=0.01"),
    "warmup_steps": Seen(rates, "warmup_steps=200"),
    "learning_rate_decay": Seen(patience, "learning_rate_decay=0.1"),
    "learning_rate_decay_patience": Seen(patience, "learning_rate_decay_patience=300"),
    "learning_rate_min": Seen(rates, "learning_rate_min=1e-6"),
    "anneal_start": Seen(rates, "anneal_start=50", "anneal_steps=200"),
    "anneal_steps": Seen(rates, "anneal_steps=200"),
    "use_saved_learning_rate": Elsewhere(
        "training/test_trainer.py::test_the_saved_learning_rate_is_taken_only_where_asked"
    ),
    "weight_decay": Seen(update, "weight_decay=0.1"),
    "listen_every": Elsewhere("training/test_listening.py::test_the_listener_hears_checkpoints_and_chooses_the_best"),
    "ema_decay": Elsewhere("training/test_weight_averaging.py::test_a_checkpoint_speaks_with_the_average"),
    "fp16_run": Seen(update, "fp16_run=True"),
    "amp_dtype": Seen(update, "amp_dtype=fp16", "fp16_run=True"),
    "dynamic_loss_scaling": Elsewhere("training/test_mixed_precision.py::test_without_dynamic_scaling_the_scale_stays"),
    "loss_scale_init": Elsewhere("training/test_mixed_precision.py::test_the_scale_starts_at_loss_scale_init"),
    "loss_scale_factor": Elsewhere(
        "training/test_mixed_precision.py::test_an_overflow_skips_the_step_and_cuts_the_scale_by_the_factor"
    ),
    "grad_clip_thresh": Seen(update, "grad_clip_thresh=1e-9"),  # Adam forgets any scale but that of its epsilon
    "gradient_accumulation_steps": Seen(update, "gradient_accumulation_steps=2"),
    # run
    "epochs": Seen(length, "epochs=2", "epochs=1"),
    "iters_per_checkpoint": Elsewhere("training/test_trainer.py::test_old_checkpoints_go_and_milestones_stay"),
    "save_interval": Elsewhere("training/test_trainer.py::test_old_checkpoints_go_and_milestones_stay"),
    "validate_interval": Elsewhere("training/test_trainer.py::test_the_best_pointer_names_the_best_validation"),
    "keep_checkpoints": Elsewhere("training/test_trainer.py::test_old_checkpoints_go_and_milestones_stay"),
    "seed": Seen(batches, "seed=2"),
    "ignore_layers": Seen(warm_start, "ignore_layers=[decoder.gate_layer.linear_layer.weight]"),
    "force_model_reinit": Seen(launches, "force_model_reinit=True"),
    "early_stopping": Seen(patience, "early_stopping=True"),
    "early_stopping_patience": Seen(patience, "early_stopping_patience=3", "early_stopping=True"),
    "early_stopping_min_delta": Seen(patience, "early_stopping_min_delta=0", "early_stopping=True"),
    "cudnn_enabled": Seen(launches, "cudnn_enabled=False"),
    "cudnn_benchmark": Seen(launches, "cudnn_benchmark=True"),
    # recovery
    "emergency_restart_enabled": Elsewhere(
        "training/test_fault_handling.py::test_without_emergency_restarts_the_run_stops_in_place_of_going_back"
    ),
    "max_restart_attempts": Elsewhere(
        "training/test_fault_handling.py::test_a_lasting_fault_ends_with_a_diagnosis_after_so_many_rollbacks"
    ),
    "nan_detection_threshold": Elsewhere("recovery/test_ladder.py::test_the_thresholds_are_those_of_the_settings"),
    "gradient_explosion_threshold": Elsewhere("recovery/test_ladder.py::test_the_thresholds_are_those_of_the_settings"),
    # several processes
    "distributed_run": Elsewhere(
        "parallel/test_process_group.py::test_distributed_run_in_one_process_trains_alone_and_says_so"
    ),
    "dist_backend": Elsewhere("parallel/test_process_group.py::test_without_a_gpu_nccl_becomes_gloo_and_says_so"),
    "dist_url": Elsewhere("parallel/test_process_group.py::test_processes_started_by_hand_meet_at_dist_url"),
    "gradient_compression": Elsewhere(
        "parallel/test_process_group.py::test_gradients_sent_as_bf16_are_the_same_to_three_digits"
    ),
    # monitoring
    "validation_attention_analysis": Elsewhere(
        "training/test_validation.py::test_the_score_is_the_loss_without_free_running"
    ),
    "alignment_diagonal_threshold": Seen(patience, "alignment_diagonal_threshold=0.9"),
    "log_attention_weights": Seen(watchers, "log_attention_weights=False", "tensorboard_logging=True"),
    "log_alignment_metrics": Seen(watchers, "log_alignment_metrics=False", "tensorboard_logging=True"),
    "save_attention_plots": Seen(watchers, "save_attention_plots=True"),
    "attention_plot_frequency": Seen(watchers, "attention_plot_frequency=7", "save_attention_plots=True"),
    "use_audio_quality_enhancement": Seen(
        sounds, "use_audio_quality_enhancement=False", "validation_attention_analysis=True"
    ),
    "sample_vocoder": Elsewhere(
        "training/test_validation.py::test_samples_are_made_by_the_vocoder_of_the_settings"
    ),
    "tensorboard_logging": Seen(watchers, "tensorboard_logging=True"),
    "mlflow_logging": Seen(watchers, "mlflow_logging=True"),
    "mlflow_experiment_name": Seen(watchers, "mlflow_experiment_name=mine", "mlflow_logging=True"),
    "mlflow_tracking_uri": Seen(watchers, "mlflow_tracking_uri=http://127.0.0.1:5000", "mlflow_logging=True"),
    "telegram_monitoring": Elsewhere("monitoring/test_telegram.py::test_hyperparameters_reach_the_observer"),
    "telegram_notification_interval": Elsewhere("monitoring/test_telegram.py::test_hyperparameters_reach_the_observer"),
    "telegram_language": Elsewhere("monitoring/test_telegram.py::test_hyperparameters_reach_the_observer"),
    "debug_reporting": Seen(watchers, "debug_reporting=True"),
    "debug_report_interval": Seen(watchers, "debug_report_interval=7", "debug_reporting=True"),
}
