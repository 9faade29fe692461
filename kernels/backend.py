"""Which implementation a decoder speaks by: the compiled loop where that supports it, else PyTorch."""

from kernels import native_inference
from kernels.inference import InferenceWeights, TorchWeights
from kernels.native_inference import CompiledWeights
from kernels.packed_weights import InferencePrecision
from modules.decoder_loops import DecoderParts


def is_compiled(decoder: DecoderParts) -> bool:
    return decoder.backend == "auto" and native_inference.is_supported(decoder)


def inference_weights_of(
    decoder: DecoderParts, *, n_rows: int, precision: InferencePrecision = "fp32", is_persistent: bool = False
) -> InferenceWeights:
    """The decoder's weights laid out anew, for so many texts at once; is_persistent: for many texts."""
    if is_compiled(decoder):
        return CompiledWeights(decoder, precision=precision)
    assert precision == "fp32", f"{precision} weights need the compiled loop: ask why_unsupported before"
    return TorchWeights(decoder, n_rows=n_rows, is_persistent=is_persistent)


def why_unsupported(decoder: DecoderParts, precision: InferencePrecision) -> str | None:
    """Why this decoder can't speak with weights of that precision here; None if it can."""
    if precision == "fp32":
        return None
    if decoder.backend != "auto":
        return f"decoder_backend={decoder.backend}; only the compiled loop has it"
    return native_inference.why_unsupported(decoder, precision)
