"""What the language model is asked for a pool: many patches of one parent, from what the search knows around it.

The prompt tells no order of merit: what was measured beside the parent, and what the surrogate believes of some changes
drawn at random and how surely, stand in a random order. One strategy tells what changes like some came to in the run so
far (lessons of its bank), another the newest steps as they are, as long: what each has won says whether a bank pays.
Nominal choices go by their words, where they have some.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from riwoa.cognition.parse import PatchError, offered_patch
from riwoa.cognition.prompt import Belief, EarlierPatch, Situation, Template, compose, parameters_of, spoken_choices
from riwoa.cognition.protocol import Choice
from riwoa.cognition.samples import unpacked
from riwoa.run.examples import Examples
from riwoa.run.history import genotype_of
from riwoa.run.offers import Offered, offered_choices, seed_of
from riwoa.run.prompt_history import PromptHistory
from riwoa.run.replies import Answer
from riwoa.run.requests import RequestComposer
from riwoa.search.base import Elite
from riwoa.search.codec import Codec
from riwoa.search.fitness import Objective
from riwoa.search.rng import generator
from riwoa.search.space import IntArray, Space
from riwoa_storage.records import IndividualRecord, ReplyRecord, RequestRecord

_Change = tuple[str, Choice]


class Beliefs(Protocol):
    """What is known and believed of architectures (``riwoa.surrogate.screening``)."""

    def predict(self, indices: IntArray) -> list[tuple[float, float]] | None:
        """Means and standard deviations for canonical indices (n, genes); None while too little is known."""
        ...

    def nearest(self, indices: IntArray, most: int) -> list[tuple[IntArray, float]]:
        """Other evaluated architectures, those that differ in the fewest genes first, with their values."""
        ...


class PoolComposer:
    """Writes requests for a pool.

    Args:
        composer: of the run: what it writes of a parent is in these requests, too.
        codec: of the run's space and seed.
        beliefs: None where no surrogate is learned.
        examples: of the run's steps.
        patches: that a request asks for.
    """

    def __init__(
        self, composer: RequestComposer, codec: Codec, beliefs: Beliefs | None, examples: Examples, patches: int
    ) -> None:
        self.composer = composer
        self.codec = self._codec = codec
        self._beliefs = beliefs
        self._examples = examples
        self._patches = patches

    def request(
        self,
        generation: int,
        parent: Elite,
        template: Template,
        *,
        objective: Objective,
        target_ms: float | None,
        model: str,
        adapter_sha256: str | None,
    ) -> RequestRecord | None:
        """The request of a generation; None where there is nothing to change.

        Args:
            generation: that asks.
            parent: whose metrics are held (``History.recall``).
            template: the strategy of prompt.
            objective: in force.
            target_ms: the latency target in force.
            model: who will answer.
            adapter_sha256: the adapter in force.
        """
        composer, space = self.composer, self._codec.space
        offered = offered_choices(self._codec, parent.genotype, lambda _: ())
        if not offered:
            return None
        situation = self._situation(generation, parent, offered, template, target_ms)
        decoded = self._codec.decode(parent.genotype[None, :])[0]
        situation = replace(
            situation,
            lessons=self._examples.lessons(generation, objective, decoded, template.lessons),
            newest=self._examples.newest(generation, objective, decoded, template.newest),
        )
        system, prompt = compose(_in_words(situation), offered, template, composer.most_genes)
        parameters = parameters_of(
            system, offered, composer.most_genes, situation.parent, composer.style.settings, template.lead
        )
        return RequestRecord(
            request_id=f"{composer.run_id}/{generation}/0",
            run_id=composer.run_id,
            generation=generation,
            slot=0,
            join_generation=generation + composer.lag,
            model=model,
            adapter_sha256=adapter_sha256,
            seed=seed_of(composer.seed, generation, 0, "request"),
            prompt=prompt,
            parameters={
                **parameters,
                **_words(space, offered),
                "samples": self._patches,
                "strategy": template.name,
                "parent_at": list(parent.identity),
            },
            created_unix_s=time.time(),
        )

    def alone(self, parent: IndividualRecord, target_ms: float | None) -> tuple[str, str]:
        """System message and prompt of a parent, with nothing of what is known beside it: what adapters learn from."""
        genotype = genotype_of(parent)
        situation = self.composer.situation(genotype, parent.metrics, target_ms, PromptHistory())
        offered = offered_choices(self._codec, genotype, lambda _: ())
        return compose(_in_words(situation), offered, self.composer.style.template, self.composer.most_genes)

    def _situation(
        self, generation: int, parent: Elite, offered: Offered, template: Template, target_ms: float | None
    ) -> Situation:
        metrics = self.composer.metrics(parent)
        situation = self.composer.situation(parent.genotype, metrics, target_ms, PromptHistory())
        value = self.composer.objective.value(metrics)
        if self._beliefs is None or np.isnan(value):
            return situation
        draw = generator(self.composer.seed, generation, "pool.prompt")
        every = [(gene, choice) for gene, choices in offered.items() for choice in choices]
        told = [every[i] for i in draw.permutation(len(every))[: template.beliefs]]
        neighbours = self._neighbours(self._beliefs, parent, situation.parent, value, template.neighbours)
        return replace(
            situation,
            beliefs=self._believed(self._beliefs, parent, situation, value, told),
            neighbours=[neighbours[i] for i in draw.permutation(len(neighbours))],
        )

    def _believed(
        self, beliefs: Beliefs, parent: Elite, situation: Situation, value: float, told: Sequence[_Change]
    ) -> list[Belief]:
        """What is believed of some changes of one gene."""
        if not told:
            return []
        children = np.stack([self._codec.patch(parent.genotype, {gene: choice}) for gene, choice in told])
        predicted = beliefs.predict(self._codec.decode(children))
        after, before_ms = situation.latency_after, situation.latency_ms
        return [
            Belief(
                {gene: choice},
                {gene: situation.parent[gene]},
                mean - value,
                deviation,
                None if after is None or before_ms is None else after({gene: choice}) - before_ms,
            )
            for (gene, choice), (mean, deviation) in zip(told, predicted or (), strict=False)
        ]

    def _neighbours(
        self, beliefs: Beliefs, parent: Elite, before: Mapping[str, Choice], value: float, most: int
    ) -> list[EarlierPatch]:
        """Evaluated networks near the parent, as patches on it."""
        found = []
        for indices, theirs in beliefs.nearest(self._codec.decode(parent.genotype[None, :])[0], most):
            other = self._codec.space.architecture(indices)
            patch = {gene: choice for gene, choice in other.items() if gene in before and before[gene] != choice}
            found.append(EarlierPatch(patch, {gene: before[gene] for gene in patch}, gain=theirs - value))
        return found


def read_patches(request: RequestRecord, reply: ReplyRecord) -> list[Answer]:
    """The different patches of a reply, in the choices of the space; what is no patch that was offered is left out.

    Raises:
        PatchError: there is none.
    """
    if reply.status != "ok":
        raise PatchError(reply.reason or reply.status)
    p = request.parameters
    spoken = spoken_choices(p)
    # In words or as it is: whoever wrote it may know the one or the other.
    known = {gene: (*spoken[gene], *choices) for gene, choices in p["choices"].items()}
    meant = {
        gene: dict(zip((*spoken[gene], *choices), (*choices, *choices), strict=True))
        for gene, choices in p["choices"].items()
    }
    answers: dict[tuple[tuple[str, Choice], ...], Answer] = {}
    problem = PatchError("the reply holds no patches")
    for sample in unpacked(reply.text):
        try:
            patch = offered_patch(sample.text, known, p["most_genes"])
        except PatchError as error:
            problem = error
            continue
        plain = {gene: meant[gene][choice] for gene, choice in patch.items()}
        answers.setdefault(tuple(sorted(plain.items())), Answer(request, sample.text, plain))
    if not answers:
        raise problem
    return list(answers.values())


def _words(space: Space, offered: Offered) -> dict[str, Any]:
    """What the choices on offer are called, for the genes that have words; nothing where none has."""
    genes = {gene.name: gene for gene in space.genes}
    words = {
        name: [genes[name].word(choice) for choice in choices]
        for name, choices in offered.items()
        if genes[name].words is not None
    }
    return {"words": words} if words else {}


def _in_words(s: Situation) -> Situation:
    """A situation as it is told."""
    worded = s.space.worded
    return replace(
        s,
        space=s.space.in_words,
        parent=worded(s.parent),
        neighbours=[replace(n, patch=worded(n.patch), before=worded(n.before)) for n in s.neighbours],
        beliefs=[replace(b, patch=worded(b.patch), before=worded(b.before)) for b in s.beliefs],
    )
