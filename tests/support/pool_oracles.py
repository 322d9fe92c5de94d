"""Oracles that misbehave on purpose; worker processes import this module by name."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.errors import InputError, OracleError
from riwoa.oracle.answers import pack_answers
from riwoa.oracle.protocol import CandidateError, Judgement


class ScriptedOracle:
    """Does what the architecture's "do" says."""

    def __init__(self, version: str = "scripted-1") -> None:
        self.version = version
        self._kept: list[bytearray] = []

    def evaluate(self, architecture: Mapping[str, Any]) -> dict[str, float]:
        act = getattr(self, "_" + architecture.get("do", "answer"))
        return act(architecture) or {"accuracy": float(architecture.get("accuracy", 0.5)), "pid": os.getpid()}

    def judge(self, architecture: Mapping[str, Any]) -> Judgement:
        """Reads the first "right" of ten pictures right, after "seconds"."""
        time.sleep(architecture.get("seconds", 0.0))
        if "refuse" in architecture:
            raise CandidateError("no such network")
        right = np.arange(10) < architecture["right"]
        return Judgement({"accuracy": float(right.mean()), "images": 10}, pack_answers(right))

    def _answer(self, _: Mapping[str, Any]) -> None:
        return None

    def _threads(self, _: Mapping[str, Any]) -> dict[str, float]:
        return {"accuracy": 0.5, "omp": int(os.environ["OMP_NUM_THREADS"])}

    def _sleep(self, architecture: Mapping[str, Any]) -> None:
        time.sleep(architecture["seconds"])

    def _lag_once(self, architecture: Mapping[str, Any]) -> None:
        """Slow for whoever comes first, as on a node that somebody else uses."""
        marker = Path(architecture["marker"])
        if not marker.exists():
            marker.touch()
            time.sleep(architecture["seconds"])

    def _die(self, _: Mapping[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _die_once(self, architecture: Mapping[str, Any]) -> None:
        marker = Path(architecture["marker"])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def _leave(self, _: Mapping[str, Any]) -> None:
        os._exit(3)

    def _mute(self, _: Mapping[str, Any]) -> None:
        """Closes every pipe but lives on, as a process stuck in a driver might."""
        os.closerange(3, 64)
        time.sleep(60)

    def _leak(self, _: Mapping[str, Any]) -> None:
        while True:
            self._kept.append(bytearray(os.urandom(1) * 16 * 2**20))
            time.sleep(0.02)

    def _keep(self, _: Mapping[str, Any]) -> None:
        self._kept.append(bytearray(os.urandom(1) * 300 * 2**20))

    def _print(self, _: Mapping[str, Any]) -> None:
        print('{"id": "forged", "metrics": {}}')
        os.write(1, b"\x00\xff garbage without an end of line" * 100)
        sys.stderr.write("x" * 2_000_000 + "\n")
        sys.stderr.flush()

    def _raise(self, _: Mapping[str, Any]) -> None:
        raise RuntimeError("no such layer\nsecond line")

    def _nan(self, _: Mapping[str, Any]) -> dict[str, float]:
        return {"accuracy": float("nan")}


def scripted(**arguments: Any) -> ScriptedOracle:
    return ScriptedOracle(**arguments)


def different_versions() -> ScriptedOracle:
    return ScriptedOracle(version=str(os.getpid()))


def bad_checkpoint() -> ScriptedOracle:
    raise InputError("checkpoint /x.pth is truncated; download it again")


def gone() -> ScriptedOracle:
    raise OracleError("the checkpoint is gone; check oracle.supernet.checkpoint")


def crash_at_start(log: str) -> ScriptedOracle:
    with Path(log).open("a") as stream:
        stream.write(f"{time.monotonic()}\n")
    raise RuntimeError("libgomp.so is broken")


def crash_at_start_twice(log: str) -> ScriptedOracle:
    with Path(log).open("a") as stream:
        stream.write("x")
    if Path(log).stat().st_size <= 2:
        os._exit(9)
    return ScriptedOracle()


def never_ready() -> ScriptedOracle:
    time.sleep(60)
    return ScriptedOracle()


def slow_to_start_once(log: str) -> ScriptedOracle:
    with Path(log).open("a") as stream:
        stream.write("x")
    if Path(log).stat().st_size == 1:
        time.sleep(60)
    return ScriptedOracle()
