"""A small language for kernels: Python writes LLVM's intermediate code, value by value.

A `Value` stands for a number, or for a vector of numbers, of the program that is being written;
Python's operators on it write instructions. Addresses are plain 64-bit integers.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import llvmlite.ir as _ir  # pyright: ignore[reportMissingTypeStubs]

__all__ = [
    "F32",
    "I8",
    "I16",
    "I32",
    "I64",
    "NOTHING",
    "Cell",
    "Function",
    "Program",
    "Value",
    "vector",
]

ir: Any = _ir

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32 = ir.FloatType()
NOTHING = ir.VoidType()
_ADDRESS = ir.PointerType()
_BYTES = {I8: 1, I32: 4, I64: 8, F32: 4}

Type: TypeAlias = Any
Number: TypeAlias = "Value | int | float"


def vector(element: Type, lanes: int) -> Type:
    """The type of so many numbers side by side."""
    return ir.VectorType(element, lanes)


class Program:
    """Functions that are compiled together."""

    def __init__(self, name: str) -> None:
        """An empty one."""
        self.module: Any = ir.Module(name)
        self._outside: dict[str, Any] = {}

    def function(self, name: str, arguments: int, *, public: bool = False) -> Function:
        """Begin a function of so many 64-bit integers that returns nothing."""
        return Function(self, name, arguments, public=public)

    def outside(self, name: str, result: Type, arguments: Sequence[Type]) -> Any:
        """An instruction of LLVM's, by its name."""
        if name not in self._outside:
            kind = ir.FunctionType(result, list(arguments))
            self._outside[name] = ir.Function(self.module, kind, name)
        return self._outside[name]


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A number, or a vector of them."""

    of: Function
    raw: Any

    @property
    def type(self) -> Type:
        """LLVM's type of it."""
        return self.raw.type

    @property
    def lanes(self) -> int:
        """How many numbers lie side by side; 0 for a single one."""
        return getattr(self.type, "count", 0)

    @property
    def element(self) -> Type:
        """The type of one number."""
        return self.type.element if self.lanes else self.type

    @property
    def is_real(self) -> bool:
        """Whether it is made of reals."""
        return self.element == F32

    def _with(self, other: Number, real: str, whole: str) -> Value:
        name = real if self.is_real else whole
        return Value(self.of, getattr(self.of.writer, name)(self.raw, self.of.as_type(other, self)))

    def __add__(self, other: Number) -> Value:
        return self._with(other, "fadd", "add")

    __radd__ = __add__

    def __sub__(self, other: Number) -> Value:
        return self._with(other, "fsub", "sub")

    def __mul__(self, other: Number) -> Value:
        return self._with(other, "fmul", "mul")

    __rmul__ = __mul__

    def __truediv__(self, other: Number) -> Value:
        return self._with(other, "fdiv", "none")

    def __floordiv__(self, other: Number) -> Value:
        """Of integers that aren't negative."""
        return self._with(other, "none", "udiv")

    def __mod__(self, other: Number) -> Value:
        return self._with(other, "none", "urem")

    def __and__(self, other: Number) -> Value:
        return self._with(other, "none", "and_")

    def __or__(self, other: Number) -> Value:
        return self._with(other, "none", "or_")

    def __rshift__(self, other: Number) -> Value:
        """Of integers that aren't negative."""
        return self._with(other, "none", "lshr")

    def __lshift__(self, other: Number) -> Value:
        return self._with(other, "none", "shl")

    def _compared(self, sign: str, other: Number) -> Value:
        writer, right = self.of.writer, self.of.as_type(other, self)
        compare = writer.fcmp_ordered if self.is_real else writer.icmp_signed
        return Value(self.of, compare(sign, self.raw, right))

    def __lt__(self, other: Number) -> Value:
        return self._compared("<", other)

    def __gt__(self, other: Number) -> Value:
        return self._compared(">", other)

    def equals(self, other: Number) -> Value:
        """Whether both are the same number."""
        return self._compared("==", other)

    def at_most(self, other: Number) -> Value:
        """The smaller of two."""
        return (self < other).choose(self, other)

    def at_least(self, other: Number) -> Value:
        """The larger of two."""
        return (self > other).choose(self, other)

    def choose(self, yes: Value, no: Number) -> Value:
        """`yes` where this is true, else `no`."""
        return Value(self.of, self.of.writer.select(self.raw, yes.raw, self.of.as_type(no, yes)))

    def to(self, element: Type) -> Value:
        """Converted to another type of number; reals are cut off, not rounded."""
        if element == self.element:
            return self
        kind = vector(element, self.lanes) if self.lanes else element
        writer = self.of.writer
        if self.is_real:
            how = writer.fptosi
        elif element == F32:
            how = writer.sitofp
        else:
            how = writer.trunc if element.width < self.element.width else writer.sext
        return Value(self.of, how(self.raw, kind))

    def seen_as(self, kind: Type) -> Value:
        """The same bits as another type."""
        return Value(self.of, self.of.writer.bitcast(self.raw, kind))

    def spread(self, lanes: int) -> Value:
        """A vector of the same number."""
        empty = ir.Constant(vector(self.type, lanes), ir.Undefined)
        first = self.of.writer.insert_element(empty, self.raw, I32(0))
        return Value(self.of, first).shuffled(None, [0] * lanes)

    def shuffled(self, other: Value | None, order: Sequence[int]) -> Value:
        """Lanes of two vectors in an order; those of the second count on from the first's."""
        mask = ir.Constant(vector(I32, len(order)), [I32(i) for i in order])
        right = other.raw if other else ir.Constant(self.type, ir.Undefined)
        return Value(self.of, self.of.writer.shuffle_vector(self.raw, right, mask))

    def lane(self, at: int) -> Value:
        """One of the numbers."""
        return Value(self.of, self.of.writer.extract_element(self.raw, I32(at)))

    def folded(self, how: str) -> Value:
        """All numbers together, by halves: `add` or `at_least`."""
        value = self
        while value.lanes > 1:
            half = value.lanes // 2
            low = value.shuffled(None, range(half))
            high = value.shuffled(None, range(half, 2 * half))
            value = low + high if how == "add" else low.at_least(high)
        return value.lane(0)


class Cell:
    """A variable."""

    def __init__(self, function: Function, value: Value) -> None:
        """One that begins with a value."""
        self._function = function
        self._place = function.at_entry(value.type)
        self.set(value)

    def get(self) -> Value:
        """What it holds."""
        return Value(self._function, self._function.writer.load(self._place))

    def set(self, value: Value) -> None:
        """Hold something else."""
        self._function.writer.store(value.raw, self._place)


class Function:
    """A function in the making."""

    def __init__(self, program: Program, name: str, arguments: int, *, public: bool) -> None:
        """See `Program.function`."""
        self.program = program
        self.raw: Any = ir.Function(
            program.module, ir.FunctionType(ir.VoidType(), [I64] * arguments), name
        )
        if not public:
            self.raw.linkage = "internal"
        self._entry = self.raw.append_basic_block("entry")
        self.writer: Any = ir.IRBuilder(self.raw.append_basic_block("begin"))
        self.arguments = [Value(self, argument) for argument in self.raw.args]

    def close(self) -> None:
        """End it."""
        self.writer.ret_void()
        with self.writer.goto_block(self._entry):
            self.writer.branch(self.raw.basic_blocks[1])

    def at_entry(self, kind: Type) -> Any:
        """The place of a variable, which is made once however often the code comes by."""
        with self.writer.goto_block(self._entry):
            return self.writer.alloca(kind)

    def as_type(self, number: Number, like: Value) -> Any:
        """A number as a value of the type of another, spread where that is a vector."""
        if isinstance(number, Value):
            single = like.lanes and not number.lanes
            return number.spread(like.lanes).raw if single else number.raw
        one = ir.Constant(like.element, number)
        return ir.Constant(like.type, [one] * like.lanes) if like.lanes else one

    def number(self, kind: Type, number: float) -> Value:
        """A constant; of a vector, all its numbers."""
        element = getattr(kind, "element", kind)
        one = ir.Constant(element, number)
        count = getattr(kind, "count", 0)
        return Value(self, ir.Constant(kind, [one] * count) if count else one)

    def cell(self, value: Value) -> Cell:
        """A variable that begins with a value."""
        return Cell(self, value)

    def load(self, kind: Type, address: Value) -> Value:
        """What lies at an address."""
        place = self.writer.inttoptr(address.raw, _ADDRESS)
        align = _BYTES[getattr(kind, "element", kind)]
        return Value(self, self.writer.load(place, typ=kind, align=align))

    def store(self, value: Value, address: Value) -> None:
        """Put a value at an address."""
        place = self.writer.inttoptr(address.raw, _ADDRESS)
        self.writer.store(value.raw, place, align=_BYTES[value.element])

    def take_ticket(self, address: Value) -> Value:
        """The 64-bit number at an address, which is one more for whoever comes next."""
        place = self.writer.inttoptr(address.raw, _ADDRESS)
        return Value(self, self.writer.atomic_rmw("add", place, I64(1), "monotonic"))

    def fused(self, left: Value, right: Value, plus: Value) -> Value:
        """`left * right + plus`, rounded once."""
        kind = plus.type
        name = f"llvm.fma.{_suffix(plus)}"
        instruction = self.program.outside(name, kind, [kind] * 3)
        operands = [self.as_type(left, plus), self.as_type(right, plus), plus.raw]
        return Value(self, self.writer.call(instruction, operands))

    def unary(self, name: str, value: Value) -> Value:
        """`rint`, `sqrt`, `fabs`."""
        full = f"llvm.{name}.{_suffix(value)}"
        instruction = self.program.outside(full, value.type, [value.type])
        return Value(self, self.writer.call(instruction, [value.raw]))

    def instruct(self, name: str, result: Type, *operands: Value) -> Value:
        """An instruction of one kind of processor."""
        instruction = self.program.outside(name, result, [one.type for one in operands])
        return Value(self, self.writer.call(instruction, [one.raw for one in operands]))

    def prefetch(self, address: Value) -> None:
        """Have memory that is wanted soon fetched, for reading once."""
        instruction = self.program.outside(
            "llvm.prefetch.p0", ir.VoidType(), [_ADDRESS, I32, I32, I32]
        )
        place = self.writer.inttoptr(address.raw, _ADDRESS)
        self.writer.call(instruction, [place, I32(0), I32(3), I32(1)])

    def call(self, function: Function, *arguments: Value) -> None:
        """Call another function of the program."""
        self.writer.call(function.raw, [argument.raw for argument in arguments])

    def call_foreign(self, address: Value, result: Type, *arguments: Value | Function) -> Value:
        """Call the function of a library that lies at an address."""
        raw = [one.raw for one in arguments]
        kind = ir.FunctionType(result, [one.type for one in raw])
        typed = self.writer.inttoptr(address.raw, ir.PointerType(kind))
        return Value(self, self.writer.call(typed, raw))

    def pointer(self, address: Value) -> Value:
        """An address as a library wants it."""
        return Value(self, self.writer.inttoptr(address.raw, _ADDRESS))

    @contextmanager
    def loop(self, begin: Number, end: Number, step: Number = 1) -> Generator[Value]:
        """Count from `begin` to before `end`."""
        zero = self.number(I64, 0)
        first, last, by = (Value(self, self.as_type(n, zero)) for n in (begin, end, step))
        counter = self.cell(first)
        head, body, after = (self.raw.append_basic_block(name) for name in ("head", "body", "on"))
        self.writer.branch(head)
        self.writer.position_at_end(head)
        now = counter.get()
        self.writer.cbranch((now < last).raw, body, after)
        self.writer.position_at_end(body)
        yield now
        counter.set(now + by)
        self.writer.branch(head)
        self.writer.position_at_end(after)

    @contextmanager
    def tickets(self, address: Value, count: Value) -> Generator[Value]:
        """Take the next number below `count` as long as there is one; threads share them."""
        head, body, after = (self.raw.append_basic_block(name) for name in ("head", "body", "on"))
        self.writer.branch(head)
        self.writer.position_at_end(head)
        now = self.take_ticket(address)
        self.writer.cbranch((now < count).raw, body, after)
        self.writer.position_at_end(body)
        yield now
        self.writer.branch(head)
        self.writer.position_at_end(after)

    @contextmanager
    def when(self, condition: Value) -> Generator[None]:
        """Only if it is true."""
        with self.writer.if_then(condition.raw):
            yield


def _suffix(value: Value) -> str:
    return f"v{value.lanes}f32" if value.lanes else "f32"
