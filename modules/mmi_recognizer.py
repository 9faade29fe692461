"""MMI: a recogniser reads the text back from the decoder, so that the decoder has to heed it (arXiv 1909.01145).

The recogniser is weak on purpose, one hidden layer on the features that both projections read: a strong one would
follow the mel alone and teach the decoder nothing. Its keys start with `mmi.`; synthesis knows nothing of it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hparams import ModelParams

RECOGNIZER_DROPOUT = 0.5  # weak on purpose, too


class Recognizer(nn.Module):
    """Decoder features -> log-probabilities of all symbols and, last, of CTC's blank."""

    def __init__(self, n_features: int, hp: ModelParams) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_features, hp.decoder_rnn_dim)
        self.output = nn.Linear(hp.decoder_rnn_dim, hp.n_symbols + 1)
        if hp.xavier_init:
            nn.init.xavier_uniform_(self.hidden.weight, gain=nn.init.calculate_gain("relu"))
            nn.init.xavier_uniform_(self.output.weight)

    def forward(self, features: Tensor) -> Tensor:
        """features [T_dec, B, D + E] -> [T_dec, B, n_symbols + 1] in the precision of the weights, autocast or not."""
        with torch.autocast(features.device.type, enabled=False):
            hidden = F.relu(self.hidden(features.to(self.hidden.weight.dtype)))
            return F.log_softmax(self.output(F.dropout(hidden, RECOGNIZER_DROPOUT, self.training)), 2)
