"""Events keep their stored form, come back as the class of their kind, and what is unknown or damaged is said."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

import pytest

from riwoa_storage.errors import JournalCorruptError
from riwoa_storage.events import (
    KINDS,
    AdapterAccepted,
    AdapterRejected,
    AdaptersLeftOut,
    AdapterTried,
    AdapterUnusable,
    AlertDue,
    AlertSent,
    Asked,
    ChoiceTimed,
    CognitionProvided,
    ConfigApplied,
    ConfigRefused,
    DeadlineReached,
    EvaluationAnsweredTwice,
    EvaluationAskedAgain,
    Event,
    FinalistsTimed,
    LatencyDrift,
    MemoryInherited,
    ModelChanged,
    NetworkJudged,
    RequestsWithdrawn,
    RunResumed,
    SearchConverged,
    SpaceExhausted,
    TokensSpent,
    TrainingFailed,
    UnknownEvent,
    WinnerConfirmed,
    kind_of,
)
from riwoa_storage.reader import JournalReader
from riwoa_storage.tables import COLUMNS
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import WHEN, adapter, alter, evaluation, reseal, write_run, write_semantic_run


class _At(TypedDict):
    """What every event has."""

    run_id: int
    generation: int
    created_unix_s: float


AT: _At = {"run_id": 1, "generation": 3, "created_unix_s": WHEN}

# What was stored before events had classes, byte for byte.
STORED: list[tuple[Event, str, str]] = [
    (RunResumed(**AT, restarted={"oracle.workers": 4}), "resumed", '{"restarted":{"oracle.workers":4}}'),
    (
        CognitionProvided(**AT, state="model", model="m@1", reason="found", directory="/m"),
        "cognition",
        '{"directory":"/m","model":"m@1","reason":"found","state":"model"}',
    ),
    (MemoryInherited(**AT, content={"start": [[0, 1]]}), "memory", '{"content":{"start":[[0,1]]}}'),
    (ConfigApplied(**AT, changed={"run.generations": [3, 4]}), "config_applied", '{"run.generations":[3,4]}'),
    (
        ConfigRefused(**AT, reason="r", refused={"run.seed": [0, 5]}),
        "config_refused",
        '{"reason":"r","refused":{"run.seed":[0,5]}}',
    ),
    (
        DeadlineReached(**AT, deadline="07:00", phase="search"),
        "deadline",
        '{"deadline":"07:00","phase":"search"}',
    ),
    (SpaceExhausted(**AT, architectures=9, phase="polish"), "space_exhausted", '{"architectures":9,"phase":"polish"}'),
    (SearchConverged(**AT, candidates=100), "search_converged", '{"candidates":100}'),
    (
        WinnerConfirmed(**AT, architecture_key="k", oracle_version="v", metrics={"accuracy": 0.5}, error=None),
        "winner_confirmed",
        '{"architecture_key":"k","error":null,"metrics":{"accuracy":0.5},"oracle_version":"v"}',
    ),
    (
        FinalistsTimed(**AT, networks=({"ms": 1.5},), runtime="r", target_ms=2.0, interval=0.25, note="n"),
        "finalists_timed",
        '{"error":null,"interval":0.25,"leader":null,"networks":[{"ms":1.5}],"note":"n","runtime":"r","target_ms":2.0}',
    ),
    (
        NetworkJudged(
            **AT,
            architecture_key="k",
            oracle_version="v",
            accuracy=0.5,
            accuracy_error=0.25,
            pictures=2,
            correct="gA==",
        ),
        "network_judged",
        '{"accuracy":0.5,"accuracy_error":0.25,"architecture_key":"k","correct":"gA==","error":null,'
        '"oracle_version":"v","pictures":2,"split":"test","views":1}',
    ),
    (
        AlertDue(**AT, alert="held", key="1 held 5", text="t"),
        "alert_due",
        '{"alert":"held","key":"1 held 5","text":"t"}',
    ),
    (
        Asked(**AT, verb="pause", user="eva", by="token phone", answer="pausing"),
        "asked",
        '{"answer":"pausing","by":"token phone","user":"eva","verb":"pause"}',
    ),
    (
        EvaluationAskedAgain(**AT, job="k", after_s=9.5, limit_s=9.0, node="a", again_on="b"),
        "evaluation_asked_again",
        '{"after_s":9.5,"again_on":"b","job":"k","limit_s":9.0,"node":"a"}',
    ),
    (
        EvaluationAnsweredTwice(**AT, job="k", node="b", first=True, status="ok", duration_s=2.5),
        "evaluation_answered_twice",
        '{"duration_s":2.5,"first":true,"job":"k","node":"b","status":"ok"}',
    ),
    (AlertSent(**AT, key="1 held 5", by=("command",)), "alert_sent", '{"by":["command"],"key":"1 held 5"}'),
    (
        LatencyDrift(
            **AT,
            verdict="drifted",
            networks=1.5,
            operators=1.25,
            sentinels=({"name": "n", "ratio": 1.5},),
            affects=("all",),
            tolerance=0.2,
            rounds=60,
            passes=2,
            load_average=None,
            table_sha256="ab",
        ),
        "latency_drift",
        '{"affects":["all"],"load_average":null,"networks":1.5,"operators":1.25,"passes":2,"rounds":60,'
        '"sentinels":[{"name":"n","ratio":1.5}],"table_sha256":"ab","tolerance":0.2,"verdict":"drifted"}',
    ),
    (RequestsWithdrawn(**AT, requests=5), "requests_withdrawn", '{"requests":5}'),
    (ChoiceTimed(**AT, seconds={"climb": 1.5}), "choice_timed", '{"seconds":{"climb":1.5}}'),
    (TrainingFailed(**AT, reason="r", duration_s=0.5), "training_failed", '{"duration_s":0.5,"reason":"r"}'),
    (AdapterAccepted(**AT, sha256="ab", reasons=()), "adapter_accepted", '{"reasons":[],"sha256":"ab"}'),
    (AdapterRejected(**AT, sha256="ab", reasons=("no",)), "adapter_rejected", '{"reasons":["no"],"sha256":"ab"}'),
    (
        AdapterTried(**AT, sha256="ab", reasons=("no",), accepted=False, from_run=1),
        "adapter_tried",
        '{"accepted":false,"from_run":1,"reasons":["no"],"sha256":"ab"}',
    ),
    (AdaptersLeftOut(**AT, reasons=("r",)), "adapters_left_out", '{"reasons":["r"]}'),
    (
        AdapterUnusable(**AT, sha256="ab", reason="gone", refused=True),
        "adapter_unusable",
        '{"reason":"gone","refused":true,"sha256":"ab"}',
    ),
    (
        TokensSpent(**AT, request_id="1/3/0", model="m", fingerprint=None, tokens_in=9, tokens_out=2),
        "tokens_spent",
        '{"estimated":false,"fingerprint":null,"model":"m","request_id":"1/3/0","tokens_in":9,"tokens_out":2}',
    ),
    (
        ModelChanged(**AT, request_id="1/3/0", model="n", fingerprint="g", former_model="m", former_fingerprint="f"),
        "model_changed",
        '{"fingerprint":"g","former_fingerprint":"f","former_model":"m","model":"n","request_id":"1/3/0"}',
    ),
    (UnknownEvent(**AT, kind="of tomorrow", payload={"a": [1]}), "of tomorrow", '{"a":[1]}'),
]


async def test_every_kind_is_stored_as_before_and_comes_back_as_its_class(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 1)
    async with await JournalWriter.open(path) as writer:
        for event, _, _ in STORED:
            await writer.put_event(event)
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT kind, payload FROM events ORDER BY event_id").fetchall()
    assert rows == [(kind, payload) for _, kind, payload in STORED]
    with JournalReader(path) as reader:
        assert reader.events(1) == [event for event, _, _ in STORED]
        assert reader.events(1, TrainingFailed) == [event for event, kind, _ in STORED if kind == "training_failed"]
        assert reader.events(2) == []
    assert {kind_of(event) for event, _, _ in STORED} == {*KINDS, "of tomorrow"}


async def test_an_event_without_a_time_is_given_the_time_it_is_stored_at(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        await writer.put_event(RunResumed())
    with JournalReader(path) as reader:
        (event,) = reader.events()
    assert event.created_unix_s > WHEN


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        ("training_failed", {"reason": "r"}, TrainingFailed(reason="r", duration_s=0.0)),
        ("resumed", {}, RunResumed(restarted={})),
        ("adapter_unusable", {"sha256": "a", "reason": "r"}, AdapterUnusable(sha256="a", reason="r", refused=False)),
        ("requests_withdrawn", {"requests": 1, "of tomorrow": 2}, RequestsWithdrawn(requests=1)),
        ("requests_withdrawn", {"requests": 1, "run_id": 7}, RequestsWithdrawn(requests=1)),
    ],
)
async def test_what_an_older_or_newer_version_wrote_of_a_known_kind_is_read(
    tmp_path: Path, kind: str, payload: dict[str, Any], expected: Event
) -> None:
    path = tmp_path / "journal.db"
    await stored_event(path, kind, payload)
    with JournalReader(path) as reader:
        (event,) = reader.events()
    assert event == type(expected)(**{**{n: getattr(expected, n) for n in expected.__slots__}, "created_unix_s": WHEN})


@pytest.mark.parametrize(("kind", "payload"), [("adapter_unusable", {"reason": "r"}), ("of tomorrow", [1])])
async def test_a_payload_that_is_no_event_of_its_kind_names_its_row(tmp_path: Path, kind: str, payload: Any) -> None:
    path = tmp_path / "journal.db"
    await stored_event(path, kind, payload)
    with (
        JournalReader(path) as reader,
        pytest.raises(JournalCorruptError, match=r"payload of .*event_id 1 cannot be read"),
    ):
        reader.events()


async def stored_event(path: Path, kind: str, payload: Any) -> None:
    """A journal with one event, as another version wrote it."""
    async with await JournalWriter.open(path) as writer:
        await writer.put_event(UnknownEvent(kind="any", payload={}, created_unix_s=WHEN))
    alter(path, "UPDATE events SET kind = ?, payload = ?", kind, json.dumps(payload))
    reseal(path)


# -- words of records --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "column", "read", "row"),
    [
        ("runs", "status", lambda r: r.runs(), "status of run_id 1"),
        ("generations", "phase", lambda r: r.last_generation(1), "phase of run_id 1, generation 1"),
        ("individuals", "status", lambda r: list(r.individuals(1)), "status of .*run_id 1, generation 0, slot 0"),
        ("evaluations", "status", lambda r: list(r.evaluations("table-1")), "status of .*oracle_id"),
        ("replies", "status", lambda r: r.replies(1), "status of request_id '1/0/2'"),
        ("adapters", "status", lambda r: r.adapters(1), "status of run_id 1, generation 0, adapter_id 1"),
    ],
)
async def test_an_unknown_status_or_phase_names_its_row(
    tmp_path: Path, table: str, column: str, read: Any, row: str
) -> None:
    path = tmp_path / "journal.db"
    await write_semantic_run(path)
    async with await JournalWriter.open(path) as writer:
        await writer.put_adapter(adapter(1, 0))
        await writer.put_evaluation(evaluation("a"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(f"UPDATE {table} SET {column} = 'of tomorrow'")
    reseal(path)
    with JournalReader(path) as reader, pytest.raises(JournalCorruptError, match=f"{row}.* cannot be read"):
        read(reader)


async def test_a_records_fields_are_its_tables_columns(tmp_path: Path) -> None:
    """The order is held by the golden journals' checksums."""
    path = tmp_path / "journal.db"
    await write_run(path, 1)
    uncovered = {"generation_id", "individual_id", "weights", "checksum"}
    with closing(sqlite3.connect(path)) as db:
        for table, columns in COLUMNS.items():
            found = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
            assert found - uncovered == set(columns), table
