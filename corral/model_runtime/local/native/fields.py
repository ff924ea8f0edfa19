"""What a pass's functions are told: 64-bit numbers at known places, most of them addresses."""

from __future__ import annotations

from corral.model_runtime.local.native.code import F32, I64, Function, Value

__all__ = ["FIELDS", "PLACES", "Fields"]

FIELDS = (
    # How to run in threads, and memory of theirs.
    "parallel",
    "thread_number",
    "threads",
    "ticket",
    "count",
    "scratch",
    "scratch_size",
    # Rows to be rounded, and what comes of it.
    "rows",
    "source",
    "source_width",
    "source_stride",
    "norm",
    "epsilon",
    "rounded",
    "scales",
    "targets",
    "single_targets",
    "finer",
    "finer_scales",
    "finer_targets",
    "finer_count",
    # The product.
    "weight",
    "corrections",
    "weight_scales",
    "panels",
    "share",
    "result",
    "result_stride",
    "adds",
    # Another one with the same rows.
    "more_weight",
    "more_corrections",
    "more_weight_scales",
    "more_panels",
    "more_result",
    "more_result_stride",
    # The layer.
    "stream",
    "width",
    "heads",
    "heads_stride",
    "mixed",
    "mixed_width",
    "both",
    "both_stride",
    "inner",
    "cosines",
    "sines",
    "positions",
    "sequences",
    "caches",
    "blocks",
    "chunks",
    "chunk_firsts",
    "chunk_counts",
    "number",
    "attention_norm",
    "mlp_norm",
    *(
        f"{part}_{what}"
        for part in ("qkv", "out", "gate_up", "down")
        for what in ("weight", "corrections", "weight_scales", "panels")
    ),
    # What an adapter adds to the layer's products: to its rank, and from there.
    *(
        f"{part}_{what}"
        for part in ("qkv", "out", "gate_up", "down")
        for what in (
            "rank",
            *("narrow_weight", "narrow_corrections", "narrow_weight_scales", "narrow_panels"),
            *("wide_weight", "wide_corrections", "wide_weight_scales", "wide_panels"),
        )
    ),
)
PLACES = {name: at for at, name in enumerate(FIELDS)}
"""Where each is among the others."""


class Fields:
    """The numbers as the functions see them: attributes read them."""

    def __init__(self, function: Function, address: Value) -> None:
        """Those at an address."""
        self._function = function
        self._address = address

    def __getattr__(self, name: str) -> Value:
        return self._function.load(I64, self.place(name))

    def place(self, name: str) -> Value:
        """Where one of them lies."""
        return self._address + 8 * PLACES[name]

    def put(self, name: str, value: Value | int) -> None:
        """Set one of them."""
        function = self._function
        held = value if isinstance(value, Value) else function.number(I64, value)
        function.store(held, self.place(name))

    def real(self, name: str) -> Value:
        """One that is a 32-bit real."""
        return self._function.load(F32, self.place(name))

    def item(self, name: str, at: Value) -> Value:
        """One of the 64-bit numbers that lie where a field says."""
        return self._function.load(I64, getattr(self, name) + at * 8)
