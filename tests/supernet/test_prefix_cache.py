"""The cache of common beginnings: bounded in bytes, and kind to what is shared."""

from __future__ import annotations

import random

import pytest
import torch

from riwoa.supernet.prefix_cache import Activations, Key, PrefixCache


def activations(n_bytes: int) -> Activations:
    half = torch.zeros(n_bytes // 2, dtype=torch.uint8)
    return Activations((half,), (torch.zeros(n_bytes - n_bytes // 2, dtype=torch.uint8),))


def evaluate(cache: PrefixCache, prefixes: list[Key], n_bytes: int = 10) -> int:
    """What an evaluation does: use the longest known prefix, then offer the others. How many blocks it computed."""
    known = cache.longest(prefixes)
    done = 0 if known is None else known[0] + 1
    for key in prefixes[done:]:
        cache.add(key, activations(n_bytes))
    return len(prefixes) - done


def path(*choices: int) -> list[Key]:
    return [choices[: i + 1] for i in range(len(choices))]


def test_longest_known_prefix_is_found() -> None:
    cache = PrefixCache(1000)
    assert cache.longest(path(1, 2, 3)) is None
    assert evaluate(cache, path(1, 2, 3)) == 3
    assert evaluate(cache, path(1, 2, 4)) == 1
    assert evaluate(cache, path(1, 2, 4)) == 0
    assert evaluate(cache, path(5, 2, 4)) == 3


def test_capacity_of_zero_keeps_nothing() -> None:
    cache = PrefixCache(0)
    evaluate(cache, path(1, 2, 3))
    assert len(cache) == 0
    assert cache.longest(path(1, 2, 3)) is None


@pytest.mark.parametrize("seed", range(5))
def test_bytes_never_exceed_the_bound(seed: int) -> None:
    rng = random.Random(seed)
    cache = PrefixCache(300)
    for _ in range(300):
        evaluate(cache, path(*(rng.randrange(3) for _ in range(6))), n_bytes=rng.randrange(1, 80))
        assert cache.n_bytes <= 300
    assert len(cache) > 0


def test_what_cannot_fit_is_not_taken() -> None:
    cache = PrefixCache(100)
    cache.add(("big",), activations(51))
    assert ("big",) not in cache
    cache.add(("small",), activations(50))
    assert ("small",) in cache


def test_shared_beginning_survives_a_stream_of_strangers() -> None:
    cache = PrefixCache(400)
    evaluate(cache, path(0, 0))
    for stranger in range(1, 200):
        evaluate(cache, path(0, stranger, *range(10)))
    assert (0,) in cache
    assert (0, 1) not in cache
