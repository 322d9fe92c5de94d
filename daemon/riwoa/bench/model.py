"""Does the configured model run here, and how fast? Starts it in its own process, as the daemon would. No torch."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from riwoa.cognition.engine import LanguageModelProvider
from riwoa.cognition.model_process import EngineLimits
from riwoa.cognition.models import Resolved, choose, recommended
from riwoa.cognition.protocol import GenerationSettings
from riwoa.config.schema import Config
from riwoa.hardware.accelerator import NO_GPU, probe_accelerator
from riwoa.run.sample_request import sample_request
from riwoa.run.style import Style, style_of
from riwoa.search.space import Space
from riwoa.supernet.space import mobilenet_space
from riwoa_storage.records import RequestRecord

BATCH = 8
_MOST_THINKING_TOKENS = 128  # enough to time a token by


@dataclass(frozen=True, slots=True)
class Checked:
    """What a model is and does on this machine. Speeds are new tokens a second, prompts included."""

    model: str
    reason: str
    directory: str
    quantization: str
    dtype: str
    device: str
    threads: int
    settings: GenerationSettings
    template: str
    load_s: float
    memory_bytes: int | None  # resident set of the process, after writing
    vram_bytes: int | None  # as the driver accounts to the process; None on a CPU, or where it does not tell
    tokens_per_s_alone: float
    tokens_per_s_batch: float
    sample: str  # what it wrote alone
    four_bit: bool
    four_bit_reason: str | None

    def to_json(self) -> dict[str, Any]:
        """JSON object."""
        return asdict(self)


async def check_model(config: Config, say: Callable[[str], None] = lambda _: None) -> Checked:
    """Resolve, start, write alone and in a batch of 8, stop.

    Raises:
        ModelError: there is no model, or it cannot be loaded.
        CognitionError: its process was lost.
    """
    cognition = config.cognition
    found = choose(
        cognition.model,
        threads=cognition.threads,
        lora_dropout=cognition.lora_dropout,
        memory_bytes=cognition.memory_bytes,
    )
    style = style_of(cognition.model_copy(update={"role": "slot"}), recommended(found.spec))
    limits = EngineLimits(memory_limit_bytes=cognition.memory_bytes)
    provider = LanguageModelProvider(found.spec, limits=lambda: limits)
    try:
        say(f"loading {found.spec.name}")
        started = time.monotonic()
        await provider.start()
        load_s = time.monotonic() - started
        say("writing")
        return await _measured(provider, found, style, mobilenet_space(config.oracle.supernet.resolutions), load_s)
    finally:
        await provider.close()


async def _measured(
    provider: LanguageModelProvider, found: Resolved, style: Style, space: Space, load_s: float
) -> Checked:
    budget = min(style.settings.thinking_tokens, _MOST_THINKING_TOKENS)
    timed = replace(style, settings=replace(style.settings, thinking_tokens=budget))
    requests = [sample_request(space, timed, i) for i in range(2 + BATCH)]
    # The first pays for kernels chosen and the shared prefix computed.
    await provider.generate(requests[:1])
    alone_s, alone, sample = await _timed(provider, requests[1:2])
    batch_s, tokens, _ = await _timed(provider, requests[2:])
    stats, device = provider.stats(), probe_accelerator()
    return Checked(
        model=found.spec.name,
        reason=found.reason,
        directory=found.spec.directory,
        quantization=found.spec.quantization,
        dtype=found.spec.dtype,
        device=found.spec.device if device is None else device.name,
        threads=found.spec.threads,
        settings=style.settings,
        template=style.template.name,
        load_s=load_s,
        memory_bytes=stats.resident_bytes,
        vram_bytes=_vram_bytes(stats.pid),
        tokens_per_s_alone=alone / alone_s,
        tokens_per_s_batch=tokens / batch_s,
        sample=sample,
        four_bit=device is not None and device.four_bit_error is None,
        four_bit_reason=NO_GPU if device is None else device.four_bit_error,
    )


async def _timed(provider: LanguageModelProvider, requests: list[RequestRecord]) -> tuple[float, int, str]:
    """Seconds, tokens written, and the first text."""
    started = time.monotonic()
    replies = await provider.generate(requests)
    return time.monotonic() - started, sum(r.tokens for r in replies), replies[0].text


def _vram_bytes(pid: int | None) -> int | None:
    """What the driver says the process holds."""
    if pid is None or shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    held = [int(mib) for line in lines for process, mib in [line.split(",")] if process.strip() == str(pid)]
    return held[0] * 2**20 if held else None
