"""``riwoactl config show | check``: the configuration as the daemon would read it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from riwoa.config import Loaded, as_json, is_live, leaves, load, value_of
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit, subverb

_KNOWN = {
    "show": "print the whole configuration as TOML, or where each value comes from",
    "check": "say whether a file is valid",
}


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Dispatch to show or check."""
    name = subverb(verb, arguments, _KNOWN)
    return {"show": _show, "check": _check}[name](arguments[1:], options)


def _show(arguments: list[str], options: Options) -> int:
    parser = Parser("config show", description="Command line over environment over file over defaults.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the file (default: $RIWOA_CONFIG, or none)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
    parser.add_argument("--origin", action="store_true", help="tell where each value comes from")
    given = parser.parse_args(arguments)
    default = os.environ.get("RIWOA_CONFIG")
    loaded = load(given.config or (Path(default) if default else None), given.set)
    data = {"config": as_json(loaded.config), "origin": dict(loaded.origin), "file": loaded.file and str(loaded.file)}
    emit(options, data, origins(loaded) if given.origin else toml(loaded))
    return 0


def _check(arguments: list[str], options: Options) -> int:
    parser = Parser("config check", description="Exits 0 when the file is valid, 78 when not, saying what and where.")
    parser.add_argument("file", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    loaded = load(given.file, environment={})
    changed = [key for key, origin in loaded.origin.items() if origin != "default"]
    emit(
        options, {"file": str(given.file), "valid": True, "keys": changed}, f"{given.file}: valid, {len(changed)} keys"
    )
    return 0


def toml(loaded: Loaded) -> str:
    """A complete valid file, each key under its description; what has no value is a comment."""
    lines: list[str] = []
    section = ""
    for key, info in leaves():
        table, name = key.split(".")
        if table != section:
            lines += [*([""] if section else []), f"[{table}]"]
            section = table
        lines.append(f"# {info.description}{' (may change in a run)' if is_live(info) else ''}")
        value = value_of(loaded.config, key)
        lines.append(f"# {name} = (not set)" if value is None else f"{name} = {_toml_value(value)}")
    return "\n".join(lines)


def origins(loaded: Loaded) -> str:
    """One line a key: value and origin, aligned."""
    rows = []
    for key, _ in leaves():
        value = value_of(loaded.config, key)
        rows.append((f"{key} = {'(not set)' if value is None else _toml_value(value)}", loaded.origin[key]))
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"{left.ljust(width)}  # {origin}" for left, origin in rows)


def _toml_value(value: Any) -> str:
    """Booleans, numbers, strings and lists are written in TOML as in JSON (a string of TOML knows JSON's escapes)."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=str, ensure_ascii=False)
