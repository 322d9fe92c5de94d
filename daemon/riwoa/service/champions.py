"""The champion: the export that is deployed. What became it, when and why is kept, and so are those before it.

    champion                 a link to the champion's files: whoever deploys reads through it
    champions/NAME/          every export that ever was champion, as it was then
    champions/record.jsonl   every decision, in order; only ever appended to

A decision counts from the moment at which its line is on the disk, as far as the disk honours fsync; the files lie
there before, the link follows. Killed in between, the link still leads to the champion before, whole, and whoever
opens the store next lets it follow. A refusal is a decision, too.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from riwoa.errors import InputError, StateDirectoryError
from riwoa.export import made_export
from riwoa.files.lock import Lock, lock_of
from riwoa.files.ownership import irregular, json_object, unwritable
from riwoa.files.results import ResultFile
from riwoa.paths import StatePaths
from riwoa.service.champion_status import FOLDER, PROMOTED, RECORD, ROLLED_BACK, reigns
from riwoa_storage.durable import flush
from riwoa_storage.failpoint import failpoint

REFUSED, SEARCHING = "refused", "searching"
_START = b'{"decision"'
_NAME_CHARACTERS = 12
_PART = ".part"


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the record.

    Attributes:
        decision: PROMOTED, REFUSED, ROLLED_BACK or SEARCHING: a challenger is sought.
        champion: its name from then on; of a refusal the name of the export that was refused.
        why: in a sentence.
        unix_s: when.
        gate: what was measured, as JSON; empty where nothing was.
    """

    decision: str
    champion: str
    why: str
    unix_s: float
    gate: Mapping[str, Any]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Decision:
        """Of a line.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(
            str(row["decision"]),
            str(row["champion"]),
            str(row["why"]),
            float(row["unix_s"]),
            dict(row.get("gate") or {}),
        )

    def to_json(self) -> dict[str, Any]:
        """A line."""
        return {
            "decision": self.decision,
            "champion": self.champion,
            "why": self.why,
            "unix_s": self.unix_s,
            "gate": dict(self.gate),
        }


class Champions:
    """The store of a state directory, held by this process alone while the block lasts.

    Raises:
        StateDirectoryError, FullDiskError: it cannot be written, or something else lies in its place.
        StateLockedError: another process holds it.
    """

    def __init__(self, paths: StatePaths) -> None:
        self.link = paths.state / "champion"
        self.folder = paths.state / FOLDER
        self._lock: Lock | None = None
        self._decisions: list[Decision] = []

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error, "choose another with --state") from None
        self._lock = lock_of(self.folder, "works in", "--state")
        try:
            with self._record() as record:
                self._decisions = _decisions(record.rows())
            self._follow()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._lock is not None:
            self._lock.close()

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Everything that was decided, oldest first."""
        return tuple(self._decisions)

    @property
    def reigns(self) -> tuple[Decision, ...]:
        """The promotions in force: the last is the champion's, those before it are what a rollback returns to."""
        return tuple(reigns(self._decisions, lambda decision: decision.decision))

    @property
    def champion(self) -> Decision | None:
        """The promotion of the champion; None where there is none."""
        reigns = self.reigns
        return reigns[-1] if reigns else None

    def files(self, name: str) -> Path:
        """Where a champion's files lie."""
        return self.folder / name

    def promote(self, export: Path, why: str, gate: Mapping[str, Any]) -> Decision:
        """Have an export be the champion.

        Raises:
            InputError: it is none, or not as it was written.
            StateDirectoryError, FullDiskError: the store cannot be written; the champion is then as before.
        """
        name = export_name(export)
        try:
            self._adopt(export, name)
        except OSError as error:
            raise unwritable(self.folder, error, "choose another with --state") from None
        return self._decide(Decision(PROMOTED, name, why, time.time(), gate))

    def refuse(self, export: Path, why: str, gate: Mapping[str, Any]) -> Decision:
        """Write down that an export did not become the champion, and why.

        Raises:
            InputError: it is no export.
            StateDirectoryError, FullDiskError: the store cannot be written.
        """
        return self._decide(Decision(REFUSED, export_name(export), why, time.time(), gate))

    def begin_search(self, why: str, facts: Mapping[str, Any]) -> Decision:
        """Write down that a challenger is sought; until the next decision, it is.

        Raises:
            StateDirectoryError, FullDiskError: the store cannot be written.
        """
        champion = self.champion
        return self._decide(Decision(SEARCHING, champion.champion if champion else "", why, time.time(), facts))

    def roll_back(self, why: str) -> Decision:
        """Return to the champion before.

        Raises:
            InputError: there is none, or its files are gone.
            StateDirectoryError, FullDiskError: the store cannot be written.
        """
        reigns = self.reigns
        if len(reigns) < 2:
            raise InputError(f"there is no champion to return to in {self.folder}; riwoactl promote makes one")
        before = reigns[-2].champion
        require_whole(self.files(before))
        return self._decide(Decision(ROLLED_BACK, before, why, time.time(), {}))

    def _adopt(self, export: Path, name: str) -> None:
        """Copy an export's files, each as it was hashed; whole under its name, or not at all."""
        for left in self.folder.glob(f"*{_PART}"):  # of a promotion that was killed
            shutil.rmtree(left)
        if self.files(name).exists():
            require_whole(self.files(name))
            return
        part = self.folder / f"{name}{_PART}"
        for file in made_export(export) or ():
            source, target = export / file, part / file
            if irregular(source) is not None or not source.exists():
                raise InputError(f"{source} is missing; riwoactl export writes it again")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            flush(target)
        if export_name(part) != name:
            raise InputError(f"{export} was exported anew meanwhile; run this again")
        require_whole(part)
        for directory in (*(path for path in part.rglob("*") if path.is_dir()), part):
            flush(directory)
        failpoint("champions.adopted")
        part.rename(self.files(name))
        flush(self.folder)

    def _decide(self, decision: Decision) -> Decision:
        failpoint("champions.before_record")
        with self._record() as record:
            record.append(decision.to_json())
        failpoint("champions.after_record")
        self._decisions.append(decision)
        self._follow()
        failpoint("champions.after_link")
        return decision

    def _record(self) -> ResultFile:
        return ResultFile(self.folder / RECORD, "a record of champions", _START)

    def _follow(self) -> None:
        """Have the link lead to the champion."""
        champion = self.champion
        if champion is None:
            return
        wanted = os.path.join(self.folder.name, champion.champion)
        if os.path.lexists(self.link) and not self.link.is_symlink():
            raise StateDirectoryError(f"{self.link} is not riwoa's link to the champion; move it away")
        if self.link.is_symlink() and os.readlink(self.link) == wanted:
            return
        beside = self.link.with_name(f".champion.{secrets.token_hex(4)}.tmp")
        try:
            beside.symlink_to(wanted)
            beside.replace(self.link)
            flush(self.link.parent)
        except OSError as error:
            raise unwritable(self.link, error, "choose another with --state") from None


def export_name(export: Path) -> str:
    """A short name of an export: of the hash of its provenance, which holds the hashes of its files.

    Raises:
        InputError: it is no export.
    """
    if made_export(export) is None:
        raise InputError(f"{export} is no export of riwoa's; riwoactl export writes one, --export names one")
    return hashlib.sha256((export / "provenance.json").read_bytes()).hexdigest()[:_NAME_CHARACTERS]


def require_whole(export: Path) -> None:
    """Refuse an export whose files are not as it lists them.

    Raises:
        InputError: names the first.
    """
    listed = json_object(export / "provenance.json").get("files_sha256")
    for name, expected in (listed if isinstance(listed, dict) else {"provenance.json": ""}).items():
        file = export / name
        whole = irregular(file) is None and file.exists()
        if not whole or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise InputError(f"{file} is not as it was exported; riwoactl export writes it again")


def _decisions(rows: Iterable[Mapping[str, Any]]) -> list[Decision]:
    found = []
    for row in rows:
        try:
            found.append(Decision.from_json(row))
        except (KeyError, TypeError, ValueError):
            continue
    return found
