"""The parts of a layer as single autograd steps: what to keep for the way back is chosen by hand.

On two cores most of the time of plain autograd goes into copies, zero-filled gradients of slices
and small element-wise passes. Written so, a step takes about half as long. Each function is checked
against torch's own gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LoraLinear", "RmsNorm", "Rotate", "SwiGlu", "TreeAttention"]

_CHUNK = 192
"""Of the prefix, so many tokens attend at once, to no more than what comes before their last."""


class LoraLinear(torch.autograd.Function):
    """x W^T + s (x A^T) B^T, for a frozen W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        low = x @ a.t()
        y = x @ weight.t()
        y.addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(x, low, weight, a, b)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (g,) = grads
        x, low, weight, a, b = ctx.saved_tensors
        g_low = (g @ b).mul_(ctx.scale)
        dx = g @ weight
        dx.addmm_(g_low, a)
        return dx, None, g_low.t() @ x, (g.t() @ low).mul_(ctx.scale), None


class RmsNorm(torch.autograd.Function):
    """x / rms(x) * w over the last dimension, for a frozen w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = inverse.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return wide.mul(inverse).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (g,) = grads
        x, weight, inverse = ctx.saved_tensors
        unit = x.float().mul_(inverse)
        gw = (g * weight).float()
        dot = torch.linalg.vecdot(gw, unit)[:, None].div_(x.shape[-1])
        return gw.sub_(unit.mul_(dot)).mul_(inverse).to(x.dtype), None, None


class Rotate(torch.autograd.Function):
    """Rotary positions in transformers' order (row i turns with row i + half): x is (tokens, heads,
    size).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return _rotated(grads[0], cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = left.shape[-1]
    torch.mul(left, cos, out=out[..., :half]).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=out[..., half:]).addcmul_(left, sin)
    return out


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up, for gate and up side by side in one tensor."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (g,) = grads
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=1)
        out = torch.empty_like(gate_up)
        d_gate, d_up = out.chunk(2, dim=1)
        torch.mul(g, F.silu(gate), out=d_up)
        d_gate.copy_(torch.ops.aten.silu_backward(g * up, gate))
        return out


class TreeAttention(torch.autograd.Function):
    """Attention over a tree: the prefix causal, each branch over the prefix and itself.

    q is (tokens, heads, size), k and v (tokens, fewer heads, size); `prefix` and `branches` are
    lengths.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, prefix: int, branches: tuple[int, ...]
    ) -> Tensor:
        group = q.shape[1] // k.shape[1]
        root = q.shape[2] ** -0.5
        kt, vt = k.transpose(0, 1).contiguous(), v.transpose(0, 1).contiguous()
        out = torch.empty_like(q)
        saved: list[Tensor] = []
        for start, length, before in _spans(prefix, branches):
            rows = _grouped(q, start, length, group)
            keys, values = (_seen(t, start, length, before) for t in (kt, vt))
            scores = torch.bmm(rows, keys.transpose(1, 2)).mul_(root)
            own = scores.view(k.shape[1], group, length, before + length)[..., before:]
            own.masked_fill_(_future(length, q.device), -torch.inf)
            weights = scores.softmax(-1)
            _put(out, torch.bmm(weights, values), start, length, group)
            saved.append(weights)
        ctx.save_for_backward(q, kt, vt, *saved)
        ctx.spans = (prefix, branches)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (g,) = grads
        q, kt, vt, *saved = ctx.saved_tensors
        group = q.shape[1] // kt.shape[0]
        root = q.shape[2] ** -0.5
        dq = torch.empty_like(q)
        dk, dv = torch.zeros_like(kt), torch.zeros_like(vt)
        for (start, length, before), weights in zip(_spans(*ctx.spans), saved, strict=True):
            rows = _grouped(q, start, length, group)
            grad = _grouped(g, start, length, group)
            keys, values = (_seen(t, start, length, before) for t in (kt, vt))
            d_weights = torch.bmm(grad, values.transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            d_scores.mul_(root)
            _put(dq, torch.bmm(d_scores, keys), start, length, group)
            for total, part in (
                (dk, torch.bmm(d_scores.transpose(1, 2), rows)),
                (dv, torch.bmm(weights.transpose(1, 2), grad)),
            ):
                total[:, :before] += part[:, :before]
                total[:, start : start + length] += part[:, before:]
        return dq, dk.transpose(0, 1), dv.transpose(0, 1), None, None


def _spans(prefix: int, branches: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(start, length, how much of the prefix it sees whole) of the prefix's chunks, and of each
    branch.
    """
    spans = [(at, min(_CHUNK, prefix - at), at) for at in range(0, prefix, _CHUNK)]
    start = prefix
    for length in branches:
        spans.append((start, length, prefix))
        start += length
    return spans


def _grouped(x: Tensor, start: int, length: int, group: int) -> Tensor:
    """Rows of (tokens, heads, size) as (key heads, group * length, size)."""
    part = x[start : start + length].transpose(0, 1)
    return part.reshape(x.shape[1] // group, group * length, x.shape[2])


def _put(out: Tensor, rows: Tensor, start: int, length: int, group: int) -> None:
    heads = out.shape[1]
    out[start : start + length] = rows.view(heads, length, out.shape[2]).transpose(0, 1)


def _seen(x: Tensor, start: int, length: int, before: int) -> Tensor:
    if before == start:
        return x[:, : start + length]
    return torch.cat([x[:, :before], x[:, start : start + length]], dim=1)


def _future(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).triu_(1)
