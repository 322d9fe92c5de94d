"""``make bench``: the declared experiments, running them, the page and the pictures."""

import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.bench import plots, suite
from riwoa.bench.contest import Settings
from riwoa.bench.contestants import contestants
from riwoa.bench.experiments import (
    ABLATION,
    EXPERIMENTS,
    FRONT,
    LIMITS,
    NB201,
    SECTIONS,
    WHOLE,
    Experiment,
    Target,
    reached,
)
from riwoa.bench.front import Reference, bench_front
from riwoa.bench.functions import Ground, bench_functions
from riwoa.bench.page import BEGIN, END, WHOLE_BEGIN, WHOLE_END, draw, rendered, write_page
from riwoa.bench.peers import PEERS
from riwoa.bench.suite import Share, _commit, provenance, results, run_suite
from riwoa.bench.table import Question, bench_table
from riwoa.ctl import main
from riwoa.ctl.help import read_page
from riwoa.errors import InputError, UsageError
from riwoa.ipc.child import child_command, child_environment

OPS = np.array(list(itertools.product(range(4), repeat=4)))
VALUE = 50.0 + OPS.sum(axis=1) + (OPS[:, 0] == OPS[:, 1]) * 0.5
NAMES = ("riwoa", "woa", "random", "riwoa:screened=1,elitism=false")
QUESTION = Question("ops", "ordered", "value", epochs=200)
ARGUMENTS = ("{data}/t.npz", "--genes", "ops", "--ordered", "--maximize", "value", "--epochs", "200")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    hard = 50.0 + np.random.default_rng(0).permutation(len(OPS)) / 10.0
    np.savez(folder / "t.npz", ops=OPS, value=VALUE, ms=1.0 + (OPS**1.5).sum(axis=1), hard=hard)
    return folder


@pytest.fixture(scope="module")
def found(place: Path) -> dict[str, dict[str, Any]]:
    """A result of each kind."""
    facts = {"took_s": 60.0, "provenance": provenance()}
    settings, table = Settings(3, 40, NAMES), place / "t.npz"
    functions = bench_functions(Settings(2, 10, ("riwoa-unscreened", "woa")), (Ground("ellipsoid", 10, 16),))
    made = {
        "free": bench_table(settings, table, QUESTION),
        "limit": bench_table(settings, table, QUESTION),
        "front": bench_front(settings, table, QUESTION, "ms", Reference(15.0, 50.0)),
        "functions": functions,
    }
    return {name: json.loads(json.dumps({**result, **facts}, allow_nan=False)) for name, result in made.items()}


def declared() -> list[Experiment]:
    targets = (Target("none missed", "missed", at_most=0), Target("ahead", ahead=0.01))
    functions = next(e for e in EXPERIMENTS if e.name == "functions")
    rest: dict[str, Any] = {"arguments": ARGUMENTS, "strategies": NAMES, "seeds": 3, "budget": 40}
    free = Experiment("free", NB201, "CIFAR-100", "table", **rest, targets=targets, picture="progress", ranked=True)
    return [
        free,
        dataclasses.replace(
            free, name="limit", section=LIMITS, title="CIFAR-100, raspi4 25 %", targets=(), picture=None
        ),
        dataclasses.replace(
            free, name="front", section=FRONT, bench="front", targets=(), picture="fronts", ranked=False
        ),
        functions,
    ]


# -- what is declared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", [*EXPERIMENTS, *WHOLE], ids=lambda e: e.name)
def test_who_is_declared_can_take_part(experiment: Experiment) -> None:
    absent = {peer for peer in PEERS if find_spec(PEERS[peer].library) is None}
    if absent & set(experiment.strategies):
        pytest.skip("a peer is not installed (pip install 'riwoa[bench]')")
    assert [c.name for c in contestants(",".join(experiment.strategies))] == list(experiment.strategies)
    assert experiment.section in SECTIONS
    assert "{" not in " ".join(experiment.command({"data": "D", "table": "T", "results": "R"}, 3))


def test_names_are_different_and_the_quick_share_is_a_part() -> None:
    assert len({e.name for e in (*EXPERIMENTS, *WHOLE)}) == len((*EXPERIMENTS, *WHOLE))
    quick = Share(Path("r"), quick=True).experiments
    assert 0 < len(quick) < len(EXPERIMENTS)
    assert {e.section for e in quick} >= {NB201, LIMITS, FRONT, ABLATION}
    with pytest.raises(UsageError, match="no experiment 'nothing'"):
        assert Share(Path("r"), only=("nothing",)).experiments


# -- running -----------------------------------------------------------------------------------------------------------


def test_it_keeps_results_repeats_no_search_and_says_what_failed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ok = dataclasses.replace(declared()[0], strategies=("random", "woa"), seeds=2, budget=15, quick_seeds=1)
    bad = dataclasses.replace(ok, name="bad", arguments=(*ARGUMENTS[:-4], "--maximize", "nothing"))
    monkeypatch.setattr(suite, "EXPERIMENTS", (ok, bad))
    monkeypatch.setattr(suite, "data_folder", lambda: place)
    share, told = Share(place / "results"), list[tuple[int, int]]()
    failed = run_suite(share, 2, lambda done, total, words: told.append((done, total)))
    assert list(failed) == ["bad"]
    assert "nothing" in failed["bad"]
    assert told == [(1, 2), (2, 2)]
    [result] = results(share).values()
    assert [row["seeds"] for row in result["rows"]] == [2, 2]
    kept = share.searches(ok).read_bytes()
    quick = Share(place / "results", quick=True, only=("free",))
    assert run_suite(quick, 1) == {}
    assert share.searches(ok).read_bytes() == kept  # the quick share is one of its seeds
    assert results(quick)["free"]["searches"] == [s for s in result["searches"] if s["seed"] == 0]
    monkeypatch.setattr(suite, "provenance", lambda: {"commit": "a later one"})
    assert run_suite(quick, 1) == {}
    assert results(quick)["free"]["provenance"] == provenance()  # of when the searches ran
    monkeypatch.setattr(suite, "EXPERIMENTS", (dataclasses.replace(ok, quick_seeds=2),))
    assert run_suite(quick, 1) == {}
    assert results(quick)["free"]["provenance"] == {"commit": "a later one"}


def test_an_interrupted_suite_waits_for_no_command(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = dataclasses.replace(declared()[0], name="endless", strategies=("random",), seeds=10**6)
    brief = dataclasses.replace(endless, name="brief", seeds=1, budget=5)
    monkeypatch.setattr(suite, "EXPERIMENTS", (endless, brief))
    monkeypatch.setattr(suite, "data_folder", lambda: place)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite(Share(tmp_path), 2, interrupt)


def test_a_suite_is_alone_with_its_results_and_killed_it_leaves_no_command_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nas-bench-201").mkdir()
    (tmp_path / "nas-bench-201/accuracy.npz").touch()  # not read
    monkeypatch.setenv("RIWOA_DATA", str(tmp_path))
    verb = ["bench", "suite", "--results", str(tmp_path), "--only", "functions"]
    with subprocess.Popen(child_command("riwoa.ctl", *verb), env=child_environment(1)) as killed:
        try:
            until((tmp_path / "searches/functions.jsonl").exists)
            assert main(verb) == 75
            assert f"process {killed.pid} already measures" in capsys.readouterr().err
            commands = [
                pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == killed.pid
            ]
            assert len(commands) == 1
        finally:
            killed.kill()
    until(lambda: not any(Path(f"/proc/{pid}/fd/0").exists() for pid in commands))


def parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def until(true: Callable[[], bool], most_s: float = 30.0) -> None:
    end_s = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_a_commit_is_marked_where_the_package_differs_from_it(tmp_path: Path) -> None:
    package = tmp_path / "daemon/riwoa"
    (package / "data/handbook").mkdir(parents=True)
    (package / "driver.py").touch()

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(("git", *who, *arguments), cwd=tmp_path, check=True, capture_output=True)

    assert _commit(package).startswith("version ")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    (package / "data/handbook/results.md").touch()  # the page that a suite writes
    (tmp_path / "notes").touch()
    assert re.fullmatch(r"[0-9a-f]{7,}", _commit(package))
    (package / "new.py").touch()
    assert _commit(package).endswith(" with changes")


def test_without_data_it_says_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RIWOA_DATA", str(tmp_path))
    assert main(["bench", "suite", "--results", "r"]) == 66
    assert "RIWOA_DATA names its folder" in capsys.readouterr().err


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_tells_targets_tables_and_what_is_absent_in_lines_that_fit(found: dict[str, dict[str, Any]]) -> None:
    missing = dataclasses.replace(declared()[0], name="later")
    page = rendered([*declared(), missing], found, {"later": "no such file"}, quick=False)
    assert max(map(len, page.splitlines())) <= 79
    code = [line for n, block in enumerate(page.split("```")) if n % 2 for line in block.splitlines()]
    assert max(map(len, code)) <= 76  # `riwoactl help` moves it in by four
    for words in ("### Targets", "none missed", "MISSED", "Not measured: later.", "later: no such file", "### Ranks"):
        assert words in page
    riwoa = next(row for row in found["free"]["rows"] if row["strategy"] == "riwoa")
    assert f"{riwoa['queries_to_best_mean']:.0f} ({riwoa['missed']})" in page
    assert "ellipsoid 10-d 16  " in page
    assert "too few to conclude" in " ".join(rendered(declared(), found, {}, quick=True).split())


def test_a_target_is_met_within_its_bound(found: dict[str, dict[str, Any]]) -> None:
    riwoa = next(row for row in found["free"]["rows"] if row["strategy"] == "riwoa")
    share = riwoa["value_mean"]
    assert reached(Target("", "value_mean", at_least=share), found["free"])[1]
    assert not reached(Target("", "value_mean", at_least=share + 0.1), found["free"])[1]
    assert not reached(Target("", "value_mean", at_most=share - 0.1), found["free"])[1]
    assert reached(Target("", ahead=0.01), found["free"]) == ("0 of 3", False)  # three seeds are sure of nothing
    assert reached(Target("", ahead=2.0), {**found["free"], "comparisons": []}) == ("0 of 0", False)
    against = found["free"]["comparisons"][0]["against"]
    assert reached(Target("", ahead=2.0, against=(against,)), found["free"])[0].endswith(" of 1")


def test_what_is_written_by_hand_stays(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(f"# Results\n\nby hand\n\n{BEGIN}\nold\n{END}\n\nalso by hand\n")
    write_page(page, "new")
    write_page(page, "newer")
    assert page.read_text() == f"# Results\n\nby hand\n\n{BEGIN}\n\nnewer\n{END}\n\nalso by hand\n"
    page.write_text("# Results\n")
    with pytest.raises(InputError, match="lacks the lines"):
        write_page(page, "new")
    assert page.read_text() == "# Results\n"


def test_the_results_page_has_a_place_for_it() -> None:
    page = read_page("results")
    assert page.count(BEGIN) == page.count(END) == page.count(WHOLE_BEGIN) == page.count(WHOLE_END) == 1


def test_whole_searches_are_compared_by_the_verb_and_told_on_the_page(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real searches by the daemon's own loop, in commands of their own; two of them, and again without one."""
    [cells] = (e for e in WHOLE if e.name == "rules-cells")
    limit = ("{data}/t.npz", "--genes", "ops", "--ordered", "--maximize", "hard", "--constraint", "ms<=50%")
    small = dataclasses.replace(cells, arguments=limit, strategies=("riwoa-none", "riwoa-greedy"))
    monkeypatch.setattr(suite, "WHOLE", (small,))
    monkeypatch.setattr(suite, "data_folder", lambda: place)
    page = tmp_path / "results.md"
    page.write_text(f"{WHOLE_BEGIN}\n{WHOLE_END}\n")
    verb = ["bench", "cognition", "--whole", "--results", str(tmp_path / "r"), "--page", str(page), "--seeds", "2"]
    assert main(verb) == 0
    table = [line.split() for line in page.read_text().splitlines()]
    assert ["60", "100", "250", "picked", "CPU,", "s", "trained"] in table
    [none], [greedy] = ([row for row in table if row[:1] == [name]] for name in ("none", "greedy"))
    [result] = results(Share(tmp_path / "r", whole=True)).values()
    searches = {(s["strategy"], s["seed"]): s for s in result["searches"]}
    best = [searches["riwoa-none", seed]["improvements"][-1][1] for seed in (0, 1)]
    assert none[3] == f"{sum(best) / 2:.2f}"
    joined = sum(searches["riwoa-greedy", seed]["joined"] for seed in (0, 1))
    assert joined > 0
    assert greedy[-2].endswith(f"/{joined}")
    capsys.readouterr()
    assert main(["bench", "cognition", "--whole", "--seeds", "0"]) == 64
    assert "must be at least 1" in capsys.readouterr().err


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_every_kind_is_drawn_as_svg_and_png(found: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'riwoa[bench]'")
    drawn = plots.plot_progress(found["free"], tmp_path / "progress", "a title")
    drawn += plots.plot_fronts(found["front"], tmp_path / "fronts")
    drawn += plots.plot_ablation(found["free"], tmp_path / "ablation")
    drawn += plots.plot_ranks([found["free"], found["limit"]], tmp_path / "deeper/ranks")
    assert [path.suffix for path in drawn] == [".svg", ".png"] * 4
    svg = drawn[0].read_text()
    assert all(f">{name}<" in svg for name in NAMES)
    assert "a title" in svg
    again = plots.plot_progress(found["free"], tmp_path / "again", "a title")
    assert again[0].read_bytes() == drawn[0].read_bytes()
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn[1::2])


def test_a_search_that_found_nothing_has_no_line_and_a_result_of_such_no_picture(
    found: dict[str, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'riwoa[bench]'")

    def failing(result: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        nothing: dict[str, Any] = {"improvements": [], "times": [], "rows": [], "row": None}
        searches = [{**s, **nothing} if s["strategy"] in names else s for s in result["searches"]]
        fronts = {name: [] if name in names else front for name, front in result.get("fronts", {}).items()}
        return {**result, "searches": searches, "fronts": fronts}

    some = {name: failing(found[name], ("woa",)) for name in ("free", "front")}
    none = {name: failing(found[name], NAMES) for name in ("free", "front")}
    assert ">woa (" not in plots.plot_fronts(some["front"], tmp_path / "fronts")[0].read_text()
    assert plots.plot_progress(some["free"], tmp_path / "progress")
    pairs = zip(found["free"]["searches"], none["free"]["searches"], strict=True)
    seldom = {**found["free"], "searches": [without if s["seed"] else s for s, without in pairs]}
    assert plots.plot_progress(seldom, tmp_path / "seldom")
    (tmp_path / "r.json").write_text(json.dumps(none["free"]))
    assert main(["bench", "plot", str(tmp_path / "r.json"), "--out", str(tmp_path / "p")]) == 66
    assert "nothing was found within the limit; raise --budget" in capsys.readouterr().err
    with pytest.raises(InputError, match="nothing was found"):
        plots.plot_fronts(none["front"], tmp_path / "fronts")
    assert draw(declared(), none, tmp_path / "drawn") == []


def test_no_two_lines_look_alike_in_grey() -> None:
    names = ["riwoa", *map(str, range(10))]
    looks = {(str(s["linestyle"]), s["marker"]) for s in plots._styles(names, "riwoa").values()}
    assert len(looks) == len(names)


def test_ranks_are_of_those_that_took_part_everywhere(found: dict[str, dict[str, Any]]) -> None:
    fewer = {**found["limit"], "rows": [row for row in found["limit"]["rows"] if row["strategy"] != "woa"]}
    ranks, difference = plots.mean_ranks([found["free"], fewer])
    assert set(ranks) == {*NAMES} - {"woa"}
    assert sum(ranks.values()) == pytest.approx(1 + 2 + 3)
    assert difference == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 2)), abs=1e-3)  # Demsar, table 5
    with pytest.raises(InputError, match="two strategies"):
        plots.mean_ranks([found["free"], {**fewer, "rows": fewer["rows"][:1]}])


def test_the_verb_draws_a_result(
    found: dict[str, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'riwoa[bench]'")
    (tmp_path / "r.json").write_text(json.dumps(found["free"]))
    assert main(["bench", "plot", str(tmp_path / "r.json"), "--kind", "ablation", "--out", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.split() == [f"{tmp_path}/a.svg", f"{tmp_path}/a.png"]
    (tmp_path / "other.json").write_text("{}")
    assert main(["bench", "plot", str(tmp_path / "other.json"), "--out", str(tmp_path / "a")]) == 66
    assert "is no result of a contest" in capsys.readouterr().err
