"""Counter-based randomness: a stream is named by (seed, generation, purpose, slot), so there is no state to save.

Philox4x64 (Salmon et al., SC 2011) is a keyed bijection of a 256-bit counter. The key is a hash of seed and purpose;
the upper half of the counter holds generation and slot, the lower half (2^128 blocks) is left to the stream's draws.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, generation: int, purpose: str, slot: int = 0) -> np.random.Generator:
    """The stream of that name. Two streams never overlap; the same name always gives the same numbers.

    Draw whole ``(n, d)`` arrays from one stream where rows belong to slots: rows are filled in order, so the numbers of
    a slot do not depend on how many slots follow it.
    """
    digest = hashlib.sha256(f"riwoa:{int(seed)}:{purpose}".encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
    counter = np.array([0, 0, slot, generation], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))
