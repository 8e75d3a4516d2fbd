"""One comparison for every layer: run a step, then hold all that came out of it against another implementation."""

import torch
from torch import Tensor, nn

from normlib.layers import _batch, _rows, batch_channel_norm, group_norm

PATHS = ("kernel", "fused", "rows")


def take(monkeypatch, path: str) -> None:
    """Whatever the size: torch's kernel, the fused normalization, or the one that reads channels-last by rows."""
    monkeypatch.setattr(_batch, "_FEW", 1 << 60 if path == "kernel" else 0)
    if path != "kernel":
        monkeypatch.setattr(batch_channel_norm, "_PLANE", 0)
    if path == "fused":
        monkeypatch.setattr(_rows, "plain", lambda x: False)
    else:
        monkeypatch.setattr(_rows, "_WORTH", 0)
        monkeypatch.setattr(_rows, "_EACH", 0)
        by_kernel(monkeypatch)


def by_kernel(monkeypatch) -> None:
    """Group Norm of channels-last inputs by torch's kernel for them, however small."""
    monkeypatch.setattr(group_norm, "_FEW", 0)
    monkeypatch.setattr(group_norm, "_VECTOR", 0)


class TorchBatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's Batch Norm for inputs of any rank."""

    def _check_input_dim(self, input):
        pass


def measure(layer: nn.Module, x: Tensor, dy: Tensor) -> dict[str, Tensor]:
    """One forward and backward pass: output, all gradients and all buffers, by name."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    parameters = dict(layer.named_parameters())
    dx, *gradients = torch.autograd.grad(y, [x, *parameters.values()], dy)
    named = {f"d{name}": gradient for name, gradient in zip(parameters, gradients, strict=True)}
    buffers = {name: value.clone() for name, value in layer.named_buffers()}
    return {"y": y.detach(), "dx": dx, **named, **buffers}


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-11) -> None:
    """Every tensor within `tolerance`, relative to the largest expected value (or to 1, where that is smaller)."""
    assert set(got) == set(expected)
    for name, want in expected.items():
        have = got[name]
        assert have.shape == want.shape, f"{name}: shape {tuple(have.shape)}, expected {tuple(want.shape)}"
        scale = want.double().abs().max().clamp(min=1)
        worst = ((have.double() - want.double()).abs().max() / scale).item()
        assert worst <= tolerance, f"{name}: off by {worst:.2e}, allowed {tolerance:.0e}"


def randomize(layer: nn.Module, seed: int = 0) -> nn.Module:
    """Give a layer parameters and buffers that differ from their initial values, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(layer.state_dict().items()):
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5)
            else:
                assert name.endswith("num_batches_tracked")
    return layer


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal values from a seed of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
