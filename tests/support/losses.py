"""All auxiliary losses at once, and a model whose head is frozen."""

from collections.abc import Sequence

from torch import Tensor

from corpus.batch import Batch
from support.runs import Frozen

ALL = "use_mmi=True,update_gaf_every_n_step=3,use_ddc=True,attention_alignment_loss_weight=0.5,drop_frame_rate=0.2"


class FrozenHead(Frozen):
    """And the recogniser's own dropout off, which no hyperparameter reaches."""

    def accumulate(self, micro_batches: Sequence[Batch], *, step: int) -> dict[str, Tensor]:
        assert self.model.mmi is not None
        self.model.mmi.eval()
        return super().accumulate(micro_batches, step=step)
