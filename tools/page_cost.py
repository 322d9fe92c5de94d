"""What an open page costs a search: evaluations a second with it and without, alternating within one run.

python tools/page_cost.py [--pairs 10] [--window 16] [--sleep 0.05]

The judge sleeps, as one that waits for a GPU or a board would; what is left is the search's own work, the journal, and
the page beside it. With the page a client holds the stream open and asks what the page's script asks, as often: after a
commit, at most every 2.5 seconds. (The browser itself, which may be elsewhere, is not counted.) A rate is that of the
evaluations stored within a window, by their own times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riwoa_storage.connect import connect_reader

PORTS = itertools.count(8_800)  # another for each page: a closed one is not free at once
ASKED = ("", "/progress", "/front", "/individuals?limit=200&status=ok", "/individuals?limit=50")
EVERY_S, SETTLED_S = 2.5, 4.0
T_95 = {8: 2.365, 9: 2.306, 10: 2.262, 12: 2.201, 16: 2.131, 20: 2.093}  # two-sided, by the number of pairs
JUDGE = """
import time
def judge(architecture, fidelity, seed):
    time.sleep({sleep_s})
    value = sum(architecture.values())
    return {{"accuracy": 0.5 + 0.4 * value / (value + 20.0), "latency_ms": 1.0 + 0.05 * value}}
"""


def main() -> None:
    """Measure, and say it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, choices=T_95, default=10)
    parser.add_argument("--window", type=float, default=16.0, help="seconds of each rate (default: 16)")
    parser.add_argument("--sleep", type=float, default=0.05, help="seconds of an evaluation (default: 0.05)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="page-cost-") as folder, searching(Path(folder), given.sleep) as state:
        windows: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        for pair in range(given.pairs):
            for with_page in (pair % 2 == 0, pair % 2 == 1):
                if with_page:
                    with looked_at(state):
                        windows[True].append(window(given.window))
                else:
                    windows[False].append(window(given.window))
            print(f"pair {pair + 1} of {given.pairs}", file=sys.stderr)
        rates = {with_page: [rate(state, *one) for one in found] for with_page, found in windows.items()}
    losses = [math.log(bare / with_page) for with_page, bare in zip(rates[True], rates[False], strict=True)]
    half = T_95[given.pairs] * statistics.stdev(losses) / math.sqrt(given.pairs)
    mean = statistics.fmean(losses)
    percent = [round(100 * (1 - math.exp(-value)), 2) for value in (mean, mean - half, mean + half)]
    print(json.dumps({
        "loss_percent": percent[0], "interval_percent": percent[1:], "pairs": given.pairs,
        "evaluations_per_s": {"with": rates[True], "without": rates[False]},
    }))  # fmt: skip


@contextmanager
def searching(folder: Path, sleep_s: float) -> Iterator[Path]:
    """The state directory of a daemon that searches with a judge that sleeps."""
    genes = "\n".join(f'[[genes]]\nname = "g{i}"\nchoices = {list(range(8))}\n' for i in range(12))
    (folder / "space.toml").write_text(genes)
    (folder / "sleeping_judge.py").write_text(JUDGE.format(sleep_s=sleep_s))
    state = folder / "state"
    settings = (
        "oracle.kind=command", "oracle.command.function=sleeping_judge:judge", f"oracle.command.path={folder}",
        f"oracle.command.space={folder / 'space.toml'}", "oracle.workers=1", "objective.latency_ms=3.0",
        "run.generations=100000", "cognition.provider=none", "run.export=false", "search.strategy=woa",
    )  # fmt: skip
    program = (str(Path(sys.executable).with_name("riwoad")), "--state", str(state))
    log = (folder / "log").open("w")
    with log, subprocess.Popen((*program, *(f"--set={one}" for one in settings)), stdout=log, stderr=log) as daemon:
        try:
            deadline_s = time.monotonic() + 120
            while not (state / "journal.db").exists() or evaluations(state, 0.0, math.inf)[0] < 60:
                if daemon.poll() is not None or time.monotonic() > deadline_s:
                    raise SystemExit(f"the search did not begin:\n{(folder / 'log').read_text()}")
                time.sleep(0.5)
            yield state
        finally:
            daemon.terminate()


@contextmanager
def looked_at(state: Path) -> Iterator[None]:
    """The page, served and open."""
    riwoactl = (str(Path(sys.executable).with_name("riwoactl")), "--state", str(state))
    address = f"127.0.0.1:{next(PORTS)}"
    web = subprocess.Popen((*riwoactl, "web", "--listen", address), stdout=subprocess.PIPE)
    stop, looks = threading.Event(), list[float]()
    client = threading.Thread(target=look, args=(f"http://{address}", stop, looks))
    try:
        assert web.stdout is not None
        web.stdout.readline()  # it listens
        client.start()
        yield
        if len(looks) < 2:
            raise SystemExit(f"the page was looked at {len(looks)} times; choose a longer window")
    finally:
        stop.set()
        web.terminate()
        web.wait()
        client.join()


def look(address: str, stop: threading.Event, looks: list[float]) -> None:
    """Read the stream, and ask what the page's script asks after a commit; ``looks`` is told when."""
    asked_s, generation = 0.0, None
    try:
        with urllib.request.urlopen(f"{address}/api/v1/stream", timeout=60) as stream:
            for line in stream:
                if stop.is_set():
                    return
                if not line.startswith(b"data:") or b'"run"' not in line:
                    continue
                now = (json.loads(line[5:]).get("run") or {}).get("generation")
                if now != generation and time.monotonic() - asked_s >= EVERY_S:
                    generation, asked_s = now, time.monotonic()
                    for path in ASKED:
                        urllib.request.urlopen(f"{address}/api/v1/runs/1{path}", timeout=60).read()
                    looks.append(asked_s)
    except OSError:
        if not stop.is_set():
            raise


def window(seconds: float) -> tuple[float, float]:
    """A window of time, after what was begun or ended has settled."""
    time.sleep(SETTLED_S)
    began_unix_s = time.time()
    time.sleep(seconds)
    return began_unix_s, time.time()


def rate(state: Path, began_unix_s: float, ended_unix_s: float) -> float:
    """Evaluations a second between the first and the last within a window."""
    count, first, last = evaluations(state, began_unix_s, ended_unix_s)
    return (count - 1) / (last - first)


def evaluations(state: Path, began_unix_s: float, ended_unix_s: float) -> tuple[int, float, float]:
    """How many were stored within a window, and when the first and the last."""
    columns = "count(*), min(created_unix_s), max(created_unix_s)"
    sql = f"SELECT {columns} FROM evaluations WHERE created_unix_s BETWEEN ? AND ?"
    connection = connect_reader(state / "journal.db")
    try:
        count, first, last = connection.execute(sql, (began_unix_s, min(ended_unix_s, 1e12))).fetchone()
    finally:
        connection.close()
    return int(count), first or 0.0, last or 0.0


if __name__ == "__main__":
    main()
