"""A real language model in the engine's process: it writes, learns, swaps its adapter and comes back after a kill."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from riwoa.cognition.adapters import AdapterFiles
from riwoa.cognition.engine import LanguageModelProvider
from riwoa.cognition.protocol import Example, GenerationRequest, GenerationSettings, ModelSpec, TrainingJob
from riwoa.errors import AdapterError
from riwoa_storage.records import RequestRecord
from tests.support import asking

SETTINGS = GenerationSettings(thinking_tokens=6, least_thinking_tokens=4, patch_tokens=24, batch=4)
CHOICES = {"stage1.depth": [2, 4], "stage1.block1.kernel": [3, 5]}


@pytest.fixture
async def engine(tiny_llama: ModelSpec) -> AsyncIterator[LanguageModelProvider]:
    provider = LanguageModelProvider(tiny_llama)
    yield provider
    await provider.close()


def requests(count: int = 4) -> list[RequestRecord]:
    prompts = [f"parent {i}" for i in range(count)]
    parent = {"stage1.depth": 3, "stage1.block1.kernel": 7}
    return asking.requests(prompts, SETTINGS, system="you patch networks", choices=CHOICES, parent=parent)


def job(files: AdapterFiles, examples: int = 4, epochs: int = 2) -> TrainingJob:
    successes = tuple(
        Example(id=f"{i}", system="s", prompt=f"p{i}", text='<think>\nwiden it\n</think>\n{"stage1.depth": 4}')
        for i in range(examples)
    )
    probes = tuple(
        GenerationRequest(
            id=f"probe {i}", seed=i, system="s", prompt=f"p{i}", choices={g: tuple(c) for g, c in CHOICES.items()}
        )
        for i in range(2)
    )
    return TrainingJob(
        examples=successes,
        held_out=successes[:2],
        probes=probes,
        settings=SETTINGS,
        seed=1,
        weights_path=str(files.new()),
        epochs=epochs,
        learning_rate=1e-2,
        batch=2,
    )


async def texts(engine: LanguageModelProvider) -> list[str]:
    return [r.text for r in await engine.generate(requests())]


def kill(engine: LanguageModelProvider) -> None:
    os.kill(engine.stats().pid or 0, signal.SIGKILL)


async def test_it_writes_learns_and_swaps_its_adapter_and_a_kill_in_mid_training_changes_nothing(
    engine: LanguageModelProvider, tmp_path: Path
) -> None:
    bare = await texts(engine)
    patches = [json.loads(text.rpartition("</think>")[2]) for text in bare]
    assert all(patches)
    assert all(choice in CHOICES[gene] for patch in patches for gene, choice in patch.items())

    files = AdapterFiles(tmp_path, lambda _: None)
    steps: list[Mapping[str, Any]] = []
    first = await engine.train(job(files), steps.append)
    assert len(steps) == len(first.losses) == 4
    assert (first.after.held_out_loss or 0) < (first.before.held_out_loss or 0)
    assert await texts(engine) == bare  # the adapter in use is still none

    weights = await files.take(files.new(), first.sha256)
    await engine.use_adapter(first.sha256, await files.file(first.sha256))
    learned = await texts(engine)
    assert learned != bare
    second = await engine.train(job(files), lambda _: None)
    files.new().unlink()

    def kill_once(_: Mapping[str, Any]) -> None:
        if not engine.stats().restarts:
            kill(engine)

    again = await engine.train(job(files), kill_once)
    assert engine.stats().restarts == 1
    assert await texts(engine) == learned
    assert (again.sha256, again.losses) == (second.sha256, second.losses)

    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(weights[: len(weights) // 2])
    with pytest.raises(AdapterError, match=r"damaged\.safetensors"):
        await engine.use_adapter("f" * 64, damaged)
    await engine.use_adapter(None, None)
    assert await texts(engine) == bare
