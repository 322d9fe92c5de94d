"""From a GGUF file to a model directory, in a process of its own: the reader needs torch, and much memory once.

``python -m riwoa.cognition.convert FILE.gguf DIRECTORY`` writes bfloat16 safetensors, configuration, tokenizer and chat
template. Quantised GGUF blocks are unpacked: a LoRA can be trained on plain weights, and on a CPU they are faster.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from riwoa.ipc.child import die_with_parent, watch_stdin


def convert(source: Path, directory: Path) -> None:
    """Read ``source``, write ``directory``.

    Raises:
        Exception: whatever transformers' reader meets in a file that it does not know.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = str(source.parent), source.name
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    # Without dequantize=True the weights stay in GGUF blocks, and save_pretrained refuses them.
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def main(arguments: list[str]) -> int:
    """Convert; on failure one line on standard error."""
    die_with_parent()
    watch_stdin()
    try:
        convert(Path(arguments[0]), Path(arguments[1]))
    except Exception as error:  # the boundary of the process
        print(f"{type(error).__name__}: {' '.join(str(error).split())}"[:500], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
