"""Matrix products with a model's weights: the kernels there are, and which one this machine gets.

On a CPU, decoding is bound by the memory that the weights take, so the default is int8: weights
per output channel, activations per row. Corral has machine code of its own for that (`native`),
where the processor is one that it knows, and torch has several ways, which differ in speed and
correctness from processor to processor (some saturate without a sign of it), and of which some are
about to be dropped. So none is trusted by name: each candidate has to agree with float32 on rows
made to break it, and the fastest of those that do is taken.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from corral.errors import RuntimeUnavailable

if TYPE_CHECKING:
    import torch

__all__ = [
    "BYTES",
    "PRECISIONS",
    "Kernel",
    "Linear",
    "Precision",
    "Quantised",
    "choose_kernel",
    "no_deprecations",
    "prepared",
    "quantise",
]

Precision: TypeAlias = Literal["int8", "fp16", "bf16", "fp32"]

PRECISIONS: Final[tuple[Precision, ...]] = ("int8", "fp16", "bf16", "fp32")

BYTES: Final[Mapping[Precision, int]] = {"int8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
"""What one value of a weight takes."""

Linear: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
"""`x @ weight.T`: float32 rows of shape (n, in) to (n, out). Rows don't influence each other."""

_TOLERANCE: Final = 0.04
"""The most that a kernel may be off, relative to the product: 7-bit activations give 0.02."""

_OUTLYING: Final = 8.0
"""A row whose largest value is so many times its root mean square is rounded twice as finely."""

_CHECKED_SIZE = (512, 1024)
_TIMED_SIZE = (2048, 2048)
_ROUNDS = 12
_DECODED_SHARE = 0.25
"""Of an agent's tokens, about one in four is decoded by itself and the rest come in prompts."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """A weight in 8 bits: `values[o] * scales[o]` is row `o`. Shapes: (out, in) and (out,)."""

    values: torch.Tensor
    scales: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One way to multiply with a weight."""

    name: str
    precision: Precision
    prepare: Callable[[Any], Linear]
    """Makes the product with a weight: a `Quantised` where the precision is int8, else a tensor of
    shape (out, in)."""


def quantise(weight: torch.Tensor) -> Quantised:
    """Round a weight of shape (out, in) to 8 bits, each row by its own largest value."""
    import torch

    scales = weight.abs().amax(1).float().clamp_min_(1e-12) / 127
    values = (weight.float() / scales[:, None]).round_().to(torch.int8)
    return Quantised(values, scales)


def _fbgemm(top: float, zero: int) -> Callable[[Quantised], Linear]:
    """Activations from -1 to 1, in steps of 1/`top`, `zero` standing for 0 in 8 unsigned bits.

    With a fixed scale a row's result doesn't depend on what else is in the batch.
    """

    def prepare(weight: Quantised) -> Linear:
        import torch

        make: Any = getattr(torch, "_make_per_channel_quantized_tensor")  # noqa: B009
        with no_deprecations():
            quantised = make(
                weight.values,
                weight.scales.double(),
                torch.zeros(weight.scales.numel(), dtype=torch.long),
                0,
            )
            packed = torch.ops.quantized.linear_prepack(quantised, None)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
        step = 1 / top
        return _in_rounded_rows(lambda x: product(x, step, zero, packed), top)

    return prepare


def _int_mm(weight: Quantised) -> Linear:
    """Torch's plain 8-bit product, scaled by columns afterwards."""
    import torch

    values, scales = weight.values.t(), weight.scales[None] / 127
    product: Any = getattr(torch, "_int_mm")  # noqa: B009

    def rounded(x: torch.Tensor) -> torch.Tensor:
        return product((x * 127).round_().to(torch.int8), values).float().mul_(scales)

    return _in_rounded_rows(rounded, 127)


def _in_rounded_rows(product: Linear, top: float) -> Linear:
    """Make a product for any rows of one whose rows lie from -1 to 1 and are rounded to 1/`top`.

    A few values of a Llama's rows are many times the rest, which then vanish in the rounding. Such
    a row goes in twice: once as it is, and once as what the rounding took from it, blown up. In
    decoding the second costs little, since the weights are read once for both.
    """
    import torch

    norm: Callable[..., torch.Tensor] = getattr(torch.linalg, "vector_norm")  # noqa: B009

    def peaks_of(rows: torch.Tensor) -> torch.Tensor:
        # The infinity norm, by operations that are vectorised: seven times as fast as torch's own.
        return rows.abs().amax(-1, True).clamp_min_(1e-30)

    def rest_of(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rest = rows - (rows * top).round_().div_(top)
        peaks = peaks_of(rest)
        return rest.div_(peaks), peaks

    def linear(x: torch.Tensor) -> torch.Tensor:
        largest = peaks_of(x)
        scaled = x / largest
        lengths = norm(scaled, 2, -1)
        limit = math.sqrt(x.shape[1]) / _OUTLYING
        if x.shape[0] == 1:
            if float(lengths) >= limit:
                return product(scaled).mul_(largest)
            rest, peaks = rest_of(scaled)
            both = product(torch.cat([scaled, rest]))
            return both[1:].mul_(peaks).add_(both[:1]).mul_(largest)
        out = product(scaled)
        outlying = (lengths < limit).nonzero()[:, 0]
        if outlying.numel():
            rest, peaks = rest_of(scaled[outlying])
            finer = product(rest).mul_(peaks).add_(out[outlying])
            out.index_copy_(0, outlying, finer)
        return out.mul_(largest)

    return linear


def _fbgemm_fp16(weight: torch.Tensor) -> Linear:
    import torch

    with no_deprecations():
        packed = torch.ops.quantized.linear_prepack_fp16(weight.float().contiguous(), None)
    product = torch.ops.quantized.linear_dynamic_fp16.default
    return lambda x: product(x, packed)


def _plain(dtype_name: str) -> Callable[[torch.Tensor], Linear]:
    """Torch's own product in one type."""

    def prepare(weight: torch.Tensor) -> Linear:
        import torch

        dtype = getattr(torch, dtype_name)
        held = weight.to(dtype).contiguous()
        linear = torch.nn.functional.linear
        if dtype is torch.float32:
            return lambda x: linear(x, held)
        return lambda x: linear(x.to(dtype), held).to(x.dtype)

    return prepare


def _native(weight: Quantised) -> Linear:
    """Corral's own machine code."""
    from corral.model_runtime.local.native.linear import NativeLinear
    from corral.model_runtime.local.native.machine import host_isa
    from corral.model_runtime.local.native.product import MULTIPLE

    isa = host_isa()
    if not isa:
        raise NotImplementedError("There is none for this processor.")
    if weight.values.shape[1] % MULTIPLE:
        others = _CPU["int8"][1:]
        return next(one for one in others if _is_right(one)).prepare(weight)
    return NativeLinear(weight, isa)


_CPU: Final[Mapping[Precision, tuple[Kernel, ...]]] = {
    "int8": (
        Kernel(name="corral", precision="int8", prepare=_native),
        Kernel(name="fbgemm", precision="int8", prepare=_fbgemm(127, 128)),
        Kernel(name="int_mm", precision="int8", prepare=_int_mm),
        Kernel(name="fbgemm, 7-bit activations", precision="int8", prepare=_fbgemm(63.5, 64)),
    ),
    "fp16": (
        Kernel(name="fbgemm", precision="fp16", prepare=_fbgemm_fp16),
        Kernel(name="torch", precision="fp16", prepare=_plain("float16")),
    ),
    "bf16": (Kernel(name="torch", precision="bf16", prepare=_plain("bfloat16")),),
    "fp32": (Kernel(name="torch", precision="fp32", prepare=_plain("float32")),),
}
_DEVICE: Final[Mapping[Precision, Kernel]] = {
    "fp16": Kernel(name="torch", precision="fp16", prepare=_plain("float16")),
    "bf16": Kernel(name="torch", precision="bf16", prepare=_plain("bfloat16")),
    "fp32": Kernel(name="torch", precision="fp32", prepare=_plain("float32")),
}


@cache
def choose_kernel(device: str, precision: Precision | None = None) -> Kernel:
    """The fastest kernel that computes right on this machine; takes a quarter of a second, once.

    Args:
        device: `cpu`, `cuda` or `mps`.
        precision: What the weights are held in. By default what is fastest on the device: int8 on
            a CPU, bfloat16 on CUDA, float16 on MPS.

    Raises:
        RuntimeUnavailable: The device has no kernel of that precision that computes right.
    """
    if device != "cpu":
        chosen = precision or ("fp16" if device == "mps" else "bf16")
        if chosen not in _DEVICE:
            raise RuntimeUnavailable(
                f"There is no {chosen} kernel for {device!r}. Use a precision of "
                f"{', '.join(_DEVICE)}, or device=cpu."
            )
        return _DEVICE[chosen]
    others = tuple(kernel for name in PRECISIONS[1:] for kernel in _CPU[name])
    for kernels in [_CPU[precision]] if precision else [_CPU["int8"], others]:
        right = [kernel for kernel in kernels if _is_right(kernel)]
        if right:
            return _best(right)
    raise RuntimeUnavailable(
        f"No {precision} kernel of this torch computes right on this processor. Choose another "
        "precision, for example precision=fp32."
    )


def _best(kernels: Sequence[Kernel]) -> Kernel:
    """The first, which is the most exact, unless another is a good deal faster."""
    if len(kernels) == 1:
        return kernels[0]
    costs = _costs(kernels)
    return next(k for k, cost in zip(kernels, costs, strict=True) if cost <= 1.5 * min(costs))


def _is_right(kernel: Kernel) -> bool:
    """Whether a kernel agrees with float32, also on rows that would overflow narrow sums.

    The rows: ordinary ones; all at the largest value against weights all at theirs, so that two
    neighbouring products exceed 16 bits; one with an outlier a thousand times the rest, which may
    not harm its neighbours; zeros. In int8 a row alone has to give the very same numbers as among
    others.
    """
    import torch

    out, width = _CHECKED_SIZE
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(out, width, generator=generator)
    weight[0], weight[1] = 1.0, -1.0
    weight[2] = torch.tensor([1.0, -1.0]).repeat(width // 2)
    rows = torch.randn(12, width, generator=generator)
    rows[1], rows[2] = 1.0, -1.0
    rows[3, 5] = 1000.0
    rows[4] = 0.0
    expected = rows @ weight.t()
    try:
        linear = prepared(kernel, weight)
        together = linear(rows)
        alone = torch.cat([linear(row[None]) for row in rows])
    except (RuntimeError, AttributeError, NotImplementedError, ImportError):
        return False  # this torch, this processor or this installation doesn't have it
    if not bool(torch.isfinite(together).all()):
        return False
    if kernel.precision == "int8" and not torch.equal(together, alone):
        return False
    zero = torch.zeros(out)
    return all(
        float(torch.dist(got, want)) <= _TOLERANCE * float(torch.dist(want, zero)) + 1e-6
        for got, want in zip(together, expected, strict=True)
    )


def _costs(kernels: Sequence[Kernel]) -> list[float]:
    """Seconds for a token of the usual mix of decoding and reading prompts, on one layer.

    The kernels take turns, and each one's best time counts, since others use the machine too.
    """
    import torch

    weight = torch.randn(_TIMED_SIZE, generator=torch.Generator().manual_seed(1))
    linears = [prepared(kernel, weight) for kernel in kernels]
    one, many = (torch.randn(rows, _TIMED_SIZE[1]) for rows in (1, 64))
    costs = [(float("inf"), float("inf"))] * len(kernels)
    for _ in range(_ROUNDS):
        for at, linear in enumerate(linears):
            decode, prefill = _seconds(linear, one), _seconds(linear, many) / len(many)
            costs[at] = (min(costs[at][0], decode), min(costs[at][1], prefill))
    return [_DECODED_SHARE * decode + (1 - _DECODED_SHARE) * prefill for decode, prefill in costs]


def _seconds(linear: Linear, rows: torch.Tensor) -> float:
    began = time.perf_counter()
    linear(rows)
    return time.perf_counter() - began


def prepared(kernel: Kernel, weight: torch.Tensor) -> Linear:
    """A kernel's product with an exact weight of shape (out, in), rounded first in int8."""
    return kernel.prepare(quantise(weight) if kernel.precision == "int8" else weight)


@contextmanager
def no_deprecations() -> Generator[None]:
    """Hush torch, which is about to drop its quantised tensors; `choose_kernel` is ready for that.

    Threads that do so together don't put the warnings' filters back: have them do it inside one
    that outlasts them all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield
