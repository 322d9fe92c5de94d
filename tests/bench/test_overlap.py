"""The overlap benchmark: the daemon's own parts, in miniature, with a model that writes nonsense."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from riwoa.bench.overlap import Passed, bench_overlap, row, summary, ways
from riwoa.cognition.protocol import ModelSpec
from riwoa.ctl import main
from riwoa.errors import CognitionError, ModelError
from tests.bench.support import a_table

PASSED = Passed(
    seconds=10.0,
    evaluation_s=6.0,
    generation_s=4.0,
    both_s=0.0,
    evaluations=40,
    requests=8,
    unanswered=0,
    tokens=500,
    digest="a",
)
SMALL = (
    "search.offspring=5",
    "search.p_semantic=1.0",
    "search.placebo_share=0.0",
    "oracle.supernet.recalibration_images=100",
    "oracle.supernet.validation_views=1",
    "cognition.thinking_tokens=8",
)


@pytest.mark.timeout(400)  # seven starts of torch, one after the other where the cores are taken
async def test_goes_the_same_search_every_way_and_reports_ratios(tiny_llama: ModelSpec) -> None:
    news: list[str] = []
    found = await bench_overlap(
        a_table(),
        generations=2,
        repeats=1,
        overrides=[*SMALL, f"cognition.model={tiny_llama.directory}"],
        progress=lambda done, total, words: news.append(words),
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert news == [*(way.name for way in ways(found["cores"])), ""]
    assert found["same_search"]
    assert 1 < found["bound"] <= 2
    assert found["ratio"] > 0
    passed = found["rows"][0]["ways"]
    for one in passed.values():
        assert one["evaluations"] > 0
        assert one["requests"] > 0
        assert one["tokens"] > 0
        assert one["evaluation_s"] > 0
    assert passed["alternating"]["both_s"] == passed["alternating_all_cores"]["both_s"] == 0
    assert passed["overlapped"]["both_s"] > 0
    same = ("evaluations", "requests", "tokens", "digest")
    assert [passed["overlapped"][k] for k in same] == [passed["alternating"][k] for k in same]


async def test_a_model_is_needed_and_the_way_to_one_is_said() -> None:
    with pytest.raises(ModelError, match="riwoactl model pull smollm2"):
        await bench_overlap(a_table())


@pytest.mark.parametrize("option", ["--generations", "--repeats"])
def test_there_must_be_something_to_time(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "overlap", option, "0"]) == 64
    assert "must be at least 1" in capsys.readouterr().err


def test_ratios_are_of_one_round_and_the_bound_is_what_alternating_took() -> None:
    other = {"alternating": PASSED, "alternating_all_cores": replace(PASSED, seconds=9.0)}
    found = [row(seed, {"overlapped": replace(PASSED, seconds=s), **other}) for seed, s in enumerate((6.25, 8.0, 10.0))]
    assert (found[0]["ratio"], found[0]["bound"]) == pytest.approx((1.6, 10 / 6))
    assert found[0]["share_of_bound"] == pytest.approx(0.96)
    assert found[0]["ratio_against_all_cores"] == pytest.approx(1.44)
    whole = summary(found, {"cores": 2})
    assert whole["ratio"] == pytest.approx(1.25)
    assert whole["share_of_bound_range"] == pytest.approx([0.6, 0.96])
    assert whole["same_search"]


def test_ways_that_did_not_do_the_same_are_told_apart() -> None:
    passed = {"overlapped": PASSED, "alternating": PASSED, "alternating_all_cores": PASSED}
    assert not row(0, {**passed, "overlapped": replace(PASSED, digest="b")})["same_search"]
    with pytest.raises(CognitionError, match=r"left 2 requests without a reply; .*model check"):
        row(0, {**passed, "overlapped": replace(PASSED, unanswered=2)})
    with pytest.raises(CognitionError, match="nothing was asked of the language model"):
        row(0, {**passed, "alternating": replace(PASSED, generation_s=0.0)})
