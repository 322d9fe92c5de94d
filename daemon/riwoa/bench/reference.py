"""What riwoa is compared with: transformers and peft as their documentation uses them. A child of ``bench cognition``.

``python -m riwoa.bench.reference generate|loss``: one JSON object in, one out.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

_THINK = "<think>\n"


def main() -> int:
    """Answer once."""
    frame = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr
    spec = frame["spec"]
    torch.set_num_threads(spec["threads"])
    tokenizer = AutoTokenizer.from_pretrained(spec["directory"])
    model: Any = AutoModelForCausalLM.from_pretrained(spec["directory"], dtype=getattr(torch, spec["dtype"]))
    model = model.to(spec["device"]).eval()
    answer = {"generate": _generate, "loss": _loss}[sys.argv[1]](model, tokenizer, frame)
    json.dump(answer, out)
    return 0


def _prompt(tokenizer: Any, row: dict[str, str]) -> torch.Tensor:
    messages = [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["prompt"]}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    text = (text if text.rstrip().endswith("<think>") else text + _THINK) + row["lead"]
    ids: torch.Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    return ids


def _generate(model: Any, tokenizer: Any, frame: dict[str, Any]) -> dict[str, float]:
    """One after the other, exactly as many tokens as riwoa wrote."""
    spent_s, tokens = 0.0, 0
    for row, length in zip(frame["prompts"], frame["lengths"], strict=True):
        ids = _prompt(tokenizer, row).to(model.device)
        started = time.monotonic()
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=0.7,
            top_p=0.95,
            min_new_tokens=length,
            max_new_tokens=length,
            pad_token_id=tokenizer.eos_token_id,
        )
        spent_s += time.monotonic() - started
        tokens += out.shape[1] - ids.shape[1]
    return {"tokens_per_s": tokens / spent_s}


@torch.inference_mode()
def _loss(model: Any, tokenizer: Any, frame: dict[str, Any]) -> dict[str, float]:
    """Mean over the examples of the mean loss of each reply's tokens, the prompt masked."""
    from peft import PeftModel

    from riwoa.cognition.lora import write_peft_directory
    from riwoa.cognition.protocol import ModelSpec

    with tempfile.TemporaryDirectory(prefix="riwoa-peft-") as place:
        directory = Path(place, "adapter")
        write_peft_directory(ModelSpec.from_json(frame["spec"]), Path(frame["adapter"]).read_bytes(), directory)
        tuned = PeftModel.from_pretrained(model, str(directory)).eval()
    losses = []
    for row in frame["held_out"]:
        prompt = _prompt(tokenizer, row)
        reply = tokenizer(
            row["text"].removeprefix(_THINK + row["lead"]), add_special_tokens=False, return_tensors="pt"
        ).input_ids
        ids = torch.cat([prompt, reply, torch.tensor([[tokenizer.eos_token_id]])], dim=1).to(model.device)
        labels = ids.clone()
        labels[:, : prompt.shape[1]] = -100
        losses.append(float(tuned(ids, labels=labels).loss))
    return {"loss": sum(losses) / len(losses)}


if __name__ == "__main__":
    sys.exit(main())
