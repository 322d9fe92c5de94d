"""What the search makes of a pool's patches is counted as the model's, and holds through a kill."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from riwoa.ctl import main
from riwoa.run.credit import OperatorSeconds
from riwoa.run.greedy import GreedyRule
from riwoa.run.model_credit import ModelCredit, credit_from_json, credit_to_json
from riwoa.search import bayesian, joint, riwoa
from riwoa.service.views import patches_view
from riwoa.web.journal import Journal
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, IndividualRecord, RequestRecord
from tests.run.conduct import SPACE, conduct, gain_over_parent, latency_ms
from tests.run.test_pool_proposals import POOL, SUPPORT, Clairvoyant, read

# Beside all that comes of patches goes what would have been chosen without them.
SETTINGS = (
    *POOL,
    "cognition.lag=1",
    "cognition.counterfactual_share=1.0",
    "search.riwoa.first=6",
    "run.generations=20",
    "run.seed=3",
    "cognition.train=false",
)


@pytest.fixture(scope="module", autouse=True)
def _few_others() -> Iterator[None]:
    """Rounds of climbs from hundreds lead far from any patch: with fewer, more of what is chosen comes of patches."""
    with pytest.MonkeyPatch.context() as patched:
        for module, name, count in (
            *((joint, name, count) for name, count in (("ROUNDS", 1), ("CHILDREN", 16), ("CROSSED", 4))),
            *((bayesian, name, count) for name, count in (("UNIFORM", 10), ("MUTANTS", 10), ("CROSSINGS", 5))),
            (riwoa, "MOVES", 1),
        ):
            patched.setattr(module, name, count)
        patched.setenv("PYTHONPATH", str(SUPPORT))
        patched.setenv("RIWOA_TEST_ORACLES", "1")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that nothing disturbed, and its digest."""
    path = tmp_path_factory.mktemp("credit") / "whole.db"
    return path, asyncio.run(conduct(path, *SETTINGS, provider=Clairvoyant()))


def made(path: Path) -> tuple[list[GenerationRecord], dict[str, RequestRecord], list[tuple[int, IndividualRecord]]]:
    """Generations, requests by id, and what came of them with its generation."""
    generations, requests = read(path)
    theirs = [(g.generation, i) for g in generations for i in g.individuals if i.request_id is not None]
    return generations, {r.request_id: r for r in requests}, theirs


def test_what_descends_from_a_patch_is_its_replys_and_its_parent_is_the_evaluated_one(
    whole: tuple[Path, str],
) -> None:
    _, requests, theirs = made(whole[0])
    led_to = [i for _, i in theirs if i.operator == "climb"]
    picked = [i for _, i in theirs if i.operator == "semantic"]
    assert led_to
    assert picked
    assert len(led_to) + len(picked) == len(theirs)
    for generation, i in theirs:
        assert i.request_id is not None
        request = requests[i.request_id]
        assert request.join_generation == generation
        assert i.parent == tuple(request.parameters["parent_at"])


def test_beside_what_came_of_a_patch_another_is_evaluated_and_none_is_added(whole: tuple[Path, str]) -> None:
    generations, _, _ = made(whole[0])
    assert [len(g.individuals) for g in generations] == [6] * 20
    pairs = [(g, g.individuals[int(rival)], g.individuals[of]) for g in generations for rival, of in rivals(g)]
    assert len(pairs) >= 2
    for g, rival, theirs in pairs:
        assert theirs.request_id in g.joined_requests
        assert rival.request_id is None
        assert rival.slot == theirs.slot + 1
        assert rival.architecture_key != theirs.architecture_key


def rivals(g: GenerationRecord) -> list[tuple[str, int]]:
    return list(g.inputs.get("rivals", {}).items())


def test_the_credit_in_the_journal_is_that_of_its_individuals(whole: tuple[Path, str]) -> None:
    generations, requests, theirs = made(whole[0])
    everybody = {(g.generation, i.slot): i for g in generations for i in g.individuals}
    found = credit_from_json(generations[-1].counters["model"])
    picked = [i for _, i in theirs if i.operator == "semantic"]
    led_to = [i for _, i in theirs if i.operator != "semantic"]
    differences = []
    for g in generations:
        for rival, of in rivals(g):
            ours, other = g.individuals[of].fitness, g.individuals[int(rival)].fitness
            assert ours is not None
            assert other is not None
            differences.append(ours - other)
    rule = GreedyRule(SPACE, latency_ms, lambda: 4.5)
    greedy = 0
    for i in picked:
        assert i.parent is not None
        before, after = everybody[i.parent].architecture, i.architecture
        # A written patch may name what changes nothing here; the greedy ones change one gene.
        wanted = [{**before, **patch} for patch in rule.patches(requests[i.request_id or ""], 16)]
        greedy += after in wanted
    assert (found.picked, found.led_to, found.pairs) == (len(picked), len(led_to), len(differences))
    assert found.picked_won == sum(gain_over_parent(i, everybody) > 0 for i in picked)
    assert found.led_to_won == sum(gain_over_parent(i, everybody) > 0 for i in led_to)
    assert found.gain == pytest.approx(sum(differences))
    assert (found.judged, found.greedy) == (len(picked), greedy)
    assert found.patches == generations[-1].counters["patches"] > found.picked


def test_a_reply_says_how_much_was_picked_and_led_to_and_why_nothing_came_of_it(whole: tuple[Path, str]) -> None:
    _, _, theirs = made(whole[0])
    with JournalReader(whole[0]) as reader:
        replies = {r.request.request_id: r for r in reader.history.replies(1)}
        taught = {entry.request_id for entry in reader.buffer(1)}
    for request_id, reply in replies.items():
        own = [i for _, i in theirs if i.request_id == request_id]
        assert reply.picked == sum(i.operator == "semantic" for i in own)
        assert reply.led_to == sum(i.operator == "climb" for i in own)
    won = {request_id for request_id, reply in replies.items() if reply.verdict == "won"}
    assert any(replies[request_id].led_to for request_id in won)  # a win that was led to is the reply's
    assert taught == {
        request_id for request_id in won if replies[request_id].picked
    }  # but only what is written teaches
    none = [r.reason for r in replies.values() if r.reason is not None and not (r.picked or r.led_to)]
    assert any(re.fullmatch(r"none of its \d+ patches was chosen, and nothing that they led to", r) for r in none)
    assert "not better than its parent" in {r.reason for r in replies.values() if r.led_to}


def test_a_reply_is_listed_once_with_the_best_that_came_of_it(
    whole: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, requests, theirs = made(whole[0])
    found: dict[str, list[float]] = {request_id: [] for request_id in requests}
    for _, i in theirs:
        assert i.fitness is not None
        found[i.request_id or ""].append(i.fitness)
    assert max(map(len, found.values())) > 1
    listed = Journal(whole[0]).replies(1, 100, None).items
    assert [reply.request_id for reply in listed] == [*found][::-1]
    assert [reply.fitness for reply in listed] == [max(found[reply.request_id], default=None) for reply in listed]
    shutil.copy(whole[0], tmp_path / "journal.db")
    written = [i.request_id for _, i in theirs if i.operator == "semantic"]
    assert main(["--state", str(tmp_path), "replies", str(written[0])]) == 0
    out = capsys.readouterr().out
    assert f"; picked {written.count(written[0])}" in out
    assert '| {"stage' in out  # patches, one a line
    assert "log_probability" not in out
    led_to = next(i.request_id for _, i in theirs if i.operator == "climb")
    assert main(["--state", str(tmp_path), "replies", str(led_to)]) == 0
    counts = [sum(i.request_id == led_to and i.operator == o for _, i in theirs) for o in ("semantic", "climb")]
    told = f"picked {counts[0]}, led to {counts[1]}" if counts[0] else f"led to {counts[1]}"
    assert f"; {told}" in " ".join(capsys.readouterr().out.split())


def test_the_status_tells_what_the_patches_were_worth(whole: tuple[Path, str]) -> None:
    generations, _, theirs = made(whole[0])
    seconds = OperatorSeconds(whole[0], 1, ["landscape-1"])
    while seconds.count(len(generations)):
        pass
    credit = credit_from_json(generations[-1].counters["model"])
    found = patches_view(credit, seconds)
    assert found is not None
    assert (found["joined"], found["picked"], found["led_to"]) == (credit.patches, credit.picked, credit.led_to)
    assert found["share_picked"] == pytest.approx(credit.picked / credit.patches)
    assert found["gain"] == pytest.approx(credit.gain / credit.pairs)
    with JournalReader(whole[0]) as reader:
        writing_s = reader.seconds.writing(1, 0, len(generations))
    assert writing_s > 0.0
    assert found["seconds_a_pick"] == pytest.approx(writing_s / len(theirs))
    # The leader's own places, by those who made them.
    places = {(g.leader["generation"], g.leader["slot"]) for g in generations if g.leader is not None}
    of_patches = sum((generation, i.slot) in places for generation, i in theirs)
    assert found["leaders"] == of_patches > 0
    assert sum(seconds.leaders.values()) == len(places)
    assert patches_view(ModelCredit(), seconds) is None


@pytest.mark.parametrize("stop_after", [4, 8])
async def test_killed_and_resumed_the_digest_is_the_same(
    whole: tuple[Path, str], tmp_path: Path, stop_after: int
) -> None:
    path = tmp_path / "killed.db"
    await conduct(path, *SETTINGS, stop_after=stop_after, provider=Clairvoyant())
    assert await conduct(path, *SETTINGS, provider=Clairvoyant()) == whole[1]


def test_the_interval_of_the_differences_is_students() -> None:
    differences = [0.02, -0.01, 0.03, 0.005]
    credit = ModelCredit()
    for d in differences:
        credit = credit.later(ModelCredit(pairs=1, gain=d, gain_squares=d * d))
    found = credit.against_rivals
    assert found is not None
    low, high = stats.t.interval(0.95, 3, np.mean(differences), stats.sem(differences))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(differences), low, high))
    assert ModelCredit(pairs=1, gain=0.1, gain_squares=0.01).against_rivals is None


def test_nothing_is_journaled_where_no_patch_ever_joined() -> None:
    assert credit_to_json(ModelCredit()) == {}
    assert credit_from_json({**credit_to_json(ModelCredit(patches=3)), "of another version": 1}) == ModelCredit(3)
