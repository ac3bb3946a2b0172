"""The loops that are compiled; `compiled.py` compiles them, `passes.py` calls them.

The first two arguments of most loops are the range of rows, latents or blocks to work on. Each number of a result is
computed within one range, in an order that does not depend on its bounds, so threads may share a range in any way.
"""

import math

import numpy as np
from numba.extending import register_jitable

from atlas.training.fused.lanes import COLUMNS, LANES, add_rows, count_reaching, dot

# Latents share a maximum in groups of at most this many: more leave fewer maxima to compare and more values to look at.
_GROUP = 16


@register_jitable
def _padded(keys, n):
    """Fill up keys to whole vectors with zeros, which reach no bound; returns how many there are then."""
    whole = -(-n // LANES) * LANES
    for i in range(n, whole):
        keys[i] = 0
    return whole


@register_jitable
def _threshold(keys, n, k, guess):
    """A bound that the k largest of the first n keys reach, and beyond them only ties; 1 if at most k are positive.

    `n` is a multiple of LANES. A good `guess` saves time; from it, steps that double lead to a bound on either side.
    """
    low, high, at_high = 1, np.int64(0), 0
    at_low = count_reaching(keys, n, keys.dtype.type(1))
    if at_low <= k:
        return low
    for i in range(n):
        high = max(high, np.int64(keys[i]))
    high += 1
    middle, step, both = min(max(guess, low + 1), high - 1), (high >> 9) + 1, 0
    while high - low > 1:
        count = count_reaching(keys, n, keys.dtype.type(middle))
        if count == k:
            return middle
        if count > k:
            low, at_low, both = middle, count, both | 1
        else:
            high, at_high, both = middle, count, both | 2
        step = min(2 * step, high - low)  # within the range, so that nothing overflows
        if both == 1:
            middle = low + step
        elif both == 2:
            middle = high - step
        else:  # between two known counts, by turns where a straight line would have k, and half way
            both ^= 4
            share = (at_low - k) / (at_low - at_high) if both & 4 else 0.5
            middle = low + np.int64(share * (high - low))
        middle = min(max(middle, low + 1), high - 1)
    return low


@register_jitable
def _groups(n, k):
    """Return how many groups share a row of n latents, and the places of all groups, of which the last ones may be
    empty.
    """
    stripes = max(1, min(_GROUP, n // (2 * k + 8)))
    width = -(-n // stripes)
    return width, stripes * width


@register_jitable
def _group_maxima(pre, width, maxima):
    """Maxima of groups of latents g, g + width, g + 2 width, …, none below 0."""
    for g in range(width):
        maxima[g] = pre[g] if pre[g] > 0 else 0
    for begin in range(width, len(pre), width):
        for g in range(width):
            value = pre[begin + g]
            maxima[g] = value if value > maxima[g] else maxima[g]  # false for a value that is not a number


@register_jitable
def _reaching(pre, keys, width, bound, hits, candidates):
    """Indices of values whose key reaches `bound`, ascending; groups whose maximum does not are not looked into."""
    n_hits, found = 0, 0
    for g in range(width):
        hits[n_hits] = g
        n_hits += keys[g] >= bound
    keys[0] = bound  # the maxima have served; this place turns the bound into a value
    value = keys.view(pre.dtype)[0]
    for begin in range(0, len(pre), width):
        for i in range(n_hits):  # no branch: which values reach a bound cannot be foretold
            at = begin + hits[i]
            candidates[found] = at
            found += pre[at] >= value
    return found


@register_jitable
def _keep(candidates, keys, found, k, threshold):
    """Leave the k largest candidates, ascending, of ties the first; returns how many there are."""
    ties = k - count_reaching(keys, _padded(keys, found), keys.dtype.type(threshold + 1))
    kept = 0
    for i in range(found):
        key = keys[i]
        candidates[kept] = candidates[i]
        tied = key == threshold
        kept += (key > threshold) | (tied & (ties > 0))
        ties -= tied
    return kept


@register_jitable
def _widen(product, bias, bits, pre):
    """Pre-activations of a row; a bfloat16 is the upper half of a float32."""
    if product.itemsize == 2:
        for c in range(len(product)):
            bits[c] = np.int32(product[c]) << 16
        for c in range(len(product)):
            pre[c] = pre[c] + bias[c]
    else:
        for c in range(len(product)):
            pre[c] = product[c] + bias[c]


def select_rows(first, last, product, bias, keys, k, columns, values, counts):
    """The k largest positive pre-activations of each row: at most k from place k * row on, ascending, and how many.

    `keys` is an empty array whose type has the bits of a pre-activation, as an integer: of positive numbers, the
    larger has the larger bits.
    """
    width, places = _groups(product.shape[1], k)
    maximum_keys, found_keys = np.empty(width + LANES, keys.dtype), np.empty(places + LANES, keys.dtype)
    bits, hits, candidates = np.zeros(places, keys.dtype), np.empty(width + 1, np.int32), np.empty(places + 1, np.int32)
    maxima, pre = maximum_keys.view(bias.dtype), bits.view(bias.dtype)
    bound, smallest = 1, 1  # of the row before: where to look first
    for row in range(first, last):
        _widen(product[row], bias, bits, pre)
        _group_maxima(pre, width, maxima)
        bound = _threshold(maximum_keys, _padded(maximum_keys, width), k, bound)
        kept = _reaching(pre, maximum_keys, width, bound, hits, candidates)
        for i in range(kept):
            found_keys[i] = bits[candidates[i]]
        if kept > k:
            smallest = _threshold(found_keys, _padded(found_keys, kept), k, smallest)
            kept = _keep(candidates, found_keys, kept, k, smallest)
        for i in range(kept):
            columns[row * k + i] = candidates[i]
            values[row * k + i] = pre[candidates[i]]
        counts[row] = kept


def reach_floor(first, last, product, bias, keys, k, floor, columns, values, counts):
    """All pre-activations of each row that reach a positive `floor`: from the begin of its row on, and how many."""
    width, places = _groups(product.shape[1], k)
    maximum_keys, bits = np.empty(width, keys.dtype), np.zeros(places, keys.dtype)
    hits, candidates = np.empty(width + 1, np.int32), np.empty(places + 1, np.int32)
    maxima, pre = maximum_keys.view(bias.dtype), bits.view(bias.dtype)
    for row in range(first, last):
        _widen(product[row], bias, bits, pre)
        _group_maxima(pre, width, maxima)
        found = _reaching(pre, maximum_keys, width, floor, hits, candidates)
        for i in range(found):
            columns[row, i] = candidates[i]
            values[row, i] = pre[candidates[i]]
        counts[row] = found


def select_batch(columns, bits, counts, keys, k, kept_columns, kept_values):
    """The k largest of all that `reach_floor` found, one after the other; `counts` becomes those of what is kept.

    `bits` are the values' bits. There is one of `keys` for each value and LANES more, to work with.
    """
    number = 0
    for row in range(len(counts)):
        for i in range(counts[row]):
            keys[number] = bits[row, i]
            number += 1
    threshold, ties = 1, number
    if number > k:
        whole = _padded(keys, number)
        threshold = _threshold(keys, whole, k, 1)
        ties = k - count_reaching(keys, whole, keys.dtype.type(threshold + 1))
    kept, number = 0, 0
    kept_bits = kept_values.view(keys.dtype)
    for row in range(len(counts)):
        before = kept
        for i in range(counts[row]):
            key = keys[number]
            number += 1
            if key > threshold or (key == threshold and ties > 0):
                ties -= key == threshold
                kept_columns[kept] = columns[row, i]
                kept_bits[kept] = key
                kept += 1
        counts[row] = kept - before


def reconstruct(
    first, last, starts, counts, columns, values, W_dec, b_dec, targets, ends, factor, residuals, errors, gradients
):
    """Residuals, squared errors and gradients of the values of each row's kept latents.

    `ends` has the end of each nested group. Plane g of `residuals` becomes the sum of the residuals of groups from g
    on, times `factor` the gradient at what group g's latents reconstruct.
    """
    sums = np.empty(W_dec.shape[1], W_dec.dtype)
    for row in range(first, last):
        entry, stop = starts[row], starts[row] + counts[row]
        sums[:] = 0
        for group in range(len(ends)):
            begin = entry
            while entry < stop and columns[entry] < ends[group]:
                entry += 1
            add_rows(sums, 0, len(sums), W_dec, columns, values, begin, entry)
            residual = residuals[group, row]
            for c in range(len(sums)):
                residual[c] = targets[row, c] - (sums[c] + b_dec[c])
            errors[row, group] = dot(residual, residual)
        for group in range(len(ends) - 2, -1, -1):
            for c in range(len(sums)):
                residuals[group, row, c] += residuals[group + 1, row, c]
        group = 0
        for entry in range(starts[row], stop):
            while columns[entry] >= ends[group]:
                group += 1
            gradients[entry] = factor * dot(residuals[group, row], W_dec[columns[entry]])


def sort_by_latent(
    starts, counts, columns, values, gradients, block, buckets, rows, sorted_values, sorted_gradients, of_bias
):
    """Entries in order of blocks of `block` rows, in a block of latents, and for one latent of rows.

    ``buckets[b * n_latents + j]`` becomes the place of the first entry of block b and latent j; `of_bias` the sums of
    the gradients of each latent.
    """
    n_latents = len(of_bias)
    buckets[:] = 0
    of_bias[:] = 0
    for row in range(len(counts)):
        first = row // block * n_latents + 1
        for entry in range(starts[row], starts[row] + counts[row]):
            buckets[first + columns[entry]] += 1
            of_bias[columns[entry]] += gradients[entry]
    for bucket in range(len(buckets) - 1):
        buckets[bucket + 1] += buckets[bucket]
    free = buckets.copy()
    for row in range(len(counts)):
        first = row // block * n_latents
        for entry in range(starts[row], starts[row] + counts[row]):
            place = free[first + columns[entry]]
            free[first + columns[entry]] += 1
            rows[place], sorted_values[place], sorted_gradients[place] = row, values[entry], gradients[entry]


def sum_by_latent(first, last, skipped, n_latents, buckets, rows, weights, table, factor, out):
    """For each latent `factor` times the sum of weight x row of `table` over its entries, as `sort_by_latent` has them.

    `out` and the range of latents begin after the `skipped` ones.
    """
    width = table.shape[1]
    # Some columns of a block of rows stay in the cache while all latents add what they need of them.
    for begin in range(0, width, COLUMNS):
        end = min(begin + COLUMNS, width)
        out[first:last, begin:end] = 0
        for bucket in range(skipped, len(buckets) - 1, n_latents):
            for latent in range(first, last):
                place = bucket + latent
                add_rows(out[latent], begin, end, table, rows, weights, buckets[place], buckets[place + 1])
        for latent in range(first, last):
            for c in range(begin, end):
                out[latent, c] *= factor


def centre(first, last, rows, centre, centred, halves):
    """Rows minus the centre, and the same in bfloat16 (its bits) unless `halves` is empty."""
    for row in range(first, last):
        of_row, bits = centred[row], centred[row].view(np.int32)
        for c in range(len(centre)):
            of_row[c] = rows[row, c] - centre[c]
        if len(halves):
            half = halves[row]
            for c in range(len(centre)):  # rounded to the nearest, ties to even
                rounded = (np.int64(bits[c]) + 0x7FFF + ((bits[c] >> 16) & 1)) >> 16
                half[c] = rounded if of_row[c] == of_row[c] else 0x7FC0


def column_sums(first, last, table, rows, ones, out):
    """Sums of the columns of a block (COLUMNS of them), row after row; `rows` counts them, and `ones` are 1."""
    for block in range(first, last):
        begin, end = block * COLUMNS, min((block + 1) * COLUMNS, table.shape[1])
        out[begin:end] = 0
        add_rows(out, begin, end, table, rows, ones, 0, len(rows))


def project(first, last, weights, gradients, squares):
    """Take out of each row's gradient what lies along the row; the square of what is left."""
    for row in range(first, last):
        weight, gradient = weights[row], gradients[row]
        norm = math.sqrt(dot(weight, weight)) + weights.dtype.type(1e-6)
        along = weights.dtype.type(dot(gradient, weight) / (norm * norm))
        for c in range(len(weight)):
            gradient[c] -= along * weight[c]
        squares[row] = dot(gradient, gradient)


def squared_norms(first, last, table, squares):
    """Squared norm of each row."""
    for row in range(first, last):
        squares[row] = dot(table[row], table[row])


def adam(first, last, weights, gradients, mean, mean_square, numbers, unit_norm):
    """One step of Adam for some rows, which with `unit_norm` are then divided by their norm.

    `numbers`: factor of the gradients, 1 - beta1, beta2, 1 - beta2, learning rate over the first correction, square
    root of the second, epsilon; at last what is added to a norm, which may be 0.
    """
    clip, new, beta2, new_square, rate, correction, epsilon, least = numbers
    for row in range(first, last):
        weight, gradient, moment, square = weights[row], gradients[row], mean[row], mean_square[row]
        for c in range(len(weight)):
            slope = gradient[c] * clip
            moment[c] += new * (slope - moment[c])
            square[c] = beta2 * square[c] + new_square * (slope * slope)
            weight[c] -= rate * moment[c] / (np.sqrt(square[c]) / correction + epsilon)
        if unit_norm:
            norm = weights.dtype.type(math.sqrt(dot(weight, weight))) + least
            for c in range(len(weight)):
                weight[c] /= norm


def total(squares):
    """The sum, in float64."""
    found = 0.0
    for value in squares:
        found += value
    return found
