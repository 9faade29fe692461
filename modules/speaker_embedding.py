"""One learned vector for each speaker."""

from torch import Tensor, nn

from hparams import NetworkParams
from layers import LinearNorm, add_to_text

FIRST_STD = 0.1  # small, so that a voice that several speakers start from sounds at first as it did


class SpeakerEmbedding(nn.Module):
    """A vector for each speaker, projected and added to the encoded text: the decoder's shapes stay."""

    def __init__(self, n_speakers: int, hp: NetworkParams) -> None:
        super().__init__()
        self.table = nn.Embedding(n_speakers, hp.speaker_embedding_dim)
        nn.init.normal_(self.table.weight, std=FIRST_STD)
        self.projection = LinearNorm(
            hp.speaker_embedding_dim, hp.encoder_embedding_dim, bias=False, xavier=hp.xavier_init
        )

    def forward(self, memory: Tensor, text_lengths: Tensor, speakers: Tensor) -> Tensor:
        """memory [B, T_text, E], speakers [B] rows of the table -> [B, T_text, E]"""
        return add_to_text(memory, self.projection(self.table(speakers)), text_lengths)
