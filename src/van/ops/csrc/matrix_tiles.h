/* Rows, panels and products on AMX, which multiplies bfloat16 only. See matrix.h.
 *
 * A float is the sum of three bfloat16, exactly (8 of its 24 bits each), and a product of two floats is the six products that
 * matter: what is left out is 2^-24 of the result, as float32 rounds. Where 16 bits are enough it is two and three. With
 * VAN_BFLOAT16 it is one and one.
 */
#ifndef VAN_MATRIX_TILES_H
#define VAN_MATRIX_TILES_H

/* Rows and columns of a tile; inputs that one instruction takes; rows may have gaps; numbers that a weight is the sum of. */
#ifdef VAN_BFLOAT16
enum { SIDE = 16, STEP = 32, GAPS = 1, TERMS = 1 };
#else
enum { SIDE = 16, STEP = 32, GAPS = 1, TERMS = 3 };
#endif
typedef uint16_t half;

/* (rows / SIDE, depth / STEP, terms, SIDE, STEP); TERMS terms at most. */
struct rows { half *data; long steps, terms; };

INLINE long steps_of(long depth) { return (depth + STEP - 1) / STEP; }
INLINE long panel_size(long depth) { return steps_of(depth) * STEP * PANEL * TERMS * 2 / (long)sizeof(real); }
INLINE size_t rows_vectors(long count, long depth) {
    return (size_t)((count + SIDE - 1) / SIDE * SIDE * steps_of(depth) * TERMS);
}

INLINE struct rows take_rows(vec **memory, long count, long depth, int terms) {
    struct rows rows = {(half *)*memory, steps_of(depth), min_of(terms, TERMS)};
    *memory += rows_vectors(count, depth);
    return rows;
}

/* Where inputs [step·STEP, …) of a row begin; its terms follow SIDE·STEP apart. */
INLINE half *row_at(const struct rows *rows, long row, long step) {
    return rows->data + ((row / SIDE * rows->steps + step) * rows->terms * SIDE + row % SIDE) * STEP;
}

/* What the upper half of a float holds: a bfloat16, rounded towards zero, so that the rest has 8 bits less. */
INLINE vec upper(vec value) { return (vec)((ivec)value & (int32_t)0xffff0000); }

/* A float whose upper half is the nearest bfloat16, for pairs of which nothing else is read. */
INLINE vec to_nearest(vec value) { return choose(value == value, (vec)((ivec)value + 0x8000), value); }

/* The upper halves of 16 pairs, as AMX adds them: a number of the left half, one of the right. */
INLINE void put_pairs(half *to, vec left, vec right) {
    const __m512i pairs = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32((__m512i)left, 16), (__m512i)right);
    memcpy(to, &pairs, sizeof pairs);
}

/* Inputs [step·STEP, …) of a row. Terms are cut off, which leaves nothing after the third; the weights' are rounded, so
 * that products left out have either sign. The last of fewer is rounded. */
INLINE void put(const struct rows *rows, long row, long step, vec left, vec right) {
    half *to = row_at(rows, row, step);
    if (TERMS == 1) {
        put_pairs(to, to_nearest(left), to_nearest(right));
        return;
    }
    put_pairs(to, left, right);
    left -= upper(left), right -= upper(right);
    if (rows->terms == 3) {
        put_pairs(to += SIDE * STEP, left, right);
        left -= upper(left), right -= upper(right);
        put_pairs(to + SIDE * STEP, left, right);
    } else {
        put_pairs(to + SIDE * STEP, to_nearest(left), to_nearest(right));
    }
}

/* Pixels of a map, `depth` channels each, as products read them, in memory of read_vectors(count, depth); after every
 * `run` of them `gap` rows are left out, which hold anything. `count` includes those. */
static struct rows read_rows(vec *memory, const real *from, long count, long depth, long run, long gap, int terms) {
    const struct rows rows = take_rows(&memory, count, depth, terms);
    long place = 0; /* within run and gap */
    for (long first = 0; first < count; first += SIDE) {
        const long end = min_of(first + SIDE, count);
        const real *pixel[SIDE];
        for (long row = first; row < end; row++) {
            pixel[row - first] = place < run ? from : NULL;
            if (place < run) from += depth;
            if (++place == run + gap) place = 0;
        }
        for (long step = 0; step < rows.steps; step++)
            for (long row = first; row < end; row++) {
                if (!pixel[row - first]) continue;
                const real *at = pixel[row - first] + step * STEP;
                const long left = depth - step * STEP;
                if (left >= STEP)
                    put(&rows, row, step, load(at, LANES), load(at + LANES, LANES));
                else
                    put(&rows, row, step, load(at, min_of(left, LANES)), load(at + min_of(left, LANES), max_of(0, left - LANES)));
            }
    }
    return rows;
}
INLINE size_t read_vectors(long count, long depth) { return rows_vectors(count, depth); }

#ifndef VAN_EMULATED_TILES
/* The compiler's own macros for these let it move stores across them. */
#define READ(tile, from, stride) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((long)(stride)) : "memory");
#define WRITE(tile, to, stride) \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((long)(stride)) : "memory");
#define ADD(sum, row, weight) __asm__ volatile("tdpbf16ps %%tmm" #weight ", %%tmm" #row ", %%tmm" #sum ::);
#endif

/* Row m of `to` = row m of `from` + row m of `a` · panel; rows are rounded up to SIDE. The terms' products are added from
 * the smallest on; tiles 0 to 3 are the sums, 4 and 5 hold rows, 6 and 7 weights. */
INLINE void multiply(const struct rows *a, long row, const real *panel, int rows, struct place from, struct place to) {
    enum { TERM = SIDE * STEP, BYTES = 2 * STEP };
    const long apart = from.stride * (long)sizeof(real), wide = to.stride * (long)sizeof(real);
    const long size = a->terms * TERM;
    const half *w = (const half *)panel, *top = row_at(a, row, 0), *bottom = top + a->steps * size;
#define ROWS(i) READ(4, top + i * TERM, BYTES)
#define MORE(i) READ(4, top + i * TERM, BYTES) READ(5, bottom + i * TERM, BYTES)
#define WEIGHTS(i) READ(6, w + 2 * i * TERM, BYTES) READ(7, w + (2 * i + 1) * TERM, BYTES)
#define UPPER ADD(0, 4, 6) ADD(1, 4, 7)
#define BOTH UPPER ADD(2, 5, 6) ADD(3, 5, 7)
#define STEPS for (long k = 0; k < a->steps; k++, top += size, bottom += size, w += 2 * TERMS * TERM)
    READ(0, from.left, apart) READ(1, from.right, apart)
    if (rows > SIDE) {
        READ(2, from.left + SIDE * from.stride, apart) READ(3, from.right + SIDE * from.stride, apart)
        if (a->terms == 1)
            STEPS { MORE(0) WEIGHTS(0) BOTH }
        else if (a->terms == 3)
            STEPS { MORE(0) WEIGHTS(2) BOTH WEIGHTS(1) BOTH MORE(1) BOTH WEIGHTS(0) BOTH MORE(2) BOTH MORE(0) BOTH }
        else
            STEPS { MORE(0) WEIGHTS(1) BOTH WEIGHTS(0) BOTH MORE(1) BOTH }
        WRITE(2, to.left + SIDE * to.stride, wide) WRITE(3, to.right + SIDE * to.stride, wide)
    } else if (a->terms == 1) {
        STEPS { ROWS(0) WEIGHTS(0) UPPER }
    } else if (a->terms == 3) {
        STEPS { ROWS(0) WEIGHTS(2) UPPER WEIGHTS(1) UPPER ROWS(1) UPPER WEIGHTS(0) UPPER ROWS(2) UPPER ROWS(0) UPPER }
    } else {
        STEPS { ROWS(0) WEIGHTS(1) UPPER WEIGHTS(0) UPPER ROWS(1) UPPER }
    }
    WRITE(0, to.left, wide) WRITE(1, to.right, wide)
#undef STEPS
#undef ROWS
#undef MORE
#undef WEIGHTS
#undef UPPER
#undef BOTH
}

/* A panel of weights, element (output, input) at weight[output·across + input·along]: (steps, TERMS, 2, SIDE, SIDE, 2). */
static void pack_panel(const real *weight, long across, long along, long outputs, long inputs, real *panel) {
    half *to = (half *)panel;
    for (long step = 0; step < steps_of(inputs); step++, to += STEP * PANEL * TERMS)
        for (long n = 0; n < PANEL; n++)
            for (long i = 0; i < STEP; i++) {
                const long k = step * STEP + i;
                real value = k < inputs && n < outputs ? weight[n * across + k * along] : 0;
                half *place = to + ((n / SIDE * SIDE + i % SIDE) * SIDE + n % SIDE) * 2 + i / SIDE;
                for (int t = 0; t < TERMS; t++, place += STEP * PANEL) {
                    uint32_t bits;
                    memcpy(&bits, &value, sizeof bits);
                    bits = (bits + 0x8000) & 0xffff0000;
                    *place = (half)(bits >> 16);
                    real part;
                    memcpy(&part, &bits, sizeof part);
                    value -= part;
                }
            }
}

#define BY_TILES(function, total, ...)                                      \
    for (long row_ = 0; row_ < (total); row_ += MATRIX_ROWS)                \
        function(__VA_ARGS__, row_, (int)min_of(MATRIX_ROWS, (total)-row_))

#endif
