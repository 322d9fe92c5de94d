"""Composes what the language model is asked, from committed generations and the configuration in force."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from riwoa.cognition.prompt import Goal, Situation, compose, parameters_of
from riwoa.cognition.protocol import Choice, GenerationRequest
from riwoa.config.schema import Config
from riwoa.run.candidate import parent_genotype
from riwoa.run.history import History
from riwoa.run.offers import Offered, offered_choices, seed_of
from riwoa.run.prompt_history import PromptHistory
from riwoa.run.style import Style, lag_of, most_genes
from riwoa.run.task import SearchTask
from riwoa.search.base import Elite, Proposal
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray
from riwoa.search.rng import generator
from riwoa_storage.digest import canonical_json
from riwoa_storage.records import RequestRecord

_PROBES_DRAWN = 8


class RequestComposer:
    """Writes requests and probes.

    Args:
        run_id: the run.
        config: it was begun with: its seed, lag and size of a patch.
        codec: of the run's space and seed.
        task: latencies of the space.
        style: how the model writes.
        history: metrics of committed individuals.
    """

    def __init__(
        self, run_id: int, config: Config, codec: Codec, task: SearchTask, style: Style, history: History
    ) -> None:
        self.history = PromptHistory()
        self.style = style
        self.run_id = run_id
        self.seed = config.run.seed
        self.lag = lag_of(config.cognition)
        self.most_genes = most_genes(config.cognition)
        self._asynchronous = config.search.asynchronous
        self._codec = codec
        self._task = task
        self.objective = task.objective(config)  # while it has limits none of it changes in a run (``may_change``)
        # Prompts name a target that is known beforehand by themselves.
        self._limits = self.objective.constraints if task.answers_latency else config.objective.limits
        self._individuals = history

    def request(
        self,
        generation: int,
        p: Proposal,
        offered: Offered,
        *,
        target_ms: float | None,
        model: str,
        adapter_sha256: str | None,
    ) -> RequestRecord | None:
        """The request of a slot; None where there is nothing to change."""
        if not offered:
            return None
        metrics = self._individuals.metrics(p.parent) or {}
        situation = self.situation(parent_genotype(p), metrics, target_ms, self.history)
        system, prompt = compose(situation, offered, self.style.template)
        return RequestRecord(
            request_id=f"{self.run_id}/{generation}/{p.slot}",
            run_id=self.run_id,
            generation=generation,
            slot=p.slot,
            join_generation=generation + self.lag,
            model=model,
            adapter_sha256=adapter_sha256,
            seed=seed_of(self.seed, generation, p.slot, "request"),
            prompt=prompt,
            parameters=parameters_of(
                system, offered, self.most_genes, situation.parent, self.style.settings, self.style.template.lead
            )
            # No individual of this generation and slot tells the parent then.
            | ({"parent_at": p.parent} if self._asynchronous else {}),
            created_unix_s=time.time(),
        )

    def metrics(self, parent: Elite) -> Mapping[str, Any]:
        """Those of a committed individual that is held (``History.recall``)."""
        return self._individuals.metrics(parent.identity) or {}

    def situation(
        self,
        genotype: FloatArray,
        metrics: Mapping[str, Any],
        target_ms: float | None,
        history: PromptHistory,
    ) -> Situation:
        """What a prompt tells of one parent."""
        parent = self._architecture(genotype)

        def patched(patch: Mapping[str, Choice]) -> dict[str, Choice]:
            return self._architecture(self._codec.patch(genotype, patch))

        def after(patch: Mapping[str, Choice]) -> float:
            return self._task.latency_ms(patched(patch))

        known = self._task.known_latency_ms(parent)
        latency_ms = metrics.get("latency_ms", known)
        return Situation(
            space=self._codec.space,
            parent=parent,
            accuracy=metrics.get(self.objective.raised),
            latency_ms=latency_ms,
            target_ms=target_ms,
            layer_ms=self._task.layer_ms(parent),
            latency_after=after if target_ms is not None else None,  # no target: no latency to speak of
            successes=history.successes,
            rejected=history.rejected,
            goal=self._goal(parent, metrics, patched),
        )

    def _goal(
        self,
        parent: Mapping[str, Choice],
        metrics: Mapping[str, Any],
        patched: Callable[[Mapping[str, Choice]], Mapping[str, Choice]],
    ) -> Goal:
        objective, task, limits = self.objective, self._task, self._limits
        values = {**task.known_metrics(parent, objective), **metrics} if limits else {}
        before = [c for c in limits if c.metric in objective.known]

        def keeps(patch: Mapping[str, Choice]) -> bool:
            after = task.known_metrics(patched(patch), objective)
            return all(c.met(after[c.metric]) for c in before)

        told = [(c, values.get(c.metric)) for c in limits]
        return Goal(objective.raised, objective.lowered, told, keeps if before else None)

    def _architecture(self, genotype: FloatArray) -> dict[str, Choice]:
        return self._codec.space.architecture(self._codec.decode(genotype[None, :])[0])

    def probes(self, count: int, target_ms: float | None) -> tuple[GenerationRequest, ...]:
        """The fixed requests that judge adapters: random architectures of the run's seed, without any history.

        Of ``_PROBES_DRAWN`` times as many those closest below the target, where a search's parents are, too.
        """
        drawn = generator(self.seed, 0, "probes").random((_PROBES_DRAWN * count, self._codec.dimension))
        latencies_ms = [self._task.latency_ms(self._architecture(genotype)) for genotype in drawn]
        room_ms = [0.0 if target_ms is None else target_ms - latency_ms for latency_ms in latencies_ms]
        nearest = sorted(range(len(drawn)), key=lambda i: (room_ms[i] < 0, abs(room_ms[i])))[:count]
        return tuple(self._probe(n, drawn[i], target_ms) for n, i in enumerate(nearest))

    def _probe(self, number: int, genotype: FloatArray, target_ms: float | None) -> GenerationRequest:
        offered = offered_choices(self._codec, genotype, lambda _: ())
        situation = self.situation(genotype, {}, target_ms, PromptHistory())
        system, prompt = compose(situation, offered, self.style.template, self.most_genes)
        seed = seed_of(self.seed, 0, number, "probe")
        return GenerationRequest(
            id=f"probe/{number}",
            seed=seed,
            system=system,
            prompt=prompt,
            choices=offered,
            most_genes=self.most_genes,
            lead=self.style.template.lead,
        )

    def as_sent(self, request: RequestRecord) -> RequestRecord:
        """A journaled request as it was sent: JSON gave its genes back by name, and whoever answers may heed order."""
        p, genes = request.parameters, [gene.name for gene in self._codec.space.genes]
        ordered = {key: {gene: p[key][gene] for gene in genes if gene in p[key]} for key in ("choices", "parent")}
        return replace(request, parameters={**p, **ordered})


def same_questions(before: Sequence[RequestRecord], now: Sequence[RequestRecord]) -> bool:
    """Whether two batches of a generation ask for the same replies; their adapters are left to the caller."""

    def questions(batch: Sequence[RequestRecord]) -> list[str]:
        in_order = sorted(batch, key=lambda r: r.slot)
        return [canonical_json([r.slot, r.join_generation, r.seed, r.prompt, r.parameters]) for r in in_order]

    return questions(before) == questions(now)
