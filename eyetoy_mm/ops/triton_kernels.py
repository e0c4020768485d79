"""Kernels of the ``triton`` back end. The only file that imports triton, and what is in it is Triton's Python.

A program owns a *tile*: some rows of one dilation group of one map and head, that lie together along each axis. Rows
are queries, or keys where the gradients of keys and values are summed. Along an axis a query attends to an interval of
positions, and a key is attended by an interval of queries (windows that are shifted at borders included), so what a
tile needs is a box, the union of its rows' intervals: its *halo*.

::

    +---------------------+     The loop goes down the flattened halo in blocks of COLUMNS, wherever its rows end:
    |  +--------------+   |     no border wastes more than a part of the last block. A column becomes (d, h, w) by
    |  |halo  +--+    |   |     multiplications (`_divisor`). It is in a row's interval on all axes if no sign shows in
    |  |::::::|q |::: |   |
    |  |:     +--+    |   |         (column - first) | (last - column)
    |  +--------------+   |
    +---------------------+     where the coordinates of all axes are packed into one int, with a bit for each sign.

No two programs write to one place, so there are no atomics, and no result depends on their order. Scores are exponents
of two: ``scale`` has log2(e) in it. The numbers of a case (sizes, windows, dilations) are arguments at run time, so one
compilation per dtype, head dim and rank serves all of them; sequences are maps of one row.

Letters: L length, K kernel size, S step (dilation), N number of tiles of a dilation group, T rows of a tile; each for
the axes D, H and W. ``HEAD_DIM`` is that of the tensors, ``DIM`` the next power of two. ``AXES`` is 2 or 3.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
# Run-time numbers that are no reason to compile again when they are 1 or divide by 16.
_ANY = ["heads", "tiles", "LD", "LH", "LW", "KD", "KH", "KW", "SD", "SH", "SW", "ND", "NH", "NW"]


# --- Tiles and halos --------------------------------------------------------------------------------------------------


@triton.jit
def _interval(i, L, K, TRANSPOSED: tl.constexpr):
    """First and last position that row ``i`` of an undilated axis attends to; TRANSPOSED: that attend to it."""
    window = tl.minimum(K, L)
    left = K // 2
    if TRANSPOSED:
        first = tl.where(i < window, 0, i - window + 1 + left)
        last = tl.where(i >= L - window, L - 1, i + left)
    else:
        first = tl.minimum(tl.maximum(i - left, 0), L - window)
        last = first + window - 1
    return first, last


@triton.jit
def _along(tile, N, L, K, S, T: tl.constexpr, TRANSPOSED: tl.constexpr):
    """A tile of an axis: its group and the length of that, its first row, first position and extent of its halo."""
    group = tile // N
    row = (tile % N) * T
    length = L // S + (group < L % S).to(tl.int32)
    first, _ = _interval(tl.minimum(row, length - 1), length, K, TRANSPOSED)
    _, last = _interval(tl.minimum(row + T, length) - 1, length, K, TRANSPOSED)
    return group, length, row, first, last - first + 1


@triton.jit
def _pack(d, h, w, AXES: tl.constexpr):
    """16 bits for each of two axes, 10 for each of three; the upper bit of each is for the sign of a difference."""
    if AXES == 3:
        return (d * 1024 + h) * 1024 + w
    else:
        return h * 65536 + w


@triton.jit
def _is_in(column, first, last, AXES: tl.constexpr):
    """Whether packed coordinates lie in an interval on every axis."""
    signs = (column - first) | (last - column)
    if AXES == 3:
        return (signs & 0x20080200) == 0
    else:
        return (signs & -2147450880) == 0  # 0x80008000


@triton.jit
def _tile(
    tile, LD, LH, LW, KD, KH, KW, SD, SH, SW, ND, NH, NW,
    TD: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr, AXES: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """What a program knows of its tile.

    Of each row: its place in the flattened map; whether the map has it; first and last column of its interval, packed,
    from the first of the halo; and its own, linear in the table of biases. Of the halo: the place of its first
    position, and its extents, raised to what `_divisor` takes, with the packed last column that it has. And how far
    the tile's first row is from the halo's first position, along each axis.
    """
    at = tile // (NW * SW)
    group_w, length_w, row_w, from_w, extent_w = _along(tile % (NW * SW), NW, LW, KW, SW, TW, TRANSPOSED)
    group_h, length_h, row_h, from_h, extent_h = _along(at % (NH * SH), NH, LH, KH, SH, TH, TRANSPOSED)
    row = tl.arange(0, TD * TH * TW)
    w = row_w + row % TW
    h = row_h + (row // TW) % TH
    inside = (w < length_w) & (h < length_h)
    # rows beyond the map are its last one again: what they read is there, and nothing of them is written
    w = tl.minimum(w, length_w - 1)
    h = tl.minimum(h, length_h - 1)
    first_w, last_w = _interval(w, length_w, KW, TRANSPOSED)
    first_h, last_h = _interval(h, length_h, KH, TRANSPOSED)
    place = (group_h + SH * h) * LW + group_w + SW * w
    origin = (group_h + SH * from_h) * LW + group_w + SW * from_w
    first = _pack(0, first_h - from_h, first_w - from_w, AXES)
    last = _pack(0, last_h - from_h, last_w - from_w, AXES)
    end = _pack(0, extent_h - 1, extent_w - 1, AXES)
    own_in_table = (h - from_h) * (2 * KW - 1) + w - from_w
    extent_d = 1
    corner_d = 0
    if AXES == 3:
        group_d, length_d, row_d, from_d, extent_d = _along(at // (NH * SH), ND, LD, KD, SD, TD, TRANSPOSED)
        d = row_d + row // (TW * TH)
        inside = inside & (d < length_d)
        d = tl.minimum(d, length_d - 1)
        first_d, last_d = _interval(d, length_d, KD, TRANSPOSED)
        place += (group_d + SD * d) * (LH * LW)
        origin += (group_d + SD * from_d) * (LH * LW)
        first += _pack(first_d - from_d, 0, 0, AXES)
        last += _pack(last_d - from_d, 0, 0, AXES)
        end += _pack(extent_d - 1, 0, 0, AXES)
        own_in_table += (d - from_d) * ((2 * KH - 1) * (2 * KW - 1))
        extent_h = tl.maximum(extent_h, 2)
        corner_d = row_d - from_d
    extent_w = tl.maximum(extent_w, 2)
    corner_h = row_h - from_h
    corner_w = row_w - from_w
    return (
        place, inside, first, last, own_in_table,
        origin, extent_d, extent_h, extent_w, end, corner_d, corner_h, corner_w,
    )  # fmt: skip


@triton.jit
def _divisor(extent):
    """A number for an extent ``e``: ``n // e`` is the upper half of their product, exact while ``n * e < 2**32``."""
    ones: tl.uint32 = 0xFFFFFFFF
    return ones // extent.to(tl.uint32) + 1


@triton.jit
def _columns(
    column, extent_h, extent_w, divisor_h, divisor_w, end, LH, LW, KH, KW, SD, SH, SW, AXES: tl.constexpr
):  # fmt: skip
    """Of columns of a flattened halo: packed coordinates; place and entry in the table from the first; if they are."""
    h = tl.umulhi(column.to(tl.uint32), divisor_w).to(tl.int32)
    w = column - h * extent_w
    if AXES == 3:
        d = tl.umulhi(h.to(tl.uint32), divisor_h).to(tl.int32)
        h = h - d * extent_h
        packed = _pack(d, h, w, AXES)
        place = d * (SD * LH * LW) + h * (SH * LW) + w * SW
        in_table = d * ((2 * KH - 1) * (2 * KW - 1)) + h * (2 * KW - 1) + w
    else:
        packed = _pack(0, h, w, AXES)
        place = h * (SH * LW) + w * SW
        in_table = h * (2 * KW - 1) + w
    return packed, place, in_table, _is_in(packed, 0, end, AXES)


@triton.jit
def _vectors(place, is_there, stride, HEAD_DIM: tl.constexpr, DIM: tl.constexpr):
    """Offsets ``(places, DIM)`` of the vectors at some places, and which of their elements there are."""
    channel = tl.arange(0, DIM)
    mask = is_there[:, None]
    if DIM != HEAD_DIM:
        mask = mask & (channel < HEAD_DIM)[None, :]
    return (place * stride)[:, None] + channel[None, :], mask


@triton.jit
def _middle(KD, KH, KW):
    """Entry of the table of biases for a key that is its query."""
    return ((KD - 1) * (2 * KH - 1) + KH - 1) * (2 * KW - 1) + KW - 1


@triton.jit
def _size(KD, KH, KW):
    """Entries of a head's table of biases."""
    return (2 * KD - 1) * (2 * KH - 1) * (2 * KW - 1)


# --- Forward ----------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=_ANY)
def attention_forward(
    query, key, value, bias, output, logsumexp, scale, sample_stride, place_stride, head_stride,
    heads, tiles, LD, LH, LW, KD, KH, KW, SD, SH, SW, ND, NH, NW,
    HEAD_DIM: tl.constexpr, DIM: tl.constexpr, TD: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    COLUMNS: tl.constexpr, AXES: tl.constexpr, BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Output and, to base 2, logarithm of the sum of the exponentials of the scores, ``(B, N, heads)``.

    The maximum and the sum of the scores so far are kept for each row, and what is summed is scaled down as the maximum
    grows (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).
    """
    program = tl.program_id(0)
    head = (program // tiles) % heads
    sample = (program // tiles // heads).to(tl.int64)
    rows, inside, first, last, own_in_table, origin, extent_d, extent_h, extent_w, end, _, _, _ = _tile(
        program % tiles, LD, LH, LW, KD, KH, KW, SD, SH, SW, ND, NH, NW, TD, TH, TW, AXES, False
    )
    # a program whose dilation group ends before its tile goes on with masked rows: few, and their loop is as short
    start = sample * sample_stride + head * head_stride
    of_rows, rows_mask = _vectors(rows, inside, place_stride, HEAD_DIM, DIM)
    q = tl.load(query + start + of_rows, mask=rows_mask, other=0.0)
    key += start + origin * place_stride
    value += start + origin * place_stride
    if BIAS:
        bias += head * _size(KD, KH, KW)
        own_in_table = _middle(KD, KH, KW) - own_in_table
    divisor_h = _divisor(extent_h)
    divisor_w = _divisor(extent_w)
    largest = tl.full((TD * TH * TW,), -1.0e30, tl.float32)  # not -inf, from which nothing can be subtracted
    total = tl.zeros((TD * TH * TW,), tl.float32)
    sums = tl.zeros((TD * TH * TW, DIM), tl.float32)
    for column in range(0, extent_d * extent_h * extent_w, COLUMNS):
        columns, places, in_table, exists = _columns(
            column + tl.arange(0, COLUMNS),
            extent_h, extent_w, divisor_h, divisor_w, end, LH, LW, KH, KW, SD, SH, SW, AXES,
        )  # fmt: skip
        of_columns, columns_mask = _vectors(places, exists, place_stride, HEAD_DIM, DIM)
        k = tl.load(key + of_columns, mask=columns_mask, other=0.0)
        scores = tl.dot(q, k.T, input_precision=PRECISION) * scale
        attends = _is_in(columns[None, :], first[:, None], last[:, None], AXES)
        if BIAS:
            scores += LOG2E * tl.load(bias + (own_in_table[:, None] + in_table[None, :]), mask=attends, other=0.0)
        scores = tl.where(attends, scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        shrink = tl.exp2(largest - larger)
        p = tl.exp2(scores - larger[:, None])
        total = total * shrink + tl.sum(p, 1)
        v = tl.load(value + of_columns, mask=columns_mask, other=0.0)
        sums = tl.dot(p.to(v.dtype), v, sums * shrink[:, None], input_precision=PRECISION)
        largest = larger
    sample_places = sample * (LD * LH * LW)
    dense, dense_mask = _vectors(rows, inside, heads * HEAD_DIM, HEAD_DIM, DIM)
    output += (sample_places * heads + head) * HEAD_DIM
    tl.store(output + dense, (sums / total[:, None]).to(output.dtype.element_ty), mask=dense_mask)
    tl.store(logsumexp + (sample_places + rows) * heads + head, largest + tl.log2(total), mask=inside)


# --- Backward ---------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=_ANY)
def attention_query_gradient(
    query, key, value, bias, output, logsumexp, gradient, query_gradient, row_numbers,
    scale, gradient_scale, sample_stride, place_stride, head_stride,
    heads, tiles, LD, LH, LW, KD, KH, KW, SD, SH, SW, ND, NH, NW,
    HEAD_DIM: tl.constexpr, DIM: tl.constexpr, TD: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    COLUMNS: tl.constexpr, AXES: tl.constexpr, BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of the queries; and ``row_numbers (B, heads, N, 2)`` for the other kernels.

    These are the logarithm of the sum of exponentials, and the product of output and gradient, which is the mean of the
    probabilities' gradients.
    """
    program = tl.program_id(0)
    head = (program // tiles) % heads
    sample = (program // tiles // heads).to(tl.int64)
    rows, inside, first, last, own_in_table, origin, extent_d, extent_h, extent_w, end, _, _, _ = _tile(
        program % tiles, LD, LH, LW, KD, KH, KW, SD, SH, SW, ND, NH, NW, TD, TH, TW, AXES, False
    )
    start = sample * sample_stride + head * head_stride
    of_rows, rows_mask = _vectors(rows, inside, place_stride, HEAD_DIM, DIM)
    q = tl.load(query + start + of_rows, mask=rows_mask, other=0.0)
    sample_places = sample * (LD * LH * LW)
    dense, dense_mask = _vectors(rows, inside, heads * HEAD_DIM, HEAD_DIM, DIM)
    dense_start = (sample_places * heads + head) * HEAD_DIM
    do = tl.load(gradient + dense_start + dense, mask=dense_mask, other=0.0)
    o = tl.load(output + dense_start + dense, mask=dense_mask, other=0.0)
    mean = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    log_sum = tl.load(logsumexp + (sample_places + rows) * heads + head, mask=inside, other=0.0)
    row_numbers += ((sample * heads + head) * (LD * LH * LW) + rows) * 2
    tl.store(row_numbers, log_sum, mask=inside)
    tl.store(row_numbers + 1, mean, mask=inside)
    key += start + origin * place_stride
    value += start + origin * place_stride
    if BIAS:
        bias += head * _size(KD, KH, KW)
        own_in_table = _middle(KD, KH, KW) - own_in_table
    divisor_h = _divisor(extent_h)
    divisor_w = _divisor(extent_w)
    sums = tl.zeros((TD * TH * TW, DIM), tl.float32)
    for column in range(0, extent_d * extent_h * extent_w, COLUMNS):
        columns, places, in_table, exists = _columns(
            column + tl.arange(0, COLUMNS),
            extent_h, extent_w, divisor_h, divisor_w, end, LH, LW, KH, KW, SD, SH, SW, AXES,
        )  # fmt: skip
        of_columns, columns_mask = _vectors(places, exists, place_stride, HEAD_DIM, DIM)
        k = tl.load(key + of_columns, mask=columns_mask, other=0.0)
        scores = tl.dot(q, k.T, input_precision=PRECISION) * scale
        attends = _is_in(columns[None, :], first[:, None], last[:, None], AXES)
        if BIAS:
            scores += LOG2E * tl.load(bias + (own_in_table[:, None] + in_table[None, :]), mask=attends, other=0.0)
        p = tl.exp2(tl.where(attends, scores - log_sum[:, None], float("-inf")))
        v = tl.load(value + of_columns, mask=columns_mask, other=0.0)
        dp = tl.dot(do, v.T, input_precision=PRECISION)
        ds = p * (dp - mean[:, None])
        sums = tl.dot(ds.to(k.dtype), k, sums, input_precision=PRECISION)
    query_gradient += dense_start
    tl.store(query_gradient + dense, (sums * gradient_scale).to(query_gradient.dtype.element_ty), mask=dense_mask)


@triton.jit(do_not_specialize=_ANY)
def attention_key_value_gradient(
    query, key, value, bias, gradient, row_numbers, key_gradient, value_gradient,
    scale, gradient_scale, sample_stride, place_stride, head_stride,
    heads, tiles, LD, LH, LW, KD, KH, KW, SD, SH, SW, ND, NH, NW,
    HEAD_DIM: tl.constexpr, DIM: tl.constexpr, TD: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    COLUMNS: tl.constexpr, AXES: tl.constexpr, BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values: rows are keys, columns the queries that attend to them."""
    program = tl.program_id(0)
    head = (program // tiles) % heads
    sample = (program // tiles // heads).to(tl.int64)
    rows, inside, first, last, own_in_table, origin, extent_d, extent_h, extent_w, end, _, _, _ = _tile(
        program % tiles, LD, LH, LW, KD, KH, KW, SD, SH, SW, ND, NH, NW, TD, TH, TW, AXES, True
    )
    start = sample * sample_stride + head * head_stride
    of_rows, rows_mask = _vectors(rows, inside, place_stride, HEAD_DIM, DIM)
    k = tl.load(key + start + of_rows, mask=rows_mask, other=0.0)
    v = tl.load(value + start + of_rows, mask=rows_mask, other=0.0)
    dense_stride = heads * HEAD_DIM
    dense_start = (sample * (LD * LH * LW) * heads + head) * HEAD_DIM
    query += start + origin * place_stride
    gradient += dense_start + origin * dense_stride
    row_numbers += ((sample * heads + head) * (LD * LH * LW) + origin) * 2
    if BIAS:
        bias += head * _size(KD, KH, KW)
        own_in_table += _middle(KD, KH, KW)
    divisor_h = _divisor(extent_h)
    divisor_w = _divisor(extent_w)
    key_sums = tl.zeros((TD * TH * TW, DIM), tl.float32)
    value_sums = tl.zeros((TD * TH * TW, DIM), tl.float32)
    for column in range(0, extent_d * extent_h * extent_w, COLUMNS):
        columns, places, in_table, exists = _columns(
            column + tl.arange(0, COLUMNS),
            extent_h, extent_w, divisor_h, divisor_w, end, LH, LW, KH, KW, SD, SH, SW, AXES,
        )  # fmt: skip
        of_columns, columns_mask = _vectors(places, exists, place_stride, HEAD_DIM, DIM)
        q = tl.load(query + of_columns, mask=columns_mask, other=0.0)
        # one load of pairs and not two: Triton has every thread load what has fewer elements than there are threads
        pairs = (places * 2)[:, None] + tl.arange(0, 2)[None, :]
        log_sum, mean = tl.split(tl.load(row_numbers + pairs, mask=exists[:, None], other=0.0))
        scores = tl.dot(k, q.T, input_precision=PRECISION) * scale
        attends = _is_in(columns[None, :], first[:, None], last[:, None], AXES)
        if BIAS:
            scores += LOG2E * tl.load(bias + (own_in_table[:, None] - in_table[None, :]), mask=attends, other=0.0)
        p = tl.exp2(tl.where(attends, scores - log_sum[None, :], float("-inf")))
        of_columns, columns_mask = _vectors(places, exists, dense_stride, HEAD_DIM, DIM)
        do = tl.load(gradient + of_columns, mask=columns_mask, other=0.0)
        value_sums = tl.dot(p.to(do.dtype), do, value_sums, input_precision=PRECISION)
        dp = tl.dot(v, do.T, input_precision=PRECISION)
        ds = p * (dp - mean[None, :])
        key_sums = tl.dot(ds.to(q.dtype), q, key_sums, input_precision=PRECISION)
    dense, dense_mask = _vectors(rows, inside, dense_stride, HEAD_DIM, DIM)
    key_gradient += dense_start
    value_gradient += dense_start
    tl.store(key_gradient + dense, (key_sums * gradient_scale).to(key_gradient.dtype.element_ty), mask=dense_mask)
    tl.store(value_gradient + dense, value_sums.to(value_gradient.dtype.element_ty), mask=dense_mask)


@triton.jit(do_not_specialize=[*_ANY, "samples", "parts"])
def attention_bias_gradient(
    query, key, value, bias, gradient, row_numbers, bias_gradient,
    scale, sample_stride, place_stride, head_stride, samples, parts,
    heads, tiles, LD, LH, LW, KD, KH, KW, SD, SH, SW, ND, NH, NW,
    HEAD_DIM: tl.constexpr, DIM: tl.constexpr, TD: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    COLUMNS: tl.constexpr, AXES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the scores, ``(parts, heads, rows, columns)``, each summed over a part of all tiles.

    Columns here are not those of a tile's own halo, but of a box that holds the halo of any tile: along each axis from
    K - 1 positions before its first row to K - 1 behind its last. A row and a column are as far apart in all tiles, so
    they have one entry of the table of biases, and its gradient is the sum over those that have it. A program has some
    columns.
    """
    program = tl.program_id(0)
    box_h = TH + 2 * KH - 2
    box_w = TW + 2 * KW - 2
    box = (TD + 2 * KD - 2) * box_h * box_w
    blocks = (box + COLUMNS - 1) // COLUMNS
    begin = (program % blocks) * COLUMNS
    head = (program // blocks) % heads
    part = program // blocks // heads
    column = begin + tl.arange(0, COLUMNS)
    d = column // (box_h * box_w) - KD + 1  # from the tile's first row
    h = column // box_w % box_h - KH + 1
    w = column % box_w - KW + 1
    row = tl.arange(0, TD * TH * TW)
    d_in_table = d[None, :] - (row // (TW * TH))[:, None] + KD - 1
    h_in_table = h[None, :] - (row // TW % TH)[:, None] + KH - 1
    w_in_table = w[None, :] - (row % TW)[:, None] + KW - 1
    in_table = (d_in_table >= 0) & (d_in_table <= 2 * KD - 2)
    in_table = in_table & (h_in_table >= 0) & (h_in_table <= 2 * KH - 2)
    in_table = in_table & (w_in_table >= 0) & (w_in_table <= 2 * KW - 2)
    entry = (d_in_table * (2 * KH - 1) + h_in_table) * (2 * KW - 1) + w_in_table
    biases = LOG2E * tl.load(bias + head * _size(KD, KH, KW) + entry, mask=in_table, other=0.0)
    sums = tl.zeros((TD * TH * TW, COLUMNS), tl.float32)
    for item in range(part, tiles * samples, parts):
        (
            rows, inside, first, last, _,
            origin, extent_d, extent_h, extent_w, end, corner_d, corner_h, corner_w,
        ) = _tile(
            item % tiles, LD, LH, LW, KD, KH, KW, SD, SH, SW, ND, NH, NW, TD, TH, TW, AXES, False
        )  # fmt: skip
        halo = ((KD - 1 - corner_d) * box_h + KH - 1 - corner_h) * box_w + KW - 1 - corner_w  # its first column
        halo_end = halo + ((extent_d - 1) * box_h + extent_h - 1) * box_w + extent_w
        if (begin < halo_end) & (begin + COLUMNS > halo):
            sample = (item // tiles).to(tl.int64)
            start = sample * sample_stride + head * head_stride
            of_rows, rows_mask = _vectors(rows, inside, place_stride, HEAD_DIM, DIM)
            q = tl.load(query + start + of_rows, mask=rows_mask, other=0.0)
            columns = _pack(d + corner_d, h + corner_h, w + corner_w, AXES)
            places = (d + corner_d) * (SD * LH * LW) + (h + corner_h) * (SH * LW) + (w + corner_w) * SW
            of_columns, columns_mask = _vectors(places, _is_in(columns, 0, end, AXES), place_stride, HEAD_DIM, DIM)
            start += origin * place_stride
            k = tl.load(key + start + of_columns, mask=columns_mask, other=0.0)
            scores = tl.dot(q, k.T, input_precision=PRECISION) * scale + biases
            pairs = row_numbers + ((sample * heads + head) * (LD * LH * LW) + rows) * 2
            log_sum = tl.load(pairs, mask=inside, other=float("inf"))  # so that rows beyond the map attend to nothing
            mean = tl.load(pairs + 1, mask=inside, other=0.0)
            attends = _is_in(columns[None, :], first[:, None], last[:, None], AXES)
            p = tl.exp2(tl.where(attends, scores - log_sum[:, None], float("-inf")))
            dense, dense_mask = _vectors(rows, inside, heads * HEAD_DIM, HEAD_DIM, DIM)
            dense += (sample * (LD * LH * LW) * heads + head) * HEAD_DIM
            do = tl.load(gradient + dense, mask=dense_mask, other=0.0)
            v = tl.load(value + start + of_columns, mask=columns_mask, other=0.0)
            dp = tl.dot(do, v.T, input_precision=PRECISION)
            sums += p * (dp - mean[:, None])
    bias_gradient += (part * heads + head).to(tl.int64) * box * (TD * TH * TW)
    place = row.to(tl.int64)[:, None] * box + column[None, :]
    tl.store(bias_gradient + place, sums, mask=(column < box)[None, :])
