"""A journal, a status file and a daemon's stand-in for the tests of riwoactl."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

from riwoa.ctl.help import read_page
from riwoa.paths import StatePaths
from riwoa.search.fitness import Objective
from riwoa.service.status_object import StatusObject
from riwoa_storage.records import GenerationRecord, IndividualRecord
from riwoa_storage.writer import JournalWriter

REPOSITORY = Path(__file__).resolve().parents[2]
OBJECTIVE = Objective(2.0)


def transcripts(topic: str) -> list[tuple[str, str]]:
    """The commands that a page shows, each with what it shows of their answers."""
    found = re.findall(r"```\n\$ riwoactl (.*?)```", read_page(topic), re.DOTALL)
    return [(command, shown) for command, _, shown in (block.partition("\n") for block in found)]


def environment(**extra: str) -> dict[str, str]:
    roots = os.pathsep.join(str(REPOSITORY / root) for root in ("daemon", "storage"))
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RIWOA_") and k != "STATE_DIRECTORY"}
    return {**clean, "RIWOA_MODELS": os.environ["RIWOA_MODELS"], "PYTHONPATH": roots, **extra}


def riwoactl(*arguments: str | Path, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "riwoa.ctl", *map(str, arguments)]
    return subprocess.run(command, env=environment(**extra), cwd=cwd, capture_output=True, text=True, timeout=60)


def status_object(**changes: Any) -> StatusObject:
    """A status as it is read from JSON, where a pair is a list."""
    found: dict[str, Any] = {
        "schema": 1,
        "version": "0.1.0",
        "state": "running",
        "state_directory": "somewhere",
        "pid": os.getpid(),
        "started_unix_s": 1_000.0,
        "updated_unix_s": 1_060.0,
        "run": {
            "run_id": 1, "seed": 0, "strategy": "riwoa", "phase": "search", "generation": 7, "generations": 24,
            "digest": "ab" * 32, "target_ms": 1.9, "resumed_from": None,
        },
        "evaluations": {"unique": 130, "cache_hits": 10, "failed": 0, "per_s": 3.14, "queued": 4},
        "time_left_s": 55.0,
        "leader": {
            "accuracy": 0.81, "latency_ms": 1.7, "fitness": 0.81, "feasible": True, "architecture_key": "0.1",
            "origin": [6, 3],
        },
        "pareto": 12,
        "workers": [
            {"name": "oracle-0", "state": "busy", "job": "x", "since_s": 0.3, "done": 65, "restarts": 0,
             "busy_share": 0.98, "pid": 5},
        ],
        "proposals": None,
        "config": {"file": None, "revision": 0, "error": "oracle.workers = 0, should be positive", "restart_keys": []},
        "message": "",
        **changes,
    }  # fmt: skip
    return cast(StatusObject, found)


@contextmanager
def daemon(state: Path, answer: Mapping[str, Any] | bytes | Iterable[bytes] | None) -> Iterator[list[dict[str, Any]]]:
    """Hold the lock and answer every request the same way; with None listen and never answer. Yields the requests.

    Bytes are sent as they are, pieces of them one every 50 ms.
    """
    paths = StatePaths(state)
    requests: list[dict[str, Any]] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(state / "control.sock"))  # as named: the real path may be too long
    listener.listen()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            # A client need not hear the end of 17 million bytes.
            with suppress(OSError), client, client.makefile("rwb") as stream:
                requests.append(json.loads(stream.readline()))
                if answer is None:
                    stream.readline()  # until the client gives up
                    continue
                for piece in _pieces(answer):
                    stream.write(piece)
                    stream.flush()

    thread = threading.Thread(target=serve, daemon=True)
    with held_lock(state):
        thread.start()
        try:
            yield requests
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(5)
            paths.socket.unlink()


def _pieces(answer: Mapping[str, Any] | bytes | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(answer, bytes):
        yield answer
    elif isinstance(answer, Mapping):
        yield json.dumps(answer).encode() + b"\n"
    else:
        for piece in answer:
            yield piece
            time.sleep(0.05)


@contextmanager
def held_lock(state: Path) -> Iterator[None]:
    with StatePaths(state).lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


Point = tuple[str, float, float]  # architecture key, accuracy, latency_ms


def individual(slot: int, point: Point, architecture: Mapping[str, Any] | None = None) -> IndividualRecord:
    key, accuracy, latency_ms = point
    failed = accuracy != accuracy
    return IndividualRecord(
        slot=slot,
        operator="init",
        parent=None,
        genotype=np.full(2, 0.5).tobytes(),
        architecture=architecture or {"resolution": 24, "stage1.depth": 2, "stage2.depth": 3},
        architecture_key=key,
        status="failed" if failed else "ok",
        metrics={} if failed else {"accuracy": accuracy, "latency_ms": latency_ms},
        fitness=None if failed else float(OBJECTIVE.fitness(accuracy, latency_ms)),
        fitness_version=OBJECTIVE.version,
        cache_hit=False,
    )


def generation(run_id: int, number: int, individuals: tuple[IndividualRecord, ...]) -> GenerationRecord:
    able = [i for i in individuals if i.status == "ok"]
    best = max(able, key=lambda i: (i.metrics["latency_ms"] <= 2.0, i.fitness)) if able else None
    leader = (
        None
        if best is None
        else {
            "generation": number,
            "slot": best.slot,
            "fitness": best.fitness,
            "metrics": dict(best.metrics),
            "architecture": dict(best.architecture),
            "architecture_key": best.architecture_key,
            "feasible": best.metrics["latency_ms"] <= 2.0,
            "target_ms": 2.0,
        }
    )
    return GenerationRecord(
        run_id=run_id,
        generation=number,
        phase="search",
        config_revision=0,
        state=b"state",
        counters={"evaluations": len(individuals)},
        leader=leader,
        inputs={},
        individuals=individuals,
    )


def write_journal(
    path: Path, generations: Sequence[tuple[IndividualRecord, ...]], *, finished: bool = False, **provenance: Any
) -> None:
    async def write() -> None:
        async with await JournalWriter.open(path) as journal:
            run_id = await journal.begin_run({"seed": 0, **provenance}, {})
            for number, individuals in enumerate(generations):
                await journal.commit_generation(generation(run_id, number, individuals))
            if finished:
                await journal.finish_run(run_id)

    asyncio.run(write())
