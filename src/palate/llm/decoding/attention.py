"""Attention in which the query heads that share keys and values are rows of one head: nothing is copied for them.

transformers repeats keys and values for each query head where several tokens are read under a mask of one's own, as
drafts are; with a cache of some hundred tokens that takes as long as the attention itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_NAME = "palate_grouped"
_MORE = ("position_bias", "softcap", "cache")  # what transformers' own function heeds besides, or refuses


@contextmanager
def grouped(network: Any) -> Iterator[None]:
    """Let `network` attend so meanwhile, if it attends by PyTorch's scaled-dot-product attention."""
    config = network.config
    if getattr(config, "_attn_implementation", None) != "sdpa":
        yield
        return
    _register()
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


@cache
def _register() -> None:
    from torch.nn.functional import scaled_dot_product_attention
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
    ) -> tuple[Tensor, None]:
        rows, heads, wide, width = query.shape
        shared = heads // key.shape[1]
        more = settings.get("dropout") or any(settings.get(name) is not None for name in _MORE)
        if shared == 1 or attention_mask is None or more:
            found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
            return found
        out = scaled_dot_product_attention(
            query.reshape(rows, heads // shared, shared * wide, width),
            key,
            value,
            attn_mask=attention_mask[..., : key.shape[2]].repeat(1, 1, shared, 1),
            scale=settings.get("scaling"),
        )
        return out.reshape(rows, heads, wide, width).transpose(1, 2).contiguous(), None

    AttentionInterface.register(_NAME, attend)
