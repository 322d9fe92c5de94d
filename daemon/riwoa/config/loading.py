"""Where each value comes from: command line over environment over file over defaults."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from riwoa.config.schema import Config, as_json, is_live, leaves
from riwoa.errors import ConfigError
from riwoa.parsing import MOST_TOML_BYTES, decode_text, parse_toml, read_once
from riwoa.text import printable

ENVIRONMENT_PREFIX = "RIWOA_"
_NOT_KEYS = {
    *("RIWOA_STATE", "RIWOA_CONFIG", "RIWOA_DATA", "RIWOA_MODELS", "RIWOA_SOCKET"),
    *("RIWOA_FAILPOINT", "RIWOA_CHILD_FAILPOINT", "RIWOA_TEST_ORACLES", "RIWOA_TEST_WRITERS"),
}
_LONGEST_WORD = 200  # that a message repeats


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a configuration file said when it was read. ``piped``: it was a pipe, which cannot be read again."""

    path: Path
    tables: Mapping[str, Any]
    piped: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and for each dotted key where its value came from."""

    config: Config
    origin: Mapping[str, str]
    source: ConfigFile | None

    @property
    def file(self) -> Path | None:
        """Where the file lies, None without one."""
        return None if self.source is None else self.source.path


@dataclass(frozen=True, slots=True)
class Difference:
    """Changed keys: dotted key -> (old, new), those that may change in a run and those that may not."""

    live: Mapping[str, tuple[Any, Any]]
    refused: Mapping[str, tuple[Any, Any]]


def load(
    file: Path | ConfigFile | None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Loaded:
    """Merge defaults, file, environment and ``key=value`` overrides, then validate the whole.

    Args:
        file: where it lies, or what it said when it was read.
        overrides: of the command line.
        environment: variables; the process's own by default.

    Raises:
        ConfigError: unreadable file, invalid TOML, unknown keys (with the nearest valid one), wrong values; all of it.
    """
    environment = os.environ if environment is None else environment
    source = read_file(file) if isinstance(file, Path) else file
    layers = [
        (f"file {source.path}" if source else "", source.tables if source else {}),
        ("environment", _from_environment(environment)),
        ("command line", _from_overrides(overrides)),
    ]
    merged: dict[str, dict[str, Any]] = {}
    origin = dict.fromkeys((key for key, _ in leaves()), "default")
    problems: list[str] = []
    for where, layer in layers:
        for key, value in _flatten(layer, where, problems):
            section, name = key.split(".")
            merged.setdefault(section, {})[name] = value
            origin[key] = where
    config = _validate(merged, origin, problems)
    return Loaded(config, origin, source)


def read_file(path: Path) -> ConfigFile:
    """Read a file of settings, in bounded time and size, in whatever encoding people saved UTF-8.

    Raises:
        ConfigError: it is missing, no file, not readable, not UTF-8 or not TOML.
    """
    try:
        content, piped = read_once(path, MOST_TOML_BYTES)
        return ConfigFile(path, parse_toml(decode_text(content)), piped)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; `riwoactl config show` prints a complete one") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def difference(old: Config, new: Config) -> Difference:
    """What changed, sorted by whether it may change in a run."""
    allowed: dict[str, tuple[Any, Any]] = {}
    refused: dict[str, tuple[Any, Any]] = {}
    before, after = as_json(old), as_json(new)
    for key, info in leaves():
        section, name = key.split(".")
        pair = (before[section][name], after[section][name])
        if pair[0] != pair[1]:
            (allowed if is_live(info) else refused)[key] = pair
    return Difference(allowed, refused)


_BEFORE: Mapping[str, Mapping[str, Any]] = {"search": {"screened": 1}}


def from_journal(data: Mapping[str, Any]) -> Config:
    """A journaled configuration read back; keys that this version no longer knows are left out.

    A key that there was not when it was journaled means what was done then, not today's default.
    """
    known = {key for key, _ in leaves()}
    kept: dict[str, dict[str, Any]] = {section: dict(values) for section, values in _BEFORE.items()}
    for section, values in data.items():
        for name, value in values.items():
            if f"{section}.{name}" in known:
                kept.setdefault(section, {})[name] = value
    return _validate(kept, {})


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in _NOT_KEYS:
            continue
        section, _, key = name[len(ENVIRONMENT_PREFIX) :].lower().partition("__")
        layer.setdefault(section, {})[key] = _scalar(f"{section}.{key}", text)
    return layer


def _from_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        section, dot, name = key.strip().partition(".")
        if not equals or not dot:
            raise ConfigError(f"--set {printable(text)!r} is not of the form section.key=value, for example run.seed=1")
        layer.setdefault(section, {})[name] = _scalar(f"{section}.{name}", value.strip())
    return layer


def _scalar(key: str, text: str) -> Any:
    """TOML's reading of a value where it is one (numbers, booleans, lists), the bare string otherwise.

    A key that takes a string takes the text as it stands, digits too; quotes around it are TOML's.
    """
    try:
        value = parse_toml(f"x = {text}")["x"]
    except (ValueError, KeyError):
        return text
    return text if key in _text_keys() and not isinstance(value, str) else value


@functools.cache
def _text_keys() -> frozenset[str]:
    """The keys that take any string."""
    return frozenset(key for key, info in leaves() if _takes_text(info.annotation))


def _takes_text(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _takes_text(get_args(annotation)[0])
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return any(_takes_text(option) for option in get_args(annotation))
    return annotation is str


def _flatten(layer: Mapping[str, Any], where: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """The keys of a layer that there are, with their values; what is wrong with the others goes to ``problems``."""
    known = dict(leaves())
    sections = sorted({k.split(".")[0] for k in known})
    for section, values in layer.items():
        if section not in sections:
            problems.append(f"{where}: unknown section {printable(section)!r}{_nearest(section, sections)}")
        elif not isinstance(values, Mapping):
            problems.append(f"{where}: {section!r} is a section; write its keys below [{section}]")
        else:
            for name, value in values.items():
                key = f"{section}.{name}"
                if key not in known:
                    problems.append(f"{where}: unknown key {printable(key)!r}{_nearest(key, list(known))}")
                elif _holds_nul(value):
                    problems.append(f"{where}: {key} holds a NUL character, which no name may")
                else:
                    yield key, value


def _holds_nul(value: Any) -> bool:
    return any("\0" in text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


def _nearest(word: str, known: Sequence[str]) -> str:
    """The nearest valid name; a key in the wrong section is found by its last part."""
    tail = word.rpartition(".")[2]
    same_tail = [k for k in known if k.rpartition(".")[2] == tail]
    found = same_tail or difflib.get_close_matches(word[:_LONGEST_WORD], known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else f"; valid names: {', '.join(known)}"


def _validate(merged: Mapping[str, Any], origin: Mapping[str, str], problems: Sequence[str] = ()) -> Config:
    """The configuration of merged layers.

    Raises:
        ConfigError: there are problems already, or values are wrong.
    """
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(*problems, *_wrong_values(error, origin)) from None
    if problems:
        raise ConfigError(*problems)
    return config


def _wrong_values(error: ValidationError, origin: Mapping[str, str]) -> Iterator[str]:
    """One line a wrong key, in the order of the file's tables."""
    by_place: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for found in error.errors():
        by_place.setdefault(found["loc"][:2], []).append(found)
    for place, alike in by_place.items():  # a key that takes several kinds of values has an error of each
        reason = " or ".join(dict.fromkeys(_wanted(e["type"], e["msg"]) for e in alike))
        if len(place) < 2:  # of several keys together
            yield reason if place else f"configuration: {reason}"
            continue
        key, given = ".".join(map(str, place)), alike[0]["input"]
        where, shown = origin.get(key, "configuration"), _shown(given)
        hint = f'; write it in quotes: "{shown}"' if key in _text_keys() and isinstance(given, int | float) else ""
        yield f"{where}: {key} = {shown}, should be {reason}{hint}"


def _shown(value: Any) -> str:
    """A value for a message; an integer may have more digits than Python agrees to write."""
    try:
        return printable(repr(value), _LONGEST_WORD)
    except (ValueError, RecursionError):
        return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else "a value beyond all bounds"


def _wanted(kind: str, message: str) -> str:
    """What pydantic would have accepted."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return message.lower().removeprefix("input should be ")
