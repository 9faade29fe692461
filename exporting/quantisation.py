"""Weights of products in int8: a quarter of the size, and numbers that differ; docs/speaking.md says by how much."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPERATIONS = ["MatMul", "Gemm", "LSTM"]


def in_int8(content: bytes) -> bytes:
    """An ONNX graph with its products in int8 by onnxruntime's dynamic quantisation."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder, "whole.onnx"), Path(folder, "small.onnx")
        whole.write_bytes(content)
        with _without_advice():
            quantize_dynamic(
                whole, small, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=OPERATIONS
            )
        onnx.checker.check_model(small)
        return small.read_bytes()


@contextmanager
def _without_advice() -> Iterator[None]:
    """onnxruntime advises through the root logger, which would give it a handler."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
