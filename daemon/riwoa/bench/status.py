"""What ``riwoactl status`` costs, in starts of a bare interpreter of the same environment.

The command is the installed console script, or the very lines pip would write, so that its own imports count.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from riwoa.ipc.child import child_environment
from riwoa.paths import StatePaths

_SCRIPT = """\
# -*- coding: utf-8 -*-
import re
import sys
from riwoa.ctl import main
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
"""
_STATUS: dict[str, Any] = {
    "schema": 1,
    "state": "running",
    "pid": 1,
    "started_unix_s": 1.0,
    "state_since_unix_s": 1.5,
    "updated_unix_s": 2.0,
    "run": {"run_id": 1, "seed": 0, "strategy": "riwoa", "phase": "search", "generation": 7, "generations": 24}
    | {"digest": "0" * 64, "target_ms": 1.9, "resumed_from": None},
    "evaluations": {"unique": 130, "cache_hits": 10, "failed": 0, "per_s": 3.1, "queued": 4},
    "time_left_s": 55.0,
    "leader": {"accuracy": 0.81, "latency_ms": 1.7, "fitness": 0.81, "feasible": True, "origin": [6, 3]},
    "improvement": {"generation": 6, "found_unix_s": 1.9, "operator": "climb", "value": 0.81, "former_value": 0.8},
    "pareto": 12,
    "workers": [{"name": f"oracle-{i}", "state": "busy", "job": "x", "since_s": 0.1, "done": 65} for i in range(2)],
    "config": {"file": None, "revision": 0, "error": None, "restart_keys": []},
    "message": "",
}


def bench_status(runs: int = 31, *, progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Any]:
    """Interleaved starts of each command; ``ratio`` is the slower of running and stopped by the interpreter's."""
    with tempfile.TemporaryDirectory(prefix="bench-status-") as folder:
        running, stopped = Path(folder, "running"), Path(folder, "stopped")
        for state in (running, stopped):
            state.mkdir()
            (state / "status.json").write_text(json.dumps({**_STATUS, "state_directory": str(state)}))
        script = _script(Path(folder))
        commands = {
            "interpreter": [sys.executable, "-c", "pass"],
            "running": [sys.executable, str(script), "status", "--state", str(running)],
            "stopped": [sys.executable, str(script), "status", "--state", str(stopped)],
        }
        with _answering(running):
            times = _measure(commands, runs, progress)
    median_ms = {name: 1e3 * statistics.median(found) for name, found in times.items()}
    ratios = {name: median_ms[name] / median_ms["interpreter"] for name in ("running", "stopped")}
    return {
        "bench": "status",
        "ratio": max(ratios.values()),
        "ratio_running": ratios["running"],
        "ratio_stopped": ratios["stopped"],
        "rows": [
            {"command": name, "median_ms": median_ms[name], "least_ms": 1e3 * min(found)}
            for name, found in times.items()
        ],
        "settings": {"runs": runs, "script": "installed" if script.parent != Path(folder) else "as pip writes it"},
    }


def _script(folder: Path) -> Path:
    installed = Path(sys.executable).with_name("riwoactl")
    if installed.is_file():
        return installed
    script = folder / "riwoactl"
    script.write_text(_SCRIPT)
    return script


def _measure(commands: dict[str, list[str]], runs: int, progress: Callable[[int, int], None]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in commands}
    # Byte code counts as installed: written in the first round where the caller's environment forbids it.
    environment = {k: v for k, v in child_environment(1).items() if k != "PYTHONDONTWRITEBYTECODE"}
    for turn in range(runs + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
            taken = time.perf_counter() - start
            expected = {"stopped": 3}.get(name, 0)
            if done.returncode != expected:
                raise RuntimeError(f"{command} exited with {done.returncode}, not {expected}")
            if turn:  # the first round fills caches and writes byte code
                times[name].append(taken)
        progress(turn, runs)
    return times


@contextmanager
def _answering(state: Path) -> Iterator[None]:
    """A stand-in for the daemon; what is measured is the client."""
    path = StatePaths(state).socket
    answer = json.dumps({"ok": True, "status": {**_STATUS, "pid": os.getpid()}}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with suppress(OSError):  # the listener is closed under it at the end
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(4096)
                        client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
