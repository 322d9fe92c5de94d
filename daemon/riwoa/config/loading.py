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

from riwoa.config.extended import GROUPS, chooser, config_type
from riwoa.config.inferred import inferred
from riwoa.config.renamed import RENAMED, SHORT, new_name
from riwoa.config.schema import Config, as_json, leaves, may_change, value_of
from riwoa.errors import ConfigError
from riwoa.parsing import MOST_TOML_BYTES, decode_text, parse_toml, read_once
from riwoa.text import printable

INFERRED = "checkpoint or data"  # the origin of what nobody named and they know
ENVIRONMENT_PREFIX = "RIWOA_"
_NOT_KEYS = {
    *("RIWOA_FIDELITY", "RIWOA_SEED", "RIWOA_EVALUATION"),  # of a command, which may call riwoactl
    *("RIWOA_STATE", "RIWOA_CONFIG", "RIWOA_DATA", "RIWOA_MODELS", "RIWOA_SOCKET"),
    *("RIWOA_FAILPOINT", "RIWOA_CHILD_FAILPOINT", "RIWOA_TEST_ORACLES", "RIWOA_TEST_WRITERS"),
}
_LONGEST_WORD = 200  # that a message repeats
_MOST_PARTS = 3  # of a dotted key


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a configuration file said when it was read. ``piped``: it was a pipe, which cannot be read again."""

    path: Path
    tables: Mapping[str, Any]
    piped: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and for each dotted key where its value came from.

    ``renamed``: the keys that were given by a name of before, (where, old, new).
    """

    config: Config
    origin: Mapping[str, str]
    source: ConfigFile | None
    renamed: tuple[tuple[str, str, str], ...] = ()

    @property
    def file(self) -> Path | None:
        """Where the file lies, None without one."""
        return None if self.source is None else self.source.path

    @property
    def warning(self) -> str | None:
        """One line that names the new key of each that was given by an old name; None where none was."""
        if not self.renamed:
            return None
        by_place: dict[str, list[str]] = {}
        for where, old, new in self.renamed:
            by_place.setdefault(where, []).append(f"{old} is now {new}")
        told = "; ".join(f"{where}: {', '.join(names)}" for where, names in by_place.items())
        return f"old names of keys, which are still read: {told}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Changed keys: dotted key -> (old, new), those that may change in a run and those that may not."""

    live: Mapping[str, tuple[Any, Any]]
    refused: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one origin says: values by dotted keys as they were given, which are text still to be read or TOML's."""

    where: str
    given: Sequence[tuple[str, Any]]
    text: bool = True

    def values(self, model: type[Config]) -> Iterator[tuple[str, Any]]:
        """Keys as they were given, with values."""
        for key, value in self.given:
            yield key, _scalar(key, value, model) if self.text else value


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Who does the work of each section, and the model that has their tables.

    ``unusable``: keys that name somebody whom nobody offers.
    """

    model: type[Config]
    names: Mapping[str, str]
    unusable: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Merged:
    """Values by dotted keys and where each came from, not validated yet; ``problems`` of what names no key."""

    chosen: _Chosen
    values: Mapping[str, Any]
    origin: Mapping[str, str]
    problems: Sequence[str]
    renamed: tuple[tuple[str, str, str], ...]
    source: ConfigFile | None


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
    merged = _merge(file, overrides, os.environ if environment is None else environment)
    config = _validate(merged.chosen, merged.values, merged.origin, merged.problems)
    return _completed(merged, config, merged.values)


def load_usable(file: Path) -> tuple[Loaded | None, list[str]]:
    """What of a file can be used, and one line each thing that is wrong with the rest; None where nothing can.

    For whoever looks for more that is wrong; a start takes all of a file or nothing.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    merged = _merge(file, (), {})
    problems, values = list(merged.problems), dict(merged.values)
    while True:
        try:
            config = merged.chosen.model.model_validate(_tables(values))
        except ValidationError as error:
            problems += _wrong_values(error, merged.origin, merged.chosen.model)
            wrong = tuple(_by_key(error, merged.chosen.model))
            left = {
                k: v for k, v in values.items() if k not in wrong and not k.startswith(tuple(f"{w}." for w in wrong))
            }
            if len(left) == len(values) or any(key.startswith("oracle.") for key in wrong):
                return None, problems  # what would be said of the rest would not be true of the whole
            values = left
        else:
            return _completed(merged, config, values), problems


def _completed(merged: _Merged, config: Config, values: Mapping[str, Any]) -> Loaded:
    """With what checkpoint and data know, where nobody named it."""
    origin = dict(merged.origin)
    known = inferred(config, {key for key, where in origin.items() if where != "default"})
    if known:
        config = _validate(merged.chosen, {**values, **known}, origin)
        origin |= dict.fromkeys(known, INFERRED)
    return Loaded(config, origin, merged.source, merged.renamed)


def _merge(file: Path | ConfigFile | None, overrides: Sequence[str], environment: Mapping[str, str]) -> _Merged:
    """All that was said, a later origin over an earlier one.

    Raises:
        ConfigError: the file cannot be read, or is no TOML.
    """
    source = read_file(file) if isinstance(file, Path) else file
    layers = [
        _Layer(f"file {source.path}" if source else "", list(_dotted(source.tables)) if source else [], text=False),
        _Layer("environment", _from_environment(environment)),
        _Layer("command line", _from_overrides(overrides)),
    ]
    problems: list[str] = []
    renamed: list[tuple[str, str, str]] = []
    chosen = _choose([(layer.where, *pair) for layer in layers for pair in layer.values(Config)], problems)
    values: dict[str, Any] = {}
    origin = dict.fromkeys((key for key, _ in leaves(chosen.model)), "default")
    for layer in layers:
        for key, value in _known(layer, chosen, renamed, problems):
            values[key] = value
            origin[key] = layer.where
    return _Merged(chosen, values, origin, problems, tuple(renamed), source)


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
    before, after = dict(_dotted(as_json(old))), dict(_dotted(as_json(new)))
    for key, info in {**dict(leaves(type(old))), **dict(leaves(type(new)))}.items():
        pair = (before.get(key), after.get(key))
        if pair[0] != pair[1]:
            (allowed if may_change(old, key, info) else refused)[key] = pair
    return Difference(allowed, refused)


_BEFORE: Mapping[str, Any] = {
    "search.riwoa.screened": 1,
    "search.riwoa.joint": False,
    "search.riwoa.learn_failures": False,
    "search.gp.learn_failures": False,
    "search.memory": False,
    "oracle.supernet.data_rules": 1,
    "run.finalists": 0,
    "cognition.counterfactual_share": 0.0,
    "cognition.role": "slot",
    "cognition.inherit": False,
}


_SINCE_JOINT = "search.riwoa.joint"  # the version that first knew this key changed these defaults:
_BEFORE_JOINT: Mapping[str, Any] = {"run.generations": 40, "cognition.lag": 1, "cognition.train_lag": 6}
_SINCE_POOL = "cognition.role"  # likewise
_BEFORE_POOL: Mapping[str, Any] = {
    "cognition.role": "slot",
    "cognition.provider": "model",
    "cognition.patch_genes": 1,
}


def former_defaults(begun_with: Mapping[str, Any]) -> Mapping[str, Any]:
    """Defaults that are others today, of the version that began a run, by the configuration that it journaled."""
    known = keys_in_journal(begun_with)
    changes = ((_SINCE_JOINT, _BEFORE_JOINT), (_SINCE_POOL, _BEFORE_POOL))
    return {key: value for since, before in changes if since not in known for key, value in before.items()}


def from_journal(data: Mapping[str, Any], restarted: Mapping[str, Any] | None = None) -> Config:
    """A journaled configuration read back; keys that this version no longer knows are left out.

    A key that there was not when it was journaled means what was done then, not today's default.

    Args:
        data: the JSON object of ``as_json``, of this version or an older one.
        restarted: what restarts have changed since, by dotted keys.

    Raises:
        ConfigError: it names an oracle, a strategy or a provider of a package that is no longer installed.
    """
    given = {**dict(_dotted(data)), **(restarted or {})}
    problems: list[str] = []
    chosen = _choose([("journal", *pair) for pair in given.items()], problems)
    known = {key for key, _ in leaves(chosen.model)}
    named = {new_name(key, chosen.names["oracle"]): value for key, value in given.items()}
    return _validate(chosen, {**_BEFORE, **{k: v for k, v in named.items() if k in known}}, {}, problems)


def keys_in_journal(data: Mapping[str, Any]) -> frozenset[str]:
    """The dotted keys, by their names of today, that a journaled configuration says something of."""
    given = dict(_dotted(data))
    return frozenset(new_name(key, given.get("oracle.kind")) for key in given)


def _dotted(tables: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested tables; an empty table is a value, and one that lies deeper than any key."""
    for name, value in tables.items():
        if isinstance(value, Mapping) and value and depth < _MOST_PARTS:
            yield from _dotted(value, f"{prefix}{name}.", depth + 1)
        else:
            yield prefix + name, value


def _choose(given: Sequence[tuple[str, str, Any]], problems: list[str]) -> _Chosen:
    """Who does the work of each section: of all (where, key, value) the last that names somebody.

    What is wrong with a name, or with its package, goes to ``problems``.
    """
    names, unusable = {}, set()
    for section in GROUPS:
        key = chooser(section)
        usual = str(value_of(Config(), key))
        named = ((where, value) for where, k, value in reversed(given) if k == key and isinstance(value, str))
        where, name = next(named, ("", usual))
        try:
            config_type(**{section: name})
        except ConfigError as error:
            problems += [f"{where}: {problem}" for problem in error.problems]
            unusable.add(key)
            name = usual
        names[section] = name
    return _Chosen(config_type(**names), names, frozenset(unusable))


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (name[len(ENVIRONMENT_PREFIX) :].lower().replace("__", "."), text)
        for name, text in sorted(environment.items())
        if name.startswith(ENVIRONMENT_PREFIX) and name not in _NOT_KEYS
    ]


def _from_overrides(overrides: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise ConfigError(f"--set {printable(text)!r} is not of the form section.key=value, for example run.seed=1")
        found.append((key.strip(), value.strip()))
    return found


def _scalar(key: str, text: str, model: type[Config]) -> Any:
    """TOML's reading of a value where it is one (numbers, booleans, lists), the bare string otherwise.

    A key that takes a string takes the text as it stands, digits too; quotes around it are TOML's.
    """
    try:
        value = parse_toml(f"x = {text}")["x"]
    except (ValueError, KeyError):
        return text
    return text if RENAMED.get(key, key) in _text_keys(model) and not isinstance(value, str) else value


@functools.cache
def _text_keys(model: type[Config]) -> frozenset[str]:
    """The keys that take any string."""
    return frozenset(key for key, info in leaves(model) if _takes_text(info.annotation))


def _takes_text(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _takes_text(get_args(annotation)[0])
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return any(_takes_text(option) for option in get_args(annotation))
    return annotation is str


def _known(
    layer: _Layer, chosen: _Chosen, renamed: list[tuple[str, str, str]], problems: list[str]
) -> Iterator[tuple[str, Any]]:
    """The keys of a layer that there are, by their names of today; what is wrong with the others goes to ``problems``.

    Args:
        layer: what one origin says.
        chosen: with the model of the keys.
        renamed: takes note of each old name, as ``Loaded.renamed``.
        problems: takes one line each thing that is wrong.
    """
    known = [key for key, _ in leaves(chosen.model)]
    tables = {key[:at] for key in known for at in range(len(key)) if key[at] == "."}
    sections = sorted({table for table in tables if "." not in table})
    unknown: set[str] = set()
    given_as: dict[str, str] = {}
    for given, value in layer.values(chosen.model):
        empty = isinstance(value, Mapping) and not value
        key = given if empty else SHORT.get(given) or new_name(given, chosen.names["oracle"])
        section = key.partition(".")[0]
        if section in SHORT:
            if section not in unknown:
                problems.append(f"{layer.where}: each {section} is a table of its own: [[{section}]], in two brackets")
            unknown.add(section)
        elif section not in sections:
            if section not in unknown:
                problems.append(f"{layer.where}: unknown section {printable(section)!r}{_nearest(section, sections)}")
            unknown.add(section)
        elif key in tables:
            if not empty:
                problems.append(f"{layer.where}: {key!r} is a section; write its keys below [{key}]")
        elif key not in known:
            problems.append(f"{layer.where}: unknown key {printable(key)!r}{_nearest(key, known)}")
        elif _holds_nul(value):
            problems.append(f"{layer.where}: {given} holds a NUL character, which no name may")
        elif given_as.setdefault(key, given) != given:
            old = next(name for name in (given, given_as[key]) if name != key)
            called = "short for" if old in SHORT else "the old name of"
            problems.append(f"{layer.where}: {old} is {called} {key}, and both are given; leave {old} out")
        elif key not in chosen.unusable:
            if key != given and given not in SHORT:
                renamed.append((layer.where, given, key))
            yield key, value


def _holds_nul(value: Any) -> bool:
    return any("\0" in text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


def _nearest(word: str, known: Sequence[str]) -> str:
    """The nearest valid name; a key in the wrong section is found by its last part."""
    tail = word.rpartition(".")[2]
    same_tail = [k for k in known if k.rpartition(".")[2] == tail]
    found = same_tail or difflib.get_close_matches(word[:_LONGEST_WORD], known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else f"; valid names: {', '.join(known)}"


def _validate(
    chosen: _Chosen, values: Mapping[str, Any], origin: Mapping[str, str], problems: Sequence[str] = ()
) -> Config:
    """The configuration of merged values, by dotted keys.

    Raises:
        ConfigError: there are problems already, or values are wrong.
    """
    try:
        config = chosen.model.model_validate(_tables(values))
    except ValidationError as error:
        raise ConfigError(*problems, *_wrong_values(error, origin, chosen.model)) from None
    if problems:
        raise ConfigError(*problems)
    return config


def _tables(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables of values by dotted keys."""
    tables: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        table = tables
        for part in path:
            table = table.setdefault(part, {})
        table[name] = value
    return tables


def _by_key(error: ValidationError, model: type[Config]) -> dict[str, list[ErrorDetails]]:
    """What is wrong by dotted keys, in the order of the file's tables; by a table where several keys are together."""
    known = {key for key, _ in leaves(model)}
    by_key: dict[str, list[ErrorDetails]] = {}
    for found in error.errors():
        places = [".".join(map(str, found["loc"][:depth])) for depth in range(1, _MOST_PARTS + 1)]
        by_key.setdefault(next((place for place in places if place in known), places[-1]), []).append(found)
    return by_key


def _wrong_values(error: ValidationError, origin: Mapping[str, str], model: type[Config]) -> Iterator[str]:
    """One line a wrong key, in the order of the file's tables."""
    known = {key for key, _ in leaves(model)}
    for key, alike in _by_key(error, model).items():  # a key that takes several kinds of values has an error of each
        if key not in known:  # of several keys together
            reason = _reason(alike)
            yield reason if key else f"configuration: {reason}"
            continue
        where = origin.get(key, "configuration")
        for place, of_place in _by_place(key, alike).items():
            given = of_place[0]["input"]
            about_keys = {"missing": f"{place} is missing", "extra_forbidden": f"unknown key {place}"}
            if said := about_keys.get(of_place[0]["type"]):
                yield f"{where}: {said}"
                continue
            shown, quoted = _shown(given), place in _text_keys(model) and isinstance(given, int | float)
            hint = f'; write it in quotes: "{shown}"' if quoted else ""
            yield f"{where}: {place} = {shown}, should be {_reason(of_place)}{hint}"


def _by_place(key: str, found: Sequence[ErrorDetails]) -> dict[str, list[ErrorDetails]]:
    """By the key, or for an array of tables by the key of one of them: ``objective.targets[2].latency_ms``."""
    by_place: dict[str, list[ErrorDetails]] = {}
    for error in found:
        row, *names = error["loc"][key.count(".") + 1 :] or ("",)
        inside = names and isinstance(row, int)
        place = f"{key}[{int(row) + 1}].{'.'.join(map(str, names))}" if inside else key
        by_place.setdefault(place, []).append(error)
    return by_place


def _reason(found: Sequence[ErrorDetails]) -> str:
    return " or ".join(dict.fromkeys(_wanted(e["type"], e["msg"]) for e in found))


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
