"""The rule book: what a symptom means, its likely causes, and what to do."""

from collections.abc import Sequence

from recovery.ladder import Kind

# ---- giving up


def causes_and_advice(kind: Kind, *, is_half: bool) -> tuple[list[str], list[str]]:
    """The most likely first."""
    causes, advice = (list(texts) for texts in REASONS[kind])
    if is_half and kind in ("not_finite", "explosion", "vanished"):
        causes.append("half precision is too coarse for these numbers")
        advice.append('try --hparams "fp16_run=False", or amp_dtype=bf16 in place of fp16')
    return causes, advice


CALMER = "lower learning_rate (half of it, say) or grad_clip_thresh, with --resume-with-changes"
RECORDINGS = "listen to the named utterances: text that is not what is said, clipping, silence, wrong length"
REASONS: dict[Kind, tuple[Sequence[str], Sequence[str]]] = {
    "not_finite": (
        ["the learning rate is too high for these weights", "a recording or a text in the named batches is broken"],
        [CALMER, RECORDINGS],
    ),
    "explosion": (
        ["the learning rate is too high", "the losses are large by nature, and the threshold is too low for them"],
        [CALMER, "raise gradient_explosion_threshold if such norms are usual here (grad_norm in metrics.jsonl)"],
    ),
    "spike": (
        ["the learning rate is too high", "many utterances in the named batches are wrong"],
        [CALMER, RECORDINGS],
    ),
    "vanished": (
        ["the weights are stuck where nothing moves the loss", "nan_detection_threshold is above usual norms here"],
        [CALMER, "lower nan_detection_threshold if such norms are usual here (grad_norm in metrics.jsonl)"],
    ),
    "alignment_lost": (
        ["the learning rate is too high", "guided attention has ended too early"],
        [CALMER, "raise guide_loss_final_weight or guide_loss_decay_start"],
    ),
    "damaged": (
        ["memory or device flips bits: weights broke though every loss and gradient was finite"],
        ["test the memory of the machine (memtest86+, nvidia-smi -q -d ECC), or train on another one", CALMER],
    ),
    "bad_data": (
        ["recordings, or their mels in the cache, were damaged after the corpus was checked"],
        ["delete the cached mels of the named utterances, repair the recordings, or leave out their lines"],
    ),
    "out_of_memory": (
        ["a single utterance needs more memory than there is", "other processes hold the memory"],
        [
            "fp16_run=True lowers memory, use_memory_efficient_attention=True too; leave out the longest utterances",
            "see who else uses the memory (nvidia-smi, free -h)",
        ],
    ),
}
