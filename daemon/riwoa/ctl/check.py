"""``riwoactl check``: which limits of the objective an architecture keeps, one by one."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit
from riwoa.ctl.past import in_force
from riwoa.errors import InputError, UsageError
from riwoa.paths import client_state
from riwoa.service.limit_text import VERDICTS, limit_words, limits_view
from riwoa.text import measured

if TYPE_CHECKING:
    from riwoa_storage.reader import JournalReader
    from riwoa_storage.records import RunRecord

NOT_MET = 3
_DESCRIPTION = """Lists the limits of a run's objective, each with the architecture's value. Metrics that only an
evaluation tells are those of the journal; "not known" where it was not evaluated. Exits 0 when every limit is met, 3
when one is not, or is not known; of several devices (targets) it must serve one."""
_PLACE = re.compile(r"(\d{1,9})/(\d{1,9})")


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print each limit, its value, and whether it is met."""
    parser = Parser(verb, description=_DESCRIPTION)
    arch_help = "a JSON file, - for standard input, or GENERATION/SLOT of the run"
    parser.add_argument("architecture", metavar="ARCH", help=arch_help)
    parser.add_argument("--run", type=int, metavar="ID", help="the run (default: the latest)")
    given = parser.parse_args(arguments)
    data = checked(given.architecture, given.run, options)
    emit(options, data, render(data))
    serves = any(target["met"] for target in data["targets"]) if "targets" in data else True
    return 0 if serves and all(limit["met"] for limit in data["limits"]) else NOT_MET


def checked(named: str, run_id: int | None, options: Options) -> dict[str, Any]:
    """An architecture's limits as a JSON object.

    Raises:
        InputError: it is none of the run's space, or cannot be read.
    """
    from riwoa.run.front import chosen_run
    from riwoa.run.limits import standings, target_standings
    from riwoa.run.problem import load_problem, search_task
    from riwoa.search.space import SpaceError
    from riwoa_storage.reader import JournalReader

    paths = client_state(options.state)
    with JournalReader(paths.journal) as reader:
        record = chosen_run(reader, run_id)
        config = in_force(reader, record)
        architecture = _architecture(named, reader, record)
        problem = asyncio.run(load_problem(config, paths.latency_table))
        try:
            key = problem.space.key(problem.space.indices(architecture))
        except SpaceError as error:
            raise InputError(f"{named}: {error}") from None
        task = search_task(problem, config)
        objective = task.objective(config)
        rows = reader.by_key.committed_outcomes(record.run_id, [key]).get(key, [])
        evaluated = next((i.metrics for i in rows if i.status == "ok"), {})
        metrics = {**evaluated, **task.known_metrics(architecture, objective)}
    found = standings(objective, metrics)
    limits = [{"limit": str(s.limit), **row} for s, row in zip(found, limits_view(found), strict=True)]
    told = {"run_id": record.run_id, "architecture": dict(architecture), "evaluated": bool(evaluated), "limits": limits}
    if not objective.targets:
        return told
    of_devices = target_standings(objective, metrics)
    each = zip(objective.targets, of_devices, limits_view(of_devices), strict=True)
    return told | {"targets": [{"name": t.name, "limit": str(s.limit), **row} for t, s, row in each]}


def render(data: dict[str, Any]) -> str:
    """A line each limit."""
    limits = [*data["limits"], *data.get("targets", [])]
    if not limits:
        return "the objective of this run sets no limits"
    rows = [
        [limit_words(row), "-" if row["value"] is None else measured(row["metric"], row["value"]), VERDICTS[row["met"]]]
        for row in limits
    ]
    if "targets" in data:
        rows = [[row.get("name", ""), *cells] for row, cells in zip(limits, rows, strict=True)]
    return columns(rows)


def _architecture(named: str, reader: JournalReader, record: RunRecord) -> Mapping[str, Any]:
    """The architecture that an argument names.

    Raises:
        InputError: it cannot be read, or no such individual was committed.
        UsageError: it is no way to name one.
    """
    from riwoa.parsing import MOST_JSON_BYTES, parse_json_object, read_once

    place = _PLACE.fullmatch(named)
    if place is not None:
        individual = reader.individual(record.run_id, int(place[1]), int(place[2]))
        if individual is None:
            raise InputError(f"run {record.run_id} has no individual {place[2]} in generation {place[1]}")
        return individual.architecture
    if named != "-" and not Path(named).exists():
        raise UsageError(f"{named} is no file; name a JSON file, - or GENERATION/SLOT")
    try:
        text = sys.stdin.buffer.read(MOST_JSON_BYTES + 1) if named == "-" else read_once(named, MOST_JSON_BYTES)[0]
        found = parse_json_object(text)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise InputError(f"{named}: no architecture: {error}") from None
    inner = found.get("architecture")  # as `riwoactl export` writes it
    return inner if isinstance(inner, dict) else found
