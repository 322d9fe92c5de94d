"""A deterministic landscape in a real worker process: fast where torch is not the point of the test."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any


class Landscape:
    """Larger kernels, expansions and inputs help a little, with a deterministic ripple; some architectures may fail.

    With an ``accuracy`` given, it is level: every architecture ties.
    """

    version = "landscape-1"

    def __init__(self, fail_share: float = 0.0, accuracy: float | None = None, takes_s: float = 0.0) -> None:
        self._fail_share = fail_share
        self._accuracy = accuracy
        self._takes_s = takes_s

    def evaluate(self, architecture: Mapping[str, Any]) -> dict[str, float]:
        time.sleep(self._takes_s)
        text = json.dumps(architecture, sort_keys=True)
        ripple = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
        if ripple < self._fail_share:
            raise ValueError("this architecture fails, as it was told to")
        if self._accuracy is not None:
            return {"accuracy": self._accuracy, "images": 100.0}
        size = sum(v for k, v in architecture.items() if k != "resolution") / 300 + architecture["resolution"] / 400
        return {"accuracy": min(0.99, 0.3 + 0.5 * size + 0.02 * ripple), "images": 100.0}

    def evaluate_at(self, rung: str, architecture: Mapping[str, Any]) -> dict[str, float]:
        """A rung of n images adds an error of at most 1 / n."""
        full = self.evaluate(architecture)["accuracy"]
        text = json.dumps([rung, architecture], sort_keys=True)
        error = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**31 - 1.0
        return {"accuracy": min(1.0, max(0.0, full + error / int(rung))), "images": float(rung)}


def landscape(**arguments: Any) -> Landscape:
    return Landscape(**arguments)
