"""Which model is meant, whether its files are whole, and what it is called."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.cognition import models
from riwoa.cognition.models import (
    EMBEDDED_DIRECTORY,
    PREFERRED,
    check_directory,
    choose,
    hub_directory,
    is_hub_id,
    present,
    recommended,
)
from riwoa.cognition.protocol import ModelSpec
from riwoa.errors import ModelError
from riwoa.files.model_store import models_home
from riwoa.hardware.accelerator import Accelerator, probe_accelerator
from riwoa.hardware.probe import fastest_dtype
from riwoa.ipc.child import child_environment

GPU = Accelerator("a card", 16 * 2**30, True, None)
LARGE = 3_000_000_000


def no_gpu() -> None:
    return None


def gpu() -> Accelerator:
    return GPU


@pytest.fixture
def model(tiny_llama: ModelSpec, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_llama.directory, tmp_path / "copy"))


def make_model(directory: Path, *, parameters: int = 1000, template: str = "t", **generation: Any) -> Path:
    """A model directory of any size on no disk: the weights are a hole behind an honest header."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "tokenizer.json").write_text("{}")
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    if generation:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [parameters], "data_offsets": [0, 2 * parameters]}}).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 2 * parameters)
    return directory


# -- where -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "home"),
    [
        ({"RIWOA_MODELS": "/m", "STATE_DIRECTORY": "/s", "XDG_DATA_HOME": "/d"}, "/m"),
        ({"STATE_DIRECTORY": "/s", "XDG_DATA_HOME": "/d"}, "/s/models"),
        ({"XDG_DATA_HOME": "/d"}, "/d/riwoa/models"),
    ],
)
def test_models_lie_where_the_user_systemd_or_the_desktop_says(environment: dict[str, str], home: str) -> None:
    assert models_home(environment) == Path(home)


def test_without_any_of_these_models_lie_below_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert models_home({}) == Path("/home/someone/.local/share/riwoa/models")


# -- which -----------------------------------------------------------------------------------------------------------


def test_auto_without_any_model_says_why_and_what_to_do(no_models: Path) -> None:
    with pytest.raises(ModelError, match="riwoactl model pull smollm2") as error:
        choose("auto")
    assert str(no_models) in str(error.value)
    assert error.value.exit_code == 66


def test_auto_is_the_embedded_model_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    make_model(tmp_path / EMBEDDED_DIRECTORY)
    make_model(hub_directory(tmp_path, PREFERRED), parameters=LARGE)
    found = choose("auto", home=tmp_path, accelerator=no_gpu)
    assert found.spec.directory == str(tmp_path / EMBEDDED_DIRECTORY)
    assert (found.spec.device, found.spec.quantization, found.spec.dtype) == ("cpu", "none", fastest_dtype())
    assert "no CUDA GPU" in found.reason


def test_auto_is_the_preferred_model_in_4_bit_where_a_gpu_and_its_files_are(tmp_path: Path) -> None:
    make_model(tmp_path / EMBEDDED_DIRECTORY)
    assert "model pull Nanbeige" in choose("auto", home=tmp_path, accelerator=gpu).reason
    make_model(hub_directory(tmp_path, PREFERRED), parameters=LARGE)
    spec = choose("auto", home=tmp_path, accelerator=gpu).spec
    assert spec.name.startswith("nanbeige4-3b-thinking-2511@")
    assert (spec.device, spec.quantization, spec.dtype) == ("cuda", "nf4", "bfloat16")


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "tokenizer.json"])
def test_auto_is_the_embedded_model_while_the_preferred_ones_files_are_partial(missing: str, tmp_path: Path) -> None:
    make_model(tmp_path / EMBEDDED_DIRECTORY)
    (make_model(hub_directory(tmp_path, PREFERRED), parameters=LARGE) / missing).unlink()
    found = choose("auto", home=tmp_path, accelerator=gpu)
    assert found.spec.directory == str(tmp_path / EMBEDDED_DIRECTORY)
    assert "not whole" in found.reason
    assert f"riwoactl model pull {PREFERRED}" in found.reason


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (Accelerator("small", 2 * 2**30, True, None), "too little memory"),
        (Accelerator("odd", 16 * 2**30, True, "bitsandbytes: no kernel"), "no kernel"),
    ],
)
def test_a_gpu_that_cannot_hold_the_preferred_model_runs_the_embedded_one(
    device: Accelerator, reason: str, tmp_path: Path
) -> None:
    make_model(tmp_path / EMBEDDED_DIRECTORY)
    make_model(hub_directory(tmp_path, PREFERRED), parameters=LARGE)
    found = choose("auto", home=tmp_path, accelerator=lambda: device)
    assert reason in found.reason
    assert (found.spec.device, found.spec.quantization) == ("cuda", "none")


def test_a_hub_id_is_found_where_it_was_pulled_and_in_the_hubs_own_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    home = tmp_path / "home"
    with pytest.raises(ModelError, match="riwoactl model pull org/Some-Model"):
        choose("org/Some-Model", home=home, accelerator=no_gpu)
    cached = tmp_path / "hub" / "models--org--Some-Model"
    make_model(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert choose("org/Some-Model", home=home, accelerator=no_gpu).spec.name.startswith("some-model@")
    make_model(home / "org--Some-Model")
    pulled = choose("org/Some-Model", home=home, accelerator=no_gpu).spec
    assert pulled.directory == str(home / "org--Some-Model")
    assert pulled.name.startswith("some-model@")


def test_a_directory_and_a_name_in_the_models_directory_mean_the_model_there(tmp_path: Path) -> None:
    make_model(tmp_path / "home" / "mine")
    by_name = choose("mine", home=tmp_path / "home", accelerator=no_gpu)
    by_path = choose(str(tmp_path / "home" / "mine"), home=tmp_path / "elsewhere", accelerator=no_gpu)
    assert by_name.spec == by_path.spec


@pytest.mark.parametrize("setting", ["smollm2", "nowhere", "/no/such/place", "a/b/c", "", "model.gguf"])
def test_a_model_that_is_not_here_is_an_error_that_names_it(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        choose(setting, home=tmp_path, accelerator=no_gpu)


def test_a_file_that_only_calls_itself_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"what is this")
    with pytest.raises(ModelError, match="is no GGUF file"):
        choose(str(tmp_path / "x.gguf"), home=tmp_path, accelerator=no_gpu)
    (tmp_path / "x.gguf").write_bytes(b"GGUF and more")
    with pytest.raises(ModelError, match="riwoactl model pull"):
        choose(str(tmp_path / "x.gguf"), home=tmp_path, accelerator=no_gpu)


def test_a_model_too_large_for_the_configured_memory_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    make_model(tmp_path / "large", parameters=LARGE)
    with pytest.raises(ModelError, match=r"cognition\.memory_bytes"):
        choose("large", home=tmp_path, accelerator=no_gpu, memory_bytes=2**30)
    assert choose("large", home=tmp_path, accelerator=gpu, memory_bytes=2**30).spec.quantization == "nf4"


@given(st.text(max_size=60))
def test_any_text_is_a_hub_id_or_not_without_an_accident(text: str) -> None:
    if is_hub_id(text):
        assert ".." not in Path(text).parts
        assert text.count("/") == 1


# -- files -----------------------------------------------------------------------------------------------------------


def without(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def truncated(name: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[: len(data) // 2])

    return damage


def replaced(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).write_bytes(data)

    return damage


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (without("tokenizer.json"), "tokenizer"),
        (without("config.json"), "config.json"),
        (without("model.safetensors"), "model.safetensors"),
        (truncated("config.json"), "config.json"),
        (truncated("model.safetensors"), "model.safetensors"),
        (replaced("model.safetensors", b""), "model.safetensors"),
        (replaced("model.safetensors", b"\xff" * 64), "model.safetensors"),
        (replaced("model.safetensors", struct.pack("<Q", 2) + b"[]"), "model.safetensors"),
        (replaced("config.json", b"[1]"), "config.json"),
        (replaced("config.json", b"{}"), "model_type"),
        (replaced("generation_config.json", b"{"), "generation_config.json"),
        (replaced("model.safetensors.index.json", b'{"weight_map": {}}'), "index"),
        (replaced("model.safetensors.index.json", b'{"weight_map": {"w": "part-1.safetensors"}}'), "part-1"),
    ],
)
def test_a_damaged_model_directory_is_refused_by_the_name_of_what_is_wrong(
    damage: Callable[[Path], None], named: str, model: Path
) -> None:
    check_directory(model)
    damage(model)
    with pytest.raises(ModelError, match=named) as error:
        check_directory(model)
    assert "\n" not in str(error.value)


@given(st.binary(max_size=200))
def test_no_bytes_in_the_place_of_weights_raise_anything_but_a_model_error(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        Path(file.name).write_bytes(data)
        with pytest.raises(ModelError):
            models._header(Path(file.name))


def test_the_name_follows_the_weights_the_tokenizer_and_the_template_but_not_the_version_that_saved_them(
    model: Path,
) -> None:
    name = check_directory(model).name
    assert name.startswith("copy@")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "transformers_version": "99"}))
    assert check_directory(model).name == name
    names = {name}
    for file, at in (("model.safetensors", -1), ("chat_template.jinja", 0), ("tokenizer.json", -2)):
        data = bytearray((model / file).read_bytes())
        data[at] ^= 1
        (model / file).write_bytes(data)
        names.add(check_directory(model).name)
    assert len(names) == 4


def test_the_list_tells_whole_models_from_damaged_ones(tmp_path: Path) -> None:
    make_model(tmp_path / "good")
    without("config.json")(make_model(tmp_path / "bad"))
    (tmp_path / "half.tmp").mkdir()
    bad, good = present(tmp_path)
    assert isinstance(bad, ModelError)
    assert isinstance(good, models.ModelFiles)
    assert good.parameters == 1000
    assert present(tmp_path / "nowhere") == []


def test_a_tokenizer_that_is_only_a_sentencepiece_model_can_be_read(model: Path, tmp_path: Path) -> None:
    """As Nanbeige's: transformers needs sentencepiece and protobuf for it, which it does not depend on."""
    from sentencepiece import SentencePieceTrainer
    from transformers import AutoTokenizer

    text = tmp_path / "text"
    text.write_text("\n".join(f"stage{i}.block{i}.kernel {i} too slow: reduce" for i in range(99)))
    SentencePieceTrainer.train(
        input=str(text), model_prefix=str(model / "tokenizer"), vocab_size=350, model_type="bpe", byte_fallback=True,
        minloglevel=2,
    )  # fmt: skip
    (model / "tokenizer.json").unlink()
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    check_directory(model)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(model))
    written = '<think>too slow</think>\n{"stage1.depth": 3}'
    assert tokenizer.decode(tokenizer(written, add_special_tokens=False).input_ids) == written


# -- settings --------------------------------------------------------------------------------------------------------


def advice(directory: Path) -> models.Recommended:
    return recommended(choose(str(directory), accelerator=no_gpu).spec)


def test_what_the_makers_say_is_the_default_and_a_files_word_goes_before_it(tmp_path: Path) -> None:
    small = advice(make_model(tmp_path / EMBEDDED_DIRECTORY))
    assert (small.temperature, small.top_p, small.thinking_tokens, small.template) == (0.2, 0.9, 40, "compact")
    large = advice(make_model(hub_directory(tmp_path, PREFERRED), parameters=LARGE))
    assert (large.temperature, large.top_p, large.thinking_tokens, large.template) == (0.6, 0.95, 1024, "full")
    assert large.learning_rate < small.learning_rate
    told = advice(make_model(tmp_path / "other", temperature=0.3, top_p=0.8))
    assert (told.temperature, told.top_p) == (0.3, 0.8)
    no_numbers: tuple[Any, ...] = (None, "high", True, [])
    for nothing in no_numbers:
        unset = advice(make_model(tmp_path / f"unset {nothing}", temperature=nothing, top_p=nothing))
        assert (unset.temperature, unset.top_p) == (0.7, 0.95)


def test_the_embedded_model_is_what_it_should_be(embedded_model: ModelSpec) -> None:
    files = check_directory(Path(embedded_model.directory))
    assert 134e6 < files.parameters < 136e6
    assert "<|im_start|>" in files.template
    assert embedded_model.name.startswith("smollm2-135m-instruct@")


# -- the machine -----------------------------------------------------------------------------------------------------


def test_the_daemon_finds_a_model_without_loading_torch(tiny_llama: ModelSpec) -> None:
    code = (
        "import sys; from riwoa.cognition.models import choose, recommended; from riwoa.cognition import fetch\n"
        f"recommended(choose({tiny_llama.directory!r}).spec)\n"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub', 'tokenizers') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(1), capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_the_probe_of_the_gpu_agrees_with_torch() -> None:
    import torch

    assert (probe_accelerator() is not None) == torch.cuda.is_available()
