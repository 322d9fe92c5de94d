"""A request as a search asks about a random parent of which nothing is known yet: what a model is measured by."""

from __future__ import annotations

import time

from riwoa.cognition.prompt import Situation, compose, parameters_of
from riwoa.run.offers import offered_choices
from riwoa.run.style import Style
from riwoa.search.codec import Codec
from riwoa.search.rng import generator
from riwoa.search.space import Space
from riwoa_storage.records import RequestRecord


def sample_request(space: Space, style: Style, number: int) -> RequestRecord:
    """The request of a number: another parent each."""
    codec = Codec(space, 0)
    genotype = generator(0, number, "model.check").random(codec.dimension)
    parent = space.architecture(codec.decode(genotype[None, :])[0])
    choices = offered_choices(codec, genotype, lambda _: ())
    situation = Situation(space, parent, None, None, None, {}, None)
    system, prompt = compose(situation, choices, style.template)
    return RequestRecord(
        request_id=f"check/0/{number}",
        run_id=0,
        generation=0,
        slot=number,
        join_generation=0,
        model="",
        adapter_sha256=None,
        seed=number,
        prompt=prompt,
        parameters=parameters_of(system, choices, 1, parent, style.settings, style.template.lead),
        created_unix_s=time.time(),
    )
