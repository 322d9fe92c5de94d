"""The language model's part in a run: trainings with their loss and the gate's words, and texts that it wrote."""

from __future__ import annotations

from typing import Any

from riwoa.config.loading import from_journal
from riwoa.report.facts import Learning, Sample, ServerUse, Training
from riwoa_storage.events import CognitionProvided, TokensSpent, TrainingFailed
from riwoa_storage.history import JudgedReply
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import AdapterRecord, Json, RunRecord

_NEWEST_REPLIES = 400  # among which samples are looked for
_MOST_CHARACTERS = 1_200
_MOST_LOSSES = 400


def learning_of(reader: JournalReader, run: RunRecord, counters: Json) -> Learning:
    """What the model did in a run."""
    provided = [e for e in reader.events(run.run_id, CognitionProvided) if e.model]
    adapters = reader.adapters(run.run_id, weights=False)
    failed = [event.reason for event in reader.events(run.run_id, TrainingFailed)]
    requests = int(counters.get("semantic", 0))
    replies = reader.history.replies(run.run_id, newest=_NEWEST_REPLIES) if requests else []
    return Learning(
        model=str(provided[-1].model) if provided else str(run.provenance.get("model") or ""),
        requests=requests,
        successes=int(counters.get("successes", 0)),
        writing_s=reader.seconds.writing(run.run_id, 0, 1 << 62) if requests else 0.0,
        trainings=tuple(map(_training, adapters)),
        failed=tuple(failed),
        samples=_samples(replies),
        server=_server_use(reader, run),
    )


def _server_use(reader: JournalReader, run: RunRecord) -> ServerUse | None:
    """What a model on a server cost, by the prices in force last; None where there was none."""
    spent = reader.events(run.run_id, TokensSpent)
    if not spent:
        return None
    tokens_in, tokens_out = sum(e.tokens_in for e in spent), sum(e.tokens_out for e in spent)
    settings = from_journal(reader.config_revisions(run.run_id)[-1].config).cognition.http
    answered = tuple(dict.fromkeys(e.model for e in spent if e.model is not None))
    return ServerUse(answered, tokens_in, tokens_out, settings.cost(tokens_in, tokens_out))


def _training(adapter: AdapterRecord) -> Training:
    told = adapter.training
    trained, verdict = told.get("trained", {}), told.get("verdict", {})
    losses = [float(loss) for loss in trained.get("losses", ()) if isinstance(loss, int | float)]
    return Training(
        generation=adapter.generation,
        accepted=adapter.status != "rejected",
        reasons=tuple(map(str, verdict.get("reasons", ()))),
        losses=tuple(losses[:: max(1, len(losses) // _MOST_LOSSES)]),
        held_out_before=_loss(trained.get("before")),
        held_out_after=_loss(trained.get("after")),
        examples=len(told.get("consumed", ())),
        duration_s=told.get("duration_s"),
        tried_of=(told.get("inherited") or {}).get("run"),
    )


def _loss(measured: Any) -> float | None:
    return measured.get("held_out_loss") if isinstance(measured, dict) else None


def _samples(replies: list[JudgedReply]) -> tuple[Sample, ...]:
    """Texts of the bare model and of the trained one: of each the one that brought most, and the newest that lost."""
    found: list[Sample] = []
    for adapted in (False, True):
        texts = [r for r in replies if r.reply is not None and r.reply.text]
        mine = [r for r in texts if (r.request.adapter_sha256 is not None) == adapted]
        mine.sort(key=lambda r: (r.request.generation, r.request.slot))
        won = max((r for r in mine if (r.gain or 0.0) > 0), key=lambda r: r.gain or 0.0, default=None)
        lost = next((r for r in reversed(mine) if (r.gain or 0.0) <= 0), None)
        found += [_sample(reply, adapted) for reply in (won, lost) if reply is not None]
    return tuple(found)


def _sample(judged: JudgedReply, adapted: bool) -> Sample:
    assert judged.reply is not None
    text = judged.reply.text
    cut = text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + " …"
    words = judged.verdict if judged.reason is None else f"{judged.verdict}: {judged.reason}"
    if judged.gain is not None:
        words = "fitter than its parent" if judged.gain > 0 else "not fitter than its parent"
    return Sample(judged.request.generation, adapted, words, judged.gain, cut)
