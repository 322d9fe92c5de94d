"""Whether a language model is worth its seconds: only where an evaluation takes at least as long as a reply.

Decided once a run, before it begins: what an evaluation takes is what the last ones in this state directory took, what
a reply takes is what the model's last ones took, or an estimate by its size. A run in which nothing is known of either
goes without.
"""

from __future__ import annotations

from pathlib import Path

from riwoa.cognition.models import check_directory
from riwoa.cognition.protocol import ModelSpec
from riwoa.config.schema import Cognition
from riwoa.text import duration
from riwoa_storage.errors import JournalMissingError
from riwoa_storage.reader import JournalReader

HOW_TO_TURN_ON = 'cognition.provider = "model" turns it on'
_TOKENS_A_PATCH = 32
# Tokens a second, of sixteen texts in a batch, times the parameters: measured of 135 million on a core.
_CPU_PACE, _GPU_PACE = 60.0 * 135e6, 2000.0 * 135e6


def why_not(settings: Cognition, spec: ModelSpec, journal: Path | None) -> str | None:
    """Why a model that is here is not asked; None where it is worth its seconds."""
    evaluation_s, reply_s = _measured(journal, spec.name)
    if evaluation_s is None:
        return f"nobody knows yet what an evaluation takes here; {HOW_TO_TURN_ON}"
    told, about = (reply_s, "") if reply_s is not None else (_estimated_s(settings, spec), "about ")
    if evaluation_s >= told:
        return None
    return (
        f"an evaluation takes {duration(evaluation_s)}, a reply of {spec.name} {about}{duration(told)}; "
        f"{HOW_TO_TURN_ON}"
    )


def _measured(journal: Path | None, model: str) -> tuple[float | None, float | None]:
    """Seconds of an evaluation and of a model's reply, by what is journaled; None where nothing is."""
    if journal is None:
        return None, None
    try:
        with JournalReader(journal) as reader:
            return reader.seconds.of_an_evaluation(), reader.seconds.of_a_reply(model)
    except JournalMissingError:
        return None, None


def _estimated_s(settings: Cognition, spec: ModelSpec) -> float:
    texts = settings.patches if settings.role == "pool" else 1
    pace = _CPU_PACE if spec.device == "cpu" else _GPU_PACE
    return texts * _TOKENS_A_PATCH * check_directory(Path(spec.directory)).parameters / pace
