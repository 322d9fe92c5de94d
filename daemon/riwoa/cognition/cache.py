"""A key-value cache that grows in place. Needs torch.

transformers' own appends by concatenation, which copies the whole cache at every token: on a CPU, with a batch of long
prompts, most of the time of a token.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64  # positions that are allocated ahead


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values, (batch, heads, positions, size), as views of buffers with room for more positions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append positions; see ``DynamicLayer.update``."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            self._buffers = (self._grown(self.keys, key_states, end), self._grown(self.values, value_states, end))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, length:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def _grown(self, held: Any, new: torch.Tensor, end: int) -> torch.Tensor:
        batch, heads, _, size = new.shape
        buffer = new.new_empty((batch, heads, end + _ROOM, size))
        length = self.get_seq_length()
        if length:
            buffer[:, :, :length] = held
        return buffer

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows; see ``DynamicLayer.batch_select_indices``."""
        super().batch_select_indices(indices)
        self._buffers = None  # the next position allocates anew

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row so many times; see ``DynamicLayer.batch_repeat_interleave``."""
        super().batch_repeat_interleave(repeats)
        self._buffers = None


def growing_cache() -> DynamicCache:
    """An empty cache of growing layers."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache
