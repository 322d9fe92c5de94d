"""One LoRA adapter on a model (Hu et al., 2021): load, save, reset. Needs torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

if not torch.cuda.is_available():
    # peft imports bitsandbytes wherever it is installed, and that a compiler: a quarter of a model's start. Four bits
    # are for CUDA alone, see ``ModelWriter.load``.
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]

from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from riwoa.cognition.protocol import ModelSpec
from riwoa.errors import AdapterError
from riwoa_storage.durable import flush, replace_durably

State = dict[str, torch.Tensor]


def lora_config(spec: ModelSpec) -> LoraConfig:
    """As it is written into exported adapters too."""
    return LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=list(spec.lora_modules),
        task_type="CAUSAL_LM",
    )


def write_peft_directory(spec: ModelSpec, weights: bytes, directory: Path) -> None:
    """A new directory that ``peft.PeftModel.from_pretrained(base, directory)`` loads, on the disk on return."""
    config = lora_config(spec)
    config.base_model_name_or_path = spec.name
    config.inference_mode = True
    directory.mkdir()
    config.save_pretrained(str(directory))
    (directory / "adapter_model.safetensors").write_bytes(weights)
    for file in directory.iterdir():
        flush(file)
    flush(directory)


class Lora:
    """A model with one adapter, in use or not."""

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        self._fresh_seed = 0
        with _fixed_seed(self._fresh_seed):
            self.model = get_peft_model(model, lora_config(spec))
        self.model.eval()
        self._fresh = self.state()
        self.checkpointing = False
        self._bare = True
        self.model.disable_adapter_layers()  # spares the bare model thirty layers of additions of nothing

    def state(self) -> State:
        """A copy of the adapter's weights."""
        return {k: v.detach().clone() for k, v in get_peft_model_state_dict(self.model).items()}

    def use(self, file: Path | None) -> None:
        """Switch to the weights of a file; None for the bare model.

        Raises:
            AdapterError: unreadable, or made for another model; what was in use stays in use.
        """
        self.set(None if file is None else self._read(file))

    def current(self) -> State | None:
        """The weights in use; None for the bare model."""
        return None if self._bare else self.state()

    def current_or_fresh(self) -> State:
        """The weights in use; a fresh adapter's, which change nothing, where the model is bare."""
        return self._fresh if self._bare else self.state()

    def set(self, state: State | None) -> None:
        """Switch to these weights, or to the bare model."""
        self._bare = state is None
        set_peft_model_state_dict(self.model, state or self._fresh)
        if state is None:
            self.model.disable_adapter_layers()
        else:
            self.model.enable_adapter_layers()

    def save(self, file: Path) -> None:
        """Write the weights, whole or not at all."""
        replace_durably(file, save({k: v.contiguous().cpu() for k, v in sorted(self.state().items())}))

    def begin_training(self) -> None:
        """Enable the adapter where it is; a bare model's is a fresh one, which changes nothing yet."""
        self._bare = False
        self.model.enable_adapter_layers()
        for parameter in self.parameters():
            parameter.requires_grad_(True)

    def checkpoint(self) -> None:
        """Trade time for memory in every later backward pass."""
        self.checkpointing = True
        self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained."""
        return [p for name, p in self.model.named_parameters() if "lora_" in name]

    def _read(self, file: Path) -> State:
        try:
            state = load_file(file, device="cpu")
        except (OSError, SafetensorError, ValueError) as error:
            raise AdapterError(f"{file.name}: not a LoRA adapter ({error})") from None
        wanted = {k: tuple(v.shape) for k, v in self._fresh.items()}
        given = {k: tuple(v.shape) for k, v in state.items()}
        if wanted != given:
            raise AdapterError(f"{file.name}: an adapter for another model: its tensors do not fit this one")
        if not all(bool(torch.isfinite(v).all()) for v in state.values()):
            raise AdapterError(f"{file.name}: holds weights that are not finite")
        return state


@contextlib.contextmanager
def _fixed_seed(seed: int) -> Iterator[None]:
    """The first weights (A) are drawn by peft from torch's global generator: the same in every process."""
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(before)
