import itertools
import math
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import riwoa
from riwoa.bench.contest import Settings, search, search_key
from riwoa.bench.contestants import GROUPS, Contestant, contestants
from riwoa.bench.front import FrontLandscape, Reference, bench_front
from riwoa.bench.functions import FUNCTIONS, FunctionLandscape, Ground, bench_functions
from riwoa.bench.own import scheduled
from riwoa.bench.peers import PEERS
from riwoa.bench.table import Constraint, Question, TableLandscape
from riwoa.ctl import main
from riwoa.errors import UsageError
from tests.support.official import official_data

OPS = np.array(list(itertools.product(range(4), repeat=4)))
VALUE = 50.0 + OPS.sum(axis=1) + (OPS[:, 0] == OPS[:, 1]) * 0.5
LOAD = 1.0 + (OPS**1.5).sum(axis=1)
PEERS_OF_TABLES = [name for name in PEERS if name not in ("ofa-evolution", "gumbel")]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    np.savez(tmp_path / "t.npz", ops=OPS, value=VALUE, ms=LOAD)
    return tmp_path / "t.npz"


def needs(peer: str) -> None:
    if find_spec(PEERS[peer].library) is None:
        pytest.skip(f"{PEERS[peer].library} is not installed (pip install 'riwoa[bench]')")


def question(*constraints: str) -> Question:
    return Question("ops", "ordered", "value", constraints=tuple(map(Constraint.parse, constraints)))


# -- names -------------------------------------------------------------------------------------------------------------


def test_settings_follow_a_colon_and_commas_divide_both_them_and_the_strategies() -> None:
    named = contestants("riwoa:screened=1,elitism=false,woa,riwoa:p_recombine=0.5,riwoa,riwoa")
    assert [c.name for c in named] == ["riwoa:screened=1,elitism=false", "woa", "riwoa:p_recombine=0.5", "riwoa"]
    assert dict(named[0].settings) == {"screened": 1, "elitism": False}
    params = scheduled(named[2], 100)
    assert (params.population, params.offspring, params.generations) == (20, 4, 25)
    assert getattr(params, "p_recombine") == 0.5  # noqa: B009
    assert scheduled(contestants("riwoa:joint=false")[0], 100).generations == 5  # a child a member


def test_a_group_stands_for_its_members() -> None:
    assert [c.name for c in contestants("own,woa")] == list(GROUPS["own"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rwioa", "none of riwoa"),
        ("riwoa:screened=one", "whole number"),
        ("riwoa:elitism=2", "true or false"),
        ("riwoa:screend=1", "with one of population"),
        ("riwoa:screened=0", "must lie in"),
        ("woa:screened=1", "not SETTING=VALUE"),
        ("nsga2:pop=3", "takes no settings"),
    ],
)
def test_what_is_no_contestant_is_refused_in_a_line(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        contestants(name)


def test_a_missing_library_is_a_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs cmaes; install it with: pip install 'riwoa\[bench\]'"):
        contestants("catcma")


def test_a_setting_changes_the_search(table: Path) -> None:
    landscape = TableLandscape(table, question())
    landscape.best = math.inf
    plain, other = contestants("riwoa-unscreened,riwoa:screened=1,p_recombine=0.0")
    assert search(plain, 0, landscape, 60).improvements != search(other, 0, landscape, 60).improvements


@pytest.mark.parametrize("name", ["riwoa", "nsga2"])
def test_a_kept_search_is_as_old_as_the_code_that_decides_it(
    table: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in PEERS:
        needs(name)
    package = tmp_path / "riwoa"
    shutil.copytree(Path(riwoa.__file__).parent, package, ignore=shutil.ignore_patterns("data", "__pycache__"))
    monkeypatch.setattr("riwoa.bench.contestants._PACKAGE", package)
    landscape = TableLandscape(table, question())

    def changed(file: str) -> bool:
        before = search_key(Contestant.parse(name), landscape, 20)
        with (package / file).open("a") as stream:
            stream.write("\n")
        return search_key(Contestant.parse(name), landscape, 20) != before

    deciding = ["arena", "front", "functions", "landscape", "predictor", "subnets", "table"]
    assert all(changed(f"bench/{module}.py") for module in deciding)
    assert all(map(changed, ["hardware/ofa_table.py", "oracle/predictor.py", "oracle/table_file.py"]))
    assert all(map(changed, ["search/fitness.py", "search/space.py", "supernet/space.py"]))
    own = ["bench/own.py", "search/driver.py", "surrogate/screening.py"]
    peers = ["bench/peers/__init__.py", "bench/peers/by_pymoo.py"]
    for file in own + peers:
        assert changed(file) == (file in (peers if name in PEERS else own))
    assert not any(changed(f"bench/{module}.py") for module in ("page", "plots", "suite", "measures"))


# -- peers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", PEERS_OF_TABLES)
def test_a_peer_spends_what_counts_alone_and_knows_the_limit(table: Path, peer: str) -> None:
    needs(peer)
    landscape = TableLandscape(table, question("ms<=40%"))
    queried: list[bytes] = []
    measure = landscape.measure
    landscape.measure = lambda indices: queried.append(indices.tobytes()) or measure(indices)  # type: ignore
    landscape.best = math.inf
    budget = 12 if peer in ("optuna-gp", "smac") else 30  # they think for a tenth of a second each
    found = search(Contestant.parse(peer), 1, landscape, budget)
    asked = set(queried)
    assert len(asked) == found.queries <= budget
    loads = [measure(np.frombuffer(row, dtype=np.int64)).load for row in asked]
    assert max(loads) <= 1.0
    assert found.improvements
    assert search(Contestant.parse(peer), 1, landscape, budget) == found
    assert search(Contestant.parse(peer), 2, landscape, budget) != found


def test_a_peer_that_needs_an_order_is_refused_where_there_is_none(table: Path) -> None:
    needs("cma-es")
    landscape = TableLandscape(table, Question("ops", "nominal", "value"))
    with pytest.raises(UsageError, match="catcma takes any"):
        search(Contestant.parse("cma-es"), 0, landscape, 20)
    needs("catcma")
    assert search(Contestant.parse("catcma"), 0, landscape, 20).improvements


def test_ofas_own_evolution_searches_ofas_space_alone(table: Path) -> None:
    from riwoa.bench.predictor import PredictorLandscape

    with pytest.raises(UsageError, match="OFA's own space alone"):
        search(Contestant.parse("ofa-evolution"), 0, TableLandscape(table, question()), 20)
    landscape = PredictorLandscape(official_data("once-for-all"), 25.0)
    found = search(Contestant.parse("ofa-evolution"), 0, landscape, 110)
    assert found.queries == 110
    assert found == search(Contestant.parse("ofa-evolution"), 0, landscape, 110)


@pytest.mark.parametrize("failing", ["nsga2", "catcma", "cma-es", "optuna-tpe", "optuna-gp", "smac"])
def test_what_cannot_be_measured_stops_no_peer(table: Path, failing: str) -> None:
    needs(failing)
    np.savez(table, ops=OPS, value=np.where(OPS.sum(axis=1) % 2, np.nan, VALUE), ms=LOAD)
    landscape = TableLandscape(table, question())
    landscape.best = math.inf
    found = search(Contestant.parse(failing), 0, landscape, 24)
    assert found.failed > 0
    assert found.improvements


# -- fronts ------------------------------------------------------------------------------------------------------------


def test_the_share_is_one_where_the_whole_front_is_found_and_grows_until_then(table: Path) -> None:
    landscape = FrontLandscape(table, question(), "ms", Reference(15.0, 50.0))
    found = search(Contestant.parse("random"), 0, landscape, 2000)
    shares = [share for _, share in found.improvements]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1.0
    assert landscape.front_of(found) == landscape.whole.points
    within = [(ms, v) for ms, v in zip(LOAD, VALUE, strict=True) if ms < 15 and v > 50]
    best = sorted({p for p in within if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in within)})
    assert landscape.whole.points == best
    steps = [*(ms for ms, _ in best), 15.0]
    area = sum((b - a) * (v - 50.0) for (a, b), (_, v) in zip(itertools.pairwise(steps), best, strict=True))
    assert landscape.whole.hypervolume == pytest.approx(area)


def test_peers_that_can_look_for_fronts_and_others_say_so(table: Path) -> None:
    reference = Reference(15.0, 50.0)
    for peer in ("nsga2", "optuna-tpe"):
        needs(peer)
        result = bench_front(Settings(2, 40, (peer, "random")), table, question(), "ms", reference)
        assert 0.5 < result["rows"][0]["value_mean"] <= 1.0
        assert set(result["fronts"]) == {peer, "random"}
    needs("catcma")
    with pytest.raises(UsageError, match="not for a front; optuna-tpe, optuna-gp, nsga2 do"):
        bench_front(Settings(1, 40, ("catcma",)), table, question(), "ms", reference)


# -- functions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_best_at_an_optimum_that_can_be_asked(function: str) -> None:
    landscape = FunctionLandscape(Ground(function, 10, 16))
    optimum = np.rint((landscape._optimum / 5.0 + 1.0) * 8.0 - 0.5).astype(np.int64)
    assert landscape.measure(optimum).value == landscape.best == 8.0
    optimum[3] += 1
    assert landscape.measure(optimum).value < 1.0


def test_where_it_is_turned_cma_es_is_ahead_of_woa() -> None:
    needs("cma-es")
    settings = Settings(2, 60, ("riwoa-unscreened", "woa", "cma-es"))
    [result] = bench_functions(settings, (Ground("ellipsoid", 10),))["grounds"]
    assert result["budget"] == 600
    means = {row["strategy"]: row["value_mean"] for row in result["rows"]}
    assert means["cma-es"] > means["woa"]
    assert result["compared"] == "riwoa-unscreened"


def test_the_ratio_on_functions_says_how_many_times_as_far_above_the_optimum_random_search_ends() -> None:
    grounds = tuple(Ground(function, 2, 16) for function in ("ellipsoid", "rastrigin"))
    result = bench_functions(Settings(3, 20, ("woa", "random")), grounds)
    above = [
        {s["strategy"]: 10.0 ** -s["improvements"][-1][1] for s in ground["searches"] if s["seed"] == seed}
        for ground in result["grounds"]
        for seed in range(3)
    ]
    ratios = [of["random"] / of["woa"] for of in above]
    medians = [np.median(ratios[:3]), np.median(ratios[3:])]
    assert [ground["ratio"] for ground in result["grounds"]] == pytest.approx(medians)
    assert result["ratio"] == pytest.approx(np.median(medians))
    assert bench_functions(Settings(1, 10, ("woa",)), grounds)["ratio"] is None


def test_the_verbs_say_it_in_words(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--genes", "ops", "--ordered", "--maximize", "value", "--seeds", "2", "--budget", "20"]
    front = ["bench", "front", str(table), *asked, "--against", "ms", "--reference", "15,50", "--strategies"]
    assert main([*front, "random,local"]) == 0
    out = capsys.readouterr().out
    assert "share of the hypervolume of its front of" in out
    assert "regret: mean (95 %) after" in out
    assert main(["bench", "table", str(table), *asked, "--report", "ms", "--strategies", "random"]) == 0
    assert "reported of the best: mean after" in capsys.readouterr().out
    assert main([*front[:-1], "--epochs", "0"]) == 64
    functions = ["bench", "functions", "--functions", "rastrigin", "--dimensions", "2", "--cells", "8", "--seeds", "2"]
    assert main([*functions, "--budget", "10", "--strategies", "woa,random"]) == 0
    out = capsys.readouterr().out
    assert "rastrigin, 2 dimensions of 8 cells, 20 queries" in out
    assert "best: woa against" in out
    assert main([*functions, "--dimensions", "1"]) == 64
