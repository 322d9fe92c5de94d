from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.cognition.parse import PatchError, parse_patch
from riwoa.cognition.provider import single_change
from riwoa.oracle.mobilenet import mobilenet_space
from riwoa.search.codec import Codec

SPACE = mobilenet_space((24, 32, 40))
PARENT = {
    gene.name: gene.choices[0]
    for gene in SPACE.genes
    if gene.active_if is None or not gene.name.split(".")[1].endswith(("3", "4"))
}


def test_the_last_object_after_the_thinking_counts() -> None:
    text = '<think>maybe {"resolution": 24}?</think> first {"resolution": 32} then {"resolution": 40}.'
    assert parse_patch(text, SPACE, PARENT) == {"resolution": 40}


@pytest.mark.parametrize("tag", ["think", "thinking", "THINK"])
def test_both_thinking_tags_are_known(tag: str) -> None:
    assert parse_patch(f'<{tag}>{{"resolution": 40}}</{tag}>{{"resolution": 32}}', SPACE, PARENT) == {"resolution": 32}


def test_genes_that_keep_their_choice_are_dropped() -> None:
    text = json.dumps({"resolution": 32, "stage1.depth": PARENT["stage1.depth"]})
    assert parse_patch(text, SPACE, PARENT) == {"resolution": 32}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON object"),
        ("<think>endless", "no JSON object"),
        ('{"resolution": 32', "no JSON object"),
        ('{"colour": 1}', "unknown gene 'colour'"),
        ('{"stage1.block4.kernel": 5}', "inactive"),
        ('{"resolution": 33}', "no choice 33"),
        ('{"resolution": NaN}', "no choice nan"),
        ('{"resolution": true}', "plain choice"),
        ('{"resolution": {"resolution": 32}}', "plain choice"),
        ('{"resolution": 24}', "changes nothing"),
        ('{"resolution": 32}</think>', "no JSON object"),
        ('{"r\u0435solution": 32}', "unknown gene"),
    ],
)
def test_an_unusable_patch_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(PatchError, match=reason):
        parse_patch(text, SPACE, PARENT)


def test_a_megabyte_of_braces_is_refused_quickly() -> None:
    started = time.monotonic()
    for text in ("{" * 2**20, '{"a":' * 2**18, "{}" * 2**19):
        with pytest.raises(PatchError):
            parse_patch(text, SPACE, PARENT)
    assert time.monotonic() - started < 5


@given(
    st.text()
    | st.recursive(st.none() | st.floats() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(json.dumps)
)
def test_no_text_raises_anything_but_a_patch_error(text: str) -> None:
    try:
        patch = parse_patch(text, SPACE, PARENT)
    except PatchError:
        return
    assert patch


@given(st.integers(min_value=0, max_value=2**60), st.integers(min_value=0, max_value=2**32))
def test_a_placebo_patch_is_always_legal_and_changes_one_gene(draw: int, seed: int) -> None:
    import numpy as np

    genotype = np.random.default_rng(seed).random((1, Codec(SPACE, 0).dimension))
    parent = SPACE.architecture(Codec(SPACE, 0).decode(genotype)[0])
    patch = single_change(SPACE, parent, draw)
    assert parse_patch(json.dumps(patch), SPACE, parent) == patch
    assert len(patch) == 1
