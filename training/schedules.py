"""What changes while a run goes on, as pure functions and small counters: learning rate, plateau, early stopping."""

from hparams import LossParams, OptimisationParams, TeacherForcingParams


def learning_rate(step: int, hp: OptimisationParams, *, scale: float = 1.0, peak: float | None = None) -> float:
    """Rate of optimiser step `step` (the first is 1).

    Linear warm-up to `peak` (None: `learning_rate`); then either an exponential fall from `anneal_start` to
    `learning_rate_min` within `anneal_steps`, or `scale`, which the plateau decay lowers, with `learning_rate_min` as
    its floor.
    """
    warm = min(1.0, step / hp.warmup_steps) if hp.warmup_steps else 1.0
    peak = hp.learning_rate if peak is None else peak
    if hp.anneal_steps:
        done = min(max((step - hp.anneal_start) / hp.anneal_steps, 0.0), 1.0)
        return warm * peak * (hp.learning_rate_min / peak) ** done
    return warm * max(peak * scale, min(peak, hp.learning_rate_min))


def teacher_forcing_ratio(step: int, hp: TeacherForcingParams) -> float:
    """Chance that a decoder step of optimiser step `step` hears the recording.

    `p_teacher_forcing`; or with `use_scheduled_teacher_forcing` the start ratio until `teacher_forcing_decay_start`,
    and a linear fall to the end ratio after it.
    """
    if not hp.use_scheduled_teacher_forcing:
        return hp.p_teacher_forcing
    passed = (step - hp.teacher_forcing_decay_start) / max(hp.teacher_forcing_decay_steps, 1)
    first, last = hp.teacher_forcing_start_ratio, hp.teacher_forcing_end_ratio
    return first + (last - first) * min(max(passed, 0.0), 1.0)


def guide_weight(step: int, hp: LossParams) -> float:
    """Effective weight of guided attention: `guide_loss_weight` times a multiplier m(step).

    m stays at its initial value until `guide_loss_decay_start`, then falls linearly to the final one.
    """
    if hp.no_dga or not hp.use_guided_attn:
        return 0.0
    if not hp.use_dynamic_guide_loss:
        return hp.guide_loss_weight
    passed = (step - hp.guide_loss_decay_start) / max(hp.guide_loss_decay_steps, 1)
    done = min(max(passed, 0.0), 1.0)
    first, last = hp.guide_loss_initial_weight, hp.guide_loss_final_weight
    return hp.guide_loss_weight * (first + (last - first) * done)
