import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.bench import contest
from riwoa.bench.arena import Arena, Found
from riwoa.bench.contest import SearchFile, Settings
from riwoa.bench.contestants import Contestant
from riwoa.bench.landscape import Landscape
from riwoa.bench.measures import ladder, summary
from riwoa.bench.own import OwnSearch, remembered_by
from riwoa.bench.table import Constraint, Question, TableLandscape, bench_table
from riwoa.errors import InputError, StateDirectoryError, UsageError
from riwoa.search.space import IntArray
from riwoa.search.strategies import STRATEGIES
from tests.support.official import official_data

OPS = np.array(list(itertools.product(range(4), repeat=5)), dtype=np.uint8)  # 1,024 architectures
VALUE = 50.0 + OPS.sum(axis=1) + (OPS[:, 0] == 3) * 2.0
COST_MS = 1.0 + OPS.astype(float).sum(axis=1)
UNRACED = [*STRATEGIES, "riwoa-blind", "riwoa-unscreened"]
QUESTION = Question(genes="ops", kind="nominal", maximize="value", report="test")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    np.savez(tmp_path / "t.npz", ops=OPS, value=VALUE, test=VALUE - 3)
    np.savez(tmp_path / "cost.npz", phone_ms=COST_MS, joules=COST_MS[::-1] * 2)
    return tmp_path / "t.npz"


def searched(strategy: str, seed: int, landscape: Landscape, budget: int) -> Found:
    return contest.search(Contestant.parse(strategy), seed, landscape, budget)


def endless(landscape: TableLandscape) -> TableLandscape:
    """Whose best nobody knows: a search would end where it meets it."""
    landscape.best = math.inf
    return landscape


def untimed(result: dict[str, Any]) -> dict[str, Any]:
    rows = [{**row, "own_ms_a_query": None, "own_s_mean": None} for row in result["rows"]]
    return {**result, "rows": rows, "searches": [{**row, "own_s": None} for row in result["searches"]]}


def limited(*constraints: Constraint) -> Question:
    return Question(genes="ops", kind="nominal", maximize="value", constraints=constraints)


@pytest.mark.parametrize("strategy", UNRACED)
def test_a_search_spends_its_budget_on_architectures_that_it_has_not_met(table: Path, strategy: str) -> None:
    landscape = endless(TableLandscape(table, QUESTION))
    found = searched(strategy, 3, landscape, 25)
    assert found.queries == 25  # not a multiple of the population
    counts = [count for count, _ in found.improvements]
    values = [value for _, value in found.improvements]
    assert counts[0] == 1
    assert found.row is not None
    assert values[-1] == VALUE[found.row]
    assert counts == sorted(set(counts))
    assert values == sorted(set(values))
    assert counts[-1] <= 25
    assert searched(strategy, 3, landscape, 25) == found
    assert searched(strategy, 4, landscape, 25) != found


def test_a_search_ends_where_it_meets_the_best_there_is(table: Path) -> None:
    found = searched("local", 3, TableLandscape(table, QUESTION), 1000)
    assert found.queries < 1000
    assert found.improvements[-1] == (found.queries, VALUE.max())


@pytest.mark.parametrize("strategy", ["riwoa-raced", "random-raced", "woa-raced"])
def test_a_race_looks_at_more_architectures_for_the_same_budget(tmp_path: Path, strategy: str) -> None:
    early = VALUE + np.random.default_rng(0).normal(0.0, 0.3, len(VALUE))
    np.savez(tmp_path / "t.npz", ops=OPS, value=VALUE, early=early)
    question = Question("ops", "nominal", "value", low_fidelity="early", low_fidelity_cost=0.1)
    landscape = endless(TableLandscape(tmp_path / "t.npz", question))
    found = searched(strategy, 3, landscape, 100)
    assert found.given_up > 5
    full = found.queries - found.given_up
    spent = full + 0.1 * found.queries
    assert full < 100
    assert spent < 101.1 or found.repeats > 0
    assert found.improvements[-1][0] <= 101
    assert found.row is not None
    assert found.improvements[-1][1] == VALUE[found.row]
    assert searched(strategy, 3, landscape, 100) == found


def test_who_races_needs_something_cheap(table: Path) -> None:
    with pytest.raises(UsageError, match="name them with --low-fidelity"):
        searched("riwoa-raced", 0, TableLandscape(table, QUESTION), 25)


def test_who_remembers_an_earlier_search_begins_with_its_best(tmp_path: Path) -> None:
    related = 2 * VALUE + np.cos(np.arange(1024.0))
    np.savez(tmp_path / "t.npz", ops=OPS, value=VALUE, other=related)
    for column, same in (("other", False), ("value", True)):
        question = dataclasses.replace(QUESTION, report=None, after=column)
        landscape = TableLandscape(tmp_path / "t.npz", question)
        known = remembered_by(Contestant.parse("gp-after"), 0, landscape, 30)
        assert known.start is not None
        assert ((known.prior is not None), len(known.related)) == (same, 0 if same else 1)
        warm, cold = (searched(name, 0, landscape, 30) for name in ("gp-after", "gp"))
        assert warm.improvements[0][1] > cold.improvements[0][1]
        assert warm.queries <= cold.queries
    with pytest.raises(UsageError, match="say what with --after"):
        searched("gp-after", 0, TableLandscape(tmp_path / "t.npz", dataclasses.replace(QUESTION, report=None)), 30)


def test_queries_are_counted_in_slot_order_and_repeats_are_free(table: Path) -> None:
    landscape = endless(TableLandscape(table, QUESTION))
    queried: list[bytes] = []
    original = landscape.table.row

    def row(indices: IntArray) -> int | None:
        queried.append(indices.tobytes())
        return original(indices)

    object.__setattr__(landscape.table, "row", row)
    found = searched("random", 0, landscape, 1000)
    assert len(queried) == len(set(queried)) == found.queries == 1000
    assert found.repeats > 100


def test_a_space_that_is_exhausted_ends_the_search(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", g=np.arange(6), value=np.arange(6.0))
    landscape = endless(TableLandscape(tmp_path / "t.npz", Question("g", "ordered", "value")))
    found = searched("random", 0, landscape, 100)
    assert found.queries == 6
    assert found.improvements[-1][1] == 5.0


def test_what_the_table_does_not_know_is_counted_as_a_failure(tmp_path: Path) -> None:
    there = OPS.sum(axis=1) % 3 != 0
    value = VALUE[there]
    value[::5] = np.nan
    np.savez(tmp_path / "part.npz", ops=OPS[there], value=value)
    landscape = endless(TableLandscape(tmp_path / "part.npz", Question("ops", "nominal", "value")))
    assert math.isnan(landscape.measure(OPS[0].astype(np.int64)).value)  # has no row
    assert math.isnan(landscape.measure(OPS[there][0].astype(np.int64)).value)  # has one, without a number
    assert landscape.measure(OPS[there][1].astype(np.int64)).value == value[1]
    found = searched("random", 1, landscape, 300)
    assert found.queries == 300
    expected = 300 * (1 - np.isfinite(value).sum() / len(OPS))
    assert 0.7 * expected < found.failed < 1.3 * expected
    assert found.improvements


def test_a_constraint_of_a_joined_file_holds(table: Path) -> None:
    question = limited(Constraint("phone_ms", 7.0))
    landscape = TableLandscape(table, question, join=table.parent / "cost.npz")
    assert landscape.feasible_rows == int((COST_MS <= 7.0).sum())
    assert landscape.best_row == int(np.where(COST_MS <= 7.0, VALUE, -1).argmax())
    for strategy in UNRACED:
        found = searched(strategy, 0, landscape, 60)
        assert found.row is not None
        assert COST_MS[found.row] <= 7.0
        assert VALUE[found.row] == found.improvements[-1][1]
    beside = TableLandscape(table, limited(Constraint("cost.npz:phone_ms", 7.0)))
    np.testing.assert_array_equal(beside.load, landscape.load)


def test_several_constraints_hold_together(table: Path) -> None:
    question = limited(Constraint("phone_ms", 9.0), Constraint("joules", 20.0))
    landscape = TableLandscape(table, question, join=table.parent / "cost.npz")
    within = (COST_MS <= 9.0) & (COST_MS[::-1] * 2 <= 20.0)
    assert 0 < landscape.feasible_rows == int(within.sum()) < int((COST_MS <= 9.0).sum())
    found = searched("riwoa", 0, landscape, 60)
    assert found.row is not None
    assert within[found.row]


def test_riwoa_uses_the_constraint_that_is_free_to_ask(table: Path) -> None:
    question = limited(Constraint("cost.npz:phone_ms", 4.0))
    landscape = TableLandscape(table, question)

    def share_within(strategy: str) -> float:
        arena = Arena(landscape, 40)
        OwnSearch(Contestant.parse(strategy), 0, arena).run()
        asked = [m.load for m in arena.known.values()]
        return float(np.mean(np.array(asked) <= 1.0))

    assert share_within("riwoa") > 0.9
    assert share_within("riwoa-blind") < 0.5
    assert share_within("random") < 0.3


def test_a_limit_in_per_cent_is_what_so_many_rows_keep_to(table: Path) -> None:
    landscape = TableLandscape(table, limited(Constraint.parse("cost.npz:phone_ms<=25%")))
    assert landscape.feasible_rows == int((np.quantile(COST_MS, 0.25) >= COST_MS).sum())
    with pytest.raises(UsageError, match="more than 100 %"):
        Constraint.parse("ms<=101%")


def test_search_time_is_counted_in_seconds_where_a_column_has_them_else_in_epochs(table: Path) -> None:
    np.savez(table.parent / "cost.npz", phone_ms=COST_MS, s=COST_MS * 10)
    question = dataclasses.replace(QUESTION, seconds="cost.npz:s")
    timed = TableLandscape(table, question)
    found = searched("random", 0, timed, 20)
    assert found.times[0] == COST_MS[found.rows[0]] * 10
    assert list(found.times) == sorted(found.times)
    assert found.row == found.rows[-1]
    trained = searched("random", 0, TableLandscape(table, dataclasses.replace(QUESTION, epochs=200)), 20)
    assert trained.times == tuple(200.0 * queries for queries, _ in trained.improvements)


def test_a_limit_that_nothing_meets_is_refused(table: Path) -> None:
    with pytest.raises(InputError, match=r"no row meets cost\.npz:phone_ms <= 0\.5"):
        TableLandscape(table, limited(Constraint("cost.npz:phone_ms", 0.5)))


@pytest.mark.parametrize("text", ["ms", "ms<20", "ms<=", "<=20", "ms<=-1", "ms<=0", "ms<=nan", "ms<=fast", "ms>=3"])
def test_a_constraint_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="COLUMN<=NUMBER"):
        Constraint.parse(text)


def test_a_constraint_is_read_with_its_file(tmp_path: Path) -> None:
    assert Constraint.parse("latency.npz:2080ti_1_ms <= 6.5") == Constraint("latency.npz:2080ti_1_ms", 6.5)


def test_run_again_it_searches_nothing_and_finds_the_same(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, out = Settings(seeds=2, budget=40), table.parent / "s.jsonl"
    first = untimed(bench_table(settings, table, QUESTION, out=out))
    lines = out.read_text().splitlines()
    out.write_text("\n".join(lines[:3]) + '\n{"key": "cut by a ki')
    runs: list[Found] = []
    original = contest.search

    def search(*arguments: Any) -> Found:
        runs.append(original(*arguments))
        return runs[-1]

    monkeypatch.setattr(contest, "search", search)
    assert untimed(bench_table(settings, table, QUESTION, out=out)) == first
    assert len(runs) == 3
    assert untimed(bench_table(settings, table, QUESTION, out=out)) == first
    assert len(runs) == 3
    assert bench_table(Settings(2, 60), table, QUESTION, out=out)["searches"] != first["searches"]
    assert len(runs) == 9  # another question
    monkeypatch.setattr(contest, "POPULATION", 10)  # of the key
    bench_table(settings, table, QUESTION, out=out)
    assert len(runs) == 15


def test_lines_of_something_else_are_passed_over(tmp_path: Path) -> None:
    out, found = tmp_path / "s.jsonl", made("random", 1, (10, 5))
    file = SearchFile(out)
    file.put("key", found)
    file.close()
    ours = out.read_bytes()
    keyless, listed = json.loads(ours), json.loads(ours)
    del keyless["key"]
    listed["found"]["strategy"] = ["random"]
    foreign = [json.dumps(keyless).encode(), json.dumps(listed).encode(), b"\xff\xfe\x00", b"[]"]
    other = json.dumps({"key": "another question", "found": {}}).encode()
    out.write_bytes(b"\n".join([other, *foreign, ours]))
    file = SearchFile(out)
    file.close()
    assert file.get("key", "random", 1) == found


def test_a_file_of_before_there_was_one_kind_of_result_file_is_read(tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    found = (
        '{"strategy": "random", "seed": 1, "queries": 10, "failed": 0, "repeats": 2, "generations": 3, '
        '"improvements": [[1, 0.5], [4, 0.75]], "row": 7, "given_up": 0}'
    )
    out.write_text(f'{{"key": "a", "found": {found}}}\n{{"key": "a", "fou')
    file = SearchFile(out)
    file.close()
    assert file.get("a", "random", 1) == Found("random", 1, 10, 0, 2, 3, ((1, 0.5), (4, 0.75)), 7)


def test_a_file_that_cannot_be_written_is_named(table: Path) -> None:
    with pytest.raises(StateDirectoryError, match="name another --out"):
        SearchFile(table / "s.jsonl")


@pytest.mark.parametrize(
    ("budget", "steps"),
    [(7, [7]), (10, [10]), (192, [10, 20, 50, 100, 192]), (1000, [10, 20, 50, 100, 200, 500, 1000])],
)
def test_the_ladder_ends_at_the_budget(budget: int, steps: list[int]) -> None:
    assert ladder(budget) == steps


def made(strategy: str, seed: int, *rows: tuple[int, int]) -> Found:
    """A search that met rows of the table after so many queries, each a second longer than the one before."""
    improvements = tuple((queries, float(VALUE[row])) for queries, row in rows)
    found = tuple(row for _, row in rows)
    times, last = tuple(queries * (queries + 1) / 2 for queries, _ in rows), found[-1] if rows else None
    return Found(strategy, seed, 100, 0, 0, 5, improvements, last, rows=found, times=times, time=5050.0)


def test_the_summary_counts_queries_to_the_best_and_reports_what_no_search_saw(table: Path) -> None:
    landscape = TableLandscape(table, QUESTION)
    best = landscape.best_row
    assert VALUE[best] == VALUE.max() == 67.0
    ours = [made("riwoa", 0, (1, 0), (30, best)), made("riwoa", 1, (2, 0), (50, best)), made("riwoa", 2, (1, 0))]
    theirs = [made("random", seed, (1, 0)) for seed in range(3)]
    result = summary(Settings(3, 100, ("riwoa", "random")), landscape, [*ours, *theirs])
    riwoa, random = result["rows"]
    assert result["ladder"] == [10, 20, 50, 100]
    assert riwoa["curve_median"] == [50.0, 50.0, 67.0, 67.0]
    assert riwoa["curve_q25"] == [50.0, 50.0, 50.0, 50.0]
    assert (riwoa["reached_best_share"], riwoa["queries_to_best_median"]) == (pytest.approx(2 / 3), 50.0)
    assert (random["reached_best_share"], random["queries_to_best_median"]) == (0.0, None)
    assert (riwoa["missed"], riwoa["queries_to_best_mean"]) == (1, pytest.approx((30 + 50 + 100) / 3))
    assert (random["missed"], random["queries_to_best_mean"]) == (3, 100.0)
    assert riwoa["time_to_best_mean"] == pytest.approx((465 + 1275 + 5050) / 3)
    assert (random["time_to_best_mean"], random["time_mean"]) == (5050.0, 5050.0)
    assert result["time_ladder"] == pytest.approx([505, 1010, 2525, 5050])
    assert riwoa["time_curve_q75"] == [67.0, 67.0, 67.0, 67.0]
    assert riwoa["time_curve_median"] == [50.0, 50.0, 67.0, 67.0]
    [to_best] = result["comparisons_to_best"]
    assert (to_best["wins"], to_best["ties"], to_best["mean_difference"]) == (2, 1, pytest.approx(40.0))
    assert riwoa["regret_mean"] == pytest.approx([17.0, 17.0, 17.0 / 3, 17.0 / 3])
    assert riwoa["curve_report_mean"] == pytest.approx([47.0, 47.0, (64 + 64 + 47) / 3, (64 + 64 + 47) / 3])
    assert riwoa["value_mean"] == pytest.approx((67 + 67 + 50) / 3)
    assert riwoa["report_mean"] == pytest.approx((67 + 67 + 50) / 3 - 3)
    (comparison,) = result["comparisons"]
    assert (comparison["wins"], comparison["ties"], comparison["losses"]) == (2, 1, 0)
    assert result["ratio"] == pytest.approx(67 / 50)
    json.dumps(result, allow_nan=False)


def test_a_search_that_found_nothing_is_credited_with_the_worst_row(table: Path) -> None:
    landscape = TableLandscape(table, QUESTION)
    result = summary(Settings(1, 20, ("riwoa",)), landscape, [made("riwoa", 0)])
    (row,) = result["rows"]
    assert (row["value_mean"], row["found_share"], row["report_mean"]) == (50.0, 0.0, None)
    assert row["curve_median"] == [None, None]
    json.dumps(result, allow_nan=False)


def test_values_below_zero_are_searched_too(table: Path) -> None:
    np.savez(table, ops=OPS, value=VALUE - 100)
    landscape = TableLandscape(table, Question("ops", "ordered", "value"))
    assert searched("riwoa", 0, landscape, 100).improvements[-1][1] > -40
    np.savez(table.parent / "cost.npz", phone_ms=COST_MS)
    with pytest.raises(InputError, match="shift it above"):
        TableLandscape(table, limited(Constraint("cost.npz:phone_ms", 7.0)))


def test_on_nas_bench_201_riwoa_beats_woa_and_random_search() -> None:
    path = official_data("nas-bench-201/accuracy.npz")
    question = Question("ops", "nominal", "c100_val200", "c100_test200")
    result = bench_table(Settings(seeds=6, budget=120), path, question)
    assert (result["best"]["row"], result["best"]["rows"]) == (9930, 5**6)
    assert result["best"]["report"] == pytest.approx(73.5133, abs=1e-4)
    riwoa, woa, random = (row["value_mean"] for row in result["rows"])
    assert 73.5 > riwoa > max(woa, random)
    assert all(math.isfinite(row["report_mean"]) for row in result["rows"])
