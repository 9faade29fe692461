"""Which symbols a voice met in training: of the others it has learnt nothing, whatever their rows hold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import DataError
from common.log import LOG
from text.symbol_sets import SymbolTable

SHOWN_SYMBOLS = 20
UNUSED = 0.01  # length of an embedding's row, of the longest one: weight decay takes what is never used to zero
MOSTLY = 0.5  # a text of which so much was never met can't be understood


@dataclass(frozen=True)
class KnownSymbols:
    """unmet: ids that training never met."""

    unmet: frozenset[int] = frozenset()

    @classmethod
    def of(cls, counts: Sequence[int] | None, embedding: Tensor) -> "KnownSymbols":
        """counts: how often training met each symbol; None in checkpoints of version 0.1.0 and of others, where only
        the rows of the embedding [n_symbols, D] tell.
        """
        if counts is not None:
            return cls(frozenset(i for i, count in enumerate(counts) if not count))
        lengths = embedding.detach().float().norm(dim=1)  # [n_symbols]
        return cls(frozenset(torch.nonzero(lengths < UNUSED * lengths.max()).flatten().tolist()))

    def check(self, ids_of: Sequence[Sequence[int]], texts: Sequence[str], table: SymbolTable) -> None:
        """A warning that names them; DataError where they are most of what a text says."""
        if not self.unmet:
            return
        found = Counter(i for ids in ids_of for i in ids if i in self.unmet)
        if not found:
            return
        named = ", ".join(f"{table.text_of([i])} {count} x" for i, count in found.most_common(SHOWN_SYMBOLS))
        more = len(found) - SHOWN_SYMBOLS
        named += f" and {more} more" if more > 0 else ""
        hopeless = [text for ids, text in zip(ids_of, texts, strict=True) if self._mostly_unmet(ids, table)]
        if hopeless:
            raise DataError(
                f"the voice never met {named} in training, which is most of {hopeless[0]!r}; write it as the training "
                "texts were written (letters for a voice of letters, phonemes for a voice of phonemes)"
            )
        LOG.warning("the voice never met %s in training: what it makes of them is chance", named)

    def _mostly_unmet(self, ids: Sequence[int], table: SymbolTable) -> bool:
        said = [i for i in ids if table.needs_sound[i]]
        return bool(said) and sum(i in self.unmet for i in said) > MOSTLY * len(said)
