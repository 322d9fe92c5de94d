"""Requests as a search journals them, for tests that ask a provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from riwoa.cognition.prompt import parameters_of
from riwoa.cognition.protocol import Choice, GenerationSettings
from riwoa_storage.records import RequestRecord


def requests(
    prompts: Sequence[str],
    settings: GenerationSettings,
    *,
    system: str = "",
    choices: Mapping[str, Sequence[Choice]],
    parent: Mapping[str, Choice],
) -> list[RequestRecord]:
    """A generation's batch: request i asks ``prompts[i]`` with seed i."""
    return [
        RequestRecord(
            request_id=f"1/0/{i}",
            run_id=1,
            generation=0,
            slot=i,
            join_generation=1,
            model="test",
            adapter_sha256=None,
            seed=i,
            prompt=prompt,
            parameters=parameters_of(system, choices, 1, parent, settings),
            created_unix_s=0.0,
        )
        for i, prompt in enumerate(prompts)
    ]
