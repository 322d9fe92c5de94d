"""Make the golden journal of the current schema: ``PYTHONPATH=storage python -m tests.golden.make_journal``.

Each schema version leaves one, and the tests open them all for ever; a file that exists is never made again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from riwoa_storage.connect import SCHEMA_VERSION
from riwoa_storage.events import UnknownEvent
from riwoa_storage.records import ConfigRevisionRecord
from riwoa_storage.writer import JournalWriter
from tests.storage import samples

GENERATIONS = 4


async def make(path: Path) -> str:
    """A finished run that uses every table; returns its digest."""
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(samples.PROVENANCE, samples.CONFIG)
        await writer.put_event(UnknownEvent(kind="started", payload={}, run_id=run_id, created_unix_s=samples.WHEN))
        await writer.put_evaluations([samples.evaluation(f"k0-{slot}", 0.5 + slot / 1000) for slot in range(3)])
        await writer.commit_generation(samples.generation(run_id, 0))
        await writer.put_requests([samples.request(run_id, 1, slot) for slot in (1, 2)])
        await writer.commit_generation(samples.generation(run_id, 1))
        await writer.put_config_revision(
            ConfigRevisionRecord(
                run_id=run_id,
                revision=1,
                generation=2,
                config={"search": {"population": 4}},
                changed={"search.population": [3, 4]},
                created_unix_s=samples.WHEN,
            )
        )
        answered, late = (f"{run_id}/1/{slot}" for slot in (1, 2))
        await writer.put_replies([samples.reply(answered), samples.reply(late, "", status="timeout", reason="30 s")])
        child = samples.individual(2, 3, operator="semantic", parent=(1, 1), request_id=answered)
        plain = samples.generation(run_id, 2).individuals
        await writer.commit_generation(
            samples.generation(
                run_id,
                2,
                config_revision=1,
                individuals=(*plain, child),
                joined_requests=(answered, late),
                inputs={"timeouts": [2]},
            ),
            buffer=[samples.buffer_entry(run_id, answered, 2)],
        )
        await writer.put_adapter(samples.adapter(run_id, 2), consumed=[1])
        raced = samples.individual(
            3, 3, status="dropped", metrics={"accuracy_400": 0.5, "latency_ms": 4.0}, fitness=None
        )
        plain = samples.generation(run_id, 3).individuals
        digest = await writer.commit_generation(
            samples.generation(run_id, 3, phase="polish", config_revision=1, individuals=(*plain, raced))
        )
        await writer.finish_run(run_id)
    return digest


def main() -> None:
    """Write the file and print the digest that the test expects of it."""
    path = Path(__file__).with_name(f"journal_v{SCHEMA_VERSION}.db")
    if path.exists():
        raise SystemExit(f"{path} exists; a golden journal is made once")
    print(asyncio.run(make(path)), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
