"""The report of a small run, in all its forms; what it must never do is trust a text or need a network."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from riwoa.ctl import main
from riwoa.oracle.answers import pack_answers
from riwoa.report import markdown, page, words
from riwoa.report.facts import Report, Timed
from riwoa.report.landscape import shadow_of, spread_evenly
from riwoa.report.reading import read_report
from riwoa.report.task import task_of_oracle
from riwoa.search.fitness import Objective
from riwoa.search.space import Gene, Space
from riwoa.service.ending import report_run
from riwoa_storage.events import ConfigApplied, NetworkJudged
from riwoa_storage.records import GenerationRecord, IndividualRecord, Json
from riwoa_storage.writer import JournalWriter

from ..ctl.support import write_journal
from ..service.support import daemon_parts

SPACE = Space(
    "cells",
    (
        Gene("depth", (1, 2, 3, 4)),
        Gene("kernel", (3, 5, 7)),
        Gene("width", (0, 1, 2)),
        Gene("op", ("conv", "pool"), kind="nominal"),
    ),
)
OBJECTIVE = Objective(6.0)
SLOTS, GENERATIONS, LAST_GAIN = 4, 40, 10
EVIL = "<script>alert(1)</script>"
PICTURES = 200


def metrics_of(architecture: Json) -> dict[str, float]:
    """Depth explains nearly all of the accuracy."""
    small = 0.002 * architecture["kernel"] + 0.002 * architecture["width"] + 0.003 * (architecture["op"] == "conv")
    latency_ms = architecture["depth"] + 0.1 * architecture["kernel"] + 0.2 * architecture["width"]
    return {"accuracy": 0.5 + 0.1 * architecture["depth"] + small, "latency_ms": latency_ms, "images": 2_000}


def _individual(rng: np.random.Generator, number: int, slot: int, best: Json | None) -> IndividualRecord:
    indices = rng.integers(0, SPACE.cardinalities)
    if number == LAST_GAIN and slot == 1:
        indices = np.array([3, 2, 2, 0])
    elif number and indices[0] == 3:
        indices[0] = 2  # nothing as deep is found before, nor later
    architecture = SPACE.architecture(indices)
    metrics = metrics_of(architecture)
    return IndividualRecord(
        slot=slot,
        operator="init" if number < 5 else EVIL if number == LAST_GAIN else "climb",
        parent=None if number < 5 or best is None else (best["generation"], best["slot"]),
        genotype=np.full(5, 0.5).tobytes(),
        architecture=architecture,
        architecture_key=SPACE.key(indices),
        status="ok",
        metrics=metrics,
        fitness=float(OBJECTIVE.fitness(metrics["accuracy"], metrics["latency_ms"])),
        fitness_version=OBJECTIVE.version,
        cache_hit=False,
    )


async def _write(path: Path) -> None:
    rng = np.random.default_rng(3)
    best: dict[str, Any] | None = None
    tally = {"proposals": 40, "valid": 40, "repeats": 0, "wins": 4, "gain": 0.1}
    async with await JournalWriter.open(path) as journal:
        provenance = {"seed": 5, "space": SPACE.to_json(), "objective": {"latency_ms": 6.0}, "strategy": EVIL}
        run_id = await journal.begin_run(provenance, {})
        for number in range(GENERATIONS):
            made = tuple(_individual(rng, number, slot, best) for slot in range(SLOTS))
            for i in made:
                if best is None or (i.fitness or 0.0) > best["fitness"]:
                    best = {
                        "generation": number, "slot": i.slot, "fitness": i.fitness, "metrics": i.metrics,
                        "architecture": i.architecture, "architecture_key": i.architecture_key,
                        "feasible": True, "target_ms": 6.0,
                    }  # fmt: skip
            counters = {"evaluations": SLOTS * (number + 1), "operators": {"climb": tally, EVIL: tally}}
            record = GenerationRecord(
                run_id=run_id, generation=number, phase="search", config_revision=0, state=b"s", counters=counters,
                leader=best, inputs={}, individuals=made, duration_s=2.0,
            )  # fmt: skip
            await journal.commit_generation(record)
        await journal.put_event(ConfigApplied(run_id=run_id, generation=20, changed={EVIL: [1, EVIL]}))
        await journal.finish_run(run_id)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a finished run."""
    state = tmp_path_factory.mktemp("reported")
    asyncio.run(_write(state / "journal.db"))
    return state


@pytest.fixture
def state(written: Path, tmp_path: Path) -> Path:
    """One to write into."""
    return Path(shutil.copytree(written, tmp_path / "state"))


@pytest.fixture(scope="session")
def report(written: Path) -> Report:
    return read_report(written / "journal.db", written / "latency_lut.json")


class _Balance(HTMLParser):
    """Takes a page apart; what is open at the end, and every attribute."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_no_network_and_runs_nothing_that_a_journal_says(report: Report) -> None:
    text = page.render(report)
    found = _Balance()
    found.feed(text)
    assert found.open == []
    assert found.tags.isdisjoint({"script", "link", "img", "iframe"})
    assert found.attributes.isdisjoint({"src", "href", "onload", "onclick", "onerror"})
    assert not re.search(r"https?://|url\(|@import", text)
    assert EVIL not in text
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;") in text
    for chart in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(chart)


def test_a_stranger_learns_what_to_deploy_how_sure_it_is_what_it_cost_and_where_it_came_from(report: Report) -> None:
    text = page.render(report)
    winner = report.winner
    assert winner is not None
    assert winner.place == f"{LAST_GAIN}/1"
    assert winner.architecture == {"depth": 4, "kernel": 7, "width": 2, "op": "conv"}
    for told in (f"network {winner.place}", winner.name, "riwoactl export --run 1", "5.100 ms", "1 min 20 s"):
        assert told in text, told
    for told in ("160 evaluations", "92.10 % (90.9 to 93.3)", "Ranges are 95 % intervals", "gain over its parent"):
        assert told in text, told
    assert "<th>validation</th>" in text
    assert "<th>value</th>" not in text
    assert "±" not in text  # it is a standard error elsewhere
    assert winner.from_largest == ()
    assert (winner.ancestors, winner.descent[0].operator) == (1, "init")
    assert winner.descent[-1].gain is not None
    assert winner.descent[-1].gain > 0


def test_a_latency_says_on_what_it_was_measured_and_how_far_it_may_reach_beyond_the_limit(report: Report) -> None:
    assert report.winner is not None
    timed = Timed(ms=5.9, low_ms=5.7, high_ms=6.1, runtime="onnxruntime 1.32, 1 thread", level=0.9)
    table = replace(report.table, device="Cortex-A76", runtime=timed.runtime, dtype="float32", level=0.9)
    told = replace(report, table=table, winner=replace(report.winner, timed=timed))
    for form in (page.render(told), markdown.render(told)):
        for fact in (
            "5.900 ms by the clock, in another process 5.700 ms to 6.100 ms",
            "on Cortex-A76, onnxruntime 1.32, 1 thread",
            "of latencies 90 % intervals",
            "the limit of 6.000 ms by the table and by the clock, but another process may take up to 6.100 ms",
        ):
            assert fact in unescape(form), fact


def test_the_task_is_told_and_that_nothing_was_trained(report: Report) -> None:
    assert report.winner is not None
    task = task_of_oracle({"kind": "supernet", "data": "/home/me/leaves", "n_classes": 7, "checkpoint": None})
    winner = replace(report.winner, architecture={"resolution": 32}, metrics={"parameters": 269_730})
    told = words.task(replace(report, task=task, winner=winner))
    assert "The task: leaves, 7 classes. The winner reads pictures of 32 × 32 px and has 269,730 parameters." in told
    assert "no network was trained while it searched" in told
    assert words.task(report) == ""


def test_recommendations_follow_from_the_numbers(report: Report) -> None:
    idle = SLOTS * (GENERATIONS - LAST_GAIN - 1)
    told = "\n".join(report.advice)
    assert f"the last {idle} of {SLOTS * GENERATIONS} evaluations found nothing better" in told
    said = r"depth explains \d+ % of how accuracy differs.*largest choice \(4\): consider a larger range"
    assert re.search(said, told)
    assert "language model" not in told  # none took part
    assert report.genes[0].gene == "depth"
    assert report.incidents[0].evaluations == SLOTS * 20


def test_random_searchs_shadow_rises_and_says_where_it_comes_from(report: Report) -> None:
    s = report.shadow
    assert "linear model" in s.source
    assert s.evaluations[-1] == SLOTS * GENERATIONS
    assert list(s.middle) == sorted(s.middle)
    assert all(low <= middle <= high for low, middle, high in zip(s.low, s.middle, s.high, strict=True))
    values = [metrics_of(SPACE.architecture(np.array(i)))["accuracy"] for i in np.ndindex(4, 3, 3, 2)]
    assert s.middle[0] == pytest.approx(float(np.mean(values)), abs=0.06)
    assert shadow_of(None, 10).source == ""


def test_markdown_and_json_tell_the_same(report: Report, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = markdown.render(report)
    assert "92.10 % (90.9 to 93.3)" in text
    prose = [line for line in text.splitlines() if not line.startswith("    ")]  # the rest is shown as it is
    assert not any("<script>" in line for line in prose)
    assert main(["report", "--json", "--state", str(state)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["winner"]["validation"]["value"] == pytest.approx(0.921)
    assert data["advice"] == list(report.advice)
    assert main(["report", "--markdown", "--state", str(state), "--since", "1d"]) == 0
    assert "the best is 92.10 %; there was none before" in capsys.readouterr().out


def test_the_verb_writes_the_page_beside_the_journal_where_nothing_was_exported(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--state", str(state)]) == 0
    assert capsys.readouterr().out.strip() == str(state / "report.html")
    assert (state / "report.html").read_text().startswith(page.START)


def test_networks_that_test_pictures_cannot_tell_from_the_winner_are_as_good(state: Path) -> None:
    found = read_report(state / "journal.db", state / "none.json")
    others = [p for p in found.front if not p.is_winner]
    keys = {p.place: _key(state, p.place) for p in found.front}

    async def judge() -> None:
        async with await JournalWriter.open(state / "journal.db") as journal:
            for place, key in keys.items():
                right = np.arange(PICTURES) < (150 if place != others[0].place else 90)
                correct = pack_answers(right)
                event = NetworkJudged(run_id=1, architecture_key=key, accuracy=0.5, pictures=PICTURES, correct=correct)
                await journal.put_event(event)

    asyncio.run(judge())
    found = read_report(state / "journal.db", state / "none.json")
    assert {p.place for p in found.alike} == {p.place for p in others[1:]}
    assert found.winner is not None
    assert found.winner.test is not None
    assert found.winner.test.value == pytest.approx(0.75)
    assert found.next_choice is not None
    assert f"then network {found.next_choice.place}" in found.advice[0]
    assert f"riwoactl export --run 1 --arch {found.next_choice.place}" in found.advice[0]
    assert "Expect this figure: 92.10 % on validation" in markdown.render(found)


def _key(state: Path, place: str) -> str:
    from riwoa_storage.reader import JournalReader

    generation, slot = map(int, place.split("/"))
    with JournalReader(state / "journal.db") as reader:
        found = reader.individual(1, generation, slot)
    assert found is not None
    return found.architecture_key


def test_a_run_before_its_first_evaluation_says_so(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal.db", [])
    found = read_report(tmp_path / "journal.db", tmp_path / "latency_lut.json")
    assert found.winner is None
    assert "No network was evaluated yet" in page.render(found)
    assert "No network was evaluated yet" in markdown.render(found)


def test_a_report_that_cannot_be_written_is_one_line_in_the_log(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / "report.html").write_text("my own notes")
    asyncio.run(report_run(daemon_parts(state, "run.export=true")))
    (line,) = capsys.readouterr().out.splitlines()
    assert "report_not_written" in line
    assert "holds something else than a report" in line
    assert (state / "report.html").read_text() == "my own notes"


def test_points_are_thinned_evenly_and_the_last_is_kept() -> None:
    assert spread_evenly(3, 5) == [0, 1, 2]
    thinned = spread_evenly(100_000, 1_200)
    assert (len(thinned), thinned[0], thinned[-1]) == (1_200, 0, 99_999)
