"""The kind ``command``: a user's own program or function judges architectures of a user's own space. No torch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from riwoa.config.kinds.command import CommandSettings
from riwoa.errors import ConfigError
from riwoa.hardware.process import ProgressCallback
from riwoa.oracle.kind import OracleKind, Problem
from riwoa.oracle.program import executable
from riwoa.oracle.protocol import Oracle, SettingsSpec
from riwoa.oracle.space_file import read_space
from riwoa.search.catalogue import Catalogue
from riwoa.search.space import IntArray, Space

if TYPE_CHECKING:
    from riwoa.config.schema import Config
    from riwoa.config.schema import Oracle as OracleTable

_MOST_COUNTED = 10_000  # architectures of a space that a run keeps account of, to end when none is left


class CommandKind(OracleKind):
    """A program that reads an architecture and prints what it is worth."""

    name = "command"
    settings = CommandSettings

    def spec(self, oracle: OracleTable) -> SettingsSpec:
        """See ``OracleKind.spec``; places are absolute, the program is known to be there.

        Raises:
            ConfigError: what judges, or what is judged, is not named or not there.
        """
        settings = oracle.command
        directory = Path(settings.directory).absolute()
        problems = _problems(settings, directory)
        if problems:
            raise ConfigError(*problems)
        places: dict[str, Any] = {"directory": str(directory)}
        places["files"] = [str(Path(file).absolute()) for file in settings.files]
        places |= {key: _absolute(getattr(settings, key)) for key in ("path", "space")}
        return SettingsSpec(self.name, {**settings.model_dump(mode="json"), **places}, oracle.threads)

    async def problem(self, config: Config, latency_table: Path, progress: ProgressCallback | None = None) -> Problem:
        """See ``OracleKind.problem``."""
        spec = self.spec(config.oracle)
        space = read_space(Path(spec.settings["space"]))
        return Problem(space=space, spec=spec, latency_sha256=space.sha256, catalogue=_catalogue(space))

    def build(self, spec: Mapping[str, Any]) -> Oracle:
        """See ``OracleKind.build``."""
        from riwoa.oracle.command_oracle import CommandOracle

        return CommandOracle(spec["settings"], threads=spec["threads"])


def _problems(settings: CommandSettings, directory: Path) -> list[str]:
    """What is missing for a start."""
    found = []
    if settings.program is None and settings.function is None:
        found.append("oracle.kind = command needs oracle.command.program, what judges an architecture")
    if settings.space is None:
        found.append("oracle.kind = command needs oracle.command.space, the file that declares the genes")
    for key, place in (("directory", directory), ("path", settings.path)):
        if place is not None and not os.path.isdir(place):
            found.append(f"oracle.command.{key}: {place} is no directory")
    if settings.program is not None and os.path.isdir(directory):
        try:
            executable(settings.program, directory)
        except ConfigError as error:
            found += error.problems
    return found + [f"oracle.command.files: {file} is no file" for file in settings.files if not os.path.isfile(file)]


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _catalogue(space: Space) -> Catalogue | None:
    """All architectures of a small space; None of a larger one."""
    if space.size > _MOST_COUNTED or int(np.prod(space.cardinalities.astype(float))) > 100 * _MOST_COUNTED:
        return None
    combinations = itertools.product(*(range(count) for count in space.cardinalities.tolist()))
    rows: IntArray = np.unique(space.canonical(np.array(list(combinations), dtype=np.int64)), axis=0)
    number = {row.tobytes(): n for n, row in enumerate(rows)}
    return Catalogue(
        space,
        rows,
        np.ones(len(rows), dtype=np.bool_),
        np.zeros(len(rows)),
        lambda indices: number.get(np.asarray(indices, dtype=np.int64).tobytes()),
    )
