from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riwoa.config.loading import difference, from_journal, load
from riwoa.config.schema import Config, as_json, leaves
from riwoa.errors import ConfigError
from tests.ctl.support import environment
from tests.support.fuzz import examples


def problems(file: Path | None, overrides: Sequence[str] = ()) -> tuple[str, ...]:
    try:
        load(file, overrides, {})
    except ConfigError as error:
        return (str(error), *error.problems)
    return ()


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
        ("[oracle.supernet]\nresolutions = [24, 24]\n", ["oracle.supernet.resolutions", "distinct, ascending"]),
        ('[oracle.supernet]\ndata = ""\n', ["oracle.supernet.data", "at least 1 character"]),
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


SAVED = {
    "a byte-order mark": b"\xef\xbb\xbf[run]\nseed = 3\n",
    "line ends of another system": b"[run]\r\nseed = 3\r\n",
    "both": b"\xef\xbb\xbf# seed\r\n[run]\r\nseed = 3",
}


@pytest.mark.parametrize("content", SAVED.values(), ids=SAVED)
def test_a_file_is_read_however_an_editor_saved_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_bytes(content)
    assert load(file, environment={}).config.run.seed == 3


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_bytes("[run]\nseed = 3\n".encode(encoding))
    with pytest.raises(ConfigError, match=r"is UTF-(16|32); save it as UTF-8"):
        load(file, environment={})


def test_a_byte_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_bytes('[oracle]\n# Größe\ndata = "Größe"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"is not UTF-8 \(line 2, byte 0xf6\); save it as UTF-8"):
        load(file, environment={})


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "socket").symlink_to(tmp_path / "nowhere")
    began_s = time.monotonic()
    for place, why in (
        (tmp_path, "is a directory"),
        (tmp_path / "fifo", "is a pipe that nobody writes to"),
        (Path("/dev/zero"), "is a device"),
        (Path("/dev/full"), "is a device"),
        (tmp_path / "socket", "no such configuration file"),
    ):
        with pytest.raises(ConfigError, match=why):
            load(place, environment={})
    assert time.monotonic() - began_s < 5
    assert load(Path(os.devnull), environment={}).config == Config()


@pytest.mark.parametrize("place", ["<(echo [run]; echo seed = 3)", "/dev/stdin"])
def test_a_pipe_of_the_shell_is_a_file_to_read_once(place: str) -> None:
    program = "import sys; from pathlib import Path; from riwoa.config.loading import load;"
    program += "print(load(Path(sys.argv[1]), environment={}).config.run.seed)"
    line = f"printf '[run]\\nseed = 3\\n' | {sys.executable} -c '{program}' {place}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, env=environment())
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr


def test_a_key_that_takes_a_string_takes_the_text_as_it_stands() -> None:
    for text in ("2024", "1e3", "true", "07:00:00", "2024-01-01", "[1]", "0x10", "/data/2024", '"2024"', "'2024'"):
        for loaded in (load(None, [f"oracle.supernet.data={text}"], {}), load(None, [], {"RIWOA_ORACLE__DATA": text})):
            assert loaded.config.oracle.supernet.data == text.strip("'\"")
    loaded = load(None, ["oracle.predictor.file=7", "run.deadline=07:00:00", "control.group=1000"], {})
    assert (loaded.config.oracle.predictor.file, loaded.config.run.deadline) == ("7", "07:00")
    assert loaded.config.control.group == "1000"


def test_a_number_where_the_file_needs_a_string_is_refused_and_says_how_to_quote(tmp_path: Path) -> None:
    file = write(tmp_path / "riwoa.toml", "[oracle.supernet]\ndata = 2024\n")
    with pytest.raises(ConfigError, match=r'oracle\.supernet\.data = 2024, .*write it in quotes: "2024"'):
        load(file, environment={})


@pytest.mark.parametrize(
    "setting",
    [
        "search.population=1000000000",
        "oracle.workers=1000000000000000000000000000000",
        "oracle.threads=1000000",
        "run.generations=99999999999999999999999",
        "run.polish_evaluations=99999999999999999999999",
        "oracle.memory_bytes=99999999999999999999999",
        "governor.disk_pause_bytes=99999999999999999999999",
        "objective.exponent=-1e300",
        "oracle.timeout_s=1e300",
        "search.riwoa.screened=1000000000",
    ],
)
def test_a_number_beyond_all_use_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"should be .*(less than or equal to|greater than or equal to)"):
        load(None, [setting], {})


def test_all_that_is_wrong_is_listed_and_the_first_of_it_told(tmp_path: Path) -> None:
    text = "[serach]\nx = 1\n[run]\nseed = 'x'\nsede = 1\n[governor]\nload_pause = 1.0\n[search]\npopulation = 1\n"
    with pytest.raises(ConfigError, match=r"unknown section 'serach'.*and 4 more.*config check") as caught:
        load(write(tmp_path / "riwoa.toml", text), environment={})
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    for part in ("serach", "run.sede", "run.seed = 'x'", "governor.load", "search.population = 1"):
        assert part in problems


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
    assert found.live == {"run.generations": (200, 9), "objective.latency_ms": ("auto", 2.5)}
    assert found.refused == {"run.seed": (0, 4)}
    assert not difference(new, new).live
    assert not difference(new, new).refused


def test_a_journaled_configuration_reads_back_and_forgets_keys_it_no_longer_knows() -> None:
    config = load(None, ["run.seed=7", "oracle.supernet.resolutions=[24, 32]"], {}).config
    data = as_json(config)
    data["run"]["a_key_of_the_future"] = 1
    assert from_journal(data) == config


def test_every_key_is_described() -> None:
    assert all(info.description for _, info in leaves())


_TOML = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from(
        [
            "1e400",
            "1e300",
            "1" + "0" * 30,
            "9" * 5000,
            "nan",
            "-inf",
            '"auto"',
            '"../../etc/shadow"',
            "07:00:00",
            "2026-01-01T07:00:00",
            '""',
        ]
    )
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


# Whole files, of what is known to trouble parsers: depth, length, digits, dots, encodings, half of anything.
_PIECES = st.one_of(
    st.text(max_size=60),
    st.sampled_from(["[", "[[", "{a=", "a.", '"', "'''", "\\u0000", "9", "-", "=", "\n", "#", "\x00", "0x", "]", "é"]),
    st.sampled_from([f"[{key.rpartition('.')[0]}]\n{key.rpartition('.')[2]} = " for key, _ in leaves()]),
)
_PARTS = st.lists(st.tuples(_PIECES, st.sampled_from([1, 1, 1, 2, 70, 3000, 60_000])), max_size=8)


def _text(parts: list[tuple[str, int]], most: int) -> str:
    """Made here: Hypothesis keeps what a strategy makes, and ten thousand of these are 16 GB."""
    return "".join(piece * times for piece, times in parts)[:most]


_ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])


@pytest.mark.timeout(1800)
@settings(max_examples=examples(100), deadline=None)
@given(_PARTS, _ENCODINGS, st.integers(0, 3))
def test_no_file_content_raises_anything_but_one_line_or_takes_long(
    parts: list[tuple[str, int]], encoding: str, cut: int
) -> None:
    content = _text(parts, 600_000).encode(encoding, errors="replace")
    began_s = time.process_time()
    with tempfile.NamedTemporaryFile("wb", suffix=".toml") as file:
        file.write(content[: len(content) - cut])
        file.flush()
        told = problems(Path(file.name))
    assert all(len(line.splitlines()) <= 1 and len(line) < 8000 for line in told)
    assert time.process_time() - began_s < 20


@given(st.sampled_from([key for key, _ in leaves()]), _PARTS)
@settings(max_examples=examples(100), deadline=None)
def test_no_override_raises_anything_but_one_line(key: str, parts: list[tuple[str, int]]) -> None:
    told = problems(None, [f"{key}={_text(parts, 100_000)}"])
    assert all(len(line.splitlines()) <= 1 for line in told)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["oracle.rungs=[400,100]"], "numbers of images, ascending"),
        (['oracle.rungs=["low_fidelity"]'], "numbers of images, ascending"),
        (["oracle.kind=table", "oracle.rungs=[100]"], "with oracle.table.low_fidelity its column"),
        (["oracle.kind=table", 'oracle.rungs=["low_fidelity"]'], "with oracle.table.low_fidelity its column"),
        (["oracle.kind=predictor", "oracle.rungs=[100]"], "nothing is cheaper than a predictor"),
    ],
)
def test_rungs_that_an_oracle_does_not_have_are_refused(settings: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(None, settings, {})


def test_what_a_journal_of_before_did_not_say_is_what_was_done_then() -> None:
    assert from_journal({"search": {"population": 8}}).search.riwoa.screened == 1
    assert from_journal({}).search.riwoa.screened == 1
    assert from_journal(as_json(Config())) == Config()
