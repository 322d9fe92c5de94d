"""The verbs that answer from the journal: runs, show, why, compare, replies, events, logs, dump."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa.ctl import main
from riwoa.service.candidate_text import changes, gene_lines
from riwoa.service.logs import standard_error_file
from riwoa_storage.events import RunResumed
from riwoa_storage.reader import JournalReader
from riwoa_storage.writer import JournalWriter

from .past_journal import REASONING, SHA256, generation, made, request, write_past
from .support import held_lock

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
VERBS = (
    ["runs"],
    ["show"],
    ["why"],
    ["compare", "best", "0/0"],
    ["compare", "1", "2"],
    ["replies"],
    ["replies", "2/1/0"],
    ["events"],
    ["dump"],
)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("past")
    write_past(state / "journal.db")
    return state


@pytest.fixture(autouse=True)
def _columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def told(capsys: pytest.CaptureFixture[str], state: Path, *words: str, code: int = 0) -> str:
    assert main(["--state", str(state), *words]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def as_json(capsys: pytest.CaptureFixture[str], state: Path, *words: str) -> Any:
    return json.loads(told(capsys, state, "--json", *words))


@pytest.mark.parametrize(
    "word", ["best", "Winner", "3/0", "2/3/0", "54d3", "0x54D3CF", "54d3cf4bd61e9bd7", "32.3.5.4.7"]
)
def test_a_candidate_goes_by_its_place_its_name_its_key_or_a_word(
    word: str, past: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys, past, "show", word)
    assert (found["run_id"], found["generation"], found["slot"], found["leader"]) == (2, 3, 0, True)
    assert (found["rank"], found["parent"], found["children"]) == (1, [2, 0], [])
    assert found["test"]["accuracy"] == 0.85
    assert found["changed"] == ["stage1.block2.kernel 5 → 7"]


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["show", "bets"], 66, "did you mean 'best'?"),
        (["show", "3/7"], 66, "the nearest is 3/0"),
        (["show", "99/0"], 66, "the last is 3/0"),
        (["show", "1/2/0"], 66, "run 1 has committed 1 generations"),
        (["show", "f3ff"], 66, "the nearest is f3f43422 (2/0)"),
        (["show", "32."], 64, "write more of the one that is meant"),
        (["show", "\udcff"], 66, "has no candidate"),
        (["show", "2/3/0", "--run", "1"], 64, "--run says 1"),
        (["show", "--run", "7"], 66, "has no run 7; it has 1, 2"),
        (["why", "9" * 18 + "/0"], 66, "there is no candidate"),
        (["compare", "1", "3"], 66, "has no run 3"),
        (["compare", "1", "best"], 64, "1 is a run, the other is a candidate"),
        (["replies", "9/9"], 66, "the last is 2/1/1"),
        (["replies", "--last", "0"], 64, "needs a whole number from 1"),
        (["events", "--kind", "judged"], 64, "did you mean 'network_judged'?"),
        (["events", "--since", "soon"], 64, "30min, 2h or 1d"),
        (["dump", "--parquet", "-"], 64, "the name of a file"),
        (["dump", "--csv", "/nowhere/x.csv"], 73, "name another file"),
        (["list"], 64, "did you mean 'runs'?"),
        (["top"], 64, "did you mean 'watch'?"),
        (["shwo"], 64, "did you mean 'show'?"),
    ],
)
def test_what_is_not_there_is_said_in_a_line_with_the_nearest(
    words: list[str], code: int, hint: str, past: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(capsys, past, *words, code=code)
    assert hint in said
    assert said.count("\n") == 1


def broken(state: Path) -> None:
    data = bytearray((state / "journal.db").read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    (state / "journal.db").write_bytes(data)


def older(state: Path) -> None:
    shutil.copy(GOLDEN / "journal_v2.db", state / "journal.db")


def no_journal(state: Path) -> None:
    (state / "journal.db").unlink()


def another_file(state: Path) -> None:
    (state / "journal.db").write_text("a text, and no journal at all\n" * 40)


@pytest.mark.parametrize(("spoil", "code"), [(no_journal, 66), (broken, 65), (older, 76), (another_file, 65)])
def test_every_verb_says_in_a_line_why_a_journal_cannot_be_read(
    spoil: Any, code: int, past: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(past / "journal.db", tmp_path)
    spoil(tmp_path)
    for words in (*VERBS, ["events", "--follow"]):
        said = told(capsys, tmp_path, *words, code=code)
        assert said.startswith("riwoactl: ")
        assert said.count("\n") == 1, said


def test_a_run_without_candidates_is_listed_and_has_nothing_to_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def write(begun: bool) -> None:
        async with await JournalWriter.open(tmp_path / "journal.db") as journal:
            if begun:
                await journal.begin_run({"seed": 0}, {})

    asyncio.run(write(False))
    assert "holds no run yet" in told(capsys, tmp_path, "runs")
    assert "holds no run yet" in told(capsys, tmp_path, "show", code=66)
    asyncio.run(write(True))
    assert "none yet" in told(capsys, tmp_path, "runs")
    for word in ("best", "last", "0/0", "abcd"):
        assert "has committed no candidate yet" in told(capsys, tmp_path, "why", word, code=66)
    assert "it runs without a language model" in told(capsys, tmp_path, "replies")
    assert told(capsys, tmp_path, "dump").count("\n") == 1
    assert told(capsys, tmp_path, "compare", "1", "1").count("none yet") == 2


@pytest.mark.parametrize("columns", [20, 40, 120])
def test_every_verb_fits_the_terminal(
    columns: int, past: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in VERBS[:-1]:
        out = told(capsys, past, *words)
        assert not [line for line in out.splitlines() if len(line) > columns], words
        assert "\x1b" not in out


def test_in_a_pipe_a_fact_is_a_line(past: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, past, "runs").splitlines()
    assert len(lines) == 3
    assert lines[2].split("  ")[-1].strip() == "1 min 20 s"


def test_why_tells_of_each_ancestor_who_made_it_and_what_the_model_thought(
    past: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys, past, "why")
    assert [(s["operator"], s["config_revision"]) for s in found["steps"]] == [
        ("polish", 1), ("semantic", 1), ("climb", 0), ("init", 0),
    ]  # fmt: skip
    semantic = found["steps"][1]
    assert semantic["gain"] == pytest.approx(0.03)
    assert (semantic["reasoning"], semantic["adapter_sha256"]) == (REASONING, SHA256)
    assert semantic["changed"] == ["stage1.depth 2 → 3", "new stage1.block3 expand 6, kernel 3"]
    assert [r["changed"] for r in found["config_revisions"]] == [{}, {"run.generations": [40, 4]}]


def test_candidates_are_compared_on_the_same_test_pictures_and_runs_by_their_settings(
    past: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys, past, "compare", "3/0", "1/0")
    assert found["test_difference"]["value"] == pytest.approx(-0.15)
    assert found["test_difference"]["clear"] is True
    assert found["common_ancestor"] == [1, 0]
    across = as_json(capsys, past, "compare", "2/3/0", "1/0/1")
    assert (across["test_difference"], across["common_ancestor"]) == (None, None)
    runs = as_json(capsys, past, "compare", "1", "2")
    assert runs["settings"] == {"run.seed": [1, 0]}
    assert not runs["same_digest"]


def test_genes_of_any_space_are_told_in_words() -> None:
    assert gene_lines(
        {"op_0_1": "none", "tail.width": 8, "tail.act": "\x1b[31mrelu", "a.block2.x": 1, "a.block1.x": 2}
    ) == [
        ("op_0_1", "none"),
        ("tail", "width 8; act \\x1b[31mrelu"),
        ("a", "x 2, 1"),
    ]
    assert changes({"depth": 3, "skip": 1, "a.x": 2}, {"depth": 4, "a.x": 2, "act": "silu", "b.k": 5, "b.e": 6}) == [
        "depth 3 → 4", "new act silu", "new b k 5, e 6", "no skip",
    ]  # fmt: skip


def test_replies_have_a_verdict_and_what_was_written(past: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, past, "replies")["replies"]
    assert [(r["verdict"], r["reason"], r["child"]) for r in found] == [
        ("won", None, [2, 0]),
        ("rejected", "no JSON object in the answer", None),
    ]
    assert found[0]["gain"] == pytest.approx(0.03)
    assert [r["request_id"] for r in as_json(capsys, past, "replies", "--verdict", "rejected")["replies"]] == ["2/1/1"]
    assert as_json(capsys, past, "replies", "1/0")["prompt"].startswith("Target 2.00 ms")


def test_a_reply_waits_for_its_generation_or_comes_to_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def write() -> None:
        async with await JournalWriter.open(tmp_path / "journal.db") as journal:
            await journal.begin_run({"seed": 0, "model": "m"}, {})
            one = made(0, "init", {"depth": 2}, 0.5, 1.0)
            asked = [replace(request(slot), request_id=f"1/0/{slot}", run_id=1, generation=0) for slot in (0, 1)]
            await journal.put_requests([replace(asked[0], join_generation=9), replace(asked[1], join_generation=1)])
            for number in range(2):
                await journal.commit_generation(generation(1, number, (one,), (number, one)))

    asyncio.run(write())
    found = as_json(capsys, tmp_path, "replies")["replies"]
    assert [(r["verdict"], r["status"], r["text"]) for r in found] == [("waiting", None, None), ("late", None, None)]
    text = told(capsys, tmp_path, "replies")
    assert "1/0/0  waiting for generation 9" in text
    assert "no answer yet" in text


def test_events_are_chosen_by_kind_time_and_run_and_followed(
    past: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert as_json(capsys, past, "events", "--run", "1")["events"] == []
    (applied,) = as_json(capsys, past, "events", "--kind", "config_applied", "--since", "1h")["events"]
    assert (applied["generation"], applied["payload"]) == (2, {"run.generations": [40, 4]})
    assert as_json(capsys, past, "events", "--since", "2999-01-01")["events"] == []
    shutil.copy(past / "journal.db", tmp_path)
    events = iter([RunResumed(run_id=2, restarted={"oracle.workers": 4})])

    async def write(event: RunResumed) -> None:
        async with await JournalWriter.open(tmp_path / "journal.db") as journal:
            await journal.put_event(event)

    def wait(_: float) -> None:
        try:
            asyncio.run(write(next(events)))
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("riwoa.ctl.events.time.sleep", wait)
    assert main(["--state", str(tmp_path), "--json", "events", "--follow", "--last", "1"]) == 130
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["kind"] for line in lines] == ["network_judged", "resumed"]


def test_a_journal_that_is_being_written_is_read_and_not_touched(
    past: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(past / "journal.db", tmp_path)

    async def read_while_writing() -> None:
        async with await JournalWriter.open(tmp_path / "journal.db") as journal:
            await journal.put_event(RunResumed(run_id=2))
            for words in VERBS:
                told(capsys, tmp_path, *words)
            assert as_json(capsys, tmp_path, "events", "--last", "1")["events"][0]["kind"] == "resumed"
            await journal.put_event(RunResumed(run_id=2))  # no reader holds it back

    asyncio.run(read_while_writing())
    before = (tmp_path / "journal.db").read_bytes()
    os.chmod(tmp_path / "journal.db", 0o400)
    os.chmod(tmp_path, 0o500)  # as read-only media
    try:
        for words in VERBS:
            told(capsys, tmp_path, *words)
    finally:
        os.chmod(tmp_path, 0o700)
    assert (tmp_path / "journal.db").read_bytes() == before


def test_dump_has_a_row_a_candidate_with_its_metrics_and_genes(
    past: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = list(csv.DictReader(io.StringIO(told(capsys, past, "dump"))))
    assert [(row["generation"], row["slot"]) for row in rows] == [
        ("0", "0"), ("0", "1"), ("0", "2"), ("1", "0"), ("1", "1"), ("2", "0"), ("3", "0"),
    ]  # fmt: skip
    assert rows[-1]["name"] == "54d3cf4bd61e9bd7"
    assert (rows[-1]["metric.accuracy"], rows[-1]["gene.stage1.block3.expand"]) == ("0.86", "6")
    assert (rows[2]["metric.accuracy"], rows[2]["status"], rows[0]["gene.stage1.depth"]) == ("", "failed", "2")
    told_of = as_json(capsys, past, "dump", "--csv", str(tmp_path / "all.csv"))
    assert told_of["rows"] == 7
    assert list(csv.DictReader((tmp_path / "all.csv").open())) == rows
    objects = as_json(capsys, past, "dump")["candidates"]
    assert objects[5]["request_id"] == "2/1/0"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = told(capsys, past, "dump", "--parquet", str(tmp_path / "x.parquet"), code=66)
    assert "pip install pyarrow, or take --csv" in said
    assert not (tmp_path / "x.parquet").exists()


def test_logs_come_from_the_file_that_the_daemon_noted_or_it_is_said_where_they_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no log was kept" in told(capsys, tmp_path, "logs", code=66)
    log = tmp_path / "riwoa.log"
    log.write_bytes(b"first\n\x1b[31msecond\n\xff third\n")
    (tmp_path / "lock").write_text(f"1\nlog={log}\n")
    assert told(capsys, tmp_path, "logs", "--last", "2").splitlines() == ["\\x1b[31msecond", "\ufffd third"]
    assert as_json(capsys, tmp_path, "logs")["lines"][0] == "first"
    structured = {"timestamp": "2026-11-28T14:02:22Z", "level": "info", "room": "conductor", "event": "committed"}
    log.write_text(json.dumps({**structured, "latency_ms": 0.10930365748155563}) + "\n")
    assert told(capsys, tmp_path, "logs").endswith("  info  conductor  committed  latency_ms 0.109304\n")
    log.unlink()
    assert "which is gone" in told(capsys, tmp_path, "logs", code=66)


def test_logs_of_a_daemon_that_runs_come_from_where_its_standard_error_goes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept, log = os.dup(2), tmp_path / "riwoa.log"
    with log.open("w") as stream, held_lock(tmp_path):
        os.dup2(stream.fileno(), 2)
        try:
            os.write(2, b"search began\n")
            assert standard_error_file() == str(log)
            assert main(["--state", str(tmp_path), "logs"]) == 0
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    assert capfd.readouterr().out == "search began\n"


def test_the_history_of_a_journal_knows_only_its_own_run(past: Path) -> None:
    with JournalReader(past / "journal.db") as reader:
        shared = reader.by_name.keyed(1, "40")
        assert [(one.run_id, one.place) for one in shared] == [(1, (0, 1))]
        assert reader.by_name.named(1, "54d3") == []  # of run 2 alone
        assert [g.generation for g in reader.history.generations(2, 1, 2)] == [1, 2]
        assert reader.history.children(2, (0, 0)) == [(1, 0)]
        assert [p.accuracy for p in reader.history.points(2, start=2)] == [0.85, 0.86]
        assert [i.place for i in reader.history.individuals(2, after=(0, 1), limit=2)] == [(0, 2), (1, 0)]
        assert [i.place for i in reader.history.individuals(2, status="failed")] == [(0, 2)]
