"""Files in the formats of OFA's predictor and tables, with made-up numbers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
import yaml

from riwoa.hardware.ofa_table import OfaLatencyTable


def predictor_network(seed: int = 0) -> torch.nn.Sequential:
    """The predictor's shape with random weights; it predicts some 0.7."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = (128, 400, 400, 400)
        layers = [m for i, o in pairwise(sizes) for m in (torch.nn.Linear(i, o), torch.nn.ReLU())]
        last = torch.nn.Linear(400, 1)
        torch.nn.init.constant_(last.bias, 0.7)
        return torch.nn.Sequential(*layers, last)


def write_predictor(path: Path, seed: int = 0) -> Path:
    torch.save(predictor_network(seed).state_dict(), path)
    return path


class _Made(dict[str, dict[str, float]]):
    """Whatever operator is asked for takes a time that its name decides."""

    def __missing__(self, key: str) -> dict[str, float]:
        self[key] = {"mean": 0.2 + sum(key.encode()) % 97 / 100, "count": 1000.0}
        return self[key]


def write_tables(folder: Path, resolutions: tuple[int, ...]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for r in resolutions:
        table, made = OfaLatencyTable(folder), _Made()
        table._tables[r] = made
        table.range_ms((r,))
        (folder / f"{r}_lookup_table.yaml").write_text(yaml.safe_dump(dict(made)))
    return folder
