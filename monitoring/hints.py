"""What the figures of a report mean, in plain language, and what to try. Pure; see debug_report.py for the figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recovery.advice import MUCH_WAITING, RULES, Symptom

Facts = Mapping[str, Any]
CLIPPED = 10.0  # times grad_clip_thresh: beyond that, the direction of single batches decides
PADDED = 0.35  # share of the frames that is worth an effort
FEW_STOP = 0.5  # share of the texts that stop by themselves
FLAT, APART = 0.002, 2.0  # relative fall of the loss; validation loss over training loss
FULL = 0.92  # of a device's memory


@dataclass(frozen=True)
class Hint:
    """`finding` is said where `holds`, with what the rule book says of the symptom; both see report and settings."""

    symptom: Symptom | None
    holds: Callable[[Facts, Facts], bool]
    finding: Callable[[Facts, Facts], str]

    def __call__(self, report: Facts, hp: Facts) -> str:
        text = self.finding(report, hp)
        if self.symptom is None:
            return text
        rule = RULES[self.symptom]
        return f"{text}: {rule.advice[0]} (common causes: {', '.join(rule.causes)})"


def _free(report: Facts, name: str, default: float) -> float:
    """A score of free-running speech, or the default where there is none."""
    return float(report["validation"].get("free_running", {}).get(name, default))


def _is_unaligned(report: Facts, hp: Facts) -> bool:
    return _free(report, "alignment", 1.0) < hp["alignment_diagonal_threshold"]


def _is_guide_off(report: Facts, hp: Facts) -> bool:
    return hp["no_dga"] or not hp["use_guided_attn"] or _is_guide_over(report, hp)


def _is_guide_over(report: Facts, hp: Facts) -> bool:
    end = hp["guide_loss_decay_start"] + hp["guide_loss_decay_steps"]
    return hp["use_dynamic_guide_loss"] and hp["guide_loss_final_weight"] == 0 and report["step"] >= end


def _modules(report: Facts, norm: str, value: float | None) -> list[str]:
    """Modules whose norm is exactly that; None: not finite."""
    return [name for name, norms in report["modules"].items() if norms[norm] == value]


def _loss(report: Facts) -> Facts:
    return report["losses"].get("total", {})


def _gap(report: Facts) -> float:
    """Validation mel loss over that of training."""
    mine, theirs = report["losses"].get("mel_post", {}).get("mean"), report["validation"].get("losses", {})
    return float(theirs["mel_post"] / mine) if mine and "mel_post" in theirs else 0.0


HINTS = (
    Hint(
        "unguided",
        lambda r, hp: _is_unaligned(r, hp) and _is_guide_off(r, hp),
        lambda r, hp: (
            f"guided attention has no weight, but free-running alignment is only {_free(r, 'alignment', 1):.2f}"
        ),
    ),
    Hint(
        "unaligned",
        lambda r, hp: _is_unaligned(r, hp) and not _is_guide_off(r, hp) and r["step"] > hp["guide_loss_decay_start"],
        lambda r, hp: f"free-running alignment is only {_free(r, 'alignment', 1):.2f} at step {r['step']}",
    ),
    Hint(
        "does_not_stop",
        lambda r, hp: not _is_unaligned(r, hp) and _free(r, "stop_rate", 1.0) < FEW_STOP,
        lambda r, hp: f"aligned, but only {_free(r, 'stop_rate', 1):.0%} of the texts stop by themselves",
    ),
    Hint(
        "not_finite",
        lambda r, hp: r["skipped"]["now"] > 0,
        lambda r, hp: f"{r['skipped']['now']} steps were not taken; events.jsonl names their utterances",
    ),
    Hint(
        None,
        lambda r, hp: bool(_modules(r, "gradient", None) or _modules(r, "weight", None)),
        lambda r, hp: (
            "not finite in the last step: gradient of "
            f"{', '.join(_modules(r, 'gradient', None)) or 'nothing'}, "
            f"weights of {', '.join(_modules(r, 'weight', None)) or 'nothing'}"
        ),
    ),
    Hint(
        None,
        lambda r, hp: bool(_modules(r, "gradient", 0.0)),
        lambda r, hp: f"no gradient reaches {', '.join(_modules(r, 'gradient', 0.0))}: it does not learn",
    ),
    Hint(
        "always_clipped",
        lambda r, hp: (r["gradient"]["mean"] or 0.0) > CLIPPED * hp["grad_clip_thresh"],
        lambda r, hp: (
            f"the gradient norm is {r['gradient']['mean'] / hp['grad_clip_thresh']:.0f} times grad_clip_thresh on "
            "average, so clipping sets the size of nearly every step"
        ),
    ),
    Hint(
        None,
        lambda r, hp: (_loss(r).get("change") is not None) and _loss(r)["change"] > -FLAT and _gap(r) <= APART,
        lambda r, hp: (
            f"the training loss has not fallen since the last report ({_loss(r)['before']:.3f} to "
            f"{_loss(r)['mean']:.3f}); learning rate now {r['learning_rate']:.1e}"
        ),
    ),
    Hint(
        "overfitted",
        lambda r, hp: _gap(r) > APART,
        lambda r, hp: f"validation mel loss is {_gap(r):.1f} times that of training: overfitting",
    ),
    Hint(
        "waits_for_data",
        lambda r, hp: r["speed"]["data_wait"] > MUCH_WAITING,
        lambda r, hp: f"{r['speed']['data_wait']:.0%} of the time is spent waiting for data",
    ),
    Hint(
        "padded",
        lambda r, hp: r["speed"]["padding"] > PADDED,
        lambda r, hp: f"{r['speed']['padding']:.0%} of the frames are padding",
    ),
    Hint(
        "out_of_memory",
        lambda r, hp: (r["memory"].get("cuda_peak_share") or 0.0) > FULL,
        lambda r, hp: (
            f"the device's memory was {r['memory']['cuda_peak_share']:.0%} full, a longer utterance may not fit"
        ),
    ),
)


def hints_of(report: Facts, hparams: Facts) -> list[str]:
    """One sentence for each thing worth a look, the gravest first; [] where all is well."""
    return [hint(report, hparams) for hint in HINTS if hint.holds(report, hparams)]
