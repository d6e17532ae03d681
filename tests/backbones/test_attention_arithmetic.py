import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from backbones.attention_arithmetic import WideAttention


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_float32_and_comes_back_in_the_dtype_it_was_asked_in(masked):
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, 5, 4).bfloat16().requires_grad_() for _ in range(3)]
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril() if masked else None
    with torch.autocast("cpu", torch.bfloat16), WideAttention():
        result = scaled_dot_product_attention(*parts, attn_mask=mask, scale=0.3)
    expected = scaled_dot_product_attention(*(part.detach().float() for part in parts), attn_mask=mask, scale=0.3)
    assert torch.equal(result, expected.bfloat16())
    result.sum().backward()
    assert all(part.grad.dtype == torch.bfloat16 and part.grad.abs().sum() > 0 for part in parts)


def test_a_mask_of_numbers_is_widened_too_and_other_functions_are_left_alone():
    parts = [torch.randn(1, 1, 3, 4).bfloat16() for _ in range(3)]
    mask = torch.zeros(1, 1, 3, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16), WideAttention():
        assert scaled_dot_product_attention(*parts, attn_mask=mask).dtype == torch.bfloat16
        assert (torch.randn(3, 3) @ torch.randn(3, 3)).dtype == torch.bfloat16
