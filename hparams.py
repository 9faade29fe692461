"""Every hyperparameter, declared once: type, default, unit, range, aliases, and what changing it touches.

Everything else derives from these declarations: `--hparams` conversion, `--show-params`, the tables of the
documentation, and whether a run may be resumed after a change. Help texts are in `hparams_help.yaml`.
A function takes the section that it needs (`AudioParams`); `HParams` is all sections in one flat, frozen object.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field

from common.step_schedule import Reduction, is_schedule
from settings.declaration import (
    PaddingList,
    Section,
    SizeList,
    TextList,
    dropout_field,
    hp_field,
    share_field,
    width_field,
)
from settings.presets import preset_layer
from settings.rules import at_most, below, is_pair, leaves_mel_bands, no_secret, not_blank
from text.language_settings import is_language, language_defaults, symbols_fit
from text.symbols import symbols
from tools import (
    Assignment,
    Check,
    FieldSpec,
    Layer,
    canonical_names,
    field_specs,
    merge_layers,
    overrides_layer,
    read_yaml_layer,
)

DEFAULT = "default"  # the origin of a value that no layer set
SYMBOLS_FIT = Check(
    ("n_symbols", "language", "text_input", "symbol_set"),
    symbols_fit,
    "n_symbols follows from the others; leave it out",
)


class MelShape(Section):
    """What the audio side and the model must agree on."""

    n_mel_channels: int = width_field(80)


class AudioParams(MelShape):
    """How a recording becomes a mel spectrogram."""

    max_wav_value: float = hp_field(32768.0, gt=0, affects="features")
    sampling_rate: int = hp_field(22050, unit="Hz", ge=1, affects="features")
    resample: bool = hp_field(True, mutable=True)
    filter_length: int = hp_field(1024, unit="samples", ge=2, affects="features")
    hop_length: int = hp_field(256, unit="samples", ge=1, affects="features")
    win_length: int = hp_field(1024, unit="samples", ge=1, affects="features")
    mel_fmin: float = hp_field(0.0, unit="Hz", ge=0, affects="features")
    mel_fmax: float = hp_field(8000.0, unit="Hz", gt=0, affects="features")

    checks: ClassVar[tuple[Check, ...]] = (
        Check(("mel_fmax", "sampling_rate"), lambda f, r: f <= r / 2, "mel_fmax must be at most half of sampling_rate"),
        below("mel_fmin", "mel_fmax"),
        at_most("win_length", "filter_length"),
        below("hop_length", "win_length"),  # otherwise windows leave gaps, and no signal can be made of the mel
    )


class TextParams(Section):
    """How a text becomes symbol ids."""

    language: str = hp_field("en", affects="features")
    text_input: Literal["characters", "phonemes"] = hp_field("characters", affects="features")
    text_cleaners: TextList = hp_field(("english_cleaners",), affects="features")  # none: the language's normaliser
    symbol_set: str = hp_field("", affects="arch")  # "": the language's own
    pronunciations: str = hp_field("", mutable=True)  # what is read differently counts as other data

    checks: ClassVar[tuple[Check, ...]] = (
        Check(("language",), is_language, "language must be a code that `python -m text languages` lists"),
    )


class DataParams(Section):
    """Where utterances come from and how they form batches."""

    dataset_path: str = hp_field("data/")
    training_files: str = hp_field("data/dataset/train.csv")
    validation_files: str = hp_field("data/dataset/val.csv")
    data_roots: TextList = hp_field((), mutable=True)
    load_mel_from_disk: bool = hp_field(False, affects="features")
    normalize_mel: bool = hp_field(True, affects="features")
    batch_size: int = hp_field(48, unit="utterances", ge=1)
    use_bucket_batching: bool = hp_field(True)
    use_balanced_sampling: bool = hp_field(False)
    max_batch_frames: int = hp_field(0, unit="frames", ge=0)
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = hp_field("auto", unit="processes", mutable=True)


class ModelParams(MelShape):
    """Layers, their widths and dropouts, and decoding."""

    n_symbols: int = width_field(len(symbols))  # of NVIDIA's set; another set brings its own number
    symbols_embedding_dim: int = width_field(512)
    encoder_kernel_size: int = width_field(5, parity="odd")
    encoder_n_convolutions: int = width_field(3)
    encoder_embedding_dim: int = width_field(512, parity="even")  # two directions of one LSTM
    encoder_dropout_rate: float = dropout_field(0.05)
    n_frames_per_step: int = hp_field(1, unit="frames", ge=1, affects="arch")
    reduction_schedule: TextList = hp_field((), affects="arch")  # its largest r is the width of the projection
    decoder_rnn_dim: int = width_field(1024)
    prenet_dim: int = width_field(256)
    dropout_rate: float = dropout_field(0.3)
    speaking_dropout_rate: Annotated[float, Field(ge=0, lt=1)] | None = hp_field(None, mutable=True)
    max_decoder_steps: int = hp_field(2500, unit="decoder steps", ge=1, mutable=True)
    gate_threshold: float = share_field(0.5, mutable=True)
    p_attention_dropout: float = dropout_field(0.1)
    p_decoder_dropout: float = dropout_field(0.1)
    attention_rnn_dim: int = width_field(1024)
    attention_dim: int = width_field(128)
    attention_location_n_filters: int = width_field(32)
    attention_location_kernel_size: int = width_field(31, parity="odd")
    use_location_sensitive_attention: bool = hp_field(True)
    use_forward_attention: bool = hp_field(False)
    use_attention_smoothing: bool = hp_field(False)
    attention_smoothing_factor: float = share_field(0.1)
    use_memory_efficient_attention: bool = hp_field(False, mutable=True)  # the same numbers either way
    attention_chunk_size: Annotated[int, Field(ge=1)] | None = hp_field(None, unit="decoder steps", mutable=True)
    postnet_embedding_dim: int = width_field(512)
    postnet_kernel_size: int = width_field(5, parity="odd")
    postnet_n_convolutions: int = hp_field(5, ge=2, affects="arch")  # the first widens, the last narrows again
    postnet_dropout_rate: float = dropout_field(0.1)
    mask_padding: bool = hp_field(True)
    xavier_init: bool = hp_field(True)
    decoder_backend: Literal["auto", "plain", "fast"] = hp_field("auto", mutable=True)
    use_mmi: bool = hp_field(False, affects="arch")
    use_ddc_loss: bool = hp_field(False, aliases=("use_ddc",), affects="arch")
    ddc_reduction_factor: int = hp_field(6, unit="frames", ge=1, affects="arch")

    checks: ClassVar[tuple[Check, ...]] = (
        Check(
            ("reduction_schedule",),
            is_schedule,
            "reduction_schedule must list STEP:R with steps rising from 0 and R at least 1, as [0:6,10000:3,30000:1]",
        ),
        Check(
            ("use_ddc_loss", "ddc_reduction_factor", "reduction_schedule", "n_frames_per_step"),
            lambda is_on, coarse, phases, r: (
                not (is_on and is_schedule(phases)) or Reduction.of(phases, r).divides(coarse)
            ),
            "with use_ddc_loss, ddc_reduction_factor must be a multiple of n_frames_per_step, or of every R of "
            "reduction_schedule where there is one",
        ),
    )


class NetworkParams(ModelParams):
    """Global style tokens, and the width of a speaker's vector. Pairs are (along time, along the mel bands)."""

    use_gst: bool = hp_field(False, affects="arch")
    ref_enc_filters: SizeList = hp_field((32, 32, 64, 64, 128, 128), affects="arch")
    ref_enc_size: SizeList = hp_field((3, 3), affects="arch")
    ref_enc_strides: SizeList = hp_field((2, 2), affects="arch")
    ref_enc_pad: PaddingList = hp_field((1, 1), affects="arch")
    ref_enc_gru_size: int = width_field(128)
    token_embedding_size: int = width_field(256)
    token_num: int = width_field(8)
    num_heads: int = width_field(4)
    speaker_embedding_dim: int = width_field(64)

    checks: ClassVar[tuple[Check, ...]] = (
        Check(
            ("token_embedding_size", "num_heads"),
            lambda width, heads: width % heads == 0,
            "token_embedding_size must be a multiple of num_heads: each head has an equal part of it",
        ),
        Check(("ref_enc_filters",), lambda filters: len(filters) > 0, "at least one convolution is needed"),
        *(
            Check((name,), is_pair, "must hold two numbers: along time, along the mel bands")
            for name in ("ref_enc_size", "ref_enc_strides", "ref_enc_pad")
        ),
        Check(
            ("n_mel_channels", "ref_enc_filters", "ref_enc_size", "ref_enc_strides", "ref_enc_pad", "use_gst"),
            leaves_mel_bands,
            "the reference encoder's convolutions must leave something of the mel bands: fewer filters, smaller "
            "ref_enc_size or ref_enc_strides, or more ref_enc_pad",
        ),
    )


class TeacherForcingParams(Section):
    """How often a decoder step in training hears the recording, and not itself."""

    p_teacher_forcing: float = share_field(1.0)
    use_scheduled_teacher_forcing: bool = hp_field(False)
    teacher_forcing_start_ratio: float = share_field(1.0)
    teacher_forcing_end_ratio: float = share_field(0.5)
    teacher_forcing_decay_start: int = hp_field(10000, unit="steps", ge=0)
    teacher_forcing_decay_steps: int = hp_field(50000, unit="steps", ge=0)


class LossParams(Section):
    """Guided attention: its weight over the steps, and its width."""

    use_guided_attn: bool = hp_field(True, aliases=("guided_attention_enabled",))
    no_dga: bool = hp_field(False)
    guide_loss_weight: float = hp_field(1.0, ge=0)
    guide_sigma: float = hp_field(0.2, gt=0)
    use_dynamic_guide_loss: bool = hp_field(True)
    guide_loss_initial_weight: float = hp_field(1.0, ge=0)
    guide_loss_final_weight: float = hp_field(0.0, ge=0)
    guide_loss_decay_start: int = hp_field(3000, unit="steps", ge=0)
    guide_loss_decay_steps: int = hp_field(30000, unit="steps", ge=0)


class AuxiliaryParams(Section):
    """Losses beside Tacotron 2's own, and noise on what the teacher shows."""

    mmi_weight: float = hp_field(1.0, ge=0)
    use_gaf: bool = hp_field(True)
    update_gaf_every_n_step: int = hp_field(10, unit="steps", ge=1)
    max_gaf: float = hp_field(0.5, gt=0)
    mmi_ignore_layers: TextList = hp_field(
        ("mmi.hidden.weight", "mmi.hidden.bias", "mmi.output.weight", "mmi.output.bias")
    )
    ddc_loss_weight: float = hp_field(0.1, ge=0, aliases=("ddc_consistency_weight",))
    attention_alignment_loss_weight: float = hp_field(0.0, ge=0)
    drop_frame_rate: float = hp_field(0.0, ge=0, lt=1)
    global_mean_npy: str = hp_field("global_mean.npy", mutable=True)

    checks: ClassVar[tuple[Check, ...]] = (
        Check(
            ("drop_frame_rate", "global_mean_npy"),
            lambda rate, path: rate == 0 or path.endswith(".npy"),
            "with drop_frame_rate, global_mean_npy must name a .npy file",
        ),
    )


class OptimisationParams(Section):
    """Learning rate, clipping and accumulation."""

    learning_rate: float = hp_field(1e-3, gt=0, le=1)
    warmup_steps: int = hp_field(2000, unit="steps", ge=0)
    learning_rate_decay: float = hp_field(0.5, gt=0, le=1)
    learning_rate_decay_patience: int = hp_field(2000, unit="steps", ge=1)
    learning_rate_min: float = hp_field(1e-5, ge=0)
    anneal_start: int = hp_field(0, unit="steps", ge=0)
    anneal_steps: int = hp_field(0, unit="steps", ge=0)
    use_saved_learning_rate: bool = hp_field(False, mutable=True)
    weight_decay: float = hp_field(1e-6, ge=0)
    ema_decay: float = hp_field(0.0, ge=0, lt=1)
    fp16_run: bool = hp_field(False)
    amp_dtype: Literal["auto", "bf16", "fp16"] = hp_field("auto")
    dynamic_loss_scaling: bool = hp_field(True)
    loss_scale_init: float = hp_field(512.0, ge=1)
    loss_scale_factor: float = hp_field(2.0, gt=1)
    grad_clip_thresh: float = hp_field(1.0, gt=0, aliases=("max_grad_norm",))
    gradient_accumulation_steps: int = hp_field(1, unit="micro-batches", ge=1)

    checks: ClassVar[tuple[Check, ...]] = (
        at_most("learning_rate_min", "learning_rate"),
        Check(
            ("anneal_steps", "learning_rate_min"),
            lambda steps, floor: steps == 0 or floor > 0,
            "annealing falls by a factor, so learning_rate_min must be over 0 where anneal_steps is",
        ),
    )


class RunParams(Section):
    """How long a run lasts, what it saves, and how it starts."""

    epochs: int = hp_field(500000, unit="epochs", ge=1, mutable=True)
    iters_per_checkpoint: int = hp_field(1000, unit="steps", ge=1, mutable=True)
    save_interval: int = hp_field(10000, unit="steps", ge=0, mutable=True)
    validate_interval: int = hp_field(200, unit="steps", ge=1, mutable=True)
    listen_every: int = hp_field(0, unit="steps", ge=0, mutable=True)
    keep_checkpoints: int = hp_field(3, unit="checkpoints", ge=2, mutable=True)  # the last two are never pruned
    seed: int = hp_field(1234, ge=0, le=2**32 - 1)  # NumPy's generators take 32 bits
    ignore_layers: TextList = hp_field(("embedding.weight",))
    force_model_reinit: bool = hp_field(False, mutable=True)
    early_stopping: bool = hp_field(True, mutable=True)
    early_stopping_patience: int = hp_field(15, unit="validations", ge=1, mutable=True)
    early_stopping_min_delta: float = hp_field(0.0005, ge=0, mutable=True)
    cudnn_enabled: bool = hp_field(True, mutable=True)
    cudnn_benchmark: bool = hp_field(False, mutable=True)


class RecoveryParams(Section):
    """When numbers count as a failure, and how often a run may go back."""

    emergency_restart_enabled: bool = hp_field(True, mutable=True)
    max_restart_attempts: int = hp_field(3, unit="rollbacks", ge=0, mutable=True)
    nan_detection_threshold: float = hp_field(1e-6, ge=0, mutable=True)
    gradient_explosion_threshold: float = hp_field(1000.0, gt=0, mutable=True)


class DistributedParams(Section):
    """How several processes train one model."""

    distributed_run: bool = hp_field(False, mutable=True)
    dist_backend: Literal["nccl", "gloo"] = hp_field("nccl", mutable=True)
    dist_url: str = hp_field("tcp://localhost:54321", mutable=True)
    gradient_compression: Literal["none", "bf16"] = hp_field("none", mutable=True)

    checks: ClassVar[tuple[Check, ...]] = (
        Check(
            ("dist_url",),
            lambda url: url.startswith(("tcp://", "file://")),
            "dist_url must be tcp://HOST:PORT, or file:///FILE in a folder that all share",
        ),
        no_secret("dist_url"),
    )


class MonitorParams(Section):
    """What is measured and shown beside the losses."""

    validation_attention_analysis: bool = hp_field(True, mutable=True)
    alignment_diagonal_threshold: float = share_field(0.5)  # gates the plateau decay, hence not mutable
    log_attention_weights: bool = hp_field(True, mutable=True)
    log_alignment_metrics: bool = hp_field(True, mutable=True)
    save_attention_plots: bool = hp_field(True, mutable=True)
    attention_plot_frequency: int = hp_field(1000, unit="steps", ge=1, mutable=True)
    use_audio_quality_enhancement: bool = hp_field(True, mutable=True)
    sample_vocoder: str = hp_field("griffin-lim", mutable=True)
    tensorboard_logging: bool = hp_field(True, mutable=True)
    mlflow_logging: bool = hp_field(True, mutable=True)
    mlflow_experiment_name: str = hp_field("tacotron2_experiment", mutable=True)
    mlflow_tracking_uri: str = hp_field("", mutable=True)
    telegram_monitoring: bool = hp_field(True, mutable=True)
    telegram_notification_interval: int = hp_field(1000, unit="steps", ge=1, mutable=True)
    telegram_language: Literal["auto", "en", "ru"] = hp_field("auto", mutable=True)
    debug_reporting: bool = hp_field(True, mutable=True)
    debug_report_interval: int = hp_field(500, unit="steps", ge=1, mutable=True)

    checks: ClassVar[tuple[Check, ...]] = (
        not_blank("sample_vocoder"),
        not_blank("mlflow_experiment_name"),
        no_secret(
            "mlflow_tracking_uri",
            ": set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the whole address in MLFLOW_TRACKING_URI",
        ),
    )


class HParams(
    MonitorParams,
    DistributedParams,
    RecoveryParams,
    RunParams,
    OptimisationParams,
    AuxiliaryParams,
    LossParams,
    TeacherForcingParams,
    NetworkParams,
    DataParams,
    TextParams,
    AudioParams,
):  # the last base comes first in tables
    """All hyperparameters under flat names."""

    renamed: ClassVar[Mapping[str, str]] = {
        "attention_dropout": "p_attention_dropout",
        "prenet_dropout": "dropout_rate",
        "postnet_dropout": "postnet_dropout_rate",
    }

    def canonical(self) -> dict[str, Any]:
        """Canonical names and plain types (lists for tuples), in declaration order."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self}

    def to_yaml(self) -> str:
        """A file that `--hparams-file` reads back to exactly these values."""
        return yaml.safe_dump(self.canonical(), sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Resolved:
    """Hyperparameters, the layer that each came from, and the search ranges that presets and files narrowed."""

    hparams: HParams
    origins: dict[str, str]  # "default", "preset demo", "file x.yaml", "--hparams", "trial"
    search: dict[str, object]


def field_info(name: str) -> FieldSpec:
    """What the field declares: `.affects`, `.mutable`, `.aliases`, `.unit`, `.range`, ... KeyError if unknown."""
    return field_specs(HParams)[name]


def field_names() -> tuple[str, ...]:
    """Canonical names, in declaration order."""
    return tuple(field_specs(HParams))


@cache
def spellings() -> Mapping[str, str]:
    """Every name and alias of every field, with the name that counts."""
    return canonical_names(field_specs(HParams))


def resolve_hparams(
    *,
    preset: str | None = None,
    hparams_file: Path | None = None,
    overrides: str | None = None,
    trial: Mapping[str, object] | None = None,
) -> Resolved:
    """defaults < preset < file < --hparams < trial. Raises one UserError with all problems of all layers.

    The language decides `text_cleaners` and `n_symbols` where no layer names them.
    """
    layers = []
    if preset is not None:
        layers.append(preset_layer(preset))
    if hparams_file is not None:
        layers.append(read_yaml_layer(hparams_file, label=f"file {hparams_file}"))
    if overrides is not None:
        layers.append(overrides_layer(overrides))
    if trial is not None:
        layers.append(Layer("trial", tuple(Assignment(name, value) for name, value in trial.items())))
    merged = merge_layers(HParams, layers, extra_checks=(SYMBOLS_FIT,))
    origins = {name: merged.origins.get(name, DEFAULT) for name in field_names()}
    hp = HParams.model_validate(merged.values)
    cleaners = None if origins["text_cleaners"] == DEFAULT else hp.text_cleaners
    by_language = language_defaults(hp.language, hp.text_input, hp.symbol_set, cleaners)
    return Resolved(hp.model_copy(update=by_language), origins, merged.search)


def create_hparams(hparams_string: str | None = None, verbose: bool = False) -> HParams:
    """The defaults with the overrides of `hparams_string`; verbose prints them all. Raises UserError."""
    hp = resolve_hparams(overrides=hparams_string).hparams
    if verbose:
        print(hp.to_yaml(), end="")
    return hp
