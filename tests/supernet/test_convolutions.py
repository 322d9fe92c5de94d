from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from riwoa.supernet.convolutions import without_plans


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("channels", "out", "kernel", "stride", "groups"),
    [(6, 12, 1, 1, 1), (6, 12, 1, 2, 1), (3, 8, 3, 2, 1), (3, 8, 3, 1, 1), (8, 8, 5, 2, 8), (8, 8, 7, 1, 8)],
)
def test_values_and_gradients_are_those_of_the_plain_convolution(
    channels: int, out: int, kernel: int, stride: int, groups: int, bias: bool
) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(4, channels, 9, 9, generator=random, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(out, channels // groups, kernel, kernel, generator=random, dtype=torch.float64)
    weight.requires_grad_()
    added = torch.randn(out, generator=random, dtype=torch.float64) if bias else None

    def results() -> list[torch.Tensor]:
        y = F.conv2d(x, weight, added, stride, kernel // 2, 1, groups)
        return [y, *torch.autograd.grad(y.square().sum(), (x, weight))]

    plain = results()
    with without_plans():
        planless = results()
    for one, other in zip(plain, planless, strict=True):
        torch.testing.assert_close(one, other)


def test_torch_is_as_before_afterwards_even_after_an_error() -> None:
    before = F.conv2d, torch.backends.cudnn.enabled

    def fail() -> None:
        with without_plans():
            assert F.conv2d is not before[0]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (F.conv2d, torch.backends.cudnn.enabled) == before
