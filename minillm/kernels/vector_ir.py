"""A small vocabulary for writing vector instructions, for the intrinsics of tile.py and others.

A Numba intrinsic appends LLVM instructions to the function being compiled, through llvmlite's
`IRBuilder`. `Writer` wraps that builder with the few phrases that matrix products need: the
address of an array's element, loading and storing vectors, spreading one number over a vector,
multiply-add, rearranging lanes, a loop that keeps its vectors in registers. LLVM maps a vector type
to whatever registers there are, so little here depends on the processor.

This module is imported only while a kernel is being compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from minillm.kernels.processor import WORD, machine
from minillm.kernels.vector_math import DOUBLE, SINGLE

INDEX, LANE = ir.IntType(64), ir.IntType(32)
FLOAT = ir.FloatType()


class BFloat(ir.Type):
    """LLVM's bfloat16, which llvmlite has no class for."""

    intrinsic_name = "bf16"

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


NUMBERS = {
    "float32": FLOAT,
    "float64": ir.DoubleType(),
    "int32": ir.IntType(32),
    "uint16": ir.IntType(16),  # the bits of a bfloat16
    "uint32": ir.IntType(32),  # a word, two of them
}
BYTES = {FLOAT: 4, ir.DoubleType(): 8, ir.IntType(16): 2, ir.IntType(32): 4}


class Writer:
    """Appends vector instructions to the function that an intrinsic is called in."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.builder = context, builder

    # ------------------------------------------------------------------ indices and addresses

    def integer(self, value: int) -> ir.Constant:
        """An index, as a constant."""
        return ir.Constant(INDEX, value)

    def plus(self, value: Any, constant: int) -> Any:
        """The index `value` + `constant`."""
        return self.builder.add(value, self.integer(constant))

    def smaller(self, x: Any, y: Any) -> Any:
        """The smaller of two indices."""
        return self.builder.select(self.builder.icmp_signed("<", x, y), x, y)

    def element(self, array_type: Any, array: Any, *indices: Any) -> Any:
        """The address of `array[indices]`, by the array's strides."""
        struct = self.context.make_array(array_type)(self.context, self.builder, array)
        offset = self.integer(0)
        for axis, index in enumerate(indices):
            stride = self.builder.extract_value(struct.strides, axis)  # in bytes
            offset = self.builder.add(offset, self.builder.mul(index, stride))
        start = self.builder.bitcast(struct.data, ir.IntType(8).as_pointer())
        number = NUMBERS[array_type.dtype.name].as_pointer()
        return self.builder.bitcast(self.builder.gep(start, [offset]), number)

    def length(self, array_type: Any, array: Any, axis: int) -> Any:
        """`array.shape[axis]`, counted from the first axis."""
        struct = self.context.make_array(array_type)(self.context, self.builder, array)
        return self.builder.extract_value(struct.shape, axis)

    def ahead(self, address: Any, count: int) -> Any:
        """The address `count` numbers after `address`."""
        return self.builder.gep(address, [self.integer(count)])

    # ------------------------------------------------------------------ vectors

    def zeros(self, dtype: str, lanes: int) -> Any:
        """A vector of zeros."""
        return ir.Constant(ir.VectorType(NUMBERS[dtype], lanes), None)

    def load(self, address: Any, lanes: int) -> Any:
        """`lanes` neighbouring numbers, which need not be aligned."""
        vector = ir.VectorType(address.type.pointee, lanes)
        loaded = self.builder.load(self.builder.bitcast(address, vector.as_pointer()))
        loaded.align = BYTES[vector.element]
        return loaded

    def store(self, vector: Any, address: Any) -> None:
        """Write `vector` to neighbouring numbers, which need not be aligned."""
        target = self.builder.bitcast(address, vector.type.as_pointer())
        self.builder.store(vector, target).align = BYTES[vector.type.element]

    def fetch(self, address: Any, to_write: bool = False) -> None:
        """Have the memory at `address` brought to the second-level cache; any address is fine.

        What is to be written is brought to the first-level cache, taken from those of other cores.
        """
        build = self.builder
        name, pointer = "llvm.prefetch.p0", ir.IntType(8).as_pointer()
        function = build.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(ir.VoidType(), [pointer, LANE, LANE, LANE])
            function = ir.Function(build.module, kind, name)
        write_or_read, nearness, data = (1, 3, 1) if to_write else (0, 2, 1)
        what = [ir.Constant(LANE, number) for number in (write_or_read, nearness, data)]
        build.call(function, [build.bitcast(address, pointer), *what])

    def spread(self, number: Any, lanes: int) -> Any:
        """A vector with `number` in every lane."""
        empty = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
        first = self.builder.insert_element(empty, number, ir.Constant(LANE, 0))
        return self.pick(first, empty, [0] * lanes)

    def pick(self, first: Any, second: Any, lanes: list[int]) -> Any:
        """The vector of the given lanes; those of `second` count on from the end of `first`."""
        mask = ir.Constant(ir.VectorType(LANE, len(lanes)), lanes)
        return self.builder.shuffle_vector(first, second, mask)

    def padded(self, vector: Any, lanes: int) -> Any:
        """A vector of `lanes` that begins with `vector`; what follows does not matter."""
        whatever = ir.Constant(vector.type, ir.Undefined)
        return self.pick(vector, whatever, [min(n, vector.type.count) for n in range(lanes)])

    def turned(self, vectors: list[Any]) -> list[Any]:
        """The transpose of a square: vector i of the result has lane i of each given vector.

        In every square of 2 x 2 numbers the two off the diagonal are exchanged, then in every
        square of 2 x 2 such squares the two off that diagonal, and so on.
        """
        vectors, lanes, span = list(vectors), len(vectors), 1
        while span < lanes:
            keep = [e if not e & span else lanes + e - span for e in range(lanes)]
            give = [e + span if not e & span else lanes + e for e in range(lanes)]
            for one in range(lanes):
                other = one + span
                if not one & span:
                    pair = vectors[one], vectors[other]
                    vectors[one], vectors[other] = self.pick(*pair, keep), self.pick(*pair, give)
            span *= 2
        return vectors

    def loop(self, count: Any, step: Callable[..., list[Any]], values: list[Any]) -> list[Any]:
        """for k in range(count): values = step(k, values). The values stay in registers."""
        build = self.builder
        entry = build.block
        each, after = build.append_basic_block("each"), build.append_basic_block("after")
        build.cbranch(build.icmp_signed(">", count, self.integer(0)), each, after)

        # A phi has one value for each block it can be reached from: first the given one, then
        # what the last round computed.
        build.position_at_end(each)
        k = build.phi(count.type)
        before = [build.phi(value.type) for value in values]
        results = step(k, before)
        following = self.plus(k, 1)
        end = build.block
        build.cbranch(build.icmp_signed("<", following, count), each, after)

        build.position_at_end(after)
        finals = [build.phi(value.type) for value in values]
        k.add_incoming(self.integer(0), entry)
        k.add_incoming(following, end)
        for phi, first, later in zip(before + finals, values * 2, results * 2, strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(later, end)
        return finals

    def sum_lanes(self, vectors: list[Any]) -> Any:
        """The sum of all lanes of the vectors, by halves."""
        while len(vectors) > 1:
            vectors = [self.builder.fadd(*vectors[:2]), *vectors[2:]]
        total = vectors[0]
        while total.type.count > 1:
            half = total.type.count // 2
            low = self.pick(total, total, list(range(half)))
            high = self.pick(total, total, list(range(half, 2 * half)))
            total = self.builder.fadd(low, high)
        return self.builder.extract_element(total, ir.Constant(LANE, 0))

    # ------------------------------------------------------------------ multiplying

    def multiply_add(self, x: Any, y: Any, total: Any) -> Any:
        """total + x * y; for words, total + the products of both bfloat16 pairs in x and y."""
        vector = total.type
        if x.type == vector:  # fmuladd: fused where the processor can, never a library call
            name = f"llvm.fmuladd.v{vector.count}f{8 * BYTES[vector.element]}"
            return self._call(name, vector, x, y, total)
        if machine().bfloat16_dot:
            pairs = ir.VectorType(BFloat(), 2 * vector.count)
            x, y = self.builder.bitcast(x, pairs), self.builder.bitcast(y, pairs)
            return self._call("llvm.x86.avx512bf16.dpbf16ps.512", vector, total, x, y)
        for half in (self.low_half, self.high_half):
            total = self.multiply_add(half(x), half(y), total)
        return total

    # ------------------------------------------------------------------ functions of numbers

    def larger(self, x: Any, y: Any) -> Any:
        """The larger of the numbers in each lane; y where one of them is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, y), x, y)

    def exp_of_fall(self, x: Any) -> Any:
        """exp(x) for x <= 0, as vector_math.py explains it; NaN for NaN.

        Where the result is no normal number any more (below 1.2e-38 in float32) it is 0.
        """
        build, vector = self.builder, x.type
        c = SINGLE if vector.element == FLOAT else DOUBLE
        bits = ir.VectorType(ir.IntType(8 * BYTES[vector.element]), vector.count)

        def all_lanes(number: Any, kind: Any = vector) -> ir.Constant:
            return ir.Constant(kind, [number.item()] * vector.count)

        scaled = self.multiply_add(x, all_lanes(c.log2_e), all_lanes(c.half))
        n = self._call(f"llvm.floor.v{vector.count}f{bits.element.width}", vector, scaled)
        r = self.multiply_add(n, all_lanes(-c.ln2_high), x)
        r = self.multiply_add(n, all_lanes(-c.ln2_low), r)
        rest = all_lanes(c.exp_rest[-1])
        for coefficient in c.exp_rest[-2::-1]:
            rest = self.multiply_add(rest, r, all_lanes(coefficient))
        value = build.fadd(self.multiply_add(build.fmul(r, r), rest, r), all_lanes(c.one))
        exponent = build.add(build.fptosi(n, bits), all_lanes(c.exponent_bias, bits))
        power = build.bitcast(build.shl(exponent, all_lanes(c.mantissa_bits, bits)), vector)
        least = all_lanes((c.one - c.exponent_bias) * (c.ln2_high + c.ln2_low))
        tiny = build.fcmp_ordered("<", x, least)
        return build.select(tiny, all_lanes(c.zero), build.fmul(value, power))

    def _call(self, name: str, result: Any, *arguments: Any) -> Any:
        function = self.builder.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(result, [argument.type for argument in arguments])
            function = ir.Function(self.builder.module, kind, name)
        return self.builder.call(function, arguments)

    # ------------------------------------------------------------------ bfloat16

    def low_half(self, pairs: Any) -> Any:
        """The even k of bfloat16 pairs as float32: a bfloat16 is the upper half of a float32."""
        moved = self.builder.shl(pairs, ir.Constant(pairs.type, [16] * pairs.type.count))
        return self.builder.bitcast(moved, ir.VectorType(FLOAT, pairs.type.count))

    def high_half(self, pairs: Any) -> Any:
        """The odd k of bfloat16 pairs as float32."""
        kept = self.builder.and_(pairs, ir.Constant(pairs.type, [0xFFFF0000] * pairs.type.count))
        return self.builder.bitcast(kept, ir.VectorType(FLOAT, pairs.type.count))

    def as_words(self, numbers: Any, packed: str) -> Any:
        """Numbers as words of dtype `packed`: themselves, or bfloat16, two of them in a uint32."""
        word = NUMBERS[packed]
        if numbers.type.element == word:
            return numbers
        if numbers.type.element == FLOAT:
            numbers = self.round_to_bfloat16(numbers)
        count = numbers.type.count * 2 // BYTES[word]
        return self.builder.bitcast(numbers, ir.VectorType(word, count))

    def zipped(self, first: Any, second: Any, packed: str) -> Any:
        """Words of bfloat16: the numbers of `first` in the low halves, of `second` in the high."""
        count, lanes = first.type.count, machine().vector_bytes // BYTES[FLOAT]
        first, second = self.padded(first, lanes), self.padded(second, lanes)
        both = self.pick(first, second, [*range(2 * lanes)])
        if both.type.element == FLOAT:
            rounded = self.round_to_bfloat16(both)
            both = self.builder.bitcast(rounded, ir.VectorType(NUMBERS["uint16"], 2 * lanes))
        order = [lane + half * lanes for lane in range(count) for half in range(2)]
        return self.as_words(self.pick(both, both, order), packed)

    def widen(self, numbers: Any) -> Any:
        """The bits of bfloat16 numbers as float32; other numbers as they are."""
        if numbers.type.element != NUMBERS["uint16"]:
            return numbers
        wide = self.builder.zext(numbers, ir.VectorType(NUMBERS[WORD], numbers.type.count))
        return self.low_half(wide)

    def round_to_bfloat16(self, numbers: Any) -> Any:
        """One float32 or a vector as bfloat16 or its bits: the nearest, ties to even; NaN stays."""
        build = self.builder
        count = numbers.type.count if isinstance(numbers.type, ir.VectorType) else 0

        def like(element: ir.Type) -> ir.Type:
            return ir.VectorType(element, count) if count else element

        def constant(value: int) -> ir.Constant:
            return ir.Constant(like(NUMBERS[WORD]), [value] * count if count else value)

        if machine().bfloat16_dot and count == 32:  # both halves by one instruction
            low, high = (self.pick(numbers, numbers, [*range(n, n + 16)]) for n in (0, 16))
            pairs = ir.VectorType(BFloat(), count)
            return self._call("llvm.x86.avx512bf16.cvtne2ps2bf16.512", pairs, high, low)
        if machine().bfloat16_dot:
            return build.fptrunc(numbers, like(BFloat()))
        bits = build.bitcast(numbers, like(NUMBERS[WORD]))
        high = build.lshr(bits, constant(16))
        nudge = build.add(build.and_(high, constant(1)), constant(0x7FFF))
        rounded = build.lshr(build.add(bits, nudge), constant(16))
        is_nan = build.fcmp_unordered("uno", numbers, numbers)
        chosen = build.select(is_nan, build.or_(high, constant(0x40)), rounded)
        return build.trunc(chosen, like(NUMBERS["uint16"]))
