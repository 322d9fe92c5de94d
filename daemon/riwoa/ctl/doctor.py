"""``riwoactl doctor``: whether this machine, this configuration and this state directory are fit for a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, default_config, emit, loaded
from riwoa.ctl.screen import paragraph
from riwoa.paths import client_state

_DESCRIPTION = """Looks at what a search needs, and says of each ok, warn or fail, with what mends it: libraries,
configuration, processor and memory (also a container's limits), GPU and 4-bit, language model, latency table, state
directory, disk, SQLite, journal, daemon, service, clock, and what would pause a search now. With --cluster instead:
whether Ray is here and the cluster answers, room for evaluations, versions and clocks of its nodes, its object store.
Changes nothing. Exits 4 where something fails."""
_FAILED = 4
_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print what was found; the exit code tells whether something fails."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("--config", type=Path, metavar="FILE", help="the file (default: $RIWOA_CONFIG, ./riwoa.toml)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
    parser.add_argument("--cluster", action="store_true", help="look at the Ray cluster of [ray], instead")
    given = parser.parse_args(arguments)
    config = loaded(given.config or default_config(), given.set).config
    from riwoa.service.cluster_doctor import examined_cluster
    from riwoa.service.doctor import Patient, examined

    looked = examined_cluster(config) if given.cluster else examined(Patient(config, client_state(options.state)))
    found = [{"check": name, "level": one.level, "says": one.says, "mend": one.mend} for name, one in looked]
    counts = {level: sum(row["level"] == level for row in found) for level in _MARKS}
    emit(options, {"checks": found, "counts": counts}, render(found, counts))
    return _FAILED if counts["fail"] else 0


def render(found: list[dict[str, Any]], counts: dict[str, int]) -> str:
    """A line each check, what mends it below, and how many there are of each."""
    lines = []
    for row in found:
        lines.append(paragraph(f"{row['says']}", " " * 21, f"{_MARKS[row['level']]}  {row['check']:<13}  "))
        if row["mend"]:
            lines.append(paragraph(row["mend"], " " * 21, f"{'':19}→ "))
    said = ", ".join(f"{count} {level}" for level, count in counts.items() if count)
    return "\n".join([*lines, f"{said}."])
