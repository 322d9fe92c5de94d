"""What a long search costs in room: bytes of journal a generation, and memory of the daemon's side.

The conductor runs as in the daemon, in a process of its own, on the 46 genes of OFA's space with a population of 20; in
the place of workers stands a landscape that answers at once, so that only the searching side is seen. The file is
measured as it lies on the disk, its log folded in, free pages included.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import psutil

from riwoa.config.loading import load
from riwoa.config.reload import Reloader
from riwoa.config.schema import as_json
from riwoa.errors import OracleError
from riwoa.ipc.child import child_environment
from riwoa.log import configure
from riwoa.oracle.protocol import BackendStats, EvaluationResult, OracleInfo
from riwoa.run.conductor import Conductor, Hooks
from riwoa.run.evaluations import Evaluations
from riwoa.run.journal import RunJournal
from riwoa.run.task import SearchTask
from riwoa.supernet.space import mobilenet_space
from riwoa_storage.writer import JournalWriter

POPULATION = 20
TARGET_KB_A_GENERATION, TARGET_MB_RESIDENT = 25.0, 150.0
_RESOLUTIONS_PX = (160, 176, 192, 208, 224)
_TARGET_MS = 20.0
_STEPS = 20  # lines of progress, each a row of the result

Report = Callable[[int, int], None]


class Landscape:
    """An ``EvaluationBackend`` that answers at once: a smooth slope with a ripple of its own for each architecture."""

    async def start(self) -> OracleInfo:
        """See ``EvaluationBackend.start``."""
        return OracleInfo(version="growth", threads=1, load_s=0.0)

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None
    ) -> asyncio.Future[EvaluationResult]:
        """See ``EvaluationBackend.submit``."""
        future: asyncio.Future[EvaluationResult] = asyncio.get_running_loop().create_future()
        future.set_result(EvaluationResult(job_id, "ok", {"accuracy": accuracy(architecture)}, None, 1, 0.01))
        return future

    def cancel(self, job_id: str) -> bool:
        """See ``EvaluationBackend.cancel``."""
        return False

    def stats(self) -> BackendStats:
        """See ``EvaluationBackend.stats``."""
        raise NotImplementedError("nobody looks at the workers of a landscape")

    async def close(self) -> None:
        """See ``EvaluationBackend.close``."""


def accuracy(architecture: Mapping[str, Any]) -> float:
    """A fraction: larger networks are better, with a ripple that no two architectures share."""
    size = sum(value for name, value in architecture.items() if name != "resolution")
    ripple = int.from_bytes(blake2b(repr(sorted(architecture.items())).encode(), digest_size=4).digest(), "big")
    return float(0.6 + size / 2000 + architecture["resolution"] / 4000 + ripple / 2**32 / 50)


def latency_ms(architecture: Mapping[str, Any]) -> float:
    """Of one image, by the same sizes."""
    return (
        float(sum(value for name, value in architecture.items() if name != "resolution") * architecture["resolution"])
        / 1500
    )


def bench_growth(evaluations: int = 50_000, *, progress: Report = lambda done, total: None) -> dict[str, Any]:
    """Run one search; ``ratio``: the worse of both by its target, at most 1 where both are met.

    Raises:
        OracleError: the search broke off.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder:
        command = [sys.executable, "-m", "riwoa.bench.growth", folder, str(evaluations)]
        with subprocess.Popen(command, env=child_environment(1), stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                rows.append(json.loads(line))
                progress(min(rows[-1]["evaluations"], evaluations), evaluations)
        if child.returncode or not rows:
            raise OracleError(f"the search broke off (exit {child.returncode}); its last words are above")
    last = rows[-1]
    return {
        "bench": "growth",
        "ratio": max(last["kb_a_generation"] / TARGET_KB_A_GENERATION, last["resident_mb"] / TARGET_MB_RESIDENT),
        "kb_a_generation": last["kb_a_generation"],
        "target_kb_a_generation": TARGET_KB_A_GENERATION,
        "resident_mb": last["resident_mb"],
        "target_resident_mb": TARGET_MB_RESIDENT,
        "rows": rows,
        "settings": {
            "evaluations": evaluations,
            "population": POPULATION,
            "genes": len(mobilenet_space(_RESOLUTIONS_PX)),
        },
    }


async def search(journal_path: Path, evaluations: int, say: Callable[[dict[str, Any]], None]) -> None:
    """Search until that many evaluations were made, and say at each step how large everything is."""
    settings = (
        f"search.population={POPULATION}",
        f"search.offspring={POPULATION}",
        f"run.evaluations={evaluations}",
        "run.polish_evaluations=0",
    )
    loaded = load(None, [*settings, f"run.generations={evaluations}", "cognition.provider=none"], {})
    reloader = Reloader(loaded, [])
    every, told = max(1, evaluations // _STEPS), 0
    async with await JournalWriter.open(journal_path) as journal:
        run_id = await journal.begin_run({"seed": loaded.config.run.seed}, as_json(loaded.config))

        def on_commit() -> None:
            nonlocal told
            spent = conductor.history.counters["evaluations"]
            if spent // every > told:
                told = spent // every
                say(_sizes(journal_path, spent, conductor.generation, started_s))

        conductor = Conductor(
            journal=RunJournal(journal, journal_path, run_id),
            task=SearchTask(mobilenet_space(_RESOLUTIONS_PX), latency_ms, _TARGET_MS),
            evaluations=Evaluations(Landscape(), journal, journal_path, "growth", run_id=run_id),
            reloader=reloader,
            hooks=Hooks(on_commit=on_commit),
        )
        started_s = time.monotonic()
        await conductor.run()
        counters, generation = conductor.history.counters, conductor.generation
    say(_sizes(journal_path, counters["evaluations"], generation, started_s))


def _sizes(journal_path: Path, evaluations: int, generations: int, started_s: float) -> dict[str, Any]:
    return {
        "evaluations": evaluations,
        "generations": generations,
        "kb_a_generation": journal_path.stat().st_size / 1000 / generations,
        "resident_mb": psutil.Process().memory_info().rss / 1e6,
        "seconds": time.monotonic() - started_s,
    }


if __name__ == "__main__":
    configure("warning", "auto")
    asyncio.run(
        search(Path(sys.argv[1], "journal.db"), int(sys.argv[2]), lambda row: print(json.dumps(row), flush=True))
    )
