"""Keys by the names that they had before each kind of oracle, and each strategy, had a table of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from riwoa.config.loading import difference, from_journal, keys_in_journal, load
from riwoa.config.reload import Reloader
from riwoa.config.renamed import RENAMED
from riwoa.config.schema import Config, leaves, value_of
from riwoa.ctl import main
from riwoa.errors import ConfigError
from riwoa.run.strategy import search_parameters
from riwoa.search.base import SearchInputError
from riwoa.search.riwoa import RiwoaParameters
from riwoa.search.strategies import STRATEGIES

GOLDEN = Path(__file__).parent / "golden"  # configurations as the last version with flat keys journaled them
NEW = {
    "table": [
        *(
            "oracle.kind=table",
            "oracle.table.file=/d/cells.npz",
            "oracle.table.accuracy=acc",
            "oracle.table.order=true",
        ),
        *("oracle.table.low_fidelity=early", 'oracle.rungs=["low_fidelity"]'),
    ],
    "predictor": [
        *("oracle.kind=predictor", "oracle.predictor.file=/d/acc_predictor.pth"),
        *("oracle.predictor.latency_tables=/d/tables", "oracle.predictor.resolutions=[160,192]"),
    ],
    "supernet": [
        *("oracle.supernet.checkpoint=/d/net.pth", "oracle.supernet.width_mult=0.5"),
        *("oracle.supernet.resolutions=[16,20]", "oracle.supernet.data=/d/images"),
        *("oracle.supernet.n_classes=3", "oracle.supernet.dtype=float32"),
    ],
}
LATER = {"search.riwoa.spiral_b", "search.woa.spiral_b"}  # keys that there were under no name
OLD_FILE = """\
[oracle]
kind = "table"
table = "cells.npz"
table_accuracy = "acc"
table_order = true
workers = 3
"""


def test_every_old_name_leads_to_a_key_that_there_is() -> None:
    known = {key for key, _ in leaves()}
    assert set(RENAMED.values()) | {"oracle.predictor.resolutions"} <= known
    assert not set(RENAMED) & known


def test_old_names_in_a_file_the_environment_and_on_the_command_line_are_read_and_told_in_one_line(
    tmp_path: Path,
) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text(OLD_FILE)
    environment = {"RIWOA_ORACLE__TABLE_REPORT": "test", "RIWOA_ORACLE__TABLE__GENES": "cells"}
    loaded = load(file, ["oracle.table=2024.npz", "oracle.data=digits"], environment)
    table = loaded.config.oracle.table
    assert (table.file, table.accuracy, table.order, table.report) == ("2024.npz", "acc", True, "test")
    assert (table.genes, loaded.config.oracle.workers) == ("cells", 3)
    assert loaded.origin["oracle.table.file"] == "command line"
    assert loaded.origin["oracle.table.report"] == "environment"
    assert loaded.warning == (
        f"old names of keys, which are still read: file {file}: oracle.table is now oracle.table.file, "
        "oracle.table_accuracy is now oracle.table.accuracy, oracle.table_order is now oracle.table.order; "
        "environment: oracle.table_report is now oracle.table.report; "
        "command line: oracle.table is now oracle.table.file, oracle.data is now oracle.supernet.data"
    )
    assert load(None, ["oracle.table.file=x"], {}).warning is None


def test_a_later_origin_wins_whatever_name_it_uses(tmp_path: Path) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text('[oracle.table]\naccuracy = "of the file"\n')
    assert load(file, ["oracle.table_accuracy=given"], {}).config.oracle.table.accuracy == "given"
    file.write_text('[oracle]\ntable_accuracy = "of the file"\n')
    assert load(file, ["oracle.table.accuracy=given"], {}).config.oracle.table.accuracy == "given"


def test_the_resolutions_that_two_kinds_shared_go_to_the_kind_that_is_chosen() -> None:
    oracle = load(None, ["oracle.resolutions=[160]", "oracle.kind=predictor"], {}).config.oracle
    assert (oracle.predictor.resolutions, oracle.supernet.resolutions) == ((160,), (24, 32, 40))
    oracle = load(None, ["oracle.resolutions=[160]"], {}).config.oracle
    assert (oracle.predictor.resolutions, oracle.supernet.resolutions) == ((160, 176, 192, 208, 224), (160,))


@pytest.mark.parametrize("order", [1, -1])
def test_an_old_and_a_new_name_of_one_key_together_are_refused_by_name(tmp_path: Path, order: int) -> None:
    both = ["oracle.table_accuracy=a", "oracle.table.accuracy=a"][::order]
    told = r"oracle\.table_accuracy is the old name of oracle\.table\.accuracy, and both are given; leave"
    with pytest.raises(ConfigError, match=f"command line: {told}"):
        load(None, both, {})
    with pytest.raises(ConfigError, match=f"environment: {told}"):
        load(None, [], {"RIWOA_ORACLE__TABLE_ACCURACY": "a", "RIWOA_ORACLE__TABLE__ACCURACY": "b"})
    file = tmp_path / "riwoa.toml"
    file.write_text('[oracle]\ntable_accuracy = "a"\ntable.accuracy = "a"\n')
    with pytest.raises(ConfigError, match=f"riwoa.toml: {told}"):
        load(file, [], {})


def test_wrong_values_and_tables_in_the_place_of_values_are_told_by_the_new_name() -> None:
    for given, told in (
        ("oracle.validation_views=0", "oracle.supernet.validation_views = 0, should be greater"),
        ("oracle.supernet=3", "'oracle.supernet' is a section; write its keys below [oracle.supernet]"),
        ("oracle.tabel_accuracy=a", "did you mean 'oracle.table.accuracy'"),
        ("oracle.supernet.accuracy=a", "did you mean 'oracle.table.accuracy'"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(None, [given], {})
        assert told in str(caught.value)


@pytest.mark.parametrize("kind", NEW)
def test_a_configuration_that_an_older_version_journaled_reads_back_as_today_s(kind: str) -> None:
    journaled: dict[str, Any] = json.loads((GOLDEN / f"flat_{kind}.json").read_text())
    # As pictures were read then, as a search chose, and as a run ended.
    then = ["oracle.supernet.data_rules=1", "search.riwoa.joint=false", "run.finalists=0", "run.generations=40"]
    then += ["search.memory=false", "cognition.inherit=false", "cognition.lag=1", "cognition.train_lag=6"]
    then += ["cognition.counterfactual_share=0"]
    then += [f"search.{name}.learn_failures=false" for name in ("riwoa", "gp")]
    then += ["cognition.provider=model", "cognition.role=slot", "cognition.patch_genes=1", "cognition.train_after=16"]
    today = load(None, [*NEW[kind], *then], {}).config
    assert from_journal(journaled) == today
    assert not difference(from_journal(journaled), today).refused
    known_then = set(RENAMED.values()) | {"oracle.predictor.resolutions"}
    unsaid = known_then - keys_in_journal(journaled) - LATER
    usual = "supernet" if kind == "predictor" else "predictor"
    assert f"oracle.{usual}.resolutions" in unsaid  # one key for both kinds it was


def test_what_an_old_restart_changed_is_in_force_by_its_new_name() -> None:
    journaled = json.loads((GOLDEN / "flat_supernet.json").read_text())
    oracle = from_journal(journaled, {"oracle.data": "/moved", "oracle.workers": 2}).oracle
    assert (oracle.supernet.data, oracle.workers) == ("/moved", 2)


def test_a_file_whose_keys_get_their_new_names_while_a_run_goes_on_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text(OLD_FILE)
    reloader = Reloader(load(file, [], {}), [])
    file.write_text(
        '[oracle]\nkind = "table"\nworkers = 3\ntable = {file = "cells.npz", accuracy = "acc", order = true}\n'
    )
    found = reloader.reload()
    assert (found.accepted, found.refused, reloader.error) == ({}, {}, None)
    file.write_text('[oracle]\nkind = "table"\nworkers = 3\n')
    with pytest.raises(ConfigError, match=r"\[oracle\.table\] is gone from it"):
        reloader.reload()


def test_show_and_check_tell_old_names_on_standard_error_and_show_prints_the_new_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text("[oracle]\nvalidation_views = 2\n")
    assert main(["config", "show", "--config", str(file)]) == 0
    shown = capsys.readouterr()
    assert "[oracle.supernet]\n" in shown.out
    assert "validation_views = 2\n" in shown.out
    told = f"riwoactl: old names of keys, which are still read: file {file}: oracle.validation_views is now"
    assert shown.err.startswith(told)
    assert main(["config", "check", "--state", str(tmp_path), str(file)]) == 0
    assert capsys.readouterr().err.startswith(told)
    file.write_text(shown.out)
    assert load(file, [], {}).config.oracle.supernet.validation_views == 2
    assert load(file, [], {}).warning is None


def test_the_defaults_of_the_configuration_are_those_of_the_strategy() -> None:
    for name in ("riwoa", "woa"):
        ours = STRATEGIES[name].parameters()
        for common in ("population", "placebo_share"):  # not p_semantic: without a configuration nobody can be asked
            assert value_of(Config(), f"search.{common}") == getattr(ours, common)
        made = search_parameters(load(None, [f"search.strategy={name}"], {}).config, 0.0)
        assert dataclasses.replace(made, generations=ours.generations) == ours


def test_old_names_of_a_strategy_s_keys_are_read_and_told(tmp_path: Path) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text("[search]\nscreened = 3\npopulation = 8\n")
    loaded = load(file, ["search.predictor=7"], {"RIWOA_SEARCH__ELITISM": "false"})
    search = loaded.config.search
    assert (search.riwoa.screened, search.riwoa.elitism, search.predictor, search.population) == (3, False, "7", 8)
    assert loaded.warning == (
        f"old names of keys, which are still read: file {file}: search.screened is now search.riwoa.screened; "
        "environment: search.elitism is now search.riwoa.elitism; "
        "command line: search.predictor is now search.riwoa.predictor"
    )
    assert load(None, ["search.strategy=woa", "search.riwoa.predictor=x"], {}).config.search.predictor is None


def test_bounds_of_a_strategy_s_keys_are_those_of_its_parameters() -> None:
    for given, told in (
        ("search.riwoa.elite_fraction=1.5", "search.riwoa.elite_fraction = 1.5, should be less than or equal to 1"),
        ("search.riwoa.screened=0", "search.riwoa.screened = 0, should be greater than or equal to 1"),
        ("search.riwoa.elitism=1", "search.riwoa.elitism = 1, should be a valid boolean"),
        ("search.woa.elitism=true", "did you mean 'search.riwoa.elitism'"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(None, [given], {})
        assert told in str(caught.value)
    with pytest.raises(SearchInputError, match="elite_fraction must lie in"):
        RiwoaParameters(elite_fraction=1.5)
