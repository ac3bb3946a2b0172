"""Sums in a fixed order, as vector instructions: the same bits with SSE, AVX2 and AVX512.

A compiler may turn a loop over independent elements into vector instructions, but not a sum over elements: that would
change the order of additions. Here the order is written down in vectors of 16 lanes, which the compiler splits into
the registers of a processor. Products and sums are rounded one by one; a fused multiply-add would differ without AVX2.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, register_jitable

LANES = 16
# Independent sums of `_dot_blocks`, which hide the latency of an addition: 64 numbers are taken at a time.
_SUMS = 4
DOT_BLOCK = LANES * _SUMS
# Columns that `_sum_block` keeps in registers: 8 of AVX2's 16.
COLUMNS = 64

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _index(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _lanes(context, dtype) -> ir.VectorType:
    return ir.VectorType(context.get_value_type(dtype), LANES)


def _array(context, builder, kind, value):
    return context.make_array(kind)(context, builder, value)


def _load(builder, pointer, vector):
    value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    value.align = _bytes(vector.element)
    return value


def _store(builder, value, pointer):
    stored = builder.store(value, builder.bitcast(pointer, value.type.as_pointer()))
    stored.align = _bytes(value.type.element)


def _bytes(element) -> int:
    return 4 if element in (ir.FloatType(), _I32) else 8


def _spread(builder, number, vector):
    """A vector with the number in each lane."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _add_lanes(builder, vector, add):
    """The sum of the lanes: the upper half is added to the lower half until one is left."""
    width = LANES
    while width > 1:
        width //= 2
        halves = [
            builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_I32, width), list(range(at, at + width))))
            for at in (0, width)
        ]
        vector = add(*halves)
    return builder.extract_element(vector, ir.Constant(_I32, 0))


@intrinsic
def _dot_blocks(typing_context, left, right, stop):
    """Sum of ``left[c] * right[c]`` over c < stop, a multiple of DOT_BLOCK; lane c % DOT_BLOCK sums its products."""
    signature = left.dtype(left, right, types.intp)

    def generate(context, builder, signature, arguments):
        of_left, of_right, _ = signature.args
        pointers = [
            _array(context, builder, kind, value).data
            for kind, value in ((of_left, arguments[0]), (of_right, arguments[1]))
        ]
        vector = _lanes(context, of_left.dtype)
        sums = [cgutils.alloca_once(builder, vector) for _ in range(_SUMS)]
        for place in sums:
            builder.store(ir.Constant(vector, [0.0] * LANES), place)
        with cgutils.for_range_slice(builder, _index(0), arguments[2], _index(DOT_BLOCK), inc=True) as (first, _):
            for number, place in enumerate(sums):
                at = builder.add(first, _index(number * LANES))
                factors = [_load(builder, builder.gep(pointer, [at]), vector) for pointer in pointers]
                builder.store(builder.fadd(builder.load(place), builder.fmul(*factors)), place)
        total = builder.load(sums[0])
        for place in sums[1:]:
            total = builder.fadd(total, builder.load(place))
        return _add_lanes(builder, total, builder.fadd)

    return signature, generate


@intrinsic
def _sum_block(typing_context, out, at, table, rows, weights, first, last):
    """Add ``weights[e] * table[rows[e], at:at + COLUMNS]`` to ``out[at:at + COLUMNS]``, e from first to last."""
    signature = types.void(out, types.intp, table, rows, weights, types.intp, types.intp)

    def generate(context, builder, signature, arguments):
        of_out, _, of_table, of_rows, of_weights, _, _ = signature.args
        out_value, at, table_value, rows_value, weights_value, first, last = arguments
        vector = _lanes(context, of_out.dtype)
        target = builder.gep(_array(context, builder, of_out, out_value).data, [at])
        source = _array(context, builder, of_table, table_value)
        stride = builder.extract_value(source.shape, 1)
        columns = builder.gep(source.data, [at])
        row_data = _array(context, builder, of_rows, rows_value).data
        weight_data = _array(context, builder, of_weights, weights_value).data
        sums = [cgutils.alloca_once(builder, vector) for _ in range(COLUMNS // LANES)]
        places = [_index(number * LANES) for number in range(len(sums))]
        for place, offset in zip(sums, places, strict=True):
            builder.store(_load(builder, builder.gep(target, [offset]), vector), place)
        with cgutils.for_range_slice(builder, first, last, _index(1), inc=True) as (entry, _):
            row = builder.sext(builder.load(builder.gep(row_data, [entry])), _I64)
            weight = _spread(builder, builder.load(builder.gep(weight_data, [entry])), vector)
            begin = builder.gep(columns, [builder.mul(row, stride)])
            for place, offset in zip(sums, places, strict=True):
                product = builder.fmul(weight, _load(builder, builder.gep(begin, [offset]), vector))
                builder.store(builder.fadd(builder.load(place), product), place)
        for place, offset in zip(sums, places, strict=True):
            _store(builder, builder.load(place), builder.gep(target, [offset]))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def count_reaching(typing_context, keys, stop, bound):
    """Return how many of the first `stop` integers, a multiple of LANES, are at least `bound`."""
    signature = types.intp(keys, types.intp, keys.dtype)

    def generate(context, builder, signature, arguments):
        of_keys, _, _ = signature.args
        data, vector = _array(context, builder, of_keys, arguments[0]).data, _lanes(context, of_keys.dtype)
        counts = cgutils.alloca_once(builder, vector)
        builder.store(ir.Constant(vector, [0] * LANES), counts)
        bounds = _spread(builder, arguments[2], vector)
        with cgutils.for_range_slice(builder, _index(0), arguments[1], _index(LANES), inc=True) as (at, _):
            reached = builder.icmp_signed(">=", _load(builder, builder.gep(data, [at]), vector), bounds)
            builder.store(builder.sub(builder.load(counts), builder.sext(reached, vector)), counts)
        count = _add_lanes(builder, builder.load(counts), builder.add)
        return count if count.type == _I64 else builder.sext(count, _I64)

    return signature, generate


@register_jitable
def dot(left, right):
    """Scalar product of two rows that lie without gaps: DOT_BLOCK interleaved sums, then what is left one by one."""
    whole = len(left) - len(left) % DOT_BLOCK
    total = _dot_blocks(left, right, whole)
    for column in range(whole, len(left)):
        total += left[column] * right[column]
    return total


@register_jitable
def add_rows(out, begin, end, table, rows, weights, first, last):
    """Add to ``out[begin:end]`` the entries' weighted rows of `table`, one after the other for each column."""
    whole = end - (end - begin) % COLUMNS
    for at in range(begin, whole, COLUMNS):
        _sum_block(out, at, table, rows, weights, first, last)
    if whole < end:
        for entry in range(first, last):
            row, weight = table[rows[entry]], weights[entry]
            for column in range(whole, end):
                out[column] += weight * row[column]
