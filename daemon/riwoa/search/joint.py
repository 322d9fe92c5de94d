"""What is asked together, chosen by what a surrogate expects of it.

Children of every operator are one pool. The most promising of them, new and within the limit as far as that is known,
have children in turn, for a few rounds: an architecture must often trade one gene against another to stay within a
limit, which single steps cannot. The best that was met is taken; the next is chosen as if it had come out as expected
(Ginsbourger et al., "Kriging is well-suited to parallelize optimization", 2010).

Measured on OFA's predictor within 25 ms, mean best after 300 queries: 81.3 by climbs of single steps, 81.9 by these
rounds (two seeds each). Twice as many rounds of nearly twice as many children were no better: they find out where the
surrogate is wrong. A pool twice as large and a second round for the later ones took half as long again and changed
nothing that eight seeds at each of four limits, and 32 of six tables, could tell.

Five rounds of children outbid whatever stands in the pool as it is written, so a suggestion counts by what it leads to:
in each round of the first choice the most promising few that come of suggestions have children, whatever else is there;
which of all is asked, promise decides. Measured on OFA's predictor within 25 ms, 16 patches in the pool of every
generation, a clairvoyant's or random pairs (eight seeds each, 250 queries): with children in the first round alone 30
of 3,264 candidates came of patches, and 12 beat their parents; in all rounds 204, and 127. The best of a search gains
0.13 ± 0.06 points by it after 100 queries, and -0.03 ± 0.06 after 250.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from riwoa.search.base import Posterior
from riwoa.search.fitness import FloatArray
from riwoa.search.pool import Excess, Pool, Variation
from riwoa.search.seen import Hashes, SeenPhenotypes
from riwoa.search.space import IntArray, Space

ROUNDS, LATER_ROUNDS = 5, 1  # of children, for the first that is asked and for each after it
WIDTH, CHILDREN = 20, 150  # of the most promising, and how many children they have together a round
CROSSED = CHILDREN // 4  # of these by crossing, the others by mutation
FAIR = 5  # that come of suggestions and have children in the first choice, however little they promise
MOST_LOOKED = 10  # times WIDTH so many are looked through for those within the limit

Draws = Iterator[np.random.Generator]


class Acquisition(Protocol):
    """What architectures promise (``riwoa.search.improvement``)."""

    def promise(self, posterior: Posterior, indices: IntArray) -> FloatArray:
        """Of canonical indices (n, G), the more the better, (n,)."""
        ...

    def believing(self, posterior: Posterior, indices: IntArray) -> Acquisition:
        """What the next is chosen by, once an architecture (1, G) is and counts as what is expected of it."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is asked together.

    Attributes:
        pool: of it, in the order in which it was chosen.
        rivals: places in it of what would have been chosen instead of something that came of a suggestion -> its place.
    """

    pool: Pool
    rivals: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Architectures that may be asked, most promising first; a promise of NaN was not asked for yet."""

    pool: Pool
    promise: FloatArray

    @staticmethod
    def unknown(pool: Pool) -> _Ranked:
        return _Ranked(pool, np.full(len(pool), np.nan))

    def join(self, pool: Pool) -> _Ranked:
        return _Ranked(self.pool.join(pool), np.append(self.promise, np.full(len(pool), np.nan)))


class JointChoice:
    """Chooses what to ask together.

    Args:
        space: of the architectures.
        seen: hashes architectures.
        excess: by how much a limit is known to be exceeded.
    """

    def __init__(self, space: Space, seen: SeenPhenotypes, excess: Excess) -> None:
        self._space = space
        self._seen = seen
        self._excess = excess
        self._variation = Variation(space)

    def choose(
        self,
        pool: Pool,
        count: int,
        taken: Hashes,
        posterior: Posterior,
        acquisition: Acquisition,
        draws: Draws,
        rival_draws: Callable[[int], Draws | None] = lambda place: None,
    ) -> Chosen:
        """At most ``count`` of the pool and its descendants; fewer where nothing new is within reach and the limit.

        Args:
            pool: to choose from.
            count: how many.
            taken: what is not asked for again.
            posterior: what is believed.
            acquisition: what an architecture promises.
            draws: a stream a round.
            rival_draws: streams for what would be chosen in the place of what came of a suggestion, had nobody
                suggested anything; by its place among the chosen, None where that is not asked, too.
        """
        chosen: list[Pool] = []
        rivals: dict[int, int] = {}
        own = pool.take(np.flatnonzero(~pool.suggested))
        while len(chosen) < count:
            place = len(chosen)
            found = self._met(pool, taken, posterior, acquisition, draws, is_first=not chosen)
            if not len(found):
                break
            picked = [found.take([0])]
            if picked[0].suggested[0] and place + 1 < count and (streams := rival_draws(place)) is not None:
                others = np.concatenate((taken, self._seen.hash(self._space.canonical(picked[0].raw))))
                met = self._met(own, others, posterior, acquisition, streams, is_first=True)
                if len(met):
                    picked.append(met.take([0]))
                    rivals[place + 1] = place
            for one in picked:
                chosen.append(one)
                canonical = self._space.canonical(one.raw)
                taken = np.concatenate((taken, self._seen.hash(canonical)))
                acquisition = acquisition.believing(posterior, canonical)
                posterior = posterior.believe(canonical)
            pool = found
        return Chosen(chosen[0].join(*chosen[1:]) if chosen else pool.take([]), rivals)

    def _met(
        self,
        pool: Pool,
        taken: Hashes,
        posterior: Posterior,
        acquisition: Acquisition,
        draws: Draws,
        *,
        is_first: bool,
    ) -> Pool:
        """The most promising of a pool, and of what rounds of children lead to from it; first the most."""
        rounds, fair = (ROUNDS, FAIR) if is_first else (LATER_ROUNDS, 0)
        found = self._ranked(_Ranked.unknown(pool), taken, posterior, acquisition, fair)
        for left in reversed(range(rounds)):
            both = found.join(self._children(found.pool, next(draws)))
            found = self._ranked(both, taken, posterior, acquisition, fair if left else 0)
        return found.pool

    def _ranked(
        self, known: _Ranked, taken: Hashes, posterior: Posterior, acquisition: Acquisition, fair: int = 0
    ) -> _Ranked:
        """The ``WIDTH`` most promising that are different, new and within the limit. A promise of NaN is asked for.

        ``fair``: so many of the most promising that come of suggestions are among them in any case.
        """
        canonical = self._space.canonical(known.pool.raw)
        hashes = self._seen.hash(canonical)
        _, first = np.unique(hashes, return_index=True)
        rows = np.sort(first)
        rows = rows[~np.isin(hashes[rows], taken)]
        promise = known.promise[rows]
        new = np.isnan(promise)
        if new.any():
            asked = canonical[rows[new]]
            promise[new] = acquisition.promise(posterior, asked) + posterior.log_success(asked)
        ranking = np.argsort(-np.round(promise, 9), kind="stable")
        order = ranking[: MOST_LOOKED * WIDTH]

        # Loads are asked for one at a time, of those that may be kept: a table of 46 genes takes a while to sum.
        def is_within(i: int) -> bool:
            return not new[i] or bool(self._excess(canonical[rows[[i]]])[0] == 0.0)

        kept = list(itertools.islice(filter(is_within, order.tolist()), WIDTH))
        if fair and known.pool.suggested.any():
            suggested = known.pool.suggested[rows]
            guests = list(itertools.islice(filter(is_within, ranking[suggested[ranking]].tolist()), fair))
            hosts = [i for i in kept if i not in guests][: WIDTH - len(guests)]
            both = {*guests, *hosts}
            kept = [i for i in ranking.tolist() if i in both]
        return _Ranked(known.pool.take(rows[kept]), promise[kept])

    def _children(self, parents: Pool, draw: np.random.Generator) -> Pool:
        """Of the most promising, each as often as any other."""
        if not len(parents):
            return parents
        rows = draw.integers(len(parents), size=CHILDREN)
        fathers = draw.integers(len(parents), size=CROSSED)
        rates = draw.choice([1.0, 2.0, 3.0], size=CHILDREN)
        raw = self._variation.mutated(draw, parents.raw[rows], rates)
        raw[:CROSSED] = self._variation.crossed(draw, parents.raw[rows[:CROSSED]], parents.raw[fathers])
        return Pool.of(raw, "climb", parents.parents[rows])
