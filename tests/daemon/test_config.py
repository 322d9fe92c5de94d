from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riwoa.config import Config, as_json, difference, from_journal, leaves, load
from riwoa.errors import ConfigError
from tests.support.fuzz import examples


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_hold_without_any_file() -> None:
    loaded = load(None, environment={})
    assert loaded.config == Config()
    assert set(loaded.origin.values()) == {"default"}


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(tmp_path / "riwoa.toml", "[run]\nseed = 1\ngenerations = 5\n[search]\npopulation = 8\n")
    environment = {"RIWOA_RUN__SEED": "2", "RIWOA_RUN__GENERATIONS": "6", "UNRELATED": "x"}
    loaded = load(file, ["run.seed=3"], environment)
    assert (loaded.config.run.seed, loaded.config.run.generations, loaded.config.search.population) == (3, 6, 8)
    assert loaded.origin["run.seed"] == "command line"
    assert loaded.origin["run.generations"] == "environment"
    assert loaded.origin["search.population"] == f"file {file}"
    assert loaded.origin["oracle.workers"] == "default"


@pytest.mark.parametrize(
    ("text", "hints"),
    [
        ("[search]\npopulatoin = 8\n", ["'search.populatoin'", "did you mean 'search.population'"]),
        ("[serach]\npopulation = 8\n", ["'serach'", "did you mean 'search'"]),
        ("[run]\npopulation = 8\n", ["'run.population'", "did you mean 'search.population'"]),
        ('[search]\npopulation = "many"\n', ["search.population", "'many'", "integer"]),
        ("[search]\npopulation = 1\n", ["search.population", "greater than or equal to 4"]),
        ("[objective]\nlatency_ms = nan\n", ["objective.latency_ms"]),
        ("[oracle]\nresolutions = [24, 24]\n", ["oracle.resolutions", "distinct, ascending"]),
        ('[oracle]\ndata = ""\n', ["oracle.data", "at least 1 character"]),
        ("[run]\nseed = true\n", ["run.seed", "True", "integer"]),
        ('[run]\nexport = "no"\n', ["run.export", "'no'", "boolean"]),
        ("[objective]\nlatency_ms = true\n", ["objective.latency_ms", "True"]),
        ("run = 3\n", ["'run' is a section"]),
        ("[run\n", ["not valid TOML"]),
    ],
)
def test_a_bad_file_is_refused_with_what_where_and_what_next(tmp_path: Path, text: str, hints: list[str]) -> None:
    file = write(tmp_path / "riwoa.toml", text)
    with pytest.raises(ConfigError) as caught:
        load(file, environment={})
    message = str(caught.value)
    assert str(file) in message
    assert "\n" not in message.splitlines()[0]
    for hint in hints:
        assert hint in message


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="riwoactl config show"):
        load(tmp_path / "absent.toml", environment={})


def test_an_unknown_environment_variable_is_refused_like_an_unknown_key() -> None:
    with pytest.raises(ConfigError, match=r"environment: unknown key 'search.popluation'.*search.population"):
        load(None, environment={"RIWOA_SEARCH__POPLUATION": "3"})


def test_an_override_without_a_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        load(None, ["seed"], {})


def test_a_difference_tells_live_keys_from_those_that_need_a_new_run() -> None:
    old = load(None, [], {}).config
    new = load(None, ["run.generations=9", "run.seed=4", "objective.latency_ms=2.5"], {}).config
    found = difference(old, new)
    assert found.live == {"run.generations": (40, 9), "objective.latency_ms": ("auto", 2.5)}
    assert found.refused == {"run.seed": (0, 4)}
    assert not difference(new, new).live
    assert not difference(new, new).refused


def test_a_journaled_configuration_reads_back_and_forgets_keys_it_no_longer_knows() -> None:
    config = load(None, ["run.seed=7", "oracle.resolutions=[24, 32]"], {}).config
    data = as_json(config)
    data["run"]["a_key_of_the_future"] = 1
    assert from_journal(data) == config


def test_every_key_is_described() -> None:
    assert all(info.description for _, info in leaves())


_TOML = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from(["1e400", "nan", "-inf", '"auto"', '"../../etc/shadow"', "07:00:00", "2026-01-01T07:00:00", '""'])
    | st.text(max_size=12).map(json.dumps),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(map(str, items))}]"),
    max_leaves=6,
).map(lambda value: str(value).lower() if isinstance(value, bool) else str(value))


@pytest.mark.timeout(1800)
@settings(max_examples=examples(100), deadline=None)
@given(st.dictionaries(st.sampled_from([key for key, _ in leaves()]), _TOML, min_size=1, max_size=4))
def test_no_value_of_any_key_is_half_accepted(values: dict[str, str]) -> None:
    sets = [f"{key}={value}" for key, value in values.items()]
    try:
        config = load(None, sets, {}).config
    except ConfigError:
        return
    assert from_journal(json.loads(json.dumps(as_json(config), allow_nan=False))) == config


@given(st.text(max_size=200))
def test_no_file_content_raises_anything_but_a_config_error(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        pass
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)
        file.flush()
        try:
            load(Path(file.name), environment={})
        except ConfigError:
            pass


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["oracle.rungs=[400,100]"], "numbers of images, ascending"),
        (['oracle.rungs=["low_fidelity"]'], "numbers of images, ascending"),
        (["oracle.kind=table", "oracle.rungs=[100]"], "with table_low_fidelity its column"),
        (["oracle.kind=table", 'oracle.rungs=["low_fidelity"]'], "with table_low_fidelity its column"),
        (["oracle.kind=predictor", "oracle.rungs=[100]"], "nothing is cheaper than a predictor"),
    ],
)
def test_rungs_that_an_oracle_does_not_have_are_refused(settings: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(None, settings, {})


def test_what_a_journal_of_before_did_not_say_is_what_was_done_then() -> None:
    assert from_journal({"search": {"population": 8}}).search.screened == 1
    assert from_journal({}).search.screened == 1
    assert from_journal(as_json(Config())) == Config()
