"""Small deterministic records, and how a test takes a journal apart."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from riwoa_storage.digest import state_sha256
from riwoa_storage.records import (
    AdapterRecord,
    BufferEntryRecord,
    EvaluationRecord,
    GenerationRecord,
    IndividualRecord,
    Json,
    ReplyRecord,
    RequestRecord,
)
from riwoa_storage.seal import checksum, selection
from riwoa_storage.tables import COLUMNS
from riwoa_storage.writer import JournalWriter

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "storage"), str(ROOT)])}
PYTHON = sys.executable

PROVENANCE: Json = {"seed": 7, "strategy": "riwoa", "space": {"name": "tiny", "genes": 3}, "oracle_version": "table-1"}
CONFIG: Json = {"search": {"population": 3}}
WHEN = 1_700_000_000.0


def individual(generation: int, slot: int, /, **changes: Any) -> IndividualRecord:
    accuracy = 0.5 + 0.01 * generation + 0.001 * slot
    values: dict[str, Any] = {
        "slot": slot,
        "operator": "spiral" if generation else "init",
        "parent": (generation - 1, slot) if generation else None,
        "genotype": struct.pack("<3d", 0.1, generation / 7, slot / 3),
        "architecture": {"depth": 2, "kernel": [3, 5][slot % 2], "width": generation},
        "architecture_key": f"k{generation}-{slot}",
        "status": "ok",
        "metrics": {"accuracy": accuracy, "latency_ms": 10.0 + slot},
        "fitness": accuracy,
        "fitness_version": "v1:T=12.5:w=-1",
        "cache_hit": False,
        **changes,
    }
    return IndividualRecord(**values)


def generation(run_id: int, number: int, /, *, slots: int = 3, **changes: Any) -> GenerationRecord:
    values: dict[str, Any] = {
        "run_id": run_id,
        "generation": number,
        "phase": "search",
        "config_revision": 0,
        "state": struct.pack("<4d", *(number + i / 4 for i in range(4))),
        "counters": {"evaluations": slots * (number + 1), "cache_hits": 0},
        "leader": {"generation": number, "slot": 0, "fitness": 0.5, "feasible": True},
        "inputs": {},
        "individuals": tuple(individual(number, slot) for slot in range(slots)),
        "duration_s": 1.5,
        "committed_unix_s": WHEN + number,
        **changes,
    }
    return GenerationRecord(**values)


def evaluation(key: str, accuracy: float = 0.5, **changes: Any) -> EvaluationRecord:
    values: dict[str, Any] = {
        "oracle_version": "table-1",
        "architecture_key": key,
        "architecture": {"depth": 2},
        "status": "ok",
        "metrics": {"accuracy": accuracy},
        "error": None,
        "attempts": 1,
        "worker": "w0",
        "duration_s": 0.25,
        "created_unix_s": WHEN,
        **changes,
    }
    return EvaluationRecord(**values)


def request(run_id: int, number: int, slot: int, *, lag: int = 1) -> RequestRecord:
    return RequestRecord(
        request_id=f"{run_id}/{number}/{slot}",
        run_id=run_id,
        generation=number,
        slot=slot,
        join_generation=number + lag,
        model="scripted",
        adapter_sha256=None,
        seed=11,
        prompt="widen a layer — größer",
        parameters={"temperature": 0.7},
        created_unix_s=WHEN,
    )


def reply(request_id: str, text: str = '<think>ja</think>{"kernel":5}', **changes: Any) -> ReplyRecord:
    values: dict[str, Any] = {
        "request_id": request_id,
        "status": "ok",
        "text": text,
        "reason": None,
        "tokens": 9,
        "duration_s": 0.5,
        "created_unix_s": WHEN,
        **changes,
    }
    return ReplyRecord(**values)


def buffer_entry(run_id: int, request_id: str, number: int) -> BufferEntryRecord:
    return BufferEntryRecord(
        entry_id=0,
        run_id=run_id,
        request_id=request_id,
        generation=number,
        parent_fitness=0.5,
        child_fitness=0.6,
        trace={"patch": {"kernel": 5}},
        created_unix_s=WHEN,
    )


def adapter(run_id: int, number: int, weights: bytes = b"safetensors", **changes: Any) -> AdapterRecord:
    values: dict[str, Any] = {
        "adapter_id": 0,
        "run_id": run_id,
        "generation": number,
        "parent_id": None,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "weights": weights,
        "status": "current",
        "training": {"loss": [2.0, 1.0]},
        "created_unix_s": WHEN,
        **changes,
    }
    return AdapterRecord(**values)


async def write_run(
    path: Path,
    generations: int = 4,
    *,
    provenance: Json = PROVENANCE,
    edit: Callable[[GenerationRecord], GenerationRecord] = lambda g: g,
    before: Callable[[JournalWriter, int], Awaitable[None]] | None = None,
) -> str:
    """A journal with one more run; returns its final digest."""
    digest = ""
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(provenance, CONFIG)
        if before:
            await before(writer, run_id)
        for number in range(generations):
            digest = await writer.commit_generation(edit(generation(run_id, number)))
    return digest


async def write_semantic_run(path: Path, text: str = '{"kernel":5}') -> str:
    """A run in which a model's reply joins generation 1."""
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        await writer.put_requests([request(run_id, 0, 2)])
        await writer.commit_generation(generation(run_id, 0))
        await writer.put_replies([reply(f"{run_id}/0/2", text)])
        child = individual(1, 3, operator="semantic", parent=(0, 2), request_id=f"{run_id}/0/2")
        g = generation(run_id, 1, slots=3, joined_requests=(f"{run_id}/0/2",))
        return await writer.commit_generation(
            generation(run_id, 1, individuals=(*g.individuals, child), joined_requests=g.joined_requests)
        )


def alter(path: Path, sql: str, *parameters: object) -> None:
    """What a bug, a bad disk or a curious user may do to a journal."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        assert connection.execute(sql, parameters).rowcount != 0, "the test altered nothing"


def reseal(path: Path) -> None:
    """Give every row a checksum that matches, as whoever means to deceive would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in COLUMNS:
            for *values, _ in connection.execute(f"SELECT {selection(table)} FROM {table}").fetchall():
                where = " AND ".join(f"{column} IS ?" for column in COLUMNS[table])
                sql = f"UPDATE {table} SET checksum = ? WHERE {where}"
                connection.execute(sql, (checksum(table, values), *values))


def committed(g: GenerationRecord, digest: str, *, last: bool = True) -> GenerationRecord:
    """A generation as the journal gives it back: the state is kept of a run's last alone."""
    return replace(g, digest=digest, state_sha256=state_sha256(g), state=g.state if last else None)


def flip_byte(path: Path, content: bytes, offset: int = 0) -> None:
    """Flip the lowest bit of one byte where ``content`` lies in the file (exactly once)."""
    data = bytearray(path.read_bytes())
    assert data.count(content) == 1, f"{content!r} is {data.count(content)} times in the file"
    data[data.index(content) + offset] ^= 1
    path.write_bytes(data)
