"""The evolution that the authors of Once-for-All publish with it (Cai et al., ICLR 2020), with its defaults."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from riwoa.bench.arena import Arena
from riwoa.errors import UsageError
from riwoa.search.space import IntArray
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.space import DEPTHS, EXPANSIONS, KERNELS, STAGES, mobilenet_space

_MOST_GENERATIONS = 10**6


class _Answers:
    """What the finder calls its two predictors, answered by an arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        encoders = import_module("ofa.nas.accuracy_predictor.arch_encoder")
        self.arch_encoder = encoders.MobileNetArchEncoder(
            image_size_list=list(arena.space.genes[0].choices),
            depth_list=list(DEPTHS),
            expand_list=list(EXPANSIONS),
            ks_list=list(KERNELS),
            n_stage=STAGES,
        )

    def get_efficiency(self, sample: dict[str, Any]) -> float:
        """The load, free."""
        return float(self._arena.landscape.free_load(self._arena.space.canonical(self._indices(sample))) or 0.0)

    def predict_acc(self, samples: Sequence[dict[str, Any]]) -> Any:
        """Values of some samples."""
        return np.array([self._arena.query(self._indices(sample)).value for sample in samples])

    def _indices(self, sample: dict[str, Any]) -> IntArray:
        blocks = [n for pair in zip(sample["ks"], sample["e"], strict=True) for n in pair]
        genes = zip(self._arena.space.genes, [sample["image_size"], *sample["d"], *blocks], strict=True)
        return np.array([gene.choices.index(choice) for gene, choice in genes], dtype=np.int64)


def evolution(arena: Arena, seed: int) -> None:
    """OFA's ``EvolutionFinder``.

    Raises:
        UsageError: the space is another than OFA's.
    """
    space = arena.space
    if space.genes[1:] != mobilenet_space((1,)).genes[1:]:
        raise UsageError("--strategies: ofa-evolution searches OFA's own space alone, as bench predictor does")
    import_ofa()
    answers = _Answers(arena)
    finder = import_module("ofa.nas.search_algorithm.evolution").EvolutionFinder(
        answers, answers, max_time_budget=_MOST_GENERATIONS
    )
    with _global_generators(seed), contextlib.redirect_stdout(io.StringIO()):
        finder.run_evolution_search(arena.aim.limit if arena.aim.limit is not None else float("inf"))


@contextlib.contextmanager
def _global_generators(seed: int) -> Iterator[None]:
    """The two global generators that OFA draws from, seeded, and afterwards as they were."""
    kept, kept_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(kept_numpy)  # noqa: NPY002
