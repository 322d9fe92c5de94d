import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from riwoa.ctl import main
from riwoa.oracle.answers import pack_answers
from riwoa_storage.events import NetworkJudged
from riwoa_storage.writer import JournalWriter

from .support import individual, write_journal

_NAN = float("nan")
_FIRST = (individual(0, ("slow", 0.9, 5.0)), individual(1, ("dominated", 0.5, 1.5)), individual(2, ("failed", _NAN, 0)))
_SECOND = (individual(0, ("fast", 0.6, 1.0)), individual(1, ("good", 0.8, 1.9)))


def judged(state: Path, right: Mapping[str, Sequence[int]], pictures: int = 100) -> None:
    """Judge networks of the run: each reads these pictures right."""

    async def write() -> None:
        async with await JournalWriter.open(state / "journal.db") as journal:
            for key, numbers in right.items():
                correct = pack_answers(np.isin(np.arange(pictures), numbers))
                event = NetworkJudged(run_id=1, architecture_key=key, accuracy=0.5, pictures=pictures, correct=correct)
                await journal.put_event(event)

    asyncio.run(write())


def test_the_front_is_recomputed_from_the_journal_with_the_leader_and_the_target_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST, _SECOND])
    assert main(["pareto", "--json", "--state", str(tmp_path)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [(p["architecture_key"], p["leader"]) for p in data["front"]] == [
        ("fast", False),
        ("good", True),  # the most accurate within the target, though "slow" is more accurate
        ("slow", False),
    ]
    assert data["target_ms"] == 2.0


def test_only_what_is_on_the_front_is_read_and_that_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST, _SECOND])

    def spoil(generation: int, slot: int) -> int:
        with closing(sqlite3.connect(tmp_path / "journal.db")) as db, db:
            db.execute("UPDATE individuals SET operator = 'x' WHERE generation = ? AND slot = ?", (generation, slot))
        return main(["pareto", "--state", str(tmp_path)])

    assert spoil(0, 1) == 0  # dominated
    assert spoil(0, 0) == 65
    assert "riwoactl" in capsys.readouterr().err


def test_the_table_says_which_networks_meet_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST, _SECOND])
    assert main(["pareto", "--state", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "latency target 2.000 ms" in lines[0]
    assert [" yes " in line for line in lines[2:5]] == [True, True, False]
    assert [line.startswith("*") for line in lines[2:5]] == [False, True, False]


def test_networks_that_the_test_pictures_cannot_tell_from_the_leader_are_marked_and_the_fastest_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST, (*_SECOND, individual(2, ("quick", 0.75, 1.4)))])
    right = {"good": range(80), "quick": range(3, 80), "fast": range(60), "slow": range(90)}
    judged(tmp_path, {key: list(numbers) for key, numbers in right.items()})
    assert main(["pareto", "--json", "--state", str(tmp_path)]) == 0
    data = json.loads(capsys.readouterr().out)
    against = {row["architecture_key"]: row["against_leader"] for row in data["front"]}
    assert against["good"] is None
    assert {key: found["equal"] for key, found in against.items() if found} == {
        "fast": False,
        "quick": True,
        "slow": False,  # clearly better, but beyond the target
    }
    assert against["quick"]["difference"] == pytest.approx(-0.03)
    assert against["quick"]["p"] == pytest.approx(0.25)  # 3 pictures to none
    assert data["test"]["accuracy"] == pytest.approx(0.8)
    assert data["test"]["fastest_equal"]["architecture_key"] == "quick"
    assert (data["test"]["judged"], data["test"]["equal"]) == (4, 1)
    assert main(["pareto", "--state", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (head, quick, good) = (next(line for line in lines if word in line) for word in ("less the", "1.400", "1.900"))
    assert head.index("test") < head.index("validation")
    assert "77.00 %  -3.00 ± 1.71  =" in quick
    assert good.startswith("*")
    assert "=" not in good
    assert any("1.400 ms (-3.00 ± 1.71 points, p = 0.25)" in line for line in lines)
    assert any("80.00 %, the best of 3 tries" in line for line in lines)


def test_a_faster_network_beyond_another_limit_is_no_substitute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objective = {"constraints": ["latency_ms >= 1.5"]}  # of whatever metric
    write_journal(tmp_path / "journal.db", [(*_SECOND, individual(2, ("quick", 0.75, 1.4)))], objective=objective)
    judged(tmp_path, {"good": list(range(80)), "quick": list(range(3, 80))})
    assert main(["pareto", "--json", "--state", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["test"]["fastest_equal"] is None


@pytest.mark.parametrize(
    ("wish", "key"),
    [
        (["--within", "2ms"], "good"),
        (["--within", "900000us"], "slow"),  # any latency: the most accurate
        (["--within", "1.8999ms"], "fast"),  # not the winner, which takes 1.9 ms
        (["--prefer", "accuracy=0.7,latency=0.3"], "good"),
        (["--prefer", "latency=20,accuracy=1"], "fast"),
        (["--prefer", "accuracy=20,latency=1"], "slow"),
        (["--within", "2ms", "--prefer", "accuracy=20,latency=1"], "good"),
    ],
)
def test_a_run_answers_within_another_latency_and_by_weights(
    wish: list[str], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST, _SECOND])
    assert main(["pareto", *wish, "--json", "--state", str(tmp_path)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["network"]["architecture_key"], data["attainable_ms"]) == (key, [1.0, 5.0])


def test_another_network_keeps_the_further_limits_also_where_it_is_off_the_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"large": (0.9, 1.0, 9), "small": (0.7, 1.5, 3), "slow": (0.8, 3.0, 4)}  # value, ms, size
    group = tuple(
        replace(one, metrics={**one.metrics, "size": size})
        for one, size in (
            (individual(n, (key, value, ms)), size) for n, (key, (value, ms, size)) in enumerate(rows.items())
        )
    )
    write_journal(tmp_path / "journal.db", [group], objective={"constraints": ["size <= 5"]})
    assert main(["pareto", "--within", "2ms", "--json", "--state", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["network"]["architecture_key"] == "small"
    assert main(["pareto", "--within", "1.2ms", "--state", str(tmp_path)]) == 66
    assert "the fastest of those that keep its further limits takes 1.500 ms" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wish", "code", "hint"),
    [
        (["--within", "0.5ms"], 66, "takes 1.000 ms (60.00 %), the best 5.000 ms (90.00 %); name a latency from 1.000"),
        (["--within", "12"], 64, "needs a time with its unit"),
        (["--prefer", "fastest"], 64, "needs two weights above 0, such as accuracy=0.7,latency=0.3"),
        (["--prefer", "accuracy=1"], 64, "needs two weights"),
        (["--prefer", "top_1=1,latency=1"], 66, "run 1 raises accuracy"),
    ],
)
def test_what_no_network_answers_is_said_with_what_is_attainable(
    wish: list[str], code: int, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST, _SECOND])
    assert main(["pareto", *wish, "--state", str(tmp_path)]) == code
    assert hint in capsys.readouterr().err


def test_what_test_pictures_say_of_another_network_comes_first_and_silence_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST, _SECOND])
    asked = ["pareto", "--within", "1.5ms", "--state", str(tmp_path)]
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "which has not ended" in out
    assert "not known: a run judges its front" in out
    judged(tmp_path, {"good": range(80)})
    assert main(asked) == 0
    assert "not known: it was not judged with the front" in capsys.readouterr().out
    judged(tmp_path, {"fast": range(60)})
    assert main(asked) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1].startswith("test        60.00 % ± 4.")
    assert lines[2].startswith("less the run's winner: -20.00")
    assert "`riwoactl export --within 1.5ms` writes it." in lines


def test_where_no_network_was_judged_it_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST, _SECOND])

    async def write() -> None:
        async with await JournalWriter.open(tmp_path / "journal.db") as journal:
            await journal.put_event(NetworkJudged(run_id=1, architecture_key="good", error="none are left"))

    asyncio.run(write())
    assert main(["pareto", "--state", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "on test pictures: none: none are left" in out
    assert "less the leader" not in out


def test_a_run_without_evaluations_has_no_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", [])
    assert main(["pareto", "--state", str(tmp_path)]) == 0
    assert "no evaluation was committed yet" in capsys.readouterr().out


def test_an_unknown_run_exits_66(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_journal(tmp_path / "journal.db", [_FIRST])
    assert main(["pareto", "--run", "7", "--json", "--state", str(tmp_path)]) == 66
    assert "has no run 7" in json.loads(capsys.readouterr().out)["error"]
