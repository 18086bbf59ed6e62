"""torch's own attention module, written so that the batch stays the first dimension."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it


class MultiheadAttention(nn.Module):
    """What `nn.MultiheadAttention(batch_first=True)` computes, in operators over (N, T, F)."""

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, self.batch_first = original.num_heads, True
        self._qkv_same_embed_dim = True
        self.in_proj_weight, self.in_proj_bias = original.in_proj_weight, original.in_proj_bias
        self.out_proj = original.out_proj

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, None]:
        """The attention's output, and no weights."""
        if options.get("attn_mask") is not None or options.get("key_padding_mask") is not None:
            raise ValueError("attention with a mask is not supported")
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None, None, None)
        query, key, value = (
            _split(F.linear(tokens, weight, bias), self.heads)
            for tokens, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        joined = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        outputs: Tensor = self.out_proj(joined)
        return outputs, None


def _split(tokens: Tensor, heads: int) -> Tensor:
    """(N, T, F) to (N, heads, T, F / heads)."""
    count, length, width = tokens.shape
    return tokens.view(count, length, heads, width // heads).transpose(1, 2)


def batch_first_attention(module: nn.Module) -> nn.Module:
    """The module with its attention, where it is batch first, in operators that can be traced; changed in place."""
    for name, child in module.named_children():
        plain = isinstance(child, nn.MultiheadAttention) and child.batch_first and child.in_proj_weight is not None
        if isinstance(child, nn.MultiheadAttention) and plain and child.bias_k is None and not child.add_zero_attn:
            setattr(module, name, MultiheadAttention(child))
        else:
            batch_first_attention(child)
    return module
