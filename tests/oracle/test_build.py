"""The oracle that a worker makes: the same images as the task's own, and a version that moves with all that matters."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.datasets.digits import load_digits_task
from riwoa.errors import InputError, OracleError
from riwoa.oracle import supernet_oracle
from riwoa.oracle.kinds import build_oracle
from riwoa.oracle.pool import WorkerPool
from riwoa.oracle.protocol import CandidateError
from riwoa.supernet.space import mobilenet_space
from riwoa.supernet.spec import SupernetSpec
from tests.support.cifar_files import small_archive

SMALLEST = mobilenet_space((24, 32, 40)).architecture(np.zeros(46, dtype=np.int64))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> SupernetSpec:
    from safetensors.torch import save_file

    from riwoa.supernet.geometry import Backbone
    from riwoa.supernet.network import build_network

    path = tmp_path_factory.mktemp("supernet") / "random.safetensors"
    save_file({k: v.contiguous() for k, v in build_network(Backbone(0.25, 10)).state_dict().items()}, path)
    return SupernetSpec(checkpoint=str(path), recalibration_images=50, validation_views=1)


def test_a_worker_evaluates_exactly_as_the_evaluator_does_here(spec: SupernetSpec) -> None:
    async def in_a_worker() -> tuple[str, dict[str, float]]:
        async with WorkerPool(spec) as pool:
            info = await pool.start()
            result = await (await pool.submit("a", SMALLEST))
            assert result.status == "ok", result.reason
            return info.version, dict(result.metrics)

    version, metrics = asyncio.run(in_a_worker())
    here = build_oracle(spec.to_json())
    assert version == here.version
    assert metrics == here.evaluate(SMALLEST)
    assert metrics["images"] == 400
    assert metrics["accuracy"] == metrics["correct"] / 400


def test_a_rung_is_a_fixed_part_of_the_images_and_leaves_full_results_as_they_were(spec: SupernetSpec) -> None:
    raced = replace(spec, rung_images=(60, 200))
    assert SupernetSpec.from_json(raced.to_json()) == raced
    assert "rung_images" not in spec.to_json()
    plain, oracle = build_oracle(spec.to_json()), build_oracle(raced.to_json())
    assert plain.version == oracle.version
    assert plain.evaluate(SMALLEST) == oracle.evaluate(SMALLEST)
    few, more = (oracle.evaluate_at(rung, SMALLEST) for rung in ("60", "200"))
    assert (few["images"], more["images"]) == (60, 200)
    assert few["accuracy"] == few["correct"] / 60
    labels = np.arange(400)
    (_, few_rows), (_, more_rows) = (supernet_oracle._part(labels, labels, n) for n in (60, 200))  # type: ignore[arg-type]
    assert set(few_rows) < set(more_rows)
    with pytest.raises(CandidateError, match="no rung of 61 images, only 60, 200"):
        oracle.evaluate_at("61", SMALLEST)


def test_a_rung_of_all_the_images_is_refused(spec: SupernetSpec) -> None:
    with pytest.raises(InputError, match="400 of 400 validation images are no part"):
        build_oracle(replace(spec, rung_images=(400,)).to_json())


def test_strides_for_small_pictures_reach_the_oracle_of_cifar(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from riwoa.supernet.geometry import Backbone, macs
    from riwoa.supernet.network import build_network
    from riwoa.supernet.space import ofa_config

    path = tmp_path / "random.safetensors"
    backbone = Backbone(0.1, 100, "small")
    save_file({k: v.contiguous() for k, v in build_network(backbone).state_dict().items()}, path)
    small = SupernetSpec(
        checkpoint=str(path),
        width_mult=0.1,
        n_classes=100,
        stem="small",
        data=str(small_archive(tmp_path)),
        resolutions=(16,),
        recalibration_images=100,
    )
    architecture = {**SMALLEST, "resolution": 16}
    oracle = build_oracle(small.to_json())
    metrics = oracle.evaluate(architecture)
    assert metrics["images"] == 200  # a tenth of 20 images of each class
    assert metrics["macs"] == macs(ofa_config(architecture), backbone)
    other = build_oracle(replace(small, stem="imagenet").to_json())  # the same weights, which fit both
    assert other.version != oracle.version
    assert other.evaluate(architecture)["macs"] < metrics["macs"] / 2


def test_the_images_are_those_of_the_task(spec: SupernetSpec) -> None:
    task = load_digits_task()
    for split in ("validation", "test"):
        recalibration, found, data_sha256 = supernet_oracle._images(load_digits_task(), replace(spec, split=split))
        assert data_sha256 == task.sha256
        images, labels = task.views(split, 24, 1)
        assert np.array_equal(found[24][0][:], images)
        assert np.array_equal(found[24][1], labels)
        assert np.array_equal(recalibration[32][:], task.recalibration(32, 50))


def test_the_version_moves_with_everything_that_decides_an_accuracy_and_with_nothing_else(spec: SupernetSpec) -> None:
    settings = {"dtype": "float32", "threads": 1}

    def version(spec: SupernetSpec = spec, settings: Any = settings, weights: str = "w", data: str = "d") -> str:
        return supernet_oracle._version(spec, settings, weights, data)

    others = [
        version(replace(spec, split="test")),
        version(replace(spec, recalibration_images=51)),
        version(replace(spec, validation_views=2)),
        version(replace(spec, batch_size=100)),
        version(replace(spec, stem="small")),
        version(settings={**settings, "threads": 2}),
        version(weights="x"),
        version(data="x"),
    ]
    assert len({version(), *others}) == len(others) + 1
    assert version(replace(spec, prefix_cache_bytes=0)) == version()
    assert version(replace(spec, checkpoint="elsewhere")) == version()
    assert version(replace(spec, resolutions=(24,))) == version()
    assert version(settings={**settings, "batch_images": {"24": 200}}) == version()


def test_versions_and_digests_of_before_there_were_stems_and_devices_still_hold() -> None:
    facts = SupernetSpec(checkpoint="a").to_json()
    assert not {"stem", "device"} & set(facts)
    assert SupernetSpec.from_json(facts) == SupernetSpec(checkpoint="a")
    new = SupernetSpec(stem="small", device="cuda")
    assert SupernetSpec.from_json(new.to_json()) == new


def test_what_cannot_be_built_is_refused_before_torch_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no checkpoint at .*none\.pth"):
        build_oracle(SupernetSpec(checkpoint=str(tmp_path / "none.pth")).to_json())
    with pytest.raises(InputError, match="no image file at cifar"):
        build_oracle(SupernetSpec(data="cifar").to_json())
    if not importlib.import_module("torch").cuda.is_available():
        with pytest.raises(InputError, match=r"oracle\.supernet\.device"):
            build_oracle(SupernetSpec(device="cuda").to_json())
    with pytest.raises(OracleError, match="no oracle of kind 'cluster'"):
        build_oracle({"kind": "cluster"})
