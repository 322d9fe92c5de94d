"""A real language model behind a real HTTP server: its patches are legal ones, however many are asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from riwoa.cognition.http_provider import HttpProvider
from riwoa.cognition.parse import offered_patch
from riwoa.cognition.protocol import ModelSpec
from riwoa.cognition.samples import unpacked
from riwoa.config.schema import Cognition, Config
from riwoa.config.server import ServerSettings
from riwoa.run.provision import provide
from riwoa.run.server_check import check_server
from tests.cognition.test_engine_model import SETTINGS
from tests.support import asking
from tests.support.model_server import model_server

pytest.importorskip("httpx2", reason="the extra is not installed: pip install 'riwoa[http]'")
CHOICES = {"stage1.depth": [2, 4], "stage1.block1.kernel": [3, 5], "stage2.depth": [2, 3, 4]}
PARENT = {"stage1.depth": 3, "stage1.block1.kernel": 7, "stage2.depth": 3}


@pytest.fixture
async def cognition(tiny_llama: ModelSpec) -> AsyncIterator[Cognition]:
    async with model_server(tiny_llama) as url:
        yield Cognition(provider="http", http=ServerSettings(url=url), thinking_tokens=8)


async def test_its_patches_are_legal_and_it_is_what_a_check_says(cognition: Cognition, tiny_llama: ModelSpec) -> None:
    provision = await provide(lambda: cognition, None, lambda _: None)
    assert isinstance(provision.provider, HttpProvider)
    assert provision.provenance()["model"] == f"http:{tiny_llama.name}"  # "auto": the only one that it lists
    assert (provision.state, provision.view()["learns"]) == ("http", False)
    one, several = asking.requests(["parent 1", "parent 2"], SETTINGS, system="s", choices=CHOICES, parent=PARENT)
    several = replace(several, parameters={**several.parameters, "samples": 6, "most_genes": 3})
    replies = await provision.provider.generate([one, several])
    stats = provision.provider.stats().server
    await provision.provider.close()
    assert len(offered_patch(replies[0].text, CHOICES)) == 1
    samples = unpacked(replies[1].text)
    assert len(samples) > 1
    assert all(1 <= len(offered_patch(sample.text, CHOICES)) <= 3 for sample in samples)
    assert stats is not None
    assert stats.model == tiny_llama.name
    assert stats.run_out == sum(r.tokens for r in replies) > 0

    checked = await check_server(Config(cognition=cognition))
    assert (checked.schema, checked.several, checked.mends) == ("kept", True, ())
    assert checked.listed == (tiny_llama.name,)
    assert checked.tokens_in > checked.tokens_out > 0
