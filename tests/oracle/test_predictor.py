"""OFA's accuracy predictor, read and computed as OFA does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from riwoa.errors import InputError, OracleError
from riwoa.oracle.kinds import build_oracle
from riwoa.oracle.predictor import BACKBONE, RESOLUTIONS_PX, AccuracyPredictor, PredictorSpec
from riwoa.oracle.protocol import CandidateError
from riwoa.search.fitness import FloatArray
from riwoa.supernet import geometry
from riwoa.supernet.space import OfaConfig, mobilenet_space, ofa_config
from tests.support.ofa_files import predictor_network, write_predictor
from tests.support.official import ofas_tutorial, official_data, some_configs


def ofas_accuracies(weights: dict[str, torch.Tensor], configs: list[OfaConfig]) -> FloatArray:
    """As OFA's own class computes them; it cannot load the file itself, its constructor downloads."""
    theirs = ofas_tutorial("accuracy_predictor").AccuracyPredictor(pretrained=False, device="cpu")
    theirs.model.load_state_dict(weights)
    found = theirs.predict_accuracy([c.to_json() for c in configs])
    return np.asarray(found[:, 0].numpy())


def test_the_official_predictor_says_what_ofas_own_code_says() -> None:
    file = official_data("once-for-all/acc_predictor.pth")
    configs = some_configs(RESOLUTIONS_PX, 1000, seed=1)
    ours = AccuracyPredictor.load(file).accuracies(configs)
    theirs = ofas_accuracies(torch.load(file, map_location="cpu", weights_only=True), configs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert 0.6 < ours.min() < ours.max() < 0.9  # ImageNet top-1
    assert len(np.unique(ours)) > 990


def test_random_weights_give_what_ofas_own_code_gives(tmp_path: Path) -> None:
    weights = predictor_network().state_dict()
    torch.save({"state_dict": weights}, tmp_path / "wrapped.pth")
    configs = some_configs(RESOLUTIONS_PX, 64, seed=2)
    ours = AccuracyPredictor.load(tmp_path / "wrapped.pth").accuracies(configs)
    np.testing.assert_allclose(ours, ofas_accuracies(weights, configs), rtol=0, atol=1e-6)


def test_layers_beyond_the_depth_make_no_difference() -> None:
    pairs = [
        (m.weight.detach().numpy(), m.bias.detach().numpy())
        for m in predictor_network()
        if isinstance(m, torch.nn.Linear)
    ]
    predictor = AccuracyPredictor(pairs)
    space = mobilenet_space(RESOLUTIONS_PX)
    indices = np.zeros(len(space), dtype=np.int64)
    other = indices.copy()
    other[space.position["stage2.block4.kernel"]] = 2
    both = [ofa_config(space.architecture(i)) for i in (indices, other)]
    assert predictor.accuracies(both)[0] == predictor.accuracies(both)[1]
    assert predictor.accuracies([]).shape == (0,)


def test_a_resolution_that_the_predictor_never_saw_is_refused_though_ofa_rounds_it() -> None:
    predictor = AccuracyPredictor([])
    with pytest.raises(OracleError, match=r"the resolutions \(112, .*, 224\), not 164"):
        predictor.accuracies(some_configs((164,), 1, seed=0))


def _without_a_layer() -> object:
    return {k: v for k, v in predictor_network().state_dict().items() if not k.startswith("6.")}


def _of_other_shapes() -> object:
    return torch.nn.Sequential(*[m for _ in range(4) for m in (torch.nn.Linear(8, 8), torch.nn.ReLU())]).state_dict()


def _with_a_wrong_bias() -> object:
    return {**predictor_network().state_dict(), "2.bias": torch.zeros(1)}


def _with_a_nan() -> object:
    return {**predictor_network().state_dict(), "4.bias": torch.full((400,), float("nan"))}


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (_without_a_layer, "KeyError"),
        (_of_other_shapes, "layers of shapes"),
        (_with_a_wrong_bias, "layers of shapes"),
        (_with_a_nan, "not finite"),
        (lambda: [1, 2, 3], "not OFA's accuracy predictor"),
        (lambda: {f"{i}.{kind}": "text" for i in (0, 2, 4, 6) for kind in ("weight", "bias")}, "not OFA's"),
        (predictor_network, "not OFA's accuracy predictor"),  # a pickled module would run its own code
    ],
)
def test_another_file_is_refused_and_named(tmp_path: Path, make: object, hint: str) -> None:
    assert callable(make)
    torch.save(make(), tmp_path / "wrong.pth")
    with pytest.raises(InputError, match=hint) as caught:
        AccuracyPredictor.load(tmp_path / "wrong.pth")
    assert str(tmp_path / "wrong.pth") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_missing_or_damaged_file_is_refused_and_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "acc_predictor.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"acc_predictor\.pth: not OFA's accuracy predictor"):
        AccuracyPredictor.load(tmp_path / "acc_predictor.pth")


def test_as_an_oracle_an_architecture_is_judged_alone_whatever_came_before(tmp_path: Path) -> None:
    spec = PredictorSpec(predictor=str(write_predictor(tmp_path / "acc_predictor.pth")))
    assert PredictorSpec.from_json(spec.to_json()) == spec
    space = mobilenet_space(RESOLUTIONS_PX)
    drawn = np.random.default_rng(0).integers(0, space.cardinalities, (30, len(space)))
    architectures = [space.architecture(space.canonical(indices)) for indices in drawn]
    oracle = build_oracle(spec.to_json())
    found = [oracle.evaluate(a) for a in architectures]
    again = build_oracle(spec.to_json())
    assert [again.evaluate(a) for a in reversed(architectures)] == found[::-1]
    assert again.version == oracle.version
    together = AccuracyPredictor.load(Path(spec.predictor)).accuracies([ofa_config(a) for a in architectures])
    np.testing.assert_allclose([m["accuracy"] for m in found], together, rtol=0, atol=1e-6)
    assert found[0]["macs"] == geometry.macs(ofa_config(architectures[0]), BACKBONE)
    other = PredictorSpec(predictor=str(write_predictor(tmp_path / "other.pth", seed=1)))
    assert build_oracle(other.to_json()).version != oracle.version


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"resolution": 100}, "knows the resolutions"),
        ({"stage1.block1.kernel": 9}, r"ks is one of \(3, 5, 7\) .* not 9"),
        ({"stage2.block1.expand": 5}, r"e is one of \(3, 4, 6\) .* not 5"),
        ({"stage3.depth": 7}, r"d is one of \(2, 3, 4\) .* not 7"),
        ({"stage3.depth": "deep"}, "invalid literal"),
        ({"resolution": 10**30}, "not an architecture"),
    ],
)
def test_an_architecture_outside_the_space_fails_with_the_gene(
    tmp_path: Path, change: dict[str, object], hint: str
) -> None:
    oracle = build_oracle(PredictorSpec(predictor=str(write_predictor(tmp_path / "acc_predictor.pth"))).to_json())
    space = mobilenet_space(RESOLUTIONS_PX)
    smallest: dict[str, object] = dict(space.architecture(np.zeros(len(space), dtype=np.int64)))
    with pytest.raises(CandidateError, match=hint):
        oracle.evaluate(smallest | change)
    del smallest["stage1.depth"]
    with pytest.raises(CandidateError, match=r"stage1\.depth"):
        oracle.evaluate(smallest)
