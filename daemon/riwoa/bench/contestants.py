"""Who takes part in a contest, by name: riwoa's own strategies, with other settings too, and peers of other libraries.

- ``riwoa``, ``woa``, ...: every strategy of ``riwoa.search.strategies``, driven as the daemon drives its own. As in the
  daemon, who can use constraints that are free to know may, and who screens by a predictor learns it from its queries.
- ``riwoa:screened=1,elitism=false``: the same with other settings.
- ``riwoa-blind``: without the knowledge of constraints; ``riwoa-unscreened``: without the predictor.
- ``...-raced`` gives candidates up by a cheap measurement, as ``oracle.rungs`` does: each costs its share of a query,
  and one that is given up nothing more.
- ``...-after`` has searched the ``--after`` landscape before, and remembers it as the daemon would.
- ``riwoa-semantic``, ``-placebo``, ``-pairs``, ``-greedy``: whole searches with a writer beside, ``riwoa.bench.whole``.
- ``optuna-tpe``, ...: see ``riwoa.bench.peers``.
- ``own`` stands for every strategy without a suffix, ``peers`` for those peers that search any table.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import riwoa
from riwoa.bench.peers import PEERS, peer_version
from riwoa.bench.whole import WRITERS
from riwoa.errors import UsageError
from riwoa.search.base import SearchInputError, SearchParameters
from riwoa.search.strategies import STRATEGIES

BLIND, UNSCREENED, RACED, AFTER = "-blind", "-unscreened", "-raced", "-after"
GROUPS = {"own": tuple(STRATEGIES), "peers": ("optuna-tpe", "optuna-gp", "catcma", "nsga2")}  # of any landscape
NAMES = (
    *STRATEGIES,
    *(f"riwoa{suffix}" for suffix in (BLIND, UNSCREENED, RACED)),
    *(f"{name}{RACED}" for name in ("woa", "random")),
    *(f"{name}{AFTER}" for name in ("riwoa", "gp")),
    *(f"riwoa{suffix}" for suffix in WRITERS),
    *PEERS,
)
_SETTING = re.compile(r"([a-z_]+)=(\S+)")

_PACKAGE = Path(riwoa.__file__).parent
_EVERYBODYS = (  # the code of every search: the account, what it asks for, and who answers
    *(f"bench/{name}.py" for name in ("arena", "front", "functions", "landscape", "predictor", "subnets", "table")),
    *("hardware/ofa_table.py", "oracle/predictor.py", "oracle/table_file.py"),
    *("search/fitness.py", "search/space.py", "supernet/space.py"),
)
_OWN = ("bench/earlier.py", "bench/own.py", "search/*.py", "surrogate/*.py")
_PEERS = ("bench/peers/*.py",)
_WHOLE = ("bench/whole.py", "cognition/*.py", "run/*.py", "data/prompts/*.json")


@dataclass(frozen=True, slots=True)
class Contestant:
    """One who takes part: ``base`` is the strategy or peer, ``suffix`` how it is handicapped or raced."""

    name: str
    base: str
    suffix: str = ""
    settings: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, name: str) -> Contestant:
        """From a name as the module describes them.

        Raises:
            UsageError: there is none of this name, it has no such setting, or its library is not installed.
        """
        plain, _, settings = name.partition(":")
        if plain not in NAMES:
            known = ", ".join((*NAMES, *GROUPS))
            raise UsageError(f"--strategies: {name!r} is none of {known}; settings follow a colon: riwoa:screened=1")
        if plain in PEERS:
            if settings:
                raise UsageError(f"--strategies: {plain} takes no settings")
            peer_version(plain)
            return cls(name, plain)
        base, suffix = plain, ""
        for ending in (BLIND, UNSCREENED, RACED, AFTER, *WRITERS):
            if plain.endswith(ending):
                base, suffix = plain.removesuffix(ending), ending
        one = cls(name, base, suffix, tuple(_settings(name, base, settings)))
        one.parameters(population=4, generations=1)
        return one

    def parameters(self, population: int, generations: int) -> SearchParameters:
        """The settings of an own strategy.

        Raises:
            UsageError: it refuses them.
        """
        given = {"population": population, "generations": generations, **dict(self.settings)}
        try:
            return STRATEGIES[self.base].parameters(**given)
        except SearchInputError as error:
            raise UsageError(f"--strategies: {self.name}: {error}") from None

    @property
    def is_peer(self) -> bool:
        """Whether another library does the searching."""
        return self.base in PEERS

    @property
    def version(self) -> str:
        """Changes whenever its code or the arena's does; with a peer's library, too."""
        if self.is_peer:
            return f"{peer_version(self.base)} {_sha256_of(*_EVERYBODYS, *_PEERS)}"
        return _sha256_of(*_EVERYBODYS, *_OWN, *(_WHOLE if self.suffix in WRITERS else ()))


def own_strategy(name: str) -> bool:
    """Whether a contestant's name is one of riwoa's own."""
    return name.partition(":")[0] not in PEERS


def contestants(text: str) -> tuple[Contestant, ...]:
    """Those that a text names, separated by commas, each once.

    Raises:
        UsageError: as ``Contestant.parse``.
    """
    names: list[str] = []
    for word in filter(None, text.split(",")):
        if _SETTING.fullmatch(word) and names:  # another setting of the one before
            names[-1] += f",{word}"
        else:
            names += GROUPS.get(word, (word,))
    return tuple(Contestant.parse(name) for name in dict.fromkeys(names))


def _settings(name: str, base: str, text: str) -> Iterator[tuple[str, Any]]:
    fields = {f.name: f for f in dataclasses.fields(STRATEGIES[base].parameters)}
    for word in filter(None, text.split(",")):
        found = _SETTING.fullmatch(word)
        if found is None or found[1] not in fields:
            raise UsageError(f"--strategies: {name}: {word!r} is not SETTING=VALUE with one of {', '.join(fields)}")
        yield found[1], _value(name, word, found[2], type(fields[found[1]].default))


def _value(name: str, word: str, text: str, kind: type) -> Any:
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        what = "true or false" if kind is bool else "a whole number" if kind is int else "a number"
        raise UsageError(f"--strategies: {name}: {word!r} needs {what}") from None


def _sha256_of(*patterns: str) -> str:
    """Of sources of the package."""
    files = sorted({file for pattern in patterns for file in _PACKAGE.glob(pattern)})
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
