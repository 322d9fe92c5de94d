"""Searches of other libraries in the same arena: the same counting, the same free knowledge of the constraints.

A peer is a function that asks its library and tells it, until ``Arena.query`` raises ``SearchOver``. Repeats are free
for all of them, and so is whatever is known to be beyond the limit. A suggestion that lies there

- is told to ``nsga2`` with its excess, as the violation that pymoo ranks by;
- is ranked behind all that are within by ``cma-es`` and ``catcma``, by its excess (Deb's rule: they rank only);
- is moved to within by random single choices for Optuna and ``smac``, as RI-IWOA moves its children, and
  told where it came to lie: told with a violation instead, near a tight limit they see thousands for one query;
- is drawn again by ``ofa-evolution``, as OFA's own code does;
- is brought within by ``gumbel``, which is no library's: see ``by_gradient``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version

from riwoa.bench.arena import MOST_REPEATS, Arena, Found, SearchOver
from riwoa.bench.landscape import Landscape
from riwoa.errors import UsageError

Run = Callable[[Arena, int], None]


@dataclass(frozen=True, slots=True)
class Peer:
    """A search of another library.

    Attributes:
        library: its package.
        module: of this package, which imports it.
        function: there, a ``Run``.
        most_repeats: budgets that it may spend on known architectures: fewer where asking is dear.
        fronts: whether it searches for fronts, too.
    """

    library: str
    module: str
    function: str
    most_repeats: int = MOST_REPEATS
    fronts: bool = False


PEERS: Mapping[str, Peer] = {
    "optuna-tpe": Peer("optuna", "by_optuna", "tpe", 2, fronts=True),
    "optuna-gp": Peer("optuna", "by_optuna", "gaussian_process", 1, fronts=True),
    "smac": Peer("smac", "by_smac", "smac", 1),
    "catcma": Peer("cmaes", "by_cmaes", "catcma"),
    "cma-es": Peer("cmaes", "by_cmaes", "cma_es"),
    "nsga2": Peer("pymoo", "by_pymoo", "nsga2", fronts=True),
    "ofa-evolution": Peer("ofa", "by_ofa", "evolution"),
    "gumbel": Peer("torch", "by_gradient", "gumbel"),
}


def peer_version(name: str) -> str:
    """The library's version.

    Raises:
        UsageError: it is not installed.
    """
    library = PEERS[name].library
    if importlib.util.find_spec(library) is None:
        raise UsageError(f"--strategies: {name} needs {library}; install it with: pip install 'riwoa[bench]'")
    return f"{library} {version(library)}"


def search_by_peer(name: str, seed: int, landscape: Landscape, budget: int) -> Found:
    """One search.

    Raises:
        UsageError: the peer cannot search this landscape.
    """
    peer = PEERS[name]
    if landscape.front and not peer.fronts:
        able = ", ".join(other for other, p in PEERS.items() if p.fronts)
        raise UsageError(f"--strategies: {name} looks for one network, not for a front; {able} do")
    run: Run = getattr(import_module(f"{__name__}.{peer.module}"), peer.function)
    arena = Arena(landscape, budget, peer.most_repeats * budget)
    with suppress(SearchOver):
        run(arena, seed)
    return arena.found(name, seed, 0)
