"""From SIGKILL to the first new evaluation, beyond what importing the libraries takes anyway.

A real search is killed while it evaluates and started again; the clock runs from that start until the journal holds an
evaluation more. From it goes the time of importing the daemon and, in a worker, torch and ofa, measured in the same
round in bare processes: nobody starts faster than that. The past may be made longer first (``riwoa.bench.past``): a
start must not take longer for it.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from riwoa.bench.past import lengthen
from riwoa.errors import OracleError
from riwoa.ipc.child import child_command, child_environment
from riwoa_storage.errors import StorageError
from riwoa_storage.reader import JournalReader

_PATIENCE_S = 120.0
_IMPORTS = {
    "daemon": "import riwoa.service.main",
    "worker": "import riwoa.supernet.evaluator; from riwoa.supernet.ofa_import import import_ofa; import_ofa()",
}


def bench_resume(
    table: Path,
    rounds: int = 5,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    generations: int = 0,
) -> dict[str, Any]:
    """``ratio``: seconds from the start to the first new evaluation by the seconds of the imports; medians.

    ``generations``: how many the journal is made to hold before; 0 leaves it as the first start did.

    Raises:
        OracleError: the daemon does not evaluate.
    """
    with tempfile.TemporaryDirectory(prefix="bench-resume-") as folder:
        state = Path(folder)
        shutil.copy(table, state / "latency_lut.json")
        if generations:
            _until_committed(state)
            asyncio.run(lengthen(state / "journal.db", generations))
        _until_evaluated(state)  # also verifies what was added, as the starts in between would have done
        rows = []
        for done in range(rounds):
            imports_s = {name: _seconds([sys.executable, "-c", code]) for name, code in _IMPORTS.items()}
            rows.append({"start_s": _until_evaluated(state), **{f"import_{n}_s": s for n, s in imports_s.items()}})
            progress(done + 1, rounds)
    start_s = statistics.median(r["start_s"] for r in rows)
    import_s = statistics.median(r["import_daemon_s"] + r["import_worker_s"] for r in rows)
    return {
        "bench": "resume",
        "generations": generations,
        "ratio": start_s / import_s,
        "start_to_evaluation_s": start_s,
        "imports_s": import_s,
        "beyond_imports_s": start_s - import_s,
        "rows": rows,
    }


def _seconds(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, env=child_environment(1), check=True)
    return time.monotonic() - started


def _until_evaluated(state: Path) -> float:
    """Start the daemon, wait for one evaluation more, kill it; seconds until then."""
    before = _evaluations(state)
    return _until(state, lambda: _evaluations(state) != before)


def _until_committed(state: Path) -> float:
    """The same for the first generation."""
    return _until(state, lambda: _generations(state) > 0)


def _until(state: Path, reached: Callable[[], bool]) -> float:
    command = child_command("riwoa.service", "--state", str(state), "--set", "run.generations=100000")
    command += ["--set", "cognition.provider=none"]  # the oracle's side is what is timed
    started = time.monotonic()
    with subprocess.Popen(command, env=child_environment(1), stderr=subprocess.PIPE, text=True) as daemon:
        try:
            while not reached():
                if daemon.poll() is not None or time.monotonic() - started > _PATIENCE_S:
                    raise OracleError("the daemon evaluated nothing; run riwoad by hand on a fresh --state to see why")
                time.sleep(0.02)
            return time.monotonic() - started
        finally:
            daemon.send_signal(signal.SIGKILL)
            daemon.communicate()


def _evaluations(state: Path) -> int:
    """Evaluations that the journal holds; of however many, in a moment."""
    try:
        with sqlite3.connect(f"file:{state / 'journal.db'}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT count(*) FROM evaluations").fetchone()[0])
    except sqlite3.Error:
        return 0


def _generations(state: Path) -> int:
    """Generations that the latest run has committed."""
    try:
        with JournalReader(state / "journal.db") as reader:
            run = reader.latest_run()
            return run.generations if run is not None else 0
    except StorageError:
        return 0
