"""Which way a decoder speaks: by the compiled loop where that knows it, else in PyTorch."""

from kernels import native_inference, packed_weights
from kernels.inference import InferenceParts, InferenceWeights, TorchWeights
from kernels.native_inference import CompiledWeights
from kernels.packed_weights import InferencePrecision


def is_compiled(decoder: InferenceParts) -> bool:
    return decoder.backend == "auto" and native_inference.is_supported(decoder)


def inference_weights_of(
    decoder: InferenceParts, *, n_rows: int, precision: InferencePrecision = "fp32", is_persistent: bool = False
) -> InferenceWeights:
    """The decoder's weights laid out anew, for so many texts at once; is_persistent: for many texts."""
    if is_compiled(decoder):
        return CompiledWeights(decoder, precision=precision)
    return TorchWeights(decoder, n_rows=n_rows, precision=precision, is_persistent=is_persistent)


def why_unsupported(decoder: InferenceParts, precision: InferencePrecision) -> str | None:
    """What is missing here to speak faster with weights of that precision; None if nothing is."""
    if precision == "fp32":
        return None
    if decoder.backend == "plain":
        return "decoder_backend=plain"
    return (
        native_inference.why_unsupported(precision)
        if is_compiled(decoder)
        else packed_weights.why_unsupported(precision)
    )
