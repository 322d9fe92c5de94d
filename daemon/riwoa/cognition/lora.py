"""One LoRA adapter on a model (Hu et al., 2021): load, save, reset. Needs torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

if not torch.cuda.is_available():
    # peft imports bitsandbytes wherever it is installed, and that a compiler: a quarter of a model's start. Four bits
    # are for CUDA alone, see ``ModelWriter.load``.
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]

from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save

from riwoa.cognition.protocol import ModelSpec
from riwoa.errors import AdapterError
from riwoa_storage.durable import flush, replace_durably

State = dict[str, torch.Tensor]
_FISHER = "fisher."  # before a tensor's name in a file: how much its weights matter (``riwoa.cognition.anchor``)


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
    (directory / "adapter_model.safetensors").write_bytes(_weights_alone(weights))
    for file in directory.iterdir():
        flush(file)
    flush(directory)


def _weights_alone(data: bytes) -> bytes:
    """A file's bytes without a Fisher diagonal, which peft does not know."""
    try:
        tensors = load(data)
    except (SafetensorError, ValueError):
        return data
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(_FISHER)}
    return data if len(kept) == len(tensors) else save(kept)


class Lora:
    """A model with one adapter, in use or not.

    Attributes:
        fisher: how much each weight in use mattered in its trainings; None where nobody noted it.
    """

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        self._fresh_seed = 0
        with _fixed_seed(self._fresh_seed):
            self.model = get_peft_model(model, lora_config(spec))
        self.model.eval()
        self._fresh = self.state()
        self.checkpointing = False
        self._bare = True
        self.fisher: State | None = None
        self.model.disable_adapter_layers()  # spares the bare model thirty layers of additions of nothing

    def state(self) -> State:
        """A copy of the adapter's weights."""
        return {k: v.detach().clone() for k, v in get_peft_model_state_dict(self.model).items()}

    def use(self, file: Path | None) -> None:
        """Switch to the weights of a file; None for the bare model.

        Raises:
            AdapterError: unreadable, or made for another model; what was in use stays in use.
        """
        self.set(*((None,) if file is None else self.read(file)))

    def current(self) -> State | None:
        """The weights in use; None for the bare model."""
        return None if self._bare else self.state()

    def current_or_fresh(self) -> State:
        """The weights in use; a fresh adapter's, which change nothing, where the model is bare."""
        return self._fresh if self._bare else self.state()

    def set(self, state: State | None, fisher: State | None = None) -> None:
        """Switch to these weights, or to the bare model."""
        self._bare, self.fisher = state is None, fisher
        set_peft_model_state_dict(self.model, state or self._fresh)
        if state is None:
            self.model.disable_adapter_layers()
        else:
            self.model.enable_adapter_layers()

    def save(self, file: Path, fisher: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write the weights and how much each matters (in bfloat16, half a weight's bytes), whole or not at all."""
        noted = {_FISHER + name: f.to(torch.bfloat16) for name, f in (fisher or {}).items()}
        replace_durably(file, save({k: v.contiguous().cpu() for k, v in sorted((self.state() | noted).items())}))

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
        return list(self.named_parameters().values())

    def named_parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by the names of ``state``."""
        adapter = f".{self.model.active_adapter}."
        return {n.replace(adapter, "."): p for n, p in self.model.named_parameters() if "lora_" in n}

    def read(self, file: Path) -> tuple[State, State | None]:
        """Weights and, where it was noted, how much each matters.

        Raises:
            AdapterError: unreadable, or made for another model.
        """
        try:
            state = load_file(file, device="cpu")
        except (OSError, SafetensorError, ValueError) as error:
            raise AdapterError(f"{file.name}: not a LoRA adapter ({error})") from None
        fisher = {k.removeprefix(_FISHER): state.pop(k).float() for k in [*state] if k.startswith(_FISHER)}
        wanted = {k: tuple(v.shape) for k, v in self._fresh.items()}
        for given in (state, *([fisher] if fisher else [])):
            if wanted != {k: tuple(v.shape) for k, v in given.items()}:
                raise AdapterError(f"{file.name}: an adapter for another model: its tensors do not fit this one")
            if not all(bool(torch.isfinite(v).all()) for v in given.values()):
                raise AdapterError(f"{file.name}: holds weights that are not finite")
        return state, fisher or None


@contextlib.contextmanager
def _fixed_seed(seed: int) -> Iterator[None]:
    """The first weights (A) are drawn by peft from torch's global generator: the same in every process."""
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(before)
