"""A process that journals for ever, one line on stdout after each thing that has become durable; made to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from riwoa_storage.reader import JournalReader
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import CONFIG, PROVENANCE, evaluation, generation


async def main(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        with JournalReader(path) as reader:
            run = reader.latest_run()
        run_id = run.run_id if run else await writer.begin_run(PROVENANCE, CONFIG)
        print("run", flush=True)
        for number in range(run.generations if run else 0, 10_000):
            await writer.put_evaluations([evaluation(f"k{number}-{slot}") for slot in range(3)])
            print(f"evaluations {number}", flush=True)
            digest = await writer.commit_generation(generation(run_id, number))
            print(f"generation {number} {digest}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
