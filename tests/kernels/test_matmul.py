"""Products of all steps at a time."""

import pytest
import torch

from kernels import matmul

ROUNDING = 2**-8  # of bf16, to nearest


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_products_are_those_of_the_same_numbers_in_fp32(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    monkeypatch.setattr(matmul, "has_bf16_products", lambda: has_bf16)
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 70, generator=generator).bfloat16() for n in (33, 50))
    expected = x.double() @ weight.double().t()

    out = matmul.product(x, weight)

    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected, rtol=ROUNDING, atol=1e-4)


@pytest.mark.parametrize("widths", [(24, 40), (40, 24)])
def test_a_widened_bf16_sum_is_kept_to_the_digits_of_fp32(
    monkeypatch: pytest.MonkeyPatch, widths: tuple[int, int]
) -> None:
    monkeypatch.setattr(matmul, "has_bf16_products", lambda: False)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(100, n, generator=generator).bfloat16() for n in widths)
    expected = left.double().t() @ right.double()

    total = matmul.transposed_product(left, right, torch.float32)

    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-4)
