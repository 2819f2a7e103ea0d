"""Floating point operations, counted by torch as they are computed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop


def _attention_backward(
    grad: Any,  # noqa: ANN401  (shapes, as torch's own counters have them)
    query: Any,  # noqa: ANN401
    key: Any,  # noqa: ANN401
    value: Any,  # noqa: ANN401
    *_others: Any,  # noqa: ANN401
    **_more: Any,  # noqa: ANN401
) -> int:
    return sdpa_backward_flop(grad, query, key, value)


def _attention(query: Any, key: Any, value: Any, *_others: Any, **_more: Any) -> int:  # noqa: ANN401
    return sdpa_flop(query, key, value)


# The fused attention of CPUs, which torch's counter does not know.
_CPU_ATTENTION: Mapping[str, Any] = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
}


@contextmanager
def counted() -> Iterator[FlopCounterMode]:
    """Count the operations of matrix products, convolutions and attention in this block.

    Two per multiply-add, of the actual shapes, forward and backward; operations on single elements
    are left out. `get_total_flops()` of the result returns their number. Counting takes time.
    """
    known = {
        getattr(torch.ops.aten, name): count
        for name, count in _CPU_ATTENTION.items()
        if hasattr(torch.ops.aten, name)
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        yield counter
