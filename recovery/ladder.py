"""The recovery ladder: which step is not taken, when training gets careful, when it goes back, when it gives up.

Floats in, verdict out; no tensors and no files. All that it remembers is in `Vitals`, which a checkpoint keeps, so a
resumed run decides as the straight one would; and as it sees only the loss and the gradient norm of the whole step,
processes that train together decide alike.

    a bad step is skipped -> too many: a tighter clip and a lower rate for a while -> still too many: back to a
    checkpoint from before the first of them, their data passed over, the rate cut -> too often in vain: stop
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from hparams import MonitorParams, RecoveryParams

# A bad step adds 1 to the pressure and a good one takes GOOD_STEP away: it rises where more than one step in five is
# bad, and a single bad recording, which comes once an epoch, does not make it rise.
GOOD_STEP = 0.25
TIGHTEN_AT, ROLL_BACK_AT = 3.0, 6.0
TIGHT_STEPS = 200  # after the last bad step
TIGHT_CLIP, TIGHT_RATE = 0.25, 0.5
VANISHED_STEPS = 10  # in a row
BAD_DATA_STEPS = 20  # in a row: nothing is left to train on

# The running scale of the loss: an exponential mean, and that of the distance from it. What is far off counts as
# CLIPPED distances, so that a spike does not hide the next one, and yet a lasting change is followed.
MEMORY, CLIPPED, SETTLED_STEPS = 0.02, 3.0, 50
SPIKE_DISTANCES, SPIKE_RATIO = 8.0, 3.0  # a spike is over both: so far out, and so many times the mean

LOST_ALIGNMENT, LOST_VALIDATIONS = 0.5, 2  # under so much of the threshold, so many times in a row
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
class Verdict:
    """What follows from a step or a validation. `events`: (kind, message); `fault`: go back, for this reason."""

    events: Sequence[tuple[str, str]] = ()
    fault: Fault | None = None


@dataclass
class Vitals:
    """What the ladder remembers."""

    seen: int = 0  # losses in the scale
    mean: float = 0.0
    distance: float = 0.0
    pressure: float = 0.0
    onset: int = -1  # first bad step since the pressure was 0
    onset_position: Position | None = None
    bad_data: int = 0  # steps in a row
    small: int = 0  # gradients in a row
    small_position: Position | None = None
    tight_until: int = 0  # step; 0 = not tight
    formed_at: int = -1  # step of the last validation with a good alignment
    formed_position: Position | None = None
    lost: int = 0  # validations in a row


@dataclass(frozen=True)
class StepLimits:
    """What the loss of a step and its gradient norm before clipping must not exceed; both must be finite, too."""

    loss: float  # infinite while there is no scale to go by
    norm: float
    usual_loss: float = 0.0

    def fault(self, loss: float, norm: float) -> Fault | None:
        """Why a step with this loss and norm must not be taken; None if it may."""
        if not isfinite(loss):
            return Fault("not_finite", f"the loss was not finite ({loss})")
        if not isfinite(norm):
            return Fault("not_finite", f"the gradient was not finite ({norm})")
        if norm > self.norm:
            limit = f"gradient_explosion_threshold={self.norm:g}"
            return Fault("explosion", f"the gradient norm was {norm:.4g}, over {limit}")
        if loss > self.loss:
            usual = f"far from what it has been lately ({self.usual_loss:.4g})"
            return Fault("spike", f"the loss was {loss:.4g}, {usual}")
        return None


class Ladder:
    """Judges every step and every validation of one run."""

    def __init__(self, hp: RecoveryParams) -> None:
        self.hp, self.vitals = hp, Vitals()

    @property
    def clip_factor(self) -> float:
        return TIGHT_CLIP if self.vitals.tight_until else 1.0

    @property
    def rate_factor(self) -> float:
        return TIGHT_RATE if self.vitals.tight_until else 1.0

    # -- a step -----------------------------------------------------------------------------------------------

    @property
    def limits(self) -> StepLimits:
        """For the next step."""
        v = self.vitals
        is_settled = v.seen >= SETTLED_STEPS and v.mean > 0
        spike = max(SPIKE_RATIO * v.mean, v.mean + SPIKE_DISTANCES * v.distance) if is_settled else inf
        return StepLimits(spike, self.hp.gradient_explosion_threshold, v.mean)

    def after_step(
        self, step: int, fault: Fault | None, *, loss: float, norm: float, at: Position, is_data_bad: bool = False
    ) -> Verdict:
        """fault: as judged, the step was then not taken. at: where the step's data began."""
        self._follow(loss)
        if fault is not None and is_data_bad:
            return self._bad_data(step, fault, at)
        self.vitals.bad_data = 0
        if fault is not None:
            return self._bad_step(step, fault, at)
        v = self.vitals
        v.pressure = max(v.pressure - GOOD_STEP, 0.0)
        if v.pressure == 0.0:
            v.onset, v.onset_position = -1, None
        small = self._vanished(step, norm, at)
        if v.tight_until and step >= v.tight_until:
            v.tight_until = 0
            return Verdict([("relaxed", f"no bad step for {TIGHT_STEPS} steps: clip and rate as before")], small)
        return Verdict(fault=small)

    def _follow(self, loss: float) -> None:
        """Moves the running scale."""
        if not isfinite(loss):
            return
        v = self.vitals
        share, off = max(1.0 / (v.seen + 1), MEMORY), loss - v.mean
        if v.seen >= SETTLED_STEPS:
            reach = CLIPPED * v.distance
            off = min(max(off, -reach), reach)
        v.mean += share * off
        v.distance += share * (abs(off) - v.distance) if v.seen else 0.0
        v.seen += 1

    def _bad_step(self, step: int, fault: Fault, at: Position) -> Verdict:
        v = self.vitals
        v.small = 0
        if v.onset < 0:
            v.onset, v.onset_position = step, at
        v.pressure += 1.0
        if v.pressure >= ROLL_BACK_AT and v.tight_until:
            message = f"{fault.message}; too many such steps since step {v.onset}, also with a tighter clip"
            return Verdict(fault=Fault(fault.kind, message, v.onset, v.onset_position))
        was_tight = v.tight_until > 0
        if was_tight or v.pressure >= TIGHTEN_AT:
            v.tight_until = step + TIGHT_STEPS
        return Verdict([] if was_tight or not v.tight_until else [("tightened", self._tightened(fault))])

    def _tightened(self, fault: Fault) -> str:
        return (
            f"too many bad steps since step {self.vitals.onset} (the last: {fault.message}): grad_clip_thresh x "
            f"{TIGHT_CLIP:g} and learning rate x {TIGHT_RATE:g} until {TIGHT_STEPS} steps have been good"
        )

    def _bad_data(self, step: int, fault: Fault, at: Position) -> Verdict:
        """The data is at fault, not the weights: it is passed over, and nothing else changes while there is other."""
        v = self.vitals
        v.bad_data += 1
        if v.bad_data < BAD_DATA_STEPS:
            return Verdict()
        message = f"the data of the last {BAD_DATA_STEPS} steps holds values that are not finite"
        return Verdict(fault=Fault("bad_data", message, step, at))

    def _vanished(self, step: int, norm: float, at: Position) -> Fault | None:
        v = self.vitals
        if norm >= self.hp.nan_detection_threshold:
            v.small, v.small_position = 0, None
            return None
        if v.small == 0:
            v.small_position = at
        v.small += 1
        if v.small < VANISHED_STEPS:
            return None
        limit = self.hp.nan_detection_threshold
        message = f"gradients vanished: for {v.small} steps their norm is under nan_detection_threshold={limit:g}"
        return Fault("vanished", message, step - v.small + 1, v.small_position)

    def new_phase(self) -> None:
        """r has changed: losses and alignments from here on are not comparable with those before."""
        v = self.vitals
        v.seen, v.mean, v.distance = 0, 0.0, 0.0
        v.formed_at, v.formed_position, v.lost = -1, None, 0

    # -- a validation -----------------------------------------------------------------------------------------

    def after_validation(self, step: int, alignment: float, *, at: Position, hp: MonitorParams) -> Verdict:
        """alignment: of free-running speech. at: where the data of the next step begins."""
        v, threshold = self.vitals, hp.alignment_diagonal_threshold
        if alignment >= threshold:
            v.formed_at, v.formed_position, v.lost = step, at, 0
            return Verdict()
        if v.formed_at < 0 or alignment >= LOST_ALIGNMENT * threshold:
            return Verdict()
        v.lost += 1
        message = f"free-running alignment had formed and is lost ({alignment:.2f}; good at step {v.formed_at})"
        if v.lost >= LOST_VALIDATIONS:
            return Verdict(fault=Fault("alignment_lost", message, v.formed_at + 1, v.formed_position))
        was_tight, v.tight_until = v.tight_until > 0, step + TIGHT_STEPS
        how = f"grad_clip_thresh x {TIGHT_CLIP:g} and learning rate x {TIGHT_RATE:g} for {TIGHT_STEPS} steps"
        return Verdict([] if was_tight else [("tightened", f"{message}: {how}")])
