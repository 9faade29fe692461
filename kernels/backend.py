"""Which way a decoder speaks: by the compiled loop where that knows it, else in PyTorch."""

from kernels import native_inference, packed_weights
from kernels.inference import SpeakingParts, SpeakingWeights, Weights
from kernels.native_inference import CompiledWeights
from kernels.packed_weights import SpeakingPrecision


def is_compiled(decoder: SpeakingParts) -> bool:
    return decoder.backend == "auto" and native_inference.covers(decoder)


def weights_to_speak(
    decoder: SpeakingParts, *, n_rows: int, precision: SpeakingPrecision = "fp32", is_lasting: bool = False
) -> Weights:
    """The decoder's weights laid out anew, for so many texts at once; is_lasting: for many texts."""
    if is_compiled(decoder):
        return CompiledWeights(decoder, precision=precision)
    return SpeakingWeights(decoder, n_rows=n_rows, precision=precision, is_lasting=is_lasting)


def lacks_for(decoder: SpeakingParts, precision: SpeakingPrecision) -> str | None:
    """What is missing here to speak faster with weights of that precision; None if nothing is."""
    if precision == "fp32":
        return None
    if decoder.backend == "plain":
        return "decoder_backend=plain"
    return native_inference.lacks_for(precision) if is_compiled(decoder) else packed_weights.lacks_for(precision)
