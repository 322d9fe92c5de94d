"""``make gpu-evidence``: what only a GPU can show, a few minutes at a time, by riwoa's own commands (``gpu_plan``).

A folder of small files holds all that the next time needs, also on another machine:

    evidence.json       what was found, what is under way, and of which code and machine each part is
    NAME-SLICE.PART     a measurement's folder, packed, in parts below 16 MiB: of one under way, or that others need

It is worked in another folder, the workplace. A kill of a slice loses nothing where that still lies, else the slice.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from riwoa.bench.gpu_plan import CTL, Command, Measurement
from riwoa.bench.suite import provenance
from riwoa.errors import InputError
from riwoa.files.lock import lock_of
from riwoa.files.ownership import json_object, output_directory, unwritable
from riwoa.ipc.child import child_command, child_environment
from riwoa.parsing import parse_json
from riwoa_storage.durable import replace_durably

SCHEMA = 1
FILE = "evidence.json"
_PART_BYTES = 15 * 2**20
_MOST_BYTES = 2**26  # of evidence.json
_LEAST_S = 45.0  # in less of a slice nothing is begun: a process needs as much to get ready
_LEAVING_S = 30.0
_STDERR = 2
_PART = re.compile(r"[a-z]+-\d+\.\d+")
_LIBRARIES = ("torch", "transformers", "bitsandbytes", "onnxruntime")

Tell = Callable[[str], None]


@dataclass(slots=True)
class Record:
    """What a measurement has come to.

    Attributes:
        found: what its commands printed, by their names.
        done: whether all of them have.
        failed: why one could not.
        slices: in which it was worked on.
        took_s: that its commands ran.
        parts: of its packed folder: names and SHA-256, in order.
        provenance: of the slices, each once.
    """

    found: dict[str, Any] = field(default_factory=dict)
    done: bool = False
    failed: str | None = None
    slices: int = 0
    took_s: float = 0.0
    parts: list[list[str]] = field(default_factory=list)
    provenance: list[dict[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Evidence:
    """What ``evidence.json`` holds; ``key`` tells one such file from others."""

    rehearsal: bool
    key: str
    slices: int = 0
    records: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, *, rehearsal: bool = False) -> Evidence:
        """What lies in a folder; a new one where nothing does.

        Raises:
            InputError: it is damaged, of another version, or of a rehearsal where none is meant, or the reverse.
        """
        path = folder / FILE
        if not path.exists():
            return cls(rehearsal, secrets.token_hex(8))
        try:
            content = parse_json(path.read_bytes(), _MOST_BYTES)
            schema = content["schema"]
            if schema == SCHEMA:
                records = {name: Record(**row) for name, row in content["records"].items()}
                found = cls(bool(content["rehearsal"]), str(content["key"]), int(content["slices"]), records)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} cannot be read ({error}); take it from the last commit, or delete it") from None
        if schema != SCHEMA:
            raise InputError(
                f"{path} is of another version of riwoa (format {schema}, not {SCHEMA}): go on with that version, or "
                "name another --results"
            )
        if found.rehearsal != rehearsal:
            raise InputError(
                f"{path} is of {'a rehearsal' if found.rehearsal else 'measurements'}; name another --results, or "
                f"{'give' if found.rehearsal else 'leave out'} --rehearse"
            )
        return found

    def write(self, folder: Path) -> None:
        """Replace the folder's file."""
        replace_durably(folder / FILE, (json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n").encode())

    def record(self, name: str) -> Record:
        """Of a measurement."""
        return self.records.setdefault(name, Record())


@dataclass(frozen=True, slots=True)
class Places:
    """Where a slice works.

    Attributes:
        results: the folder of small files.
        work: the workplace, its real path.
        pictures: CIFAR-100, as it lies on this machine; None for a rehearsal.
    """

    results: Path
    work: Path
    pictures: Path | None = None

    @property
    def data(self) -> str:
        """The pictures by a path that is the same on every machine: it enters what is measured."""
        return "digits" if self.pictures is None else str(self.work / "pictures")


def run_slice(
    places: Places, plan: Sequence[Measurement], machine: str, most_s: float, tell: Tell, again: Sequence[str] = ()
) -> Evidence:
    """Go on with what is next, for so long; returns what was found. What fails does not stop the rest.

    Args:
        places: the folders.
        plan: what there is to measure, in order.
        machine: its card, in words.
        most_s: seconds.
        tell: told what is begun and what has ended.
        again: measurements that are to begin anew.

    Raises:
        UsageError: the workplace holds something else.
        InputError: the evidence, or a packed folder, is missing, damaged or of another version.
        StateLockedError: another process works in this workplace.
        StateDirectoryError, FullDiskError: one of the folders cannot be written.
    """
    until_s = time.monotonic() + most_s
    output_directory(places.work, _is_workplace, option="--work")
    try:
        for folder in (places.results, places.work):
            folder.mkdir(parents=True, exist_ok=True)
        with lock_of(places.work, "measures in", "--work"):
            evidence = _taken_up(places, plan, again)
            facts = {**provenance(_LIBRARIES), "card": machine}
            for left_out in filter(_tool_lacks, plan):
                evidence.record(left_out.name).failed = lacks(left_out, evidence)
            worked: list[Measurement] = []
            try:
                while (measurement := next((m for m in due(plan, evidence) if m not in worked), None)) is not None:
                    if worked and until_s - time.monotonic() < _LEAST_S:
                        break
                    worked.append(measurement)
                    _go_on(measurement, evidence, places.work, until_s, facts, tell)
            finally:
                _put_down(places, plan, evidence)
    except OSError as error:
        raise unwritable(error.filename or places.results, error, "name another --results or --work") from error
    return evidence


def due(plan: Sequence[Measurement], evidence: Evidence) -> list[Measurement]:
    """What can be gone on with here, in order; what failed comes last, to be tried again."""
    left = [m for m in plan if not evidence.record(m.name).done and lacks(m, evidence) is None]
    return sorted(left, key=lambda m: evidence.record(m.name).failed is not None)


def lacks(measurement: Measurement, evidence: Evidence) -> str | None:
    """What it waits for: a measurement that is not done, or a program that is not here."""
    waits = next((name for name in measurement.needs if not evidence.record(name).done), None)
    if waits is not None:
        return f"waits for {waits}"
    return f"no {measurement.tool} here" if _tool_lacks(measurement) else None


def _tool_lacks(measurement: Measurement) -> bool:
    return measurement.tool is not None and shutil.which(measurement.tool) is None


# -- one measurement ---------------------------------------------------------------------------------------------------


def _go_on(
    measurement: Measurement, evidence: Evidence, work: Path, until_s: float, facts: dict[str, str], tell: Tell
) -> None:
    """Run its commands until the last has ended or the time is over."""
    record, begun_s = evidence.record(measurement.name), time.monotonic()
    before_s = record.took_s
    record.slices += 1
    record.failed = None
    if facts not in record.provenance:
        record.provenance.append(facts)
    evidence.write(work)
    tell(f"{measurement.name}: slice {record.slices}")
    for path, content in measurement.files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(path, content.encode() if isinstance(content, str) else content.read_bytes())
    try:
        for command in measurement.commands:
            if command.name in record.found:  # one without a name never is
                continue
            said = _run(command, until_s)
            if said is None:
                return
            if isinstance(said, str):
                record.failed = f"{command.name or command.module}: {said}"
                tell(f"{measurement.name} failed at {record.failed}")
                return
            if command.name:
                record.found[command.name] = said
                evidence.write(work)
        record.done = True
        tell(f"{measurement.name}: done")
    finally:
        record.took_s = before_s + time.monotonic() - begun_s
        evidence.write(work)


def _run(command: Command, until_s: float) -> dict[str, Any] | str | None:
    """What a command printed; why it failed; None where the time was over first."""
    options = ("--child", "--json") if command.module == CTL else ()
    line = child_command(command.module, *options, *command.arguments)
    with tempfile.TemporaryFile() as out:
        shown: IO[bytes] | int = out if command.module == CTL else _STDERR
        # Its standard input is held open: it ends with this process, however that ends. A session of its own: what a
        # terminal interrupts is this process, which then ends the command.
        process = subprocess.Popen(
            line, env=child_environment(1), stdin=subprocess.PIPE, stdout=shown, start_new_session=True
        )
        try:
            code = process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)
        out.seek(0)
        printed = _printed(out.read())
    if code:
        return str(printed.get("error", f"exit code {code}, see above"))
    return {key: printed[key] for key in command.keeps}


def _printed(text: bytes) -> dict[str, Any]:
    try:
        found = parse_json(text, _MOST_BYTES)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have a command end in good order, or at all; what it started ends with it."""
    with process:
        if process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_LEAVING_S)
        except subprocess.TimeoutExpired:
            process.kill()


# -- between two slices ------------------------------------------------------------------------------------------------


def _taken_up(places: Places, plan: Sequence[Measurement], again: Sequence[str]) -> Evidence:
    """The evidence, and the workplace as the last slice left it.

    Where a slice of these results ended, or was killed, in this workplace, that has all of it. Else the workplace is
    made anew of what is packed, and what cannot move begins anew.
    """
    rehearsal = places.pictures is None
    evidence, told = Evidence.read(places.results, rehearsal=rehearsal), json_object(places.work / FILE)
    here = (told.get("key"), told.get("slices")) == (evidence.key, evidence.slices)
    if here:
        evidence = Evidence.read(places.work, rehearsal=rehearsal)
    for path in [places.work / name for name in again] if here else places.work.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    for name in again:
        evidence.records.pop(name, None)
    for measurement in () if here else plan:
        record = evidence.record(measurement.name)
        if record.parts:
            _unpack(places, record)
        elif not record.done:
            evidence.records[measurement.name] = Record()
    if places.pictures is not None:
        link = Path(places.data)
        link.unlink(missing_ok=True)
        link.symlink_to(places.pictures.absolute())
    if not (places.results / FILE).exists():
        evidence.write(places.results)  # its key tells a workplace whose first slice was killed
    evidence.write(places.work)
    return evidence


def _put_down(places: Places, plan: Sequence[Measurement], evidence: Evidence) -> None:
    """Pack what another machine, or a later measurement, needs, and tell in the results what was found."""
    for measurement in plan:
        record, folder = evidence.record(measurement.name), places.work / measurement.name
        wanted = folder.exists() and (measurement.stays if record.done else measurement.moves)
        stem = f"{measurement.name}-{record.slices}"
        if not wanted:
            record.parts = []
        elif not any(name.startswith(f"{stem}.") for name, _ in record.parts):  # not since it was worked on last
            record.parts = _packed(places.results / stem, folder)
        if record.done and not measurement.stays:
            shutil.rmtree(folder, ignore_errors=True)
    evidence.slices += 1
    evidence.write(places.results)
    evidence.write(places.work)
    named = {name for record in evidence.records.values() for name, _ in record.parts}
    for path in places.results.iterdir():
        if _PART.fullmatch(path.name) and path.name not in named:
            path.unlink()


def _packed(stem: Path, folder: Path) -> list[list[str]]:
    """Names and hashes of the files that hold a folder, which are written."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, folder.name, filter=_without_temporary)  # sockets are left out by themselves
    packed, parts = buffer.getvalue(), []
    for i, start in enumerate(range(0, len(packed), _PART_BYTES)):
        part, path = packed[start : start + _PART_BYTES], Path(f"{stem}.{i}")
        replace_durably(path, part)
        parts.append([path.name, hashlib.sha256(part).hexdigest()])
    return parts


def _without_temporary(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """A file as it is; not one that a killed process was writing."""
    return None if member.name.endswith(".tmp") else member


def _unpack(places: Places, record: Record) -> None:
    """Put a packed folder back.

    Raises:
        InputError: a part of it is missing or damaged.
    """
    packed = io.BytesIO()
    for name, sha256 in record.parts:
        path = places.results / name
        part = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(part).hexdigest() != sha256:
            measurement = name.partition("-")[0]
            raise InputError(
                f"{path} is {'not what was packed' if part else 'missing'}; bring it from where the last slice ran, or "
                f"begin anew with --again {measurement}"
            )
        packed.write(part)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        archive.extractall(places.work, filter="data")


def _is_workplace(folder: Path) -> bool:
    return all(path.name.startswith(".") for path in folder.iterdir()) or (folder / FILE).exists()
