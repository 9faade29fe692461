"""The recovery policy: which step is not taken, when training gets cautious, when it goes back, when it gives up.

Floats in, decision out; no tensors and no files. All that it remembers is in `RecoveryState`, which a checkpoint keeps,
so a resumed run decides as the straight one would; and as it sees only the loss and the gradient norm of the whole
step, processes that train together decide alike.

    a bad step is skipped -> too many: a tighter clip and a lower rate for a while -> still too many: back to a
    checkpoint from before the first of them, their data passed over, the rate cut -> too often in vain: stop
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Literal

from hparams import MonitorParams, RecoveryParams

# A bad step adds 1 to the score and a good one takes GOOD_STEP away: it rises where more than one step in five is
# bad, and a single bad recording, which comes once an epoch, does not make it rise.
GOOD_STEP = 0.25
CAUTIOUS_AT, ROLL_BACK_AT = 3.0, 6.0
CAUTIOUS_STEPS = 200  # after the last bad step
CAUTIOUS_CLIP, CAUTIOUS_RATE = 0.25, 0.5
VANISHED_STEPS = 10  # in a row
BAD_DATA_STEPS = 20  # in a row: nothing is left to train on

# The running scale of the loss: an exponential mean, and that of the deviation from it. What is far off counts as
# CLIPPED_DEVIATIONS, so that a spike does not hide the next one, and yet a lasting change is followed.
MEMORY, CLIPPED_DEVIATIONS, SETTLED_STEPS = 0.02, 3.0, 50
SPIKE_DEVIATIONS, SPIKE_RATIO = 8.0, 3.0  # a spike is over both: so far out, and so many times the mean

LOST_SHARE, LOST_VALIDATIONS = 0.5, 2  # an alignment is lost under so much of the threshold, so often in a row
ROLLBACK_RATE = 0.5

Kind = Literal["not_finite", "explosion", "spike", "vanished", "alignment_lost", "damaged", "bad_data", "out_of_memory"]
Position = tuple[int, int]  # epoch, batch in it


@dataclass(frozen=True)
class Fault:
    """What is wrong, and since when: the number of the first bad step and where its data began."""

    kind: Kind
    message: str
    onset: int = -1
    position: Position | None = None


@dataclass(frozen=True)
class Decision:
    """What follows from a step or a validation. `events`: (kind, message); `fault`: go back, for this reason."""

    events: Sequence[tuple[str, str]] = ()
    fault: Fault | None = None


OLD_NAMES = {  # in checkpoints of version 0.1.0
    "seen": "n_losses", "mean": "mean_loss", "distance": "loss_deviation", "pressure": "bad_step_score",
    "onset": "first_bad_step", "onset_position": "first_bad_position", "bad_data": "bad_data_steps",
    "small": "vanished_steps", "small_position": "vanished_position", "tight_until": "cautious_until",
    "formed_at": "aligned_at", "formed_position": "aligned_position", "lost": "unaligned_validations",
}  # fmt: skip


@dataclass
class RecoveryState:
    """What the policy remembers."""

    n_losses: int = 0  # in the running mean
    mean_loss: float = 0.0
    loss_deviation: float = 0.0
    bad_step_score: float = 0.0
    first_bad_step: int = -1  # since the score was 0
    first_bad_position: Position | None = None
    bad_data_steps: int = 0  # steps in a row
    vanished_steps: int = 0  # gradients in a row
    vanished_position: Position | None = None
    cautious_until: int = 0  # step; 0 = not cautious
    aligned_at: int = -1  # step of the last validation with a good alignment
    aligned_position: Position | None = None
    unaligned_validations: int = 0  # in a row

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "RecoveryState":
        """As a checkpoint keeps it."""
        return cls(**{OLD_NAMES.get(name, name): value for name, value in saved.items()})


@dataclass(frozen=True)
class StepLimits:
    """What the loss of a step and its gradient norm before clipping must not exceed; both must be finite, too."""

    loss: float  # infinite while there is no scale to go by
    gradient_norm: float
    recent_loss: float = 0.0

    def fault(self, loss: float, norm: float) -> Fault | None:
        """Why a step with this loss and norm must not be taken; None if it may."""
        if not isfinite(loss):
            return Fault("not_finite", f"the loss was not finite ({loss})")
        if not isfinite(norm):
            return Fault("not_finite", f"the gradient was not finite ({norm})")
        if norm > self.gradient_norm:
            limit = f"gradient_explosion_threshold={self.gradient_norm:g}"
            return Fault("explosion", f"the gradient norm was {norm:.4g}, over {limit}")
        if loss > self.loss:
            usual = f"far from what it has been lately ({self.recent_loss:.4g})"
            return Fault("spike", f"the loss was {loss:.4g}, {usual}")
        return None


class RecoveryPolicy:
    """Judges every step and every validation of one run."""

    def __init__(self, hp: RecoveryParams) -> None:
        self.hp, self.state = hp, RecoveryState()

    @property
    def is_in_doubt(self) -> bool:
        """Whether something has begun that may end in a rollback."""
        s = self.state
        return s.first_bad_step >= 0 or s.vanished_steps > 0 or s.unaligned_validations > 0

    @property
    def clip_factor(self) -> float:
        return CAUTIOUS_CLIP if self.state.cautious_until else 1.0

    @property
    def rate_factor(self) -> float:
        return CAUTIOUS_RATE if self.state.cautious_until else 1.0

    # -- a step -----------------------------------------------------------------------------------------------

    @property
    def limits(self) -> StepLimits:
        """For the next step."""
        s = self.state
        is_settled = s.n_losses >= SETTLED_STEPS and s.mean_loss > 0
        spike = max(SPIKE_RATIO * s.mean_loss, s.mean_loss + SPIKE_DEVIATIONS * s.loss_deviation) if is_settled else inf
        return StepLimits(spike, self.hp.gradient_explosion_threshold, s.mean_loss)

    def after_step(
        self, step: int, fault: Fault | None, *, loss: float, norm: float, at: Position, is_data_bad: bool = False
    ) -> Decision:
        """fault: as judged, the step was then not taken. at: where the step's data began."""
        self._follow(loss)
        if fault is not None and is_data_bad:
            return self._bad_data(step, fault, at)
        self.state.bad_data_steps = 0
        if fault is not None:
            return self._bad_step(step, fault, at)
        s = self.state
        s.bad_step_score = max(s.bad_step_score - GOOD_STEP, 0.0)
        if s.bad_step_score == 0.0:
            s.first_bad_step, s.first_bad_position = -1, None
        small = self._vanished(step, norm, at)
        if s.cautious_until and step >= s.cautious_until:
            s.cautious_until = 0
            return Decision([("relaxed", f"no bad step for {CAUTIOUS_STEPS} steps: clip and rate as before")], small)
        return Decision(fault=small)

    def _follow(self, loss: float) -> None:
        """Moves the running scale."""
        if not isfinite(loss):
            return
        s = self.state
        share, off = max(1.0 / (s.n_losses + 1), MEMORY), loss - s.mean_loss
        if s.n_losses >= SETTLED_STEPS:
            reach = CLIPPED_DEVIATIONS * s.loss_deviation
            off = min(max(off, -reach), reach)
        s.mean_loss += share * off
        s.loss_deviation += share * (abs(off) - s.loss_deviation) if s.n_losses else 0.0
        s.n_losses += 1

    def _bad_step(self, step: int, fault: Fault, at: Position) -> Decision:
        s = self.state
        s.vanished_steps = 0
        if s.first_bad_step < 0:
            s.first_bad_step, s.first_bad_position = step, at
        s.bad_step_score += 1.0
        if s.bad_step_score >= ROLL_BACK_AT and s.cautious_until:
            message = f"{fault.message}; too many such steps since step {s.first_bad_step}, also with a tighter clip"
            return Decision(fault=Fault(fault.kind, message, s.first_bad_step, s.first_bad_position))
        was_cautious = s.cautious_until > 0
        if was_cautious or s.bad_step_score >= CAUTIOUS_AT:
            s.cautious_until = step + CAUTIOUS_STEPS
        return Decision([] if was_cautious or not s.cautious_until else [("tightened", self._tightened(fault))])

    def _tightened(self, fault: Fault) -> str:
        return (
            f"too many bad steps since step {self.state.first_bad_step} (the last: {fault.message}): grad_clip_thresh "
            f"x {CAUTIOUS_CLIP:g} and learning rate x {CAUTIOUS_RATE:g} until {CAUTIOUS_STEPS} steps have been good"
        )

    def _bad_data(self, step: int, fault: Fault, at: Position) -> Decision:
        """The data is at fault, not the weights: it is passed over, and nothing else changes while there is other."""
        s = self.state
        s.bad_data_steps += 1
        if s.bad_data_steps < BAD_DATA_STEPS:
            return Decision()
        message = f"the data of the last {BAD_DATA_STEPS} steps holds values that are not finite"
        return Decision(fault=Fault("bad_data", message, step, at))

    def _vanished(self, step: int, norm: float, at: Position) -> Fault | None:
        s = self.state
        if norm >= self.hp.nan_detection_threshold:
            s.vanished_steps, s.vanished_position = 0, None
            return None
        if s.vanished_steps == 0:
            s.vanished_position = at
        s.vanished_steps += 1
        if s.vanished_steps < VANISHED_STEPS:
            return None
        limit = self.hp.nan_detection_threshold
        message = (
            f"gradients vanished: for {s.vanished_steps} steps their norm is under nan_detection_threshold={limit:g}"
        )
        return Fault("vanished", message, step - s.vanished_steps + 1, s.vanished_position)

    def new_phase(self) -> None:
        """r has changed: losses and alignments from here on are not comparable with those before."""
        s = self.state
        s.n_losses, s.mean_loss, s.loss_deviation = 0, 0.0, 0.0
        s.aligned_at, s.aligned_position, s.unaligned_validations = -1, None, 0

    # -- a validation -----------------------------------------------------------------------------------------

    def after_validation(self, step: int, alignment: float, *, at: Position, hp: MonitorParams) -> Decision:
        """alignment: of free-running speech. at: where the data of the next step begins."""
        s, threshold = self.state, hp.alignment_diagonal_threshold
        if alignment >= threshold:
            s.aligned_at, s.aligned_position, s.unaligned_validations = step, at, 0
            return Decision()
        if s.aligned_at < 0 or alignment >= LOST_SHARE * threshold:
            return Decision()
        s.unaligned_validations += 1
        message = f"free-running alignment had formed and is lost ({alignment:.2f}; good at step {s.aligned_at})"
        if s.unaligned_validations >= LOST_VALIDATIONS:
            return Decision(fault=Fault("alignment_lost", message, s.aligned_at + 1, s.aligned_position))
        was_cautious, s.cautious_until = s.cautious_until > 0, step + CAUTIOUS_STEPS
        how = f"grad_clip_thresh x {CAUTIOUS_CLIP:g} and learning rate x {CAUTIOUS_RATE:g} for {CAUTIOUS_STEPS} steps"
        return Decision([] if was_cautious else [("tightened", f"{message}: {how}")])
