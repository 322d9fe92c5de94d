"""What the replies that join a generation came to: successes to learn from, and why the others are none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from riwoa.cognition.parse import PatchError, parse_patch, split_thinking
from riwoa.cognition.protocol import CLOSING, Choice
from riwoa.run.candidate import Candidate
from riwoa.run.model_credit import ModelCredit
from riwoa.search.space import Space
from riwoa_storage.digest import relative_request_id
from riwoa_storage.records import BufferEntryRecord, IndividualRecord, ReplyRecord, RequestRecord

NOT_BETTER = "not better than its parent"  # worse, or a tie
NOT_EVALUATED = "could not be evaluated"
Won = Callable[[IndividualRecord], bool]  # whether an individual is fitter than its parent


@dataclass(frozen=True, slots=True)
class Answer:
    """A usable reply: what a success is learned from."""

    request: RequestRecord
    text: str
    patch: Mapping[str, Choice]


@dataclass(frozen=True, slots=True)
class JoinedReplies:
    """What the replies due in a generation came to. ``rejected``: "generation/slot" of the request -> reason."""

    candidates: tuple[Candidate, ...] = ()
    request_ids: tuple[str, ...] = ()  # of every reply that was due, usable or not
    answers: Mapping[str, Answer] = field(default_factory=dict)  # by request id
    rejected: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, Mapping[str, Choice]] = field(default_factory=dict)  # of written replies' requests
    patches: int | None = None  # that joined a pool; None where replies are candidates of their own
    prompts: Mapping[str, str] = field(default_factory=dict)  # strategies of a pool's requests, by request id
    rivals: Mapping[int, int] = field(default_factory=dict)  # slots that stand for no model -> of what they stand for


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How the replies of a generation are judged. ``rejected``: "generation/slot" of the request -> reason."""

    rejected: Mapping[str, str] = field(default_factory=dict)
    entries: Sequence[BufferEntryRecord] = ()  # the successes
    credit: ModelCredit = field(default_factory=ModelCredit)  # what the search made of a pool's patches


def read_reply(space: Space, request: RequestRecord, reply: ReplyRecord) -> Answer:
    """The patch of a reply.

    Raises:
        PatchError: there is none, or it is not what was offered.
    """
    if reply.status != "ok":
        raise PatchError(reply.reason or reply.status)
    p = request.parameters
    patch = parse_patch(reply.text, space, p["parent"], choices=p["choices"], most_genes=p["most_genes"])
    return Answer(request, reply.text, patch)


def rejections(individuals: Sequence[IndividualRecord], joined: JoinedReplies, won: Won) -> dict[str, str]:
    """Why each reply that was due is no success, by "generation/slot" of its request; wins are not in it."""
    found = dict(joined.rejected)
    for i in individuals:
        if i.request_id is not None and i.request_id in joined.answers and not won(i):
            found[relative_request_id(i.request_id)] = NOT_EVALUATED if i.status == "failed" else NOT_BETTER
    return found


def success(
    run_id: int, generation: int, i: IndividualRecord, answer: Answer, parent: float
) -> BufferEntryRecord | None:
    """A success with its whole trace, verbatim; None where reasoning was asked for and there is none: it teaches none.

    ``parent``: the parent's fitness.
    """
    reasoning, _ = split_thinking(answer.text)
    if not reasoning and CLOSING not in answer.request.parameters.get("lead", ""):
        return None
    assert i.fitness is not None
    return BufferEntryRecord(
        entry_id=0,
        run_id=run_id,
        request_id=answer.request.request_id,
        generation=generation,
        parent_fitness=parent,
        child_fitness=i.fitness,
        trace=_trace(answer, reasoning, i),
        created_unix_s=time.time(),
    )


def _trace(answer: Answer, reasoning: str, i: IndividualRecord) -> dict[str, Any]:
    return {
        "system": answer.request.parameters["system"],
        "prompt": answer.request.prompt,
        "lead": answer.request.parameters.get("lead", ""),
        "text": answer.text,
        "reasoning": reasoning,
        "patch": dict(answer.patch),
        "architecture": i.architecture,
        "metrics": i.metrics,
        "parent_architecture": answer.request.parameters["parent"],
        "adapter_sha256": answer.request.adapter_sha256,
    }
