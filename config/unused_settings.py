"""Settings that somebody named and that nothing uses, as what they belong to is off."""

from collections.abc import Mapping
from typing import Any

from hparams import HParams, Resolved

# Of each switch, what has no effect without it
BELONGS_TO: Mapping[str, tuple[str, ...]] = {
    "use_mmi": ("mmi_weight", "use_gaf", "update_gaf_every_n_step", "max_gaf"),
    "use_gaf": ("update_gaf_every_n_step", "max_gaf"),
    "use_ddc_loss": ("ddc_loss_weight", "ddc_reduction_factor"),
    "use_gst": (
        "ref_enc_filters", "ref_enc_size", "ref_enc_strides", "ref_enc_pad", "ref_enc_gru_size", "token_embedding_size",
        "token_num", "num_heads",
    ),
    "use_guided_attn": (
        "guide_loss_weight", "guide_sigma", "use_dynamic_guide_loss", "guide_loss_initial_weight",
        "guide_loss_final_weight", "guide_loss_decay_steps",
    ),
    "use_dynamic_guide_loss": ("guide_loss_initial_weight", "guide_loss_final_weight", "guide_loss_decay_steps"),
    "use_attention_smoothing": ("attention_smoothing_factor",),
    "use_memory_efficient_attention": ("attention_chunk_size",),
    "use_scheduled_teacher_forcing": (
        "teacher_forcing_start_ratio", "teacher_forcing_end_ratio", "teacher_forcing_decay_start",
        "teacher_forcing_decay_steps",
    ),
    "drop_frame_rate": ("global_mean_npy",),
    "fp16_run": ("amp_dtype", "dynamic_loss_scaling", "loss_scale_init", "loss_scale_factor"),
    "early_stopping": ("early_stopping_patience",),  # the least improvement counts for the learning rate too
    "emergency_restart_enabled": ("max_restart_attempts",),
    "mlflow_logging": ("mlflow_experiment_name", "mlflow_tracking_uri"),
    "telegram_monitoring": ("telegram_notification_interval", "telegram_language"),
    "debug_reporting": ("debug_report_interval",),
    "validation_attention_analysis": ("sample_vocoder",),
}  # fmt: skip


def unused_settings(settings: Resolved) -> list[str]:
    """A sentence for each that a person named, in --hparams or in a file, and not for those of a preset.

    A run's own hparams.yaml holds all of them: what is the default there was named by nobody.
    """
    hp, defaults = settings.hparams.canonical(), HParams().canonical()
    off = {switch for switch in BELONGS_TO if not hp[switch]}
    if hp["no_dga"]:
        off.add("use_guided_attn")
    said = []
    for name, origin in settings.origins.items():
        lacking = next((switch for switch in BELONGS_TO if switch in off and name in BELONGS_TO[switch]), None)
        is_named = origin.startswith("--hparams") or (origin.startswith("file ") and hp[name] != defaults[name])
        if lacking and is_named:
            said.append(f"{name}={hp[name]} ({origin}) has no effect without {_switched_on(lacking, hp)}")
    return said


def _switched_on(switch: str, hp: Mapping[str, Any]) -> str:
    """What would make it count."""
    if switch == "use_guided_attn" and hp["no_dga"]:
        return "guided attention, which no_dga=True turns off"
    return f"{switch} over 0" if isinstance(hp[switch], float) else f"{switch}=True"
