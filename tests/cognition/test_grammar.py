"""The grammar of a request: exactly the patches on offer, each in one spelling."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any

import pytest

llguidance = pytest.importorskip("llguidance")

from riwoa.cognition.grammar import patch_grammar  # noqa: E402
from riwoa.cognition.protocol import Choice, ModelSpec  # noqa: E402

OFFER: Mapping[str, tuple[Choice, ...]] = {"a.kernel": (3, 5), "b.expand": (4,), 'c "quoted"': ("skip\\conv", 1.5)}


@pytest.fixture(scope="module")
def tokens(tiny_llama: ModelSpec) -> object:
    import llguidance.hf
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_llama.directory)  # two classes by its annotation
    return llguidance.hf.from_tokenizer(tokenizer)


def accepts(tokens: object, grammar: str, text: str) -> bool:
    matcher = llguidance.LLMatcher(tokens, llguidance.LLMatcher.grammar_from_lark(grammar))
    assert not matcher.is_error(), matcher.get_error()
    ids = tokens.tokenize_str(text)  # type: ignore[attr-defined]
    return bool(matcher.validate_tokens(ids) == len(ids) and matcher.consume_tokens(ids) and matcher.is_accepting())


def patches(most: int) -> Iterator[dict[str, Choice]]:
    for size in range(1, most + 1):
        for genes in combinations(OFFER, size):
            for choices in product(*(OFFER[g] for g in genes)):
                yield dict(zip(genes, choices, strict=True))


@pytest.mark.parametrize("most", [1, 2, 3])
def test_every_offered_patch_up_to_the_size_is_accepted_and_no_larger_one(tokens: object, most: int) -> None:
    grammar = patch_grammar(OFFER, most)
    for patch in patches(len(OFFER)):
        assert accepts(tokens, grammar, json.dumps(patch)) == (len(patch) <= most), patch


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"a.kernel": 7}',
        '{"a.kernel": 3, "a.kernel": 5}',
        '{"b.expand": 4, "a.kernel": 3}',  # another spelling of a patch that is there
        '{"d": 1}',
        '{"a.kernel": {"b.expand": 4}}',
        '{"a.kernel": 3} ',
        '{"a.kernel":3}',
    ],
)
def test_what_was_not_offered_or_is_spelt_otherwise_is_refused(tokens: object, text: str) -> None:
    assert not accepts(tokens, patch_grammar(OFFER, 3), text)


@pytest.mark.parametrize(("offer", "most"), [({}, 1), ({"a": ()}, 1), ({"a": (1,)}, 0)])
def test_a_grammar_of_nothing_is_refused(offer: dict[str, tuple[Choice, ...]], most: int) -> None:
    with pytest.raises(ValueError, match="at least one gene"):
        patch_grammar(offer, most)
