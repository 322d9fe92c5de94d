"""The evaluation benchmark compares like with like and says how far the results are apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from riwoa.bench import evaluation
from riwoa.bench.evaluation import Task, bench_evaluation, generation
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.network import Supernet, build_network
from tests.support.picture_files import picture_folder


@pytest.fixture(scope="module")
def task() -> Task:
    backbone = Backbone(0.25, 10)
    rng = np.random.default_rng(0)
    recalibration = rng.standard_normal((200, 3, 24, 24)).astype(np.float32)
    validation = rng.standard_normal((400, 3, 24, 24)).astype(np.float32)
    return Task(
        Supernet(build_network(backbone), backbone), {24: recalibration}, {24: (validation, np.arange(400) % 10)}
    )


def test_reports_ratios_and_agreement_as_one_json_object(task: Task) -> None:
    threads = torch.get_num_threads()
    news: list[tuple[int, int]] = []
    found = bench_evaluation(task=task, subnets=2, rounds=2, progress=lambda done, total: news.append((done, total)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert torch.get_num_threads() == threads
    assert news[-1][0] == news[-1][1] == len(news)
    rows = {(row["name"], row["prefixes_shared"]): row for row in found["rows"]}
    assert rows[("ofa", False)]["ratio"] == 1.0
    assert rows[("float32", True)]["logits_max_difference"] <= 1e-3
    assert rows[("float32", True)]["logits_max_difference"] == rows[("float32", False)]["logits_max_difference"]
    assert found["ratio"] == max(row["ratio"] for row in found["rows"] if row["prefixes_shared"])
    assert found["ratio"] > 1.2  # measured 5 and more; this only notices that the fast way has stopped being fast


def test_a_folder_of_pictures_is_evaluated_as_a_search_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = picture_folder(tmp_path / "data", classes=10, train_each=3, judging_each=2)
    found = bench_evaluation(data=str(root), subnets=1, rounds=1)
    assert (found["recalibration_images"], found["validation_images"]) == (30, 20)
    assert max(row["logits_max_difference"] for row in found["rows"] if row["name"] == "float32") <= 1e-3


def test_generation_is_reproducible_and_children_resemble_their_parents() -> None:
    configs = generation((24, 32), 8, seed=1)
    assert configs == generation((24, 32), 8, seed=1)
    assert configs != generation((24, 32), 8, seed=2)
    assert len(configs) == 12
    for child in configs[8:]:
        shared = [sum(a == b for a, b in zip(child.ks + child.e, p.ks + p.e, strict=True)) for p in configs[:8]]
        assert max(shared) >= 28  # three genes changed; a changed depth may show or hide two blocks


def test_well_separated_subnets_that_swap_ranks_are_noticed(task: Task) -> None:
    labels = [np.zeros(100, np.int64)] * 2
    good, bad = torch.eye(2)[torch.zeros(100, dtype=torch.int64)], torch.eye(2)[torch.ones(100, dtype=torch.int64)]
    contender = evaluation._contenders(task)[1]
    seconds = {("ofa", False): [2.0, 2.0], ("float32", True): [0.5, 0.5]}
    logits = {("ofa", False): [good, bad], ("float32", True): [bad, good]}
    row = evaluation._row(contender, seconds, logits, labels)
    assert row["ratio"] == 4.0
    assert (row["separated_pairs"], row["separated_pairs_ranked_alike"]) == (1, 0)
    assert row["accuracy_spearman"] == pytest.approx(-1.0)
    assert row["accuracy_max_difference_points"] == 100.0
