"""What asking at each arrival brings, in simulated time."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from riwoa.bench.table import Question
from riwoa.bench.workers import Settings, bench_workers
from riwoa.ctl.contest import workers_words

OPS = np.array(list(itertools.product(range(4), repeat=4)), dtype=np.uint8)
QUESTION = Question(genes="ops", kind="nominal", maximize="value")


@pytest.mark.parametrize(("spread", "idle"), [(1.0, True), (0.0, False)])
def test_workers_that_are_asked_at_each_arrival_never_wait(tmp_path: Path, spread: float, idle: bool) -> None:
    np.savez(tmp_path / "t.npz", ops=OPS, value=OPS.sum(axis=1) + 0.1 * OPS[:, 0])
    found = bench_workers(Settings(seeds=2, budget=24, workers=3, spread=spread), tmp_path / "t.npz", QUESTION)
    generations, asynchronous = found["rows"]
    assert asynchronous["busy_mean"] == pytest.approx(1.0)
    assert (generations["busy_mean"] < 0.9) == idle
    assert f"take {found['ratio']:.2f} times as long" in workers_words(found)
