"""The rule book: what a symptom means, its likely causes, what helps, and which settings make it less likely.

Training reads it where it gives up, `diagnosis.py` for a run that is down, debug reports for one that goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hparams import HParams
from recovery.ladder import Kind

# thresholds that more than one reader goes by
ALIGNED = 0.8  # speech.metrics.alignment_score; attention that worked measured over 0.9
MUCH_WAITING = 0.2  # share of a step spent waiting for data that is worth an effort


@dataclass(frozen=True)
class Setting:
    """A hyperparameter's safer value, and why."""

    value: Any
    reason: str


Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class Rule:
    """Of one symptom; the most likely cause and the first thing to try come first."""

    causes: Sequence[str] = ()
    advice: Sequence[str] = ()
    safer: Callable[[HParams], Settings] = field(default=lambda hp: {})


def _calmer(hp: HParams) -> Settings:
    clip = min(hp.grad_clip_thresh, max(hp.grad_clip_thresh / 2, 0.1))
    return {
        "learning_rate": Setting(hp.learning_rate / 2, "smaller steps"),
        "grad_clip_thresh": Setting(clip, "a single step moves less"),
    }


def _calmer_and_finite(hp: HParams) -> Settings:
    bf16 = {"amp_dtype": Setting("bf16", "its range is that of fp32: no overflow")}
    return {**_calmer(hp), **(bf16 if hp.fp16_run else {})}


def _more_guidance(hp: HParams) -> Settings:
    return {
        "learning_rate": Setting(hp.learning_rate / 2, "smaller steps"),
        "guide_loss_weight": Setting(max(hp.guide_loss_weight, 1.0) * 2, "guided attention pulls it back"),
    }


def _less_memory(hp: HParams) -> Settings:
    halved = max(hp.batch_size // 2, 1)
    k = hp.gradient_accumulation_steps * (2 if halved < hp.batch_size else 1)
    return {
        "batch_size": Setting(halved, "half the memory for activations"),
        "gradient_accumulation_steps": Setting(k, "so that a step still sees as many utterances"),
        "fp16_run": Setting(True, "half-precision activations take less memory"),
    }


CALMER = "lower learning_rate (half of it, say) or grad_clip_thresh, with --resume-with-changes"
RECORDINGS = "listen to the named utterances: text that is not what is said, clipping, silence, wrong length"
LESS_MEMORY = (
    "fp16_run=True, a smaller batch_size with more gradient_accumulation_steps, max_batch_frames or "
    "use_memory_efficient_attention=True take less memory"
)
WHO_ELSE = "see who else uses the memory (nvidia-smi, free -h)"
Symptom = Literal[
    Kind,
    "loss_rose", "disk_full",
    "unguided", "unaligned", "does_not_stop", "always_clipped", "overfitted", "waits_for_data", "padded",
]  # fmt: skip
RULES: Mapping[Symptom, Rule] = {
    # of steps
    "not_finite": Rule(
        ["the learning rate is too high for these weights", "a recording or a text in the named batches is broken"],
        [CALMER, RECORDINGS],
        _calmer_and_finite,
    ),
    "explosion": Rule(
        ["the learning rate is too high", "the losses are large by nature, and the threshold is too low for them"],
        [CALMER, "raise gradient_explosion_threshold if such norms are usual here (grad_norm in metrics.jsonl)"],
        _calmer,
    ),
    "spike": Rule(
        ["the learning rate is too high", "many utterances in the named batches are wrong"],
        [CALMER, RECORDINGS],
        _calmer,
    ),
    "vanished": Rule(
        ["the weights are stuck where nothing moves the loss", "nan_detection_threshold is above usual norms here"],
        [CALMER, "lower nan_detection_threshold if such norms are usual here (grad_norm in metrics.jsonl)"],
        _calmer,
    ),
    "alignment_lost": Rule(
        ["the learning rate is too high", "guided attention has ended too early"],
        [CALMER, "raise guide_loss_final_weight or guide_loss_decay_start"],
        _more_guidance,
    ),
    "damaged": Rule(
        ["memory or device flips bits: weights broke though every loss and gradient was finite"],
        ["test the memory of the machine (memtest86+, nvidia-smi -q -d ECC), or train on another one", CALMER],
    ),
    "bad_data": Rule(
        ["recordings, or their mels in the cache, were damaged after the corpus was checked"],
        ["delete the cached mels of the named utterances, repair the recordings, or leave out their lines"],
    ),
    "out_of_memory": Rule(
        ["batch and model need more memory than there is", "other processes hold the memory"],
        [LESS_MEMORY, "leave out the longest utterances", WHO_ELSE],
        _less_memory,
    ),
    # of a run that is down
    "loss_rose": Rule(["the learning rate is too high"], [CALMER], _calmer),
    "disk_full": Rule(["the disk was full or failing"], ["free some space before going on (df -h)"]),
    # of a run that goes on
    "unguided": Rule(
        ["guided attention has ended too early"],
        ["give it longer (guide_loss_decay_start, guide_loss_decay_steps) or keep some (guide_loss_final_weight=0.2)"],
    ),
    "unaligned": Rule(
        ["texts that don't match their recordings", "long silences", "too high a learning rate"],
        ["look at alignments/"],
    ),
    "does_not_stop": Rule(
        ["silence at the recordings' ends"], ["cut the silence at the recordings' ends, or lower gate_threshold"]
    ),
    "always_clipped": Rule(["too high a learning rate"], ["lower learning_rate, or raise grad_clip_thresh"]),
    "overfitted": Rule(
        ["too little data"], ["more data, more dropout (dropout_rate, p_decoder_dropout), or stop here"]
    ),
    "waits_for_data": Rule(
        ["a slow disk, or too few processes that load"], ["raise num_workers, or put the cache on a faster disk"]
    ),
    "padded": Rule(
        ["texts of very different lengths in one batch"], ["use_bucket_batching=True, or a smaller batch_size"]
    ),
}


def causes_and_advice(symptom: Symptom, *, is_half: bool) -> tuple[list[str], list[str]]:
    """Of one that ended a run."""
    rule = RULES[symptom]
    causes, advice = list(rule.causes), list(rule.advice)
    if is_half and symptom in ("not_finite", "explosion", "vanished"):
        causes.append("half precision is too coarse for these numbers")
        advice.append('try --hparams "fp16_run=False", or amp_dtype=bf16 in place of fp16')
    return causes, advice


def advice_for(symptoms: Sequence[Symptom]) -> list[str]:
    """What helps against any of them, each piece once."""
    return list(dict.fromkeys(text for symptom in symptoms for text in RULES[symptom].advice))


def safer_settings(symptoms: Sequence[Symptom], hp: HParams) -> dict[str, Setting]:
    """Settings that make all of them less likely; where two symptoms ask for one setting, the first's value."""
    found: dict[str, Setting] = {}
    for symptom in symptoms:
        for name, setting in RULES[symptom].safer(hp).items():
            found.setdefault(name, setting)
    return found
