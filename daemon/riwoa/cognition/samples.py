"""Several texts in one reply: what a pool's request asks for, packed into the text that the journal holds.

A request whose parameters name ``samples`` is answered with up to so many texts, drawn in one batch from one prompt.
They are one reply: its text is one JSON object a line, ``{"text": ..., "log_probability": ...}``, the likeliest first
where that is known, each text once. A request without ``samples`` is answered with a text as it was written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

from riwoa.cognition.parse import PatchError
from riwoa.cognition.protocol import Sample
from riwoa_storage.records import RequestRecord

_MOST_TEXTS = 1024  # that are read of one reply, whatever its writer sent


def samples_wanted(request: RequestRecord) -> int | None:
    """How many texts a request asks for at most; None where it asks for one, as it is written."""
    wanted = request.parameters.get("samples")
    return None if wanted is None else int(wanted)


def packed(samples: Iterable[Sample]) -> str:
    """Different samples as the text of one reply, the likeliest first; "" for none."""
    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(sample.text, sample)
    ranked = sorted(first.values(), key=lambda s: math.inf if s.log_probability is None else -s.log_probability)
    return "\n".join(json.dumps({"text": s.text, "log_probability": s.log_probability}) for s in ranked)


def unpacked(text: str) -> list[Sample]:
    """The samples that ``packed`` made a text of; lines that are none are left out.

    Raises:
        PatchError: there is none at all.
    """
    found = [sample for line in text.splitlines()[:_MOST_TEXTS] if (sample := _sample(line)) is not None]
    if not found:
        raise PatchError("the reply holds no patches")
    return found


def _sample(line: str) -> Sample | None:
    try:
        row = json.loads(line)
        text, log_probability = row["text"], row.get("log_probability")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(text, str):
        return None
    known = isinstance(log_probability, int | float) and math.isfinite(log_probability)
    return Sample(text, float(log_probability) if known else None)
