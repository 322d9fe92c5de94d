"""Activations of subnets' common beginnings, kept within a bound in bytes.

BatchNorm statistics flow forward only, so what a block puts out depends on the blocks up to it and on nothing after:
two subnets that begin alike have the same activations there, bit for bit. Keeping them changes how long an evaluation
takes and never its result.

Segmented LRU (Karedla, Love and Wherry, Computer 27(3), 1994): a prefix enters a probationary segment and moves to the
protected one when it is met again. A random subnet brings some fifteen prefixes that nobody will ask for; a plain LRU
would let them push out the first blocks, which everybody shares.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

# (resolution, then one (block, kernel, expansion) for each searched block)
Key = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """What a prefix puts out: recalibration images and validation images, each in the groups they are processed in.

    The tensors are shared between evaluations: nobody may write to them.
    """

    recalibration: tuple[Tensor, ...]
    validation: tuple[Tensor, ...]

    @property
    def n_bytes(self) -> int:
        """Memory of all tensors."""
        return sum(t.numel() * t.element_size() for t in (*self.recalibration, *self.validation))


class PrefixCache:
    """Prefix -> activations, at most ``capacity_bytes`` of them. A capacity of 0 keeps nothing."""

    def __init__(self, capacity_bytes: int) -> None:
        self.probation_bytes = capacity_bytes // 2
        self._protected_bytes = capacity_bytes - self.probation_bytes
        self._probation: OrderedDict[Key, Activations] = OrderedDict()
        self._protected: OrderedDict[Key, Activations] = OrderedDict()

    def __len__(self) -> int:
        return len(self._probation) + len(self._protected)

    def __contains__(self, key: Key) -> bool:
        return key in self._probation or key in self._protected

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return _held(self._probation) + _held(self._protected)

    def longest(self, prefixes: Sequence[Key]) -> tuple[int, Activations] | None:
        """Position and activations of the longest known prefix; ``prefixes`` are in growing length.

        Every known prefix on the way counts as met again: whoever shares a long prefix shares the short ones.
        """
        found = None
        for position, key in enumerate(prefixes):
            activations = self._meet(key)
            if activations is not None:
                found = position, activations
        return found

    def add(self, key: Key, activations: Activations) -> None:
        """Keep a new prefix, on probation; the least recently met ones make room."""
        if key in self or activations.n_bytes > self.probation_bytes:
            return
        self._probation[key] = activations
        self._shrink_probation()

    def _meet(self, key: Key) -> Activations | None:
        if key in self._protected:
            self._protected.move_to_end(key)
            return self._protected[key]
        activations = self._probation.pop(key, None)
        if activations is not None:
            self._protected[key] = activations
            while _held(self._protected) > self._protected_bytes:
                demoted, its_activations = self._protected.popitem(last=False)
                self._probation[demoted] = its_activations
            self._shrink_probation()
        return activations

    def _shrink_probation(self) -> None:
        while _held(self._probation) > self.probation_bytes:
            self._probation.popitem(last=False)


def _held(segment: OrderedDict[Key, Activations]) -> int:
    return sum(a.n_bytes for a in segment.values())
