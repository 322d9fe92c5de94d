"""What verbs with arguments of their own share: a parser that speaks riwoa's errors, and JSON or text on demand."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from riwoa.ctl import Options
from riwoa.errors import UsageError
from riwoa.text import printable

if TYPE_CHECKING:
    from riwoa.config.loading import Loaded

_MOST_CHARACTERS = 4_000
_CONFIG = "riwoa.toml"
_MAX_RESOLUTION_PX = 4096
_UNITS_MS = {"s": 1000.0, "ms": 1.0, "us": 0.001, "µs": 0.001}
_MOST_MS = 1e9


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors exit with 64 like every other wrong command line, naming the nearest word."""

    def __init__(self, verb: str, **settings: Any) -> None:
        prog = settings.pop("prog", f"riwoactl {verb}")
        super().__init__(prog=prog, allow_abbrev=False, **settings)
        # Taken out before any verb sees them; listed here for --help.
        self.add_argument("--state", metavar="DIR", help="the run's directory")
        self.add_argument("--json", action="store_true", help="print one JSON object")

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting with 2.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message}; see {self.prog} --help")


def pixels(text: str) -> tuple[int, ...]:
    """Input resolutions separated by commas, ascending: an argument's type.

    Raises:
        ArgumentTypeError: something else, or no size that a picture is shown at.
    """
    try:
        sizes = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"needs pixels such as 24,32,40, not {text!r}") from None
    if not 0 < sizes[0] <= sizes[-1] <= _MAX_RESOLUTION_PX:
        raise argparse.ArgumentTypeError(f"needs pixels from 1 to {_MAX_RESOLUTION_PX}, not {text!r}")
    return sizes


def milliseconds(text: str) -> float:
    """Milliseconds of a time with its unit: an argument's type.

    Raises:
        ArgumentTypeError: something else, or out of all bounds.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*([a-zµ]*)", text.strip().lower().replace("μ", "µ"))
    unit = match.group(2) if match else ""
    if match is None or unit not in _UNITS_MS:
        raise argparse.ArgumentTypeError(f"needs a time with its unit, such as 20ms or 0.5ms, not {printable(text)!r}")
    found = float(match.group(1)) * _UNITS_MS[unit]
    if not 0 < found <= _MOST_MS:
        raise argparse.ArgumentTypeError(f"needs more than 0 ms and at most {_MOST_MS:g}, not {printable(text)!r}")
    return found


def subverb(verb: str, arguments: list[str], known: dict[str, str]) -> str:
    """The sub-verb that comes first (``lut build``); with none, or --help, the list of them.

    Raises:
        UsageError: none was given, or an unknown one.
        SystemExit: 0 after --help.
    """
    if arguments and arguments[0] in known:
        return arguments[0]
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: riwoactl {verb} {{{','.join(known)}}} ...\n")
        print("\n".join(f"  {name:<10}{what}" for name, what in known.items()))
        print(f"\nriwoactl {verb} NAME --help tells more.")
        raise SystemExit(0)
    if not arguments:
        raise UsageError(f"riwoactl {verb} needs one of: {', '.join(known)}")
    found = difflib.get_close_matches(arguments[0], known, n=1, cutoff=0.4)
    hint = f"did you mean {found[0]!r}?" if found else f"choose from {', '.join(known)}"
    raise UsageError(f"riwoactl {verb}: unknown {arguments[0]!r}; {hint}")


def default_config() -> Path | None:
    """The configuration where none is named: $RIWOA_CONFIG, or ./riwoa.toml where it lies."""
    if named := os.environ.get("RIWOA_CONFIG"):
        return Path(named)
    return Path(_CONFIG) if os.path.isfile(_CONFIG) else None


def loaded(file: Path | None, overrides: Sequence[str], environment: Mapping[str, str] | None = None) -> Loaded:
    """The configuration of a verb's ``--config`` and ``--set``; old names of keys are told on standard error.

    Raises:
        ConfigError: it is invalid.
    """
    from riwoa.config.loading import load  # pydantic: only for verbs that take a configuration

    found = load(file, overrides, environment)
    tell_renamed(found)
    return found


def tell_renamed(found: Loaded) -> None:
    """Tell the old names of keys on standard error."""
    if found.warning is not None:
        print(f"riwoactl: {printable(found.warning, _MOST_CHARACTERS)}", file=sys.stderr)


def emit(options: Options, data: Any, text: str) -> None:
    """Print the JSON object or the text."""
    print(json.dumps(data, allow_nan=False) if options.json else text)


def columns(rows: list[list[str]]) -> str:
    """Left-aligned columns, two spaces apart."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
