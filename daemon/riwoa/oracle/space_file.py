"""Reads a space that a user wrote: ``space.toml``, or the same as JSON (``riwoa.search.space`` has the words)."""

from __future__ import annotations

from pathlib import Path

from riwoa.errors import ConfigError
from riwoa.parsing import MOST_TOML_BYTES, decode_text, parse_json_object, parse_toml, read_once
from riwoa.search.space import Space, SpaceError

MOST_COORDINATES = 2_048  # of a genotype: the search keeps a square matrix of them


def read_space(path: Path) -> Space:
    """The space that a file declares; its name is the file's where it names none.

    Raises:
        ConfigError: it cannot be read, or is no space; its ``problems`` are all that is wrong with it.
    """
    try:
        content, _ = read_once(path, MOST_TOML_BYTES)
        text = decode_text(content)
        data = parse_json_object(text) if path.suffix == ".json" else parse_toml(text)
        space = Space.from_json({"name": path.stem, **data})
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; `riwoactl help space` shows one") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    except SpaceError as error:
        raise ConfigError(*(f"{path}: {problem}" for problem in error.problems)) from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    _check_bounds(path, space)
    return space


def _check_bounds(path: Path, space: Space) -> None:
    """Refuse a space with nothing to choose, or more than can be searched.

    Raises:
        ConfigError: says what.
    """
    if space.size == 1:
        raise ConfigError(f"{path}: it holds one architecture; there is nothing to search")
    coordinates = sum(len(g.choices) if g.kind == "nominal" else 1 for g in space.genes)
    if coordinates > MOST_COORDINATES:
        raise ConfigError(
            f"{path}: its genes take {coordinates} coordinates, at most {MOST_COORDINATES} are searched; "
            "join nominal genes, or order their choices"
        )
