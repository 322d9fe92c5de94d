"""What a search needs of a machine, looked at one thing after the other: whether it is well, and what mends it.

Every check is a function of a ``Patient``; one that has nothing to look at gives nothing. To add one, add it to
``CHECKS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import psutil

import riwoa
from riwoa.cognition.endpoint import ServerError
from riwoa.cognition.models import choose, why_not_preferred
from riwoa.config.schema import Config
from riwoa.errors import ModelError, RiwoaError, TableError
from riwoa.files.lock import holder
from riwoa.files.ownership import json_object
from riwoa.hardware.accelerator import Accelerator, probe_accelerator
from riwoa.hardware.interval import advice, plus_minus
from riwoa.hardware.obtain import known_table
from riwoa.hardware.probe import library_versions
from riwoa.hardware.runtime import spoken
from riwoa.limits import memory, usable_cores
from riwoa.oracle.kinds import measures_device
from riwoa.oracle.workers import worker_count
from riwoa.paths import StatePaths
from riwoa.run.preflight import refusals
from riwoa.run.server_check import check_server
from riwoa.service.governor import judge, read_machine
from riwoa.service.status_check import checked_status
from riwoa.text import printable
from riwoa_storage.errors import StorageError
from riwoa_storage.reader import JournalReader

Level = Literal["ok", "warn", "fail"]
_GIB = 2**30
_LIBRARIES = ("torch", "ofa", "onnxruntime", "numpy", "scipy", "pydantic")
_SERVICE = "riwoa.service"
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        level: "ok", "warn" (a search works, less well) or "fail" (it does not).
        says: what there is.
        mend: a command, or what else is to be done; empty where nothing is.
    """

    level: Level
    says: str
    mend: str = ""


@dataclass(frozen=True)
class Patient:
    """What is looked at: a configuration as a daemon would read it, and the place where it would write."""

    config: Config
    paths: StatePaths

    @cached_property
    def accelerator(self) -> Accelerator | None:
        """The CUDA device; seconds where there is a driver."""
        return probe_accelerator()


def examined(patient: Patient) -> Iterator[tuple[str, Finding]]:
    """The name of each check that had something to look at, and what it found, as they are made."""
    for name, check in CHECKS.items():
        try:
            found = check(patient)
        except (OSError, RiwoaError, StorageError) as error:
            found = Finding("fail", printable(error))
        if found is not None:
            yield name, found


# -- riwoa -------------------------------------------------------------------------------------------------------------


def _libraries(patient: Patient) -> Finding:
    found = library_versions(_LIBRARIES)
    if missing := [name for name in _LIBRARIES if name not in found]:
        return Finding("fail", f"not installed: {', '.join(missing)}", "pip install riwoa")
    return Finding(
        "ok", ", ".join(f"{name} {version}" for name, version in {"riwoa": riwoa.__version__, **found}.items())
    )


def _configuration(patient: Patient) -> Finding:
    if problems := refusals(patient.config, patient.paths.latency_table):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Finding("fail", f"{problems[0]}{more}", "riwoactl config check FILE tells all of it")
    objective = patient.config.objective
    target = f"{objective.wanted_ms}{' ms' if isinstance(objective.wanted_ms, float) else ''}"
    if objective.targets:
        target = ", ".join(f"{t.name} {t.latency_ms:g} ms" for t in objective.targets)
    return Finding("ok", f"{patient.config.oracle.kind}, target {target}")


def _model(patient: Patient) -> Finding:
    cognition = patient.config.cognition
    if cognition.provider == "none":
        return Finding("ok", "off: the search goes on without a language model")
    if cognition.provider == "http":
        return _server(patient.config)
    if cognition.provider not in ("auto", "model"):
        return Finding("ok", f"the provider {cognition.provider}")
    try:
        model = choose(cognition.model, accelerator=lambda: patient.accelerator)
    except ModelError as error:
        if cognition.provider == "auto":
            return Finding("ok", f"{printable(error)}; the search goes on without it")
        return Finding("warn", f"{printable(error)}; the search goes on without it", "riwoactl model pull auto")
    if cognition.provider == "auto":
        return Finding("ok", f"{model.spec.name}: asked where an evaluation takes at least as long as its reply")
    return Finding("ok", f"{model.spec.name}: {model.reason}")


def _server(config: Config) -> Finding:
    """The model on the configured server: whether it answers as a search would ask it."""
    try:
        found = asyncio.run(check_server(config))
    except ServerError as error:
        return Finding("warn", f"{error}; the search goes on without it", "riwoactl model check, once that is mended")
    says = f"{found.answered} at {found.url}: a reply takes {found.reply_s:.1f} s, the schema is {found.schema}"
    return Finding("warn" if found.mends else "ok", says, "; ".join(found.mends))


# -- the machine -------------------------------------------------------------------------------------------------------


def _processor(patient: Patient) -> Finding:
    usable, whole = usable_cores(), os.cpu_count() or 1
    workers = worker_count(patient.config.oracle)
    if patient.config.oracle.pool == "ray":
        return Finding("ok", f"{usable:.3g} of {whole} cores may be used; a cluster evaluates (doctor --cluster)")
    says = f"{usable:.3g} of {whole} cores may be used, {workers} {'worker' if workers == 1 else 'workers'}"
    if workers * patient.config.oracle.threads > usable + 0.5:
        wanted = f"oracle.workers = {workers} of {patient.config.oracle.threads} threads"
        return Finding("warn", f"{says}: {wanted} take turns", 'set oracle.workers = "auto", or fewer threads')
    return Finding("ok", says)


def _memory(patient: Patient) -> Finding:
    found, machine = memory(), psutil.virtual_memory().total
    limit = f" (a limit; the machine has {machine / _GIB:.1f})" if found.total_bytes < machine else ""
    says = f"{found.available_bytes / _GIB:.1f} of {found.total_bytes / _GIB:.1f} GiB free{limit}"
    least = patient.config.governor.memory_resume_bytes
    if found.available_bytes < least:
        return Finding("warn", f"{says}, the search pauses near the end of it", "end what else runs here")
    return Finding("ok", says)


def _accelerator(patient: Patient) -> Finding:
    found = patient.accelerator
    if found is None:
        return Finding("ok", "no CUDA GPU: networks run on the processor")
    return Finding("ok", f"{found.name}, {found.memory_bytes / _GIB:.0f} GiB")


def _four_bit(patient: Patient) -> Finding | None:
    found = patient.accelerator
    if found is None:
        return None
    if found.four_bit_error is not None:
        return Finding("warn", found.four_bit_error, "pip install --upgrade bitsandbytes")
    why_not = why_not_preferred(found)
    return Finding("ok", why_not or "the large language model can run in 4 bits")


def _clock(patient: Patient) -> Finding:
    now = datetime.now().astimezone()
    if time.time() < Path(riwoa.__file__).stat().st_mtime - 86_400:
        return Finding("fail", f"it shows {now:%Y-%m-%d %H:%M}, before riwoa was installed", "timedatectl set-ntp true")
    said = _said("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if said == "no":
        what = f"{now:%Y-%m-%d %H:%M %Z}, not synchronised: a deadline and quiet hours go by it"
        return Finding("warn", what, "timedatectl set-ntp true")
    return Finding("ok", f"{now:%Y-%m-%d %H:%M %Z}" + (", synchronised" if said == "yes" else ""))


def _governor(patient: Patient) -> Finding:
    reasons = judge(patient.config.governor, read_machine(_existing(patient.paths.state)), datetime.now(), ())
    if reasons:
        says = "; ".join(reasons.values())
        return Finding("warn", f"a search would pause now: {says}", "wait, or change [governor] in the configuration")
    return Finding("ok", "nothing to pause for (disk, memory, load, temperature, battery, quiet hours)")


# -- the place where it writes -----------------------------------------------------------------------------------------


def _state_directory(patient: Patient) -> Finding:
    place = patient.paths.state
    if place.exists() and not place.is_dir():
        return Finding("fail", f"{place} is no directory", "name another with --state")
    if not os.access(_existing(place), os.W_OK | os.X_OK):
        return Finding(
            "fail", f"{place}: this user may not write there", "name another with --state, or run as its owner"
        )
    return Finding("ok", f"{place}" + ("" if place.exists() else ", which the first run makes"))


def _disk(patient: Patient) -> Finding:
    place = _existing(patient.paths.state)
    free = shutil.disk_usage(place).free
    says = f"{free / _GIB:.1f} GiB free at {place}"
    if free < patient.config.governor.disk_resume_bytes:
        return Finding("fail", f"{says}: the search pauses", "make room; `riwoactl compact` makes a journal smaller")
    return Finding("ok" if free > 2 * _GIB else "warn", says, "" if free > 2 * _GIB else "make room, 2 GiB will do")


def _database(patient: Patient) -> Finding:
    place = _existing(patient.paths.state)
    with tempfile.TemporaryDirectory(prefix=".riwoa-doctor-", dir=place) as folder:
        with contextlib.closing(sqlite3.connect(Path(folder, "probe.db"))) as db:
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            db.execute("CREATE TABLE probe (x)")
            started_s = time.monotonic()
            with db:
                db.execute("INSERT INTO probe VALUES (1)")
            took_ms = 1000 * (time.monotonic() - started_s)
    if mode != "wal":
        return Finding(
            "fail", f"SQLite cannot keep a write-ahead log at {place} (a network's disk?)", "--state elsewhere"
        )
    slow = took_ms > 500
    says = f"{sqlite3.sqlite_version}, a commit takes {took_ms:.1f} ms"
    return Finding("warn" if slow else "ok", says, "a faster disk for --state" if slow else "")


def _journal(patient: Patient) -> Finding | None:
    if not patient.paths.journal.exists():
        return None
    try:
        with JournalReader(patient.paths.journal) as reader:
            run = reader.latest_run()
    except StorageError as error:
        return Finding("fail", printable(error), "riwoactl verify tells what is damaged; riwoactl help recovery")
    if run is None:
        return Finding("ok", "no run yet")
    return Finding("ok", f"run {run.run_id}: {run.status}, {run.generations} generations")


def _daemon(patient: Patient) -> Finding | None:
    pid, status = holder(patient.paths), checked_status(json_object(patient.paths.status))
    if status is None:
        return None if pid is None else Finding("ok", f"process {pid} runs")
    if status["state"] == "unhealthy":
        return Finding("fail", printable(status.get("message") or "unhealthy"), "riwoactl status; riwoactl logs")
    if pid is not None:
        return Finding("ok", f"process {pid}: {status['state']}")
    if status["state"] in ("finished", "stopped"):
        return Finding("ok", f"does not run: {status['state']}")
    return Finding(
        "warn", f"it was killed while {status['state']}; nothing committed is lost", status.get("go_on") or ""
    )


def _latency_table(patient: Patient) -> Finding | None:
    config, path = patient.config, patient.paths.latency_table
    if not measures_device(config.oracle.kind) or config.latency.runtime == "command":
        return None
    try:
        found = known_table(path, config)
    except TableError as error:
        return Finding("fail", printable(error), "riwoactl lut build")
    if found is None:
        return Finding("ok", "none of this device yet: the first run measures it in about a minute")
    interval = None if found.interval is None else found.interval.half_width_percent / 100
    says = f"of this device, {spoken(found.settings)}{plus_minus(interval)}"
    wide = advice(interval)
    return Finding("warn" if wide else "ok", wide or says, "riwoactl lut build, on an idle machine" if wide else "")


def _service(patient: Patient) -> Finding | None:
    if not Path("/run/systemd/system").is_dir():
        return None
    shown = _said("systemctl", "show", _SERVICE, "--property=LoadState,ActiveState,Result") or ""
    facts = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if facts.get("LoadState") != "loaded":
        return Finding("ok", "not installed; `riwoactl service install` does it")
    if facts.get("ActiveState") == "failed":
        return Finding("fail", f"{_SERVICE} failed: {facts.get('Result')}", f"journalctl -u {_SERVICE} -n 50")
    return Finding("ok", f"{_SERVICE} is {facts.get('ActiveState')}")


def _existing(place: Path) -> Path:
    """The place, or the nearest folder above it that is there."""
    return next(folder for folder in (place, *place.absolute().parents) if folder.exists())


def _said(*command: str) -> str | None:
    """What a command prints; None where it is not there, or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


CHECKS: dict[str, Callable[[Patient], Finding | None]] = {
    "libraries": _libraries,
    "configuration": _configuration,
    "processor": _processor,
    "memory": _memory,
    "GPU": _accelerator,
    "4-bit": _four_bit,
    "model": _model,
    "latency table": _latency_table,
    "state": _state_directory,
    "disk": _disk,
    "SQLite": _database,
    "journal": _journal,
    "daemon": _daemon,
    "service": _service,
    "clock": _clock,
    "governor": _governor,
}
