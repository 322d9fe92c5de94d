"""``riwoactl config show | check | diff``: the configuration as the daemon would read it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from riwoa.config.loading import Loaded, difference, from_journal, load_usable
from riwoa.config.schema import Config, as_json, is_live, leaves, may_restart, value_of
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit, loaded, subverb, tell_renamed
from riwoa.errors import ConfigError
from riwoa.paths import client_state

_KNOWN = {
    "show": "print the whole configuration as TOML, or where each value comes from",
    "check": "say whether a file is valid, and whether a start would take it",
    "diff": "say which keys of a file would apply when, before it is put in place",
}


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Dispatch to show, check or diff."""
    name = subverb(verb, arguments, _KNOWN)
    return {"show": _show, "check": _check, "diff": _diff}[name](arguments[1:], options)


def _show(arguments: list[str], options: Options) -> int:
    parser = Parser("config show", description="Command line over environment over file over defaults.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the file (default: $RIWOA_CONFIG, or none)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
    parser.add_argument("--origin", action="store_true", help="tell where each value comes from")
    given = parser.parse_args(arguments)
    default = os.environ.get("RIWOA_CONFIG")
    found = loaded(given.config or (Path(default) if default else None), given.set)
    data = {"config": as_json(found.config), "origin": dict(found.origin), "file": found.file and str(found.file)}
    emit(options, data, origins(found) if given.origin else toml(found))
    return 0


def _check(arguments: list[str], options: Options) -> int:
    description = """Says what is wrong with a file, all of it: keys and values, and what a start on this machine would
    be refused for (files that are missing or of another kind, classes that differ, a latency out of reach). Exits 0
    when nothing is, 78 otherwise."""
    parser = Parser("config check", description=description)
    parser.add_argument("file", type=Path, metavar="FILE", nargs="?", default=Path("riwoa.toml"))
    given = parser.parse_args(arguments)
    try:
        found, problems = load_usable(given.file)
    except ConfigError as error:
        return _report_all(given.file, error.problems, options)
    from riwoa.run.preflight import refusals

    if found is not None:  # what can be used of it is asked for more
        tell_renamed(found)
        problems += refusals(found.config, client_state(options.state).latency_table)
    if found is None or problems:
        return _report_all(given.file, problems, options)
    changed = [key for key, origin in found.origin.items() if origin != "default"]
    emit(
        options, {"file": str(given.file), "valid": True, "keys": changed}, f"{given.file}: valid, {len(changed)} keys"
    )
    return 0


def _report_all(file: Path, problems: Sequence[str], options: Options) -> int:
    code = ConfigError.exit_code
    for problem in problems:
        print(f"riwoactl: {problem}", file=sys.stderr)
    if options.json:
        told = {"file": str(file), "valid": False, "errors": list(problems), "error": problems[0], "exit_code": code}
        print(json.dumps(told))
    return code


def _diff(arguments: list[str], options: Options) -> int:
    description = """Compares a file with what the latest run stands on: keys that apply at the next generation, that
    wait for a restart of the daemon, and that only another run can have. Exits 0; 78 where the file is invalid."""
    parser = Parser("config diff", description=description)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as the daemon was started with"
    )
    given = parser.parse_args(arguments)
    fresh = loaded(given.file, given.set).config
    in_force = _in_force(options)
    if in_force is None:
        emit(options, {"run": None}, "no run is under way: all of it applies at the start")
        return 0
    found = difference(in_force, fresh)
    groups = {
        "next generation": found.live,
        "restart": {key: change for key, change in found.refused.items() if may_restart(key, type(fresh))},
        "new run": {key: change for key, change in found.refused.items() if not may_restart(key, type(fresh))},
    }
    data = {when: {key: list(change) for key, change in keys.items()} for when, keys in groups.items()}
    lines = [
        f"{when}: {key} {_toml_value(old)} -> {_toml_value(new)}"
        for when, keys in groups.items()
        for key, (old, new) in keys.items()
    ]
    emit(options, data, "\n".join(lines) or "nothing would change")
    return 0


def _in_force(options: Options) -> Config | None:
    """What the latest run stands on, if it is not finished."""
    from riwoa_storage.errors import JournalMissingError
    from riwoa_storage.events import RunResumed
    from riwoa_storage.reader import JournalReader

    try:
        with JournalReader(client_state(options.state).journal) as reader:
            run = reader.latest_run()
            if run is None or run.status != "running":
                return None
            restarted: dict[str, Any] = {}  # keys that changed at a restart are in force without a revision
            for event in reader.events(run.run_id, RunResumed):
                restarted |= event.restarted
            return from_journal(reader.config_revisions(run.run_id)[-1].config, restarted)
    except JournalMissingError:
        return None


def toml(found: Loaded) -> str:
    """A complete valid file, each key under its description; what has no value is a comment."""
    lines: list[str] = []
    section = ""
    for key, info in leaves(type(found.config)):
        table, _, name = key.rpartition(".")
        if table != section:
            lines += [*([""] if section else []), f"[{table}]"]
            section = table
        lines.append(f"# {info.description}{' (may change in a run)' if is_live(info) else ''}")
        value = value_of(found.config, key)
        lines.append(f"# {name} = (not set)" if value is None else f"{name} = {_toml_value(value)}")
    return "\n".join(lines)


def origins(found: Loaded) -> str:
    """One line a key: value and origin, aligned."""
    rows = []
    for key, _ in leaves(type(found.config)):
        value = value_of(found.config, key)
        rows.append((f"{key} = {'(not set)' if value is None else _toml_value(value)}", found.origin[key]))
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"{left.ljust(width)}  # {origin}" for left, origin in rows)


def _toml_value(value: Any) -> str:
    """Booleans, numbers, strings and lists are written in TOML as in JSON (a string of TOML knows JSON's escapes)."""
    if isinstance(value, BaseModel):
        return f"{{ {', '.join(f'{name} = {_toml_value(inner)}' for name, inner in value)} }}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value, default=str, ensure_ascii=False)
