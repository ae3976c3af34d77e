/* Rows, panels and products on vector registers: multiply-adds of floats, or of pairs of bfloat16. See matrix.h.
 *
 * A tile is MATRIX_ROWS x PANEL sums in registers: 14x32 with AVX-512, 6x16 with AVX2, 9x8 with NEON, 5x8 with SSE. With
 * VAN_BFLOAT16 an input is a pair of neighbours, which takes the place of one float: half as many of them.
 */
#ifndef VAN_MATRIX_REGISTERS_H
#define VAN_MATRIX_REGISTERS_H

enum { SIDE = 1, GAPS = 0 };

struct rows { const real *data; long stride, inputs; };

#ifdef VAN_BFLOAT16

/* Pairs, each in the place of a real. */
INLINE long inputs_of(long depth) { return (depth + 1) / 2; }

/* The nearest bfloat16 of two vectors' floats, in order. */
INLINE vec pairs_of(vec left, vec right) { return (vec)(__m512i)_mm512_cvtne2ps_pbh((__m512)right, (__m512)left); }

/* sum + the products of a pair with LANES pairs. */
INLINE vec add_product(vec sum, real pair, vec pairs) {
    int32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(__m512i)pairs, (__m512bh)_mm512_set1_epi32(bits));
}

INLINE long row_vectors(long depth) { return panels_of(depth); }
INLINE void put(const struct rows *rows, long row, long step, vec left, vec right) {
    store((real *)rows->data + row * rows->stride + step * LANES, pairs_of(left, right), LANES);
}

#else

INLINE long inputs_of(long depth) { return depth; }
INLINE vec add_product(vec sum, real input, vec weights) { return sum + input * weights; }

INLINE long row_vectors(long depth) { return 2 * panels_of(depth); }
INLINE void put(const struct rows *rows, long row, long step, vec left, vec right) {
    real *to = (real *)rows->data + row * rows->stride + step * PANEL;
    store(to, left, LANES);
    store(to + LANES, right, LANES);
}

#endif

INLINE long panel_size(long depth) { return inputs_of(depth) * PANEL; }
INLINE size_t rows_vectors(long count, long depth) { return (size_t)(count * row_vectors(depth)); }

INLINE struct rows take_rows(vec **memory, long count, long depth, int terms) {
    (void)terms;
    struct rows rows = {(real *)*memory, row_vectors(depth) * LANES, inputs_of(depth)};
    *memory += rows_vectors(count, depth);
    return rows;
}

#ifdef VAN_BFLOAT16

INLINE size_t read_vectors(long count, long depth) { return rows_vectors(count, depth); }
static struct rows read_rows(vec *memory, const real *from, long count, long depth, long run, long gap, int terms) {
    (void)run, (void)gap;
    const struct rows rows = take_rows(&memory, count, depth, terms);
    for (long row = 0; row < count; row++, from += depth) {
        long at = 0;
        for (; at + PANEL <= depth; at += PANEL) put(&rows, row, at / PANEL, load(from + at, LANES), load(from + at + LANES, LANES));
        if (at < depth) {
            const long left = min_of(LANES, depth - at), right = depth - at - left;
            put(&rows, row, at / PANEL, load(from + at, left), load(from + at + left, right));
        }
    }
    return rows;
}

#else

/* They are read where they are. */
INLINE size_t read_vectors(long count, long depth) { return 0 * (size_t)(count * depth); }
INLINE struct rows read_rows(vec *memory, const real *from, long count, long depth, long run, long gap, int terms) {
    (void)memory, (void)count, (void)run, (void)gap, (void)terms;
    return (struct rows){from, depth, depth};
}

#endif

/* Row m of `to` = row m of `from` + row m of `a` · panel; `rows` is a constant, so that the sums stay in registers. */
INLINE void multiply(const struct rows *a, long row, const real *panel, int rows, struct place from, struct place to) {
    const long stride = a->stride;
    const real *data = a->data + row * stride;
    tile_sum sum;
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++) {
        sum[m][0] = load(from.left + m * from.stride, LANES);
        sum[m][1] = load(from.right + m * from.stride, LANES);
    }
    long k = 0;
#if defined(__aarch64__)
    /* Inputs of LANES steps in a register, of which an instruction multiplies by one: a fifth fewer instructions. */
    for (; k + LANES <= a->inputs; k += LANES) {
        vec input[MATRIX_ROWS];
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) input[m] = load(data + m * stride + k, LANES);
#pragma GCC unroll 4
        for (int i = 0; i < LANES; i++) {
            const vec one = load(panel + (k + i) * PANEL, LANES), two = load(panel + (k + i) * PANEL + LANES, LANES);
#pragma GCC unroll 14
            for (int m = 0; m < rows; m++) {
                sum[m][0] = add_product(sum[m][0], input[m][i], one);
                sum[m][1] = add_product(sum[m][1], input[m][i], two);
            }
        }
    }
#endif
    for (; k < a->inputs; k++) {
        const vec one = load(panel + k * PANEL, LANES), two = load(panel + k * PANEL + LANES, LANES);
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            sum[m][0] = add_product(sum[m][0], data[m * stride + k], one);
            sum[m][1] = add_product(sum[m][1], data[m * stride + k], two);
        }
    }
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++) {
        store(to.left + m * to.stride, sum[m][0], LANES);
        store(to.right + m * to.stride, sum[m][1], LANES);
    }
}

/* A panel of weights, element (output, input) at weight[output·across + input·along]: (inputs, PANEL). */
static void pack_panel(const real *weight, long across, long along, long outputs, long inputs, real *panel) {
#ifdef VAN_BFLOAT16
    for (long k = 0; k < inputs; k += 2, panel += PANEL)
        for (long n = 0; n < PANEL; n++) {
            vec pair = {0}; /* of two lanes */
            if (n < outputs) pair[0] = weight[n * across + k * along];
            if (n < outputs && k + 1 < inputs) pair[1] = weight[n * across + (k + 1) * along];
            panel[n] = pairs_of(pair, pair)[0];
        }
#else
    for (long k = 0; k < inputs; k++, panel += PANEL)
        for (long n = 0; n < PANEL; n++) panel[n] = n < outputs ? weight[n * across + k * along] : 0;
#endif
}

/* Calls function(…, row, rows) until `total` rows are done, `rows` being a constant each time. */
#define BY_TILES(function, total, ...)                                                                          \
    do {                                                                                                        \
        long row_ = 0;                                                                                          \
        for (; row_ + MATRIX_ROWS <= (total); row_ += MATRIX_ROWS) function(__VA_ARGS__, row_, MATRIX_ROWS);    \
        if (MATRIX_ROWS > 7)                                                                                    \
            for (; row_ + 7 <= (total); row_ += 7) function(__VA_ARGS__, row_, MATRIX_ROWS > 7 ? 7 : 1);        \
        if (MATRIX_ROWS > 3)                                                                                    \
            for (; row_ + 3 <= (total); row_ += 3) function(__VA_ARGS__, row_, MATRIX_ROWS > 3 ? 3 : 1);        \
        for (; row_ < (total); row_++) function(__VA_ARGS__, row_, 1);                                          \
    } while (0)

#endif
