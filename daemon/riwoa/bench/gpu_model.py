"""A language model of Nanbeige4-3B's shape with random weights.

What it takes to write and to learn is that of the real one; what it writes is nonsense. ``python -m
riwoa.bench.gpu_model DIR [--tiny]`` writes it where it does not lie yet.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from riwoa.cognition.models import check_directory
from riwoa.errors import ModelError
from riwoa.ipc.child import die_with_parent

SHAPE: dict[str, Any] = {
    "vocab_size": 166_144,
    "hidden_size": 2560,
    "intermediate_size": 10_496,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "num_key_value_heads": 4,
    "head_dim": 128,
}
_TINY: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_model(directory: Path, *, tiny: bool = False) -> None:
    """Write weights, tokenizer and chat template; weights in bfloat16, drawn on the GPU where there is one."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    directory.mkdir(parents=True, exist_ok=True)
    write_tokenizer(directory)
    config = LlamaConfig(
        **(_TINY if tiny else SHAPE),
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    before = torch.get_default_dtype()
    with torch.random.fork_rng(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(before)
    model.save_pretrained(directory)


def write_tokenizer(directory: Path) -> int:
    """Write a byte-level BPE of a few hundred tokens, in which any text can be written; returns how many."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(_SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["stage1.block1.kernel: 7 expand: 6 depth too slow accuracy latency ms"] * 8, trainer)
    make: Any = PreTrainedTokenizerFast
    fast = make(tokenizer_object=tokenizer, bos_token=_SPECIAL[1], eos_token=_SPECIAL[2], pad_token=_SPECIAL[2])
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(directory)
    return len(fast)


def main(arguments: list[str]) -> int:
    """Write the model unless it lies there whole; returns the exit code."""
    die_with_parent()
    directory = Path(arguments[0])
    try:
        check_directory(directory)
    except ModelError:
        write_model(directory, tiny="--tiny" in arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
