"""A journal with a past, written by the store itself: a run that was given up, and one that finished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.oracle.answers import pack_answers
from riwoa_storage.events import CognitionProvided, ConfigApplied, NetworkJudged, SearchConverged
from riwoa_storage.records import (
    AdapterRecord,
    ConfigRevisionRecord,
    GenerationRecord,
    IndividualRecord,
    ReplyRecord,
    RequestRecord,
)
from riwoa_storage.writer import JournalWriter

from .support import OBJECTIVE

PROVENANCE = {
    "seed": 0,
    "strategy": "riwoa",
    "objective": {"latency_ms": 2.0},
    "oracle": {"kind": "supernet", "data": "folder"},
    "model": "smollm2-135m-instruct@12550d2e",
}
SHA256 = sha256(b"w").hexdigest()
REASONING = "The first stage is cheap on this device.\nA third block there costs 0.2 ms and there is room for it."
_ROOT: Mapping[str, Any] = {
    "resolution": 32,
    "stage1.depth": 2,
    "stage1.block1.kernel": 3,
    "stage1.block1.expand": 4,
    "stage1.block2.kernel": 5,
    "stage1.block2.expand": 4,
}
_CLIMBED = {**_ROOT, "stage1.block1.kernel": 5}
_DEEPER = {**_CLIMBED, "stage1.depth": 3, "stage1.block3.kernel": 3, "stage1.block3.expand": 6}
_POLISHED = {**_DEEPER, "stage1.block2.kernel": 7}


def made(
    slot: int,
    operator: str,
    architecture: Mapping[str, Any],
    accuracy: float,
    latency_ms: float,
    parent: tuple[int, int] | None = None,
    **changes: Any,
) -> IndividualRecord:
    """A candidate that was evaluated; without an accuracy it failed."""
    failed = accuracy != accuracy
    metrics = {"accuracy": accuracy, "images": 2_000, "latency_ms": latency_ms, "macs": 1_000_000, "parameters": 90_000}
    values: dict[str, Any] = {
        "slot": slot,
        "operator": operator,
        "parent": parent,
        "genotype": np.full(2, 0.5).tobytes(),
        "architecture": architecture,
        "architecture_key": ".".join(str(choice) for choice in architecture.values()),
        "status": "failed" if failed else "ok",
        "metrics": {} if failed else metrics,
        "fitness": None if failed else float(OBJECTIVE.fitness(accuracy, latency_ms)),
        "fitness_version": OBJECTIVE.version,
        "cache_hit": False,
        **changes,
    }
    return IndividualRecord(**values)


def generation(
    run_id: int, number: int, individuals: tuple[IndividualRecord, ...], best: tuple[int, IndividualRecord], **more: Any
) -> GenerationRecord:
    at, leader = best
    values: dict[str, Any] = {
        "run_id": run_id,
        "generation": number,
        "phase": "search",
        "config_revision": 0,
        "state": b"state",
        "counters": {"evaluations": 3 * (number + 1), "replies": 2 * (number >= 2), "successes": int(number >= 2)},
        "leader": {
            "generation": at,
            "slot": leader.slot,
            "fitness": leader.fitness,
            "metrics": dict(leader.metrics),
            "architecture": dict(leader.architecture),
            "architecture_key": leader.architecture_key,
            "feasible": True,
            "target_ms": 2.0,
        },
        "inputs": {},
        "individuals": individuals,
        "duration_s": 20.0,
        "committed_unix_s": time.time() + 20.0 * (number + 1),
        **more,
    }
    return GenerationRecord(**values)


def request(slot: int) -> RequestRecord:
    return RequestRecord(
        request_id=f"2/1/{slot}",
        run_id=2,
        generation=1,
        slot=slot,
        join_generation=2,
        model="smollm2-135m-instruct@12550d2e",
        adapter_sha256=SHA256 if slot == 0 else None,
        seed=11,
        prompt="Target 2.00 ms, now 1.60 ms, accuracy 82.00 %: headroom 0.40 ms: spend it on accuracy.",
        parameters={"parent": _CLIMBED, "choices": {}, "most_genes": 1, "system": "You improve a neural network."},
        created_unix_s=1_800_000_000.0,
    )


def reply(slot: int, text: str) -> ReplyRecord:
    return ReplyRecord(
        request_id=f"2/1/{slot}",
        status="ok",
        text=text,
        reason=None,
        tokens=41,
        duration_s=3.0,
        created_unix_s=1_800_000_003.0,
    )


async def _write(path: Path) -> None:
    init = (
        made(0, "init", _ROOT, 0.80, 1.5),
        made(1, "init", {**_ROOT, "resolution": 40}, 0.83, 2.4),
        made(2, "init", {**_ROOT, "resolution": 24}, float("nan"), 0, error="evaluation exceeded the time limit"),
    )
    climbed = made(0, "climb", _CLIMBED, 0.82, 1.6, (0, 0))
    other = made(1, "spiral", {**_CLIMBED, "resolution": 24}, 0.78, 1.1, (0, 1))
    written = made(0, "semantic", _DEEPER, 0.85, 1.8, (1, 0), request_id="2/1/0")
    polished = made(0, "polish", _POLISHED, 0.86, 1.9, (2, 0))
    config = {"run": {"generations": 4, "seed": 0}}
    async with await JournalWriter.open(path) as journal:
        given_up = await journal.begin_run({**PROVENANCE, "seed": 1}, {"run": {"generations": 4, "seed": 1}})
        await journal.commit_generation(generation(given_up, 0, init, (0, init[0])))
        await journal.begin_run(PROVENANCE, config)
        state = CognitionProvided(run_id=2, state="model", model=PROVENANCE["model"], reason="as set", directory=None)  # type: ignore[arg-type]
        await journal.put_event(state)
        await journal.commit_generation(generation(2, 0, init, (0, init[0])))
        await journal.put_requests([request(0), request(1)])
        patch = '{"stage1.depth": 3}'
        await journal.put_replies([reply(0, f"<think>{REASONING}</think>{patch}"), reply(1, "I lost the thread.")])
        await journal.commit_generation(generation(2, 1, (climbed, other), (1, climbed)))
        changed = {"run.generations": [40, 4]}
        revision = ConfigRevisionRecord(
            run_id=2, revision=1, generation=2, config=config, changed=changed, created_unix_s=1_800_000_000.0
        )
        await journal.put_config_revision(revision)
        await journal.put_adapter(
            AdapterRecord(
                adapter_id=0, run_id=2, generation=1, parent_id=None, sha256=SHA256, weights=b"w", status="current",
                training={"duration_s": 2.0},
            )
        )  # fmt: skip
        third = generation(
            2,
            2,
            (written,),
            (2, written),
            config_revision=1,
            joined_requests=("2/1/0", "2/1/1"),
            inputs={"failed": {}, "rejected": {"1/1": "no JSON object in the answer"}},
        )
        await journal.commit_generation(third, events=[ConfigApplied(run_id=2, generation=2, changed=changed)])
        await journal.commit_generation(
            generation(2, 3, (polished,), (3, polished), config_revision=1, phase="polish"),
            events=[SearchConverged(run_id=2, generation=3, candidates=40)],
        )
        for individual, right in ((polished, range(85)), (written, range(1, 85)), (climbed, range(70))):
            correct = pack_answers(np.isin(np.arange(100), list(right))[:, None])
            await journal.put_event(
                NetworkJudged(
                    run_id=2, architecture_key=individual.architecture_key, accuracy=len(right) / 100, pictures=100,
                    accuracy_error=0.03, correct=correct,
                )
            )  # fmt: skip
        await journal.finish_run(2)


def write_past(path: Path) -> None:
    """Write the journal."""
    asyncio.run(_write(path))
