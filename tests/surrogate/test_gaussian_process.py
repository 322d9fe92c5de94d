"""A predictor learned from a journal: it ranks, knows how sure it is, and comes back from its file as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from riwoa.ctl import main
from riwoa.errors import InputError
from riwoa.ipc.child import child_environment
from riwoa.oracle.predictor import AccuracyPredictor
from riwoa.search.space import Gene, Space, SpaceError
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa.surrogate.gaussian_process import Examples, Surrogate, examples_of, fit, judge, one_hot, unseen
from tests.ctl.support import individual, write_journal
from tests.support.official import official_data

SPACE = mobilenet_space((160, 192, 224))
NOMINAL = Space("cells", tuple(Gene(f"op{i}", ("none", "skip", "conv1", "conv3", "pool"), "nominal") for i in range(6)))


def drawn(space: Space, n: int, seed: int) -> Any:
    indices = np.random.default_rng(seed).integers(0, space.cardinalities, (n, len(space)))
    return np.unique(space.canonical(indices), axis=0)


def examples(space: Space, n: int, seed: int, noise: float = 0.0) -> Examples:
    """Accuracies that every choice moves, and pairs of choices a little."""
    rng = np.random.default_rng(99)
    indices = drawn(space, n, seed)
    x = one_hot(space, indices)
    effects = x @ rng.normal(0, 0.01, x.shape[1]) + 0.01 * np.sin(x @ rng.normal(0, 1, x.shape[1]))
    return Examples(space, indices, 0.7 + effects + noise * np.random.default_rng(seed).normal(size=len(indices)))


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return fit(examples(SPACE, 150, seed=0))


def test_features_are_one_hot_and_zero_where_a_gene_is_inactive() -> None:
    smallest = np.zeros((1, len(SPACE)), dtype=np.int64)
    x = one_hot(SPACE, SPACE.canonical(smallest))
    assert x.shape == (1, int(SPACE.cardinalities.sum()))
    assert x.sum() == 1 + 5 + 2 * 10  # resolution, depths, kernel and expansion of two layers a stage


@pytest.mark.parametrize("space", [SPACE, NOMINAL], ids=["conditional", "nominal"])
def test_it_ranks_what_it_never_saw_and_its_intervals_hold(space: Space) -> None:
    learned, others = examples(space, 200, seed=0, noise=0.002), examples(space, 400, seed=1, noise=0.002)
    found = fit(learned)
    others = unseen(found, others)
    judgement = judge(*found.predict_indices(others.indices), others.accuracies)
    assert judgement.spearman > 0.8
    assert 0.8 < judgement.coverage <= 1
    assert 0.7 < judgement.z_sd < 1.3
    assert found.report["held_out"]["spearman"] > 0.7


def test_on_the_official_predictor_it_ranks_random_architectures() -> None:
    predictor = AccuracyPredictor.load(official_data("once-for-all/acc_predictor.pth"))

    def official(n: int, seed: int) -> Examples:
        indices = drawn(SPACE, n, seed)
        accuracies = predictor.accuracies([ofa_config(SPACE.architecture(row)) for row in indices])
        return Examples(SPACE, indices, accuracies.astype(np.float64))

    others = official(300, seed=1)
    judgement = judge(*fit(official(200, seed=0)).predict_indices(others.indices), others.accuracies)
    assert judgement.spearman > 0.9
    assert 0.8 < judgement.coverage < 0.98


def test_it_is_sure_of_what_it_saw_and_less_of_what_is_far(surrogate: Surrogate) -> None:
    seen = surrogate.examples
    means, sds = surrogate.predict_indices(seen.indices)
    assert np.corrcoef(means, seen.accuracies)[0, 1] > 0.95
    assert np.median(surrogate.predict_indices(drawn(SPACE, 200, seed=5))[1]) > np.median(sds)


def test_architectures_and_their_indices_give_the_same_and_none_gives_none(surrogate: Surrogate) -> None:
    indices = drawn(SPACE, 30, seed=2)
    by_name = surrogate.predict([SPACE.architecture(row) for row in indices])
    np.testing.assert_allclose(by_name, surrogate.predict_indices(indices), rtol=1e-12)
    assert [a.shape for a in surrogate.predict([])] == [(0,), (0,)]
    with pytest.raises(SpaceError, match="resolution"):
        surrogate.predict([{**SPACE.architecture(indices[0]), "resolution": 100}])


def test_the_left_out_errors_are_those_of_leaving_each_out(surrogate: Surrogate) -> None:
    """Against doing it: the formula of eq. 5.12 needs no second process."""
    seen, kernel = surrogate.examples, surrogate.kernel
    without = Surrogate(seen.rows(np.arange(len(seen)) != 7), kernel, {})
    without._centre, without._spread = surrogate._centre, surrogate._spread
    mean, sd = without.predict_indices(seen.indices[7:8])
    expected = (seen.accuracies[7] - mean[0]) / (sd[0] / kernel.z_scale)
    assert surrogate.left_out_z()[7] == pytest.approx(expected, rel=1e-6)


def test_a_file_gives_the_same_predictions_without_torch_or_scikit_learn(surrogate: Surrogate, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    surrogate.save(path)
    indices = drawn(SPACE, 20, seed=3)
    again = Surrogate.load(path)
    np.testing.assert_allclose(again.predict_indices(indices), surrogate.predict_indices(indices), rtol=1e-9)
    assert again.report == surrogate.report
    code = (
        "import sys; from pathlib import Path; from riwoa.surrogate.gaussian_process import Surrogate;"
        f"s = Surrogate.load(Path({str(path)!r})); s.predict([s.space.architecture(s.examples.indices[0])]);"
        "print([m for m in ('torch', 'sklearn', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], env=child_environment(1), capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


def _metadata(path: Path) -> dict[str, str]:
    length = int.from_bytes(path.read_bytes()[:8], "little")
    found: dict[str, str] = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
    return found


def _rewritten(tensors: Callable[[dict[str, Any]], object], metadata: Callable[[dict[str, str]], object]) -> Any:
    def spoil(path: Path) -> None:
        arrays, content = dict(load_file(path)), _metadata(path)
        tensors(arrays)
        metadata(content)
        save_file(arrays, path, content)

    return spoil


def nothing(_: object) -> None:
    """No change."""


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.unlink(),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(p.read_bytes()[:-9]),
        lambda p: save_file({"a": np.zeros(3)}, p),
        _rewritten(lambda a: a["accuracies"].__setitem__(3, np.nan), nothing),
        _rewritten(lambda a: a["accuracies"].__setitem__(slice(None), 0.5), nothing),
        _rewritten(lambda a: a["indices"].__setitem__((0, 0), 3), nothing),
        _rewritten(lambda a: a["indices"].__setitem__((0, 0), -2), nothing),
        _rewritten(lambda a: a.update(indices=a["indices"][:, 1:].copy()), nothing),
        _rewritten(lambda a: a.update(indices=a["indices"][:5].copy(), accuracies=a["accuracies"][:5].copy()), nothing),
        _rewritten(nothing, lambda m: m.update(kernel="[1, 1, 0, 1]")),
        _rewritten(nothing, lambda m: m.update(kernel="[1, 1]")),
        _rewritten(nothing, lambda m: m.update(kernel="[1, 1, NaN, 1]")),
        _rewritten(nothing, lambda m: m.update(space="[]")),
        _rewritten(nothing, lambda m: m.update(format="other")),
        _rewritten(nothing, lambda m: m.pop("report")),
    ],
)
def test_another_or_damaged_file_is_refused_in_one_line(surrogate: Surrogate, tmp_path: Path, spoil: Any) -> None:
    path = tmp_path / "p.safetensors"
    surrogate.save(path)
    spoil(path)
    with pytest.raises(InputError, match=r"no accuracy predictor of riwoa's .*; train it again") as caught:
        Surrogate.load(path)
    assert "\n" not in str(caught.value)


def test_too_few_and_equal_accuracies_are_refused() -> None:
    with pytest.raises(InputError, match="19 evaluated architectures are too few to learn from, 20 are needed"):
        fit(examples(SPACE, 19, seed=0))
    equal = examples(SPACE, 40, seed=0)
    with pytest.raises(InputError, match="all 40 accuracies are equal"):
        fit(Examples(SPACE, equal.indices, np.full(40, 0.5)))


def test_of_too_many_the_latest_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riwoa.surrogate.gaussian_process.MOST", 30)
    all_of_them = examples(SPACE, 50, seed=0)
    assert np.array_equal(fit(all_of_them).examples.indices, all_of_them.indices[-30:])


def test_another_space_is_not_judged(surrogate: Surrogate) -> None:
    with pytest.raises(InputError, match="knows the space 'ofa-mobilenetv3', the run searched 'cells'"):
        unseen(surrogate, examples(NOMINAL, 30, seed=0))


def test_examples_are_each_architecture_once_with_a_number() -> None:
    a, b, c = (SPACE.architecture(row) for row in drawn(SPACE, 3, seed=0))
    found = examples_of(SPACE, iter([(a, 0.5), (b, None), (a, 0.6), (c, float("nan")), ({"no": 1}, 0.7), (b, 0.25)]))
    assert found.accuracies.tolist() == [0.5, 0.25]
    assert SPACE.architecture(found.indices[1]) == b


def test_train_and_check_read_a_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = examples(SPACE, 60, seed=0)
    out, journal = tmp_path / "p.safetensors", tmp_path / "journal.db"
    people = [
        individual(i % 20, (str(i), float(y), 1.0), architecture=SPACE.architecture(row))
        for i, (row, y) in enumerate(zip(known.indices, known.accuracies, strict=True))
    ]
    write_journal(journal, [tuple(people[i : i + 20]) for i in (0, 20, 40)], space=SPACE.to_json())
    assert main(["predictor", "train", "--journal", str(journal), "--first", "40", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architectures"] == 40
    assert main(["predictor", "check", str(out), "--state", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["learned_from"], found["unseen"]["architectures"]) == (40, 20)
    assert main(["predictor", "check", str(out), "--state", str(tmp_path)]) == 0
    assert "90 % intervals that hold" in capsys.readouterr().out
    assert main(["predictor", "train", "--journal", str(journal), "--first", "5", "--out", str(out)]) == 66
    assert main(["predictor", "train", "--journal", str(journal), "--out", str(tmp_path / "no" / "p")]) == 73
    assert main(["predictor", "train", "--journal", str(tmp_path / "none.db"), "--out", str(out)]) == 66
