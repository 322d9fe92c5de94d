import asyncio
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from riwoa.ctl import main
from riwoa.ctl.ask import SilentError, ask
from riwoa.ctl.status import collect, exit_code
from riwoa.ctl.status_detail import detail_rows
from riwoa.ctl.status_text import render
from riwoa.errors import ControlError
from riwoa.paths import StatePaths
from riwoa.service.foreground import progress_lines
from riwoa.service.status import one_line
from riwoa.service.status_check import checked_status
from riwoa.service.status_object import StatusObject
from riwoa_storage.events import NetworkJudged
from riwoa_storage.writer import JournalWriter
from tests.support.fuzz import examples
from tests.support.odd_json import ODD_BYTES, mutated

from .support import daemon, held_lock, individual, status_object, write_journal

PROPOSALS: dict[str, Any] = {
    "model": "smollm2@1234", "state": "breaker open", "breaker_left": 4, "reason": "killed by signal 9", "lag": 1,
    "waiting": 1, "busy_share": 0.93, "tokens_per_s": 61.2, "restarts": 2, "answered": 40, "fallbacks": 3,
    "learning": {
        "adapter": "ab" * 32, "since_generation": 12, "accepted": 2, "rejected": 1, "failed": 0, "unconsumed": 7,
        "possible": 3, "swap": None, "unusable": ["cd" * 32],
        "inherited": "0123456789ab of run 1, the same task", "trial": "waiting",
        "left_out": ["the adapters of run 2: another base model (m@1)"],
    },
}  # fmt: skip
SERVER: dict[str, Any] = {
    "url": "http://box:11434/v1", "model": "qwen2.5:7b", "changed": None, "constrained": True, "night_in": 12_000,
    "night_out": 690, "run_in": 40_000, "run_out": 2_000, "budget": 200_000, "night_cost": 0.0314, "run_cost": 1.5,
}  # fmt: skip
PATCHES: dict[str, Any] = {
    "joined": 340, "picked": 12, "share_picked": 12 / 340, "picked_won": 5, "led_to": 31, "led_to_won": 9,
    "greedy_share": 0.25, "pairs": 8, "gain": 0.0012, "gain_low": -0.0005, "gain_high": 0.003, "seconds_a_pick": 3.125,
    "leaders": 2,
}  # fmt: skip
OPERATORS: dict[str, Any] = {
    "spiral": {
        "proposals": 50, "valid": 50, "repeats": 0, "wins": 10, "win_rate": 0.2, "win_rate_low": 0.112,
        "win_rate_high": 0.33, "mean_gain": 0.001, "seconds": 0.0, "gain_per_s": None,
    },
    "semantic": {
        "proposals": 40, "valid": 37, "repeats": 2, "wins": 16, "win_rate": 0.4, "win_rate_low": 0.263,
        "win_rate_high": 0.554, "mean_gain": 0.004, "seconds": 80.0, "gain_per_s": 0.002,
    },
}  # fmt: skip


def detailed(status: StatusObject) -> str:
    return render(status, detail_rows(status))


def test_a_running_daemon_is_asked(tmp_path: Path) -> None:
    with daemon(tmp_path, {"ok": True, "status": status_object()}) as requests:
        status = collect(StatePaths(tmp_path))
    assert requests == [{"verb": "status", "state": str(tmp_path)}]
    assert status["source"] == "daemon"
    assert status["alive"]
    assert exit_code(status["state"]) == 0


@pytest.mark.parametrize("state", ["geometric only", "model gone"])
def test_why_no_model_writes_is_shown(state: str) -> None:
    text = render(status_object(cognition={"state": state, "model": None, "reason": "run something"}))
    assert f"{state}: run something" in text
    assert "run something" not in render(status_object(cognition={"state": "model", "reason": "run something"}))


def test_what_was_given_up_and_how_the_predictor_does_are_shown() -> None:
    counts = {"unique": 80, "cache_hits": 2, "failed": 0, "dropped": 31, "audited": 4, "missed": 1}
    screening = {"examples": 60, "prior": 400, "interval": 0.9, "covered": 0.87, "related": 0.931}
    text = detailed(status_object(evaluations=counts, screening=screening))
    assert "31 candidates given up on a lower rung; 1 of 4 tested would have mattered" in text
    assert "a predictor knows 460 evaluations; 87 % of its latest 90 % intervals held; another oracle's are" in text
    assert "are followed, rank correlation 0.93" in text
    quiet = detailed(status_object(evaluations={**counts, "dropped": 0}, screening={**screening, "covered": None}))
    assert "given up" not in quiet
    assert "predictor" not in quiet


def test_the_test_pictures_come_before_those_that_chose_the_leader_and_what_is_as_good_is_named() -> None:
    leader = status_object()["leader"]
    assert leader is not None
    fastest = {"architecture_key": "k", "latency_ms": 1.2, "accuracy": 0.78, "difference": -0.003}
    fastest |= {"difference_error": 0.004, "p": 0.51}
    test = {"accuracy": 0.783, "accuracy_error": 0.0123, "pictures": 400, "views": 8, "fastest_equal": fastest}
    status = checked_status(status_object(leader={**leader, "tries": 130, "images": 3200}, test=test))
    assert status is not None
    lines = [line[13:] for line in render(status).splitlines()]
    at = lines.index("78.30 % ± 1.23 on 400 test pictures, 8 views each, that chose nothing")
    assert lines[at + 1] == "81.00 % on 3200 validation images, the best of 130 tries"
    assert lines[at + 2].endswith("and faster: 1.200 ms (-0.30 ± 0.40 points, p = 0.51)")
    assert lines[at + 3] == "1.700 ms, within the target of 1.900 ms"
    assert "leader 78.30 % on test at" in one_line(status)
    assert "leader 81.00 % on validation at" in one_line(status_object(leader={**leader, "images": 3200}))
    assert "no test: they are gone" in render(status_object(test={"reason": "they are gone"}))


def test_the_journal_alone_tells_what_the_test_pictures_said(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal.db", [(individual(0, ("a", 0.75, 1.5)),)], finished=True)

    async def write() -> None:
        async with await JournalWriter.open(tmp_path / "journal.db") as journal:
            for key, accuracy in (("b", 0.1), ("a", 0.5)):
                await journal.put_event(NetworkJudged(run_id=1, architecture_key=key, accuracy=accuracy, pictures=9))

    asyncio.run(write())
    test = collect(StatePaths(tmp_path))["test"]
    assert test == {"accuracy": 0.5, "accuracy_error": None, "pictures": 9, "views": 1}


def test_a_state_that_claims_to_run_without_a_daemon_is_that_of_a_killed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status.json").write_text(json.dumps(status_object(go_on="riwoad --config /c.toml")))
    (tmp_path / "lock").write_text("123\n")  # left behind by SIGKILL, held by nobody
    assert main(["status", "--state", str(tmp_path)]) == 3
    out = capsys.readouterr().out
    assert out.startswith("state        killed after 1970-01-01")
    assert "the daemon was killed, or lost power, after" in out
    assert "while running; nothing committed is lost" in out
    assert "go on        riwoad --config /c.toml" in out
    assert "81.00 %" in out
    assert "oracle-0" not in out


@pytest.mark.parametrize(("left_behind", "code"), [("finished", 0), ("stopped", 3), ("unhealthy", 4)])
def test_the_last_state_of_a_daemon_that_ended_is_kept(left_behind: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps(status_object(state=left_behind)))
    status = collect(StatePaths(tmp_path))
    assert (status["state"], status["alive"], exit_code(status["state"])) == (left_behind, False, code)


def test_a_daemon_that_holds_the_state_but_never_answers_is_unhealthy(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps(status_object()))
    with daemon(tmp_path, None):
        status = collect(StatePaths(tmp_path))
    assert status["state"] == "unhealthy"
    assert exit_code(status["state"]) == 4
    assert f"process {os.getpid()} holds" in (status["message"] or "")


@pytest.mark.parametrize(("age_s", "state"), [(5.0, "starting"), (300.0, "unhealthy")])
def test_a_starting_daemon_that_is_too_busy_to_answer_is_unhealthy_only_if_it_said_nothing_for_long(
    age_s: float, state: str, tmp_path: Path
) -> None:
    said = status_object(state="starting", updated_unix_s=time.time() - age_s)
    (tmp_path / "status.json").write_text(json.dumps(said))
    with daemon(tmp_path, None):
        assert collect(StatePaths(tmp_path))["state"] == state


def test_a_daemon_that_has_the_lock_but_no_socket_yet_is_starting(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps(status_object(pid=1)))  # of the daemon before
    with held_lock(tmp_path):
        status = collect(StatePaths(tmp_path))
    assert (status["state"], status["pid"]) == ("starting", os.getpid())


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    with held_lock(tmp_path):
        pass
    collect(StatePaths(tmp_path))
    with held_lock(tmp_path):  # would block were it still held
        pass


@pytest.mark.parametrize("damage", ODD_BYTES.values(), ids=ODD_BYTES)
@pytest.mark.parametrize(("finished", "code"), [(True, 0), (False, 3)])
def test_without_a_usable_status_file_the_journal_speaks(
    damage: bytes, finished: bool, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status.json").write_bytes(damage)
    write_journal(tmp_path / "journal.db", [(individual(0, ("a", 0.75, 1.5)),)] * 2, finished=finished)
    assert main(["status", "--json", "--state", str(tmp_path)]) == code
    status = json.loads(capsys.readouterr().out)
    assert status["source"] == "journal"
    assert status["run"]["generation"] == 2
    assert status["leader"]["accuracy"] == 0.75
    assert status["leader"]["origin"] == [1, 0]


@pytest.mark.parametrize("place", ["fifo", "directory", "/dev/zero"])
def test_what_is_no_status_file_is_none(place: str, tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    if place == "fifo":
        os.mkfifo(file)
    elif place == "directory":
        file.mkdir()
    else:
        file.symlink_to(place)
    assert collect(StatePaths(tmp_path))["state"] == "none"


@pytest.mark.parametrize("answer", ODD_BYTES.values(), ids=ODD_BYTES)
def test_a_daemon_that_answers_nonsense_is_unhealthy_and_every_verb_says_so_in_a_line(
    answer: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status.json").write_text(json.dumps(status_object()))
    with daemon(tmp_path, answer + b"\n"):
        assert main(["pause", "--state", str(tmp_path)]) in (69, 77)
        assert len(capsys.readouterr().err.splitlines()) == 1
    with daemon(tmp_path, b'{"ok": true, "status": ' + answer + b"}\n"):
        status = collect(StatePaths(tmp_path))
    assert (status["state"], status["alive"]) == ("unhealthy", True)
    assert f"process {os.getpid()} holds" in (status["message"] or "")


def test_an_answer_in_drops_is_not_waited_for_longer_than_none(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with daemon(tmp_path, itertools.repeat(b"x", 200)):
        with pytest.raises(SilentError, match="no answer"):
            ask(StatePaths(tmp_path), "status", 1.0)
        assert time.monotonic() - began_s < 3


@pytest.mark.parametrize(
    "refusal", [{}, {"error": 5}, {"error": ["x"], "exit_code": "many"}, {"error": "", "exit_code": 10**30}]
)
def test_an_odd_refusal_is_a_refusal(refusal: dict[str, Any], tmp_path: Path) -> None:
    with daemon(tmp_path, {"ok": False, **refusal}), pytest.raises(ControlError, match="without a reason") as caught:
        ask(StatePaths(tmp_path), "pause", 5.0)
    assert caught.value.exit_code == 77


WHOLE = status_object(
    proposals=PROPOSALS, operators=OPERATORS, cognition={"state": "model gone", "model": "m", "reason": "r"},
    screening={"examples": 60, "prior": 400, "interval": 0.9, "covered": 0.87},
    evaluations={"unique": 80, "cache_hits": 2, "failed": 0, "dropped": 31, "audited": 4, "missed": 1, "per_s": 2.0},
    governor={"holds": {"load": "3 runnable threads"}, "readings": {"load_per_core": 3.0}},
)  # fmt: skip


@settings(max_examples=examples(300), deadline=None)
@given(mutated(WHOLE))
def test_no_status_of_odd_fields_is_more_than_a_reader_can_take(odd: dict[str, Any]) -> None:
    checked = checked_status(odd)
    if checked is None:
        assert not isinstance(odd.get("state"), str)
        return
    for alive in (True, False):
        shown: StatusObject = {**checked, "alive": alive}
        for columns in (None, 5, 40):
            text = render(shown, detail_rows(shown), columns=columns)
            assert all(line.isprintable() for line in text.splitlines())
        json.dumps(shown)
        exit_code(shown["state"])
    assert progress_lines(checked)
    one_line(checked)


def test_where_there_are_no_latencies_none_is_shown() -> None:
    whole = status_object()
    run, leader = whole["run"], whole["leader"]
    assert run is not None
    assert leader is not None
    shown: StatusObject = {
        **whole,
        "run": {**run, "target_ms": None},
        "leader": {**leader, "latency_ms": 0.0},
        "alive": True,
    }
    assert " ms" not in one_line(shown)
    assert " ms" not in next(line for line in render(shown).splitlines() if line.startswith("best"))


def test_a_whole_status_passes_the_check_as_it_is() -> None:
    assert checked_status(WHOLE) == WHOLE
    assert checked_status(json.loads(json.dumps(status_object()))) == status_object()
    newer: dict[str, Any] = {**WHOLE, "a_part_of_the_future": [1, {"x": None}]}
    assert checked_status(newer) == newer


@pytest.mark.parametrize("offset_s", [-50 * 365 * 86_400, 365 * 86_400, 1e12, 1e14])
def test_a_clock_that_was_wrong_makes_no_odd_status(offset_s: float, tmp_path: Path) -> None:
    then = time.time() + offset_s
    (tmp_path / "status.json").write_text(json.dumps(status_object(started_unix_s=then, updated_unix_s=then)))
    status = collect(StatePaths(tmp_path))
    assert (status["state"], exit_code(status["state"])) == ("killed", 3)
    assert "was killed, or lost power" in render(status)
    assert " -" not in render({**status, "alive": True}).splitlines()[0]


def test_the_leaders_accuracy_is_shown_with_its_standard_error_where_images_were_drawn() -> None:
    leader = status_object()["leader"]
    assert leader is not None
    text = render({**status_object(leader={**leader, "accuracy_error": 0.0123}), "alive": True})
    assert "81.00 % ± 1.23" in text
    assert "81.00 %\n" in render({**status_object(leader={**leader, "accuracy_error": None}), "alive": True})


def test_a_damaged_journal_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database, but long enough to look like one" * 100)
    assert main(["status", "--state", str(tmp_path)]) == 65
    assert "journal.db is not a journal" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"run": None, "leader": None, "evaluations": None, "config": None, "workers": [], "time_left_s": None},
        {"proposals": {"model": "scripted:good", "lag": 1, "waiting": 2, "answered": 3, "fallbacks": 1}},
        {"proposals": {**PROPOSALS, "patches": PATCHES}, "operators": OPERATORS},
        {"proposals": {**PROPOSALS, "server": SERVER}},
        {"proposals": {**PROPOSALS, "learning": {**PROPOSALS["learning"], "adapter": None, "swap": 9}}},
        {"state": "paused", "leader": {"accuracy": 0.5, "latency_ms": 3.0, "feasible": False, "origin": [0, 1]}},
    ],
)
def test_every_shape_of_status_is_readable(changes: dict[str, Any]) -> None:
    for columns in (None, 40):
        status: StatusObject = {**status_object(**changes), "alive": True}
        text = render(status, detail_rows(status), columns=columns)
        assert all(line[13:14].strip() and line[12] == " " for line in text.splitlines())
        assert all(len(line) <= (columns or 2000) for line in text.splitlines())
        assert "None" not in text


def test_the_language_model_its_adapter_and_each_operators_credit_are_shown() -> None:
    text = detailed({**status_object(proposals=PROPOSALS, operators=OPERATORS), "alive": True})
    assert "smollm2@1234 (breaker open, 4 batches left: killed by signal 9), lag 1: 40 answered, 1 waiting" in text
    assert "93 % busy, 61 tokens a second, 2 restarts" in text
    assert "abababababab, since generation 12; trainings: 2 accepted, 1 rejected, 0 failed" in text
    assert "; room for 3 in all" in text
    assert "inherited    0123456789ab of run 1, the same task; not in force before" in text
    assert "not the adapters of run 2: another base model (m@1)" in text
    assert "damaged, gone or refused, an older one is used: cdcdcdcdcdcd" in text
    semantic = "semantic  16 of 40 beat the parent: 40 % (26 to 55), 0.400 points gained a proposal of 2.00 s"
    assert f"{semantic}; 3 not valid; 2 repeats" in text
    assert text.index("semantic  16") < text.index("spiral    10")  # the most winning first


def test_what_the_search_made_of_the_patches_and_who_brought_the_leaders_is_shown() -> None:
    operators = {name: {**row, "leaders": n} for n, (name, row) in enumerate(OPERATORS.items(), start=1)}
    operators["init"] = {**OPERATORS["spiral"], "proposals": 0, "win_rate": 0.0, "leaders": 4}
    status = status_object(proposals={**PROPOSALS, "patches": PATCHES}, operators=operators)
    checked = checked_status(json.loads(json.dumps(status)))
    assert checked is not None
    text = detailed({**checked, "alive": True})
    assert (
        "patches      12 of 340 picked (4 %), 5 beat the parent; led to 31, 9 beat it; 25 % of the picked are" in text
    )
    assert "the greedy rule's; 3.12 s of the model each" in text
    assert "against what would have been asked without them: +0.12 points (-0.05 to +0.30, 8 pairs)" in text
    assert "new leaders  init 4, semantic 2, spiral 1; 2 of them came of the model's patches" in text
    assert "credit       init" not in text  # it has no parent to beat
    few = {**PATCHES, "greedy_share": None, "pairs": 1, "gain": None, "gain_low": None, "gain_high": None}
    text = detailed(status_object(proposals={**PROPOSALS, "patches": few}, operators=OPERATORS))
    assert "against what would have been asked without them: 1 pair evaluated" in text
    assert "new leaders" not in text


def test_what_a_model_on_a_server_costs_and_that_it_does_not_learn_is_shown() -> None:
    proposals = {**PROPOSALS, "model": "http:qwen2.5:7b", "state": "ready", "reason": None, "server": SERVER}
    text = detailed({**status_object(proposals=proposals), "alive": True})
    assert "qwen2.5:7b at http://box:11434/v1: 12,690 tokens since noon of 200,000, cost 0.031; a model on" in text
    assert "40,000 tokens read and 2,000 written in this run, cost 1.50; it takes the schema of legal patches" in text
    assert "trainings" not in text
    silent = {**SERVER, "model": None, "budget": None, "night_cost": None, "constrained": False}
    silent["changed"] = "b (2) since generation 7, a (1) before"
    text = detailed(
        {**status_object(proposals={**proposals, "state": "budget spent", "server": silent}), "alive": True}
    )
    assert "qwen2.5:7b at http://box:11434/v1: 12,690 tokens since noon; they are spent, it is asked again at" in text
    assert "the server's model changed in the run: b (2) since generation 7, a (1) before" in text
    assert "it takes no schema" in text


def test_the_config_error_and_the_target_are_shown() -> None:
    text = render({**status_object(), "alive": True})
    assert "wrong        configuration, the old one stays: oracle.workers = 0, should be positive" in text
    assert "1.700 ms, within the target of 1.900 ms" in text


def test_what_people_ask_stands_in_the_order_in_which_they_ask_and_the_inner_life_waits_for_verbose() -> None:
    whole = status_object(proposals=PROPOSALS, operators=OPERATORS, config=None, state_since_unix_s=time.time() - 60)
    improved = {"generation": 5, "found_unix_s": time.time() - 30, "operator": "climb", "metric": "accuracy"}
    improved |= {"value": 0.81, "former_value": 0.8088}
    status: StatusObject = {**whole, "alive": True, "improvement": improved}  # type: ignore[typeddict-item]
    lines = render(status).splitlines()
    names = [line[:13].strip() for line in lines if line[:13].strip()]
    assert names == ["state", "now", "best", "latency", "progress", "time left", "improved", "wrong", "files"]
    assert lines[0].startswith("state        running for 1 min 00 s, since ")
    assert "improved     30 s ago: +0.12 points, by guided step (climb) in generation 5" in lines
    assert "time left    about 55 s of search and polish; then the winner is judged, timed and exported" in lines
    assert any("the language model: breaker open, 4 batches left: killed by signal 9" in line for line in lines)
    assert not any(word in "\n".join(lines) for word in ("credit", "adapter  ", "digest", "oracle-0", "revision"))
    more = detailed(status)
    assert all(f"\n{name}" in more for name in ("credit", "adapter", "digest", "workers", "run"))


def test_the_bound_that_ends_the_run_first_is_its_progress() -> None:
    run = {**(status_object()["run"] or {}), "generations": 200, "generation": 23, "most_evaluations": 150}
    status: StatusObject = {**status_object(run=run, evaluations={"unique": 92, "per_s": 4.6}), "alive": True}
    assert "progress     92 of 150 evaluations (61 %), generation 23; 4.6 a second" in render(status)
    assert "search 92 of 150 evaluations" in one_line(status)
    slow: StatusObject = {**status, "run": {**run, "most_evaluations": 9000}}  # type: ignore[typeddict-item]
    assert "progress     generation 23 of 200 (12 %), 92 evaluations; 4.6 a second" in render(slow)
    assert "time left    unknown" in render({**slow, "time_left_s": None})


def test_the_journal_alone_tells_how_the_leader_was_found(tmp_path: Path) -> None:
    found = [(individual(0, ("a", 0.75, 1.5)),), (individual(0, ("b", 0.76, 1.5)),)]
    write_journal(tmp_path / "journal.db", found)
    status = collect(StatePaths(tmp_path))
    assert ": +1.00 points, by random draw (init) in generation 1" in render(status)
    assert f"go on        riwoad --state {tmp_path}" in render(status)
    assert "2 of" not in render(status)


def test_what_each_strategy_of_prompt_has_won_is_shown_with_its_interval() -> None:
    prompts = {
        "pool_lessons": {"joined": 12, "won": 5, "win_rate_low": 0.193, "win_rate_high": 0.68},
        "pool_newest": {"joined": 0, "won": 0, "win_rate_low": 0.0, "win_rate_high": 1.0},
    }
    text = detailed({**status_object(proposals={**PROPOSALS, "prompts": prompts}), "alive": True})
    assert "pool_lessons: 5 of 12 replies won: 42 % (19 to 68)" in text
    assert "pool_newest: 0 of 0 replies won: 0 % (0 to 100)" in text


CLUSTER = {
    "address": "auto",
    "queued": 3,
    "retried": 1,
    "asked_twice": 2,
    "connections": 2,
    "lost": None,
    "nodes": [
        {"name": "first", "address": "10.0.0.1", "cpus": 8.0, "gpus": 0.0, "workers": 2, "busy": 1, "refused": None},
        {"name": "second", "address": "10.0.0.2", "cpus": 4.0, "gpus": 1.0, "workers": 0, "busy": 0,
         "refused": "it has numpy 1.26.4, this machine 2.4.0; install the same there"},
    ],
}  # fmt: skip


def test_a_cluster_s_nodes_queue_and_workers_are_shown() -> None:
    workers: list[Any] = [
        {"name": "oracle-0", "state": "busy", "job": "x", "since_s": 1.0, "done": 4, "restarts": 0, "busy_share": 0.5,
         "pid": 5, "node": "first", "says": None},
        {"name": "oracle-1", "state": "starting", "job": None, "since_s": 1.0, "done": 0, "restarts": 0,
         "busy_share": 0.0, "pid": None, "node": None, "says": "the worker or its node died"},
    ]  # fmt: skip
    status: StatusObject = {**status_object(cluster=CLUSTER, workers=workers), "alive": True}
    checked = checked_status(json.loads(json.dumps(status)))
    assert checked is not None
    assert checked["cluster"] == CLUSTER
    more = " ".join(detailed(checked).split())
    assert "2 nodes, 1 of 2 workers evaluate, 3 evaluations wait; 1 given to another worker; 2 asked twice" in more
    assert "connected 2 times" in more
    assert "first 10.0.0.1, 8 cores; 1 of 2 workers evaluate" in more
    assert "second 10.0.0.2, 4 cores, 1 GPUs; not used: it has numpy 1.26.4" in more
    assert "oracle-0 busy for 1.0 s; 4 done, 50 % busy, on first" in more
    assert "; the worker or its node died" in more
    assert "node second is not used: it has numpy 1.26.4" in " ".join(render(checked).split())


def test_a_cluster_that_is_lost_is_among_what_is_wrong() -> None:
    lost = {**CLUSTER, "nodes": [], "lost": "no Ray cluster answers at auto"}
    status: StatusObject = {**status_object(cluster=lost), "alive": True}
    assert "the cluster is lost, for now: no Ray cluster answers at auto" in " ".join(render(status).split())
    assert "lost: no Ray cluster answers at auto" in " ".join(detailed(status).split())


def test_the_champion_is_shown_and_how_it_did_on_fresh_pictures(tmp_path: Path) -> None:
    paths, folder = StatePaths(tmp_path), tmp_path / "champions"
    assert collect(paths)["champion"] is None
    folder.mkdir()
    decisions = [("promoted", "aa"), ("promoted", "bb"), ("rolled back", "aa"), ("refused", "cc"), ("searching", "aa")]
    rows = [
        {"decision": decision, "champion": name, "why": f"why {i}", "unix_s": 1e9 + i}
        for i, (decision, name) in enumerate(decisions)
    ]
    record = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "record.jsonl").write_text(record + '{"decision": "promoted", "cham')  # torn by a kill
    status = collect(paths)
    assert status["champion"] == {"name": "aa", "since_unix_s": 1e9, "why": "why 0", "watched": None}
    assert "watched" not in render(status)
    now = {"value": 0.91, "error": 0.012, "pictures": 1200, "views": 1}
    look = {"folder": "today", "unix_s": 1e9 + 9, "verdict": "holds", "now": now, "acts_below": 0.88}
    (folder / "watch.json").write_text(json.dumps({"champion": "bb", **look}))  # of the one before
    assert collect(paths) == status
    (folder / "watch.json").write_text(json.dumps({"champion": "aa", **look}))
    status = collect(paths)
    text = render(status)
    assert "champion     aa, since 2001-09-" in text
    assert ": holds, 91.00 % ± 1.20 on 1,200 pictures; it searches again below 88.00 %" in text
    assert (status["state"], exit_code(status["state"])) == ("none", 3)


@pytest.mark.parametrize("content", ODD_BYTES.values(), ids=ODD_BYTES)
def test_a_record_of_champions_that_is_none_is_no_champion(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "champions").mkdir()
    (tmp_path / "champions/record.jsonl").write_bytes(content)
    assert collect(StatePaths(tmp_path))["champion"] is None
    (tmp_path / "champions/record.jsonl").write_text('{"decision": "promoted", "champion": "a", "unix_s": 1e15}\n')
    (tmp_path / "champions/watch.json").write_bytes(content)
    assert "champion     a, since " in render(collect(StatePaths(tmp_path)))
