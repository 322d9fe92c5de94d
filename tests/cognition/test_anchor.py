"""What an earlier task needs is kept: importance of weights, and a training that is held to an adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from riwoa.cognition import anchor as room
from riwoa.cognition.anchor import DECAY, Anchor, FisherDiagonal
from riwoa.cognition.gate import judge
from riwoa.cognition.lora import write_peft_directory
from riwoa.cognition.protocol import ModelSpec
from riwoa.cognition.writer import ModelWriter
from riwoa.errors import AdapterError
from tests.cognition.test_preference import comparison, job

# Of an earlier task: y = 3 a, where the second input is hardly ever there.
INPUTS = torch.tensor([[1.0, 0.01], [-1.0, 0.01], [2.0, -0.01], [-2.0, 0.01]])


def named(layer: torch.nn.Linear) -> dict[str, torch.Tensor]:
    return {"w": layer.weight}


def fitted(strength: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (2,) after the earlier task, and after a later one that wants both of them to move as far."""
    layer = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0]]))
    fisher = FisherDiagonal()
    for row in INPUTS:
        layer.zero_grad()
        noisy = 3.0 * row[0] + 0.5
        torch.autograd.backward((layer(row) - noisy).square().sum())
        fisher.add(named(layer), 1)
    first = layer.weight.detach().clone()
    held = Anchor.of({"w": first}, fisher.value())
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.05, weight_decay=0.0)
    for _ in range(200):
        optimiser.zero_grad()
        torch.autograd.backward((layer.weight - (first + 1.0)).square().sum())
        held.pull(named(layer), strength)
        optimiser.step()
    return first[0], layer.weight.detach()[0]


def test_an_important_weight_moves_less_than_an_unimportant_one() -> None:
    first, free = fitted(0.0)
    assert (free - first).tolist() == pytest.approx([1.0, 1.0], abs=0.02)
    first, held = fitted(1.0)
    important, unimportant = (held - first).abs().tolist()
    assert important < 0.6
    assert unimportant > 0.9


def test_importance_is_a_running_sum_in_which_earlier_trainings_count_less() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[2.0, 0.0]])
    first = FisherDiagonal()
    first.add(named(layer), 3)  # the mean of three examples
    first.add(named(layer), 1)
    assert first.value()["w"].tolist() == [[8.0, 0.0]]
    second = FisherDiagonal(first.value())
    assert second.value()["w"][0].tolist() == pytest.approx([8.0 * DECAY, 0.0])
    layer.weight.grad = torch.tensor([[0.0, 1.0]])
    second.add(named(layer), 1)
    assert second.value()["w"][0].tolist() == pytest.approx([8.0 * DECAY, 1.0])


def test_without_importance_all_weights_are_held_alike() -> None:
    weights = {"w": torch.zeros(2, 2)}
    for fisher in (None, {"w": torch.zeros(2, 2)}):
        assert Anchor.of(weights, fisher).importance["w"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    found = Anchor.of(weights, {"w": torch.tensor([[4.0, 0.0], [2.0, 2.0]])})
    assert found.importance["w"].tolist() == [[2.0, 0.0], [1.0, 1.0]]


def test_a_training_is_held_to_the_adapter_of_an_earlier_task(
    model: ModelWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the anchor it goes as far as it likes, with a strong one hardly anywhere."""
    earlier = replace(job(tmp_path), weights_path=str(tmp_path / "earlier.safetensors"), epochs=2)
    model.train(earlier)
    start, _ = model.lora.read(Path(earlier.weights_path))
    model.use_adapter(earlier.weights_path)
    other = tuple(replace(comparison(n), gains=(0.03, 0.0, -0.02, 0.01)) for n in range(4))
    away = []
    for strength, anchor in ((room.STRENGTH, None), (room.STRENGTH, earlier.weights_path), (1e4, earlier.weights_path)):
        monkeypatch.setattr(Anchor.pull, "__defaults__", (strength,))
        later = replace(job(tmp_path), comparisons=other, anchor_path=anchor, epochs=3)
        trained = model.train(later)
        assert trained.sha256
        found, _ = model.lora.read(Path(later.weights_path))
        away.append(sum(float((found[name] - start[name]).square().sum()) for name in start))
    assert away[1] < away[0]
    assert away[2] < away[1]


def test_weights_lie_beside_their_importance_and_are_exported_without(
    model: ModelWriter, tiny_llama: ModelSpec, tmp_path: Path
) -> None:
    asked = replace(job(tmp_path), epochs=1)
    model.train(asked)
    data = Path(asked.weights_path).read_bytes()
    names = set(load(data))
    weights = {name for name in names if not name.startswith("fisher.")}
    assert names == weights | {f"fisher.{name}" for name in weights}
    state, fisher = model.lora.read(Path(asked.weights_path))
    assert fisher is not None
    assert state.keys() == fisher.keys() == weights
    assert max(float(f.max()) for f in fisher.values()) > 0.0
    assert all(float(f.min()) >= 0.0 for f in fisher.values())
    write_peft_directory(tiny_llama, data, tmp_path / "peft")
    exported = load((tmp_path / "peft" / "adapter_model.safetensors").read_bytes())
    assert exported.keys() == weights
    # Trained further, what mattered before still counts, and what was in use is in use again.
    model.use_adapter(asked.weights_path)
    model.train(replace(asked, weights_path=str(tmp_path / "next.safetensors")))
    _, later = model.lora.read(tmp_path / "next.safetensors")
    assert later is not None
    assert all(float((later[n] - 0.94 * fisher[n]).min()) > -1e-6 for n in fisher)
    assert model.lora.fisher is not None
    assert all(torch.equal(model.lora.fisher[n], fisher[n]) for n in fisher)


def test_importance_of_another_shape_is_refused(model: ModelWriter, tmp_path: Path) -> None:
    file = tmp_path / "odd.safetensors"
    name, weights = next(iter(model.lora.state().items()))
    model.lora.save(file, {name: weights})  # of one tensor alone
    with pytest.raises(AdapterError, match="another model"):
        model.use_adapter(str(file))


def test_a_trial_measures_the_bare_model_and_the_adapter_and_teaches_nothing(
    model: ModelWriter, tmp_path: Path
) -> None:
    trained = model.train(job(tmp_path))
    model.use_adapter(str(tmp_path / "adapter.safetensors"))
    before = model.lora.state()
    weights = tmp_path / "never.safetensors"
    trial = replace(job(tmp_path), comparisons=(), trial=True, weights_path=str(weights))
    tried = model.train(trial)
    assert (tried.before, tried.after) == (trained.before, trained.after)
    assert (tried.sha256, tried.losses, weights.exists()) == ("", (), False)
    assert "parents" in judge(tried).reasons[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.lora.state().items())


def test_the_embedded_model_learns_held_to_what_it_learned_before(embedded_model: ModelSpec, tmp_path: Path) -> None:
    model = ModelWriter.load(embedded_model)
    asked = replace(job(tmp_path), comparisons=(comparison(0),), judging=(), epochs=1, batch=1, learning_rate=1e-3)
    earlier = replace(asked, weights_path=str(tmp_path / "earlier.safetensors"))
    model.train(earlier)
    model.use_adapter(earlier.weights_path)
    start, fisher = model.lora.read(Path(earlier.weights_path))
    assert fisher is not None
    assert fisher.keys() == start.keys()
    held = model.train(replace(asked, epochs=2, anchor_path=earlier.weights_path))
    free = model.train(replace(asked, epochs=2, weights_path=str(tmp_path / "free.safetensors")))
    assert held.losses[0] == pytest.approx(free.losses[0])
    assert held.sha256 != free.sha256
