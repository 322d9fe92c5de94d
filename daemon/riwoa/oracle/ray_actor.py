"""What runs on a node of a Ray cluster: an actor that holds one worker process of an oracle.

The class is sent by value, to nodes that may lack riwoa or have another one: nothing but the standard library is
imported here before the node was looked at. The evaluation itself is that of the local pool: the actor has one of its
own, with one worker, so time, memory and threads are watched where the work is done.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "numpy", "ofa")  # those that decide the last bits of an accuracy
_PACKAGES = ("riwoa", "riwoa_storage")

Packet = Sequence[tuple[str, int, bytes]]  # file below the tree, offset, content


def facts() -> dict[str, Any]:
    """What this process's Python would evaluate with: versions (None: not installed), code, processor, clock."""
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "riwoa": _version("riwoa"),
        "code": _code(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "unix_s": time.time(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _code() -> str | None:
    """Hash of riwoa's own source; None where it is not installed."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            return None
        root = Path(found.origin).parent
        for file in sorted(root.rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


class NodeWorker:
    """One worker on a node; its methods are called by the driver, one evaluation at a time.

    Args:
        cache: where files lie that were sent; "" is this user's own place.
    """

    def __init__(self, cache: str = "") -> None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        self._cache = Path(cache or os.path.join(home, "riwoa", "nodes"))
        self._pool: Any = None  # a WorkerPool, once this node is known to have one
        self._arriving: dict[str, Path] = {}

    async def facts(self) -> dict[str, Any]:
        """See ``facts``, and which node this is."""
        import ray

        return {**facts(), "node": ray.get_runtime_context().get_node_id()}

    async def alive(self) -> None:
        """Answer."""

    # -- files that are sent -------------------------------------------------------------------------------------------

    async def place(self, tree: str) -> str | None:
        """Where a tree of files of this hash lies; None where it does not yet."""
        place = self._cache / tree
        return str(place) if place.is_dir() else None

    async def receive(self, tree: str, packet: Packet) -> None:
        """Keep a part of a tree; parts come in order."""
        if tree not in self._arriving:
            self._cache.mkdir(parents=True, exist_ok=True)
            self._arriving[tree] = Path(tempfile.mkdtemp(prefix=f".{tree[:16]}-", dir=self._cache))
        for name, offset, content in packet:
            file = self._arriving[tree] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("r+b" if offset else "wb") as stream:
                stream.seek(offset)
                stream.write(content)

    async def settle(self, tree: str, sha256: Mapping[str, str]) -> str:
        """Check what came of a tree, and give it its name; where it lies then.

        Raises:
            OSError: a file is not what was sent.
        """
        arrived, place = self._arriving.pop(tree), self._cache / tree
        try:
            for name, wanted in sha256.items():
                with (arrived / name).open("rb") as stream:
                    if hashlib.file_digest(stream, "sha256").hexdigest() != wanted:
                        raise OSError(f"{name} arrived damaged")
                    os.fsync(stream.fileno())
            try:
                arrived.rename(place)
            except OSError:
                if not place.is_dir():  # else another worker of this machine was faster, with the same
                    raise
        finally:
            shutil.rmtree(arrived, ignore_errors=True)
        return str(place)

    # -- the worker ----------------------------------------------------------------------------------------------------

    async def load(self, spec: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
        """Start the worker process; what it says of its oracle, or the error that it could not be made for."""
        from riwoa.errors import RiwoaError
        from riwoa.ipc.child import error_to_json
        from riwoa.oracle.pool import PoolSettings, WorkerPool
        from riwoa.oracle.protocol import GivenSpec

        self._pool = WorkerPool(GivenSpec(spec), PoolSettings(workers=1, **limits), lambda slot, line: print(line))
        try:
            info = await self._pool.start()
        except RiwoaError as error:
            await self._pool.close()
            return {"error": error_to_json(error)}
        return {"oracle_version": info.version, "threads": info.threads, "load_s": info.load_s}

    async def evaluate(self, job_id: str, architecture: Any, how: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluate a candidate: how it ended, as the fields of an ``EvaluationResult``.

        Raises:
            RiwoaError: the worker cannot be kept alive.
        """
        from dataclasses import asdict

        result = await (await self._pool.submit(job_id, architecture, **how))
        return {**asdict(result), "metrics": dict(result.metrics), "pid": self._pool.stats().workers[0].pid}

    async def cancel(self, job_id: str) -> None:
        """Give an evaluation up: it ends as "cancelled"."""
        if self._pool is not None:
            self._pool.cancel(job_id)

    async def set_limits(self, evaluation_timeout_s: float, memory_limit_bytes: int | None) -> None:
        """Other limits, for the evaluations that begin from now on."""
        if self._pool is not None:
            self._pool.set_limits(evaluation_timeout_s, memory_limit_bytes)
