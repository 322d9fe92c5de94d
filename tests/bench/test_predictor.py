import json
from pathlib import Path

import numpy as np
import pytest

from riwoa.bench.contest import Settings
from riwoa.bench.predictor import PredictorLandscape, bench_predictor
from riwoa.ctl import main
from riwoa.hardware.ofa_table import OfaLatencyTable
from riwoa.oracle.predictor import AccuracyPredictor
from riwoa.search.codec import Codec
from riwoa.supernet.space import ofa_config
from tests.support.official import official_data


def test_it_says_what_predictor_and_table_say() -> None:
    folder = official_data("once-for-all")
    landscape = PredictorLandscape(folder, 25.0)
    codec = Codec(landscape.space, 0)
    predictor = AccuracyPredictor.load(folder / "acc_predictor.pth")
    table = OfaLatencyTable(folder / "latency_table@note10")
    for indices in codec.decode(np.random.default_rng(0).random((5, codec.dimension))):
        config = ofa_config(landscape.space.architecture(indices))
        measured = landscape.measure(indices)
        assert measured.value == 100 * float(predictor.accuracies([config])[0])
        assert measured.load == landscape.free_load(indices) == table.latency_ms(config)


def test_the_target_and_the_files_are_part_of_the_key() -> None:
    folder = official_data("once-for-all")
    assert PredictorLandscape(folder, 25.0).key == PredictorLandscape(folder, 25.0).key
    assert PredictorLandscape(folder, 25.0).key != PredictorLandscape(folder, 20.0).key


def test_knowing_the_latency_beforehand_pays() -> None:
    settings = Settings(seeds=3, budget=60, strategies=("riwoa", "riwoa-blind", "random"))
    result = bench_predictor(settings, official_data("once-for-all"), 20.0)
    riwoa, blind, random = (row["value_mean"] for row in result["rows"])
    assert riwoa > max(blind, random)
    assert all(row["reached_best_share"] is None for row in result["rows"])
    json.dumps(result, allow_nan=False)


def test_without_the_files_it_says_where_to_put_them_and_names_no_option_of_another_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RIWOA_DATA", str(tmp_path))
    assert main(["bench", "predictor"]) == 66
    said = capsys.readouterr().err
    assert "$RIWOA_DATA/once-for-all" in said
    assert "--tasks" not in said


def test_the_verb_says_it_in_words_and_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIWOA_DATA", str(official_data("once-for-all").parent))
    verb = ["bench", "predictor", "--target", "30", "--seeds", "2", "--budget", "20", "--strategies", "riwoa,random"]
    assert main(verb) == 0
    assert "within 30 ms on the note10; 2 seeds" in capsys.readouterr().out
    assert main([*verb, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bench"], found["settings"]["target_ms"]) == ("predictor", 30.0)
    assert found["ratio"] > 0


def test_a_target_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "predictor", "--target", "0"]) == 64
    assert "--target and --after must be above 0" in capsys.readouterr().err
