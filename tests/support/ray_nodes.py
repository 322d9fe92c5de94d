"""Ray clusters on this machine, of small nodes that are killed one by one: real `ray start` processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

SUPPORT = Path(__file__).resolve().parent
PORTS = ("--min-worker-port=0", "--max-worker-port=0")  # any: several nodes share this machine
SMALL = ("--object-store-memory=80000000", "--disable-usage-stats", "--block", *PORTS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RayCluster:
    """A head without cores, and nodes beside it. ``home`` holds what their processes keep and print."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "RIWOA_TEST_ORACLES": "1",
            "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parent.parent)]),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.home / "token"),
            "RAY_raylet_start_wait_time_s": "90",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
        }

    def start(
        self,
        name: str,
        *options: str,
        head: bool = False,
        within: Sequence[str] = (),
        path: Path | None = None,
    ) -> None:
        """Start a node; ``within``: a command that another is given to, ``path``: looked at for modules before all."""
        token = self.home / "token"
        if not token.exists():
            token.write_text("0" * 64)
        where = (
            ("--head", f"--port={self.port}", "--include-dashboard=false") if head else (f"--address={self.address}",)
        )
        ray = Path(sys.executable).parent / "ray"
        program = [str(ray)] if ray.exists() else [sys.executable, "-m", "ray.scripts.scripts"]
        environment = self.environment()
        if path is not None:
            environment["PYTHONPATH"] = f"{path}{os.pathsep}{environment['PYTHONPATH']}"
        log = (self.home / f"{name}.log").open("wb")
        self.processes[name] = subprocess.Popen(
            [*within, *program, "start", *where, f"--node-name={name}", *SMALL, *options],
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        log.close()
        if head:
            self.started(name)

    def node(self, name: str, cpus: int = 2, *options: str, within: Sequence[str] = ()) -> None:
        self.start(name, f"--num-cpus={cpus}", *options, within=within)

    def kill(self, name: str) -> None:
        """SIGKILL for all of a node's processes, as a power cut would."""
        process = self.processes.pop(name)
        with suppress(psutil.NoSuchProcess):
            # First those that start others; they are groups of their own.
            for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        process.wait()

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def started(self, name: str) -> None:
        """Wait until a node has joined."""
        log, end_s = self.home / f"{name}.log", time.monotonic() + 90
        while "Ray runtime started" not in log.read_text():
            assert time.monotonic() < end_s, log.read_text()
            assert self.processes[name].poll() is None, log.read_text()
            time.sleep(0.1)


@contextmanager
def ray_cluster(home: Path, **nodes: int) -> Iterator[RayCluster]:
    """A cluster of nodes with so many cores each, by name."""
    cluster = RayCluster(home)
    try:
        cluster.start("head", "--num-cpus=0", head=True)
        for name, cpus in nodes.items():
            cluster.node(name, cpus)
            cluster.started(name)  # two at once may want the same port
        yield cluster
    finally:
        cluster.close()
