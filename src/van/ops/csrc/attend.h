/* The attention of training, values and gradients, around both shortcuts:
 *
 *   z = in·n    u = gelu(z)    t = far(near(u))    m = mix·t    y = x + scale·n + out·(m ⊙ u)
 *
 * z, u, t and m are kept for the backward pass. What lies between products is done where their results are. Gradients of weights
 * are sums over sets of pixels, which follow from the shape alone.
 */
#ifndef VAN_ATTEND_H
#define VAN_ATTEND_H

#include "feed.h"

/* Tiles of a unit's products; what they need lies in the second-level cache. */
enum { STRIDE_TILES = 8 };

struct attend {
    const real *n, *x, *scale;      /* x: NULL where there is no outer shortcut */
    struct product in, mix, out;    /* backward: of their gradients, without bias */
    struct conv near, far;
    real *z, *u, *t, *m, *y;        /* maps of (pixels, channels) */
    const real *grad_y;
    real *grad_u, *grad_t, *grad_n; /* grad_t becomes what the convolutions give u */
    real *grad_in, *grad_mix, *grad_out; /* (sets, channels, channels rounded up); of in and mix turned: input, output */
    real *sums;                          /* (sets, 4, channels rounded up): of grad_y, grad_y·n, m's gradient, z's */
    long batch, height, width, channels, sets, stride; /* stride: pixels of a forward unit */
    int terms;
};

INLINE long pixels_of(const struct attend *a) { return a->batch * a->height * a->width; }
INLINE long wide_of(const struct attend *a) { return panels_of(a->channels) * PANEL; }

/* --- forward */

INLINE void in_tile(const struct attend *a, const struct rows *rows_, long panel, long start, long row, int rows) {
    tile_sum sum;
    linear(rows_, row, &a->in, panel, a->channels, rows, sum);
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            const long column = panel * PANEL + v * LANES, at = (start + row + m) * a->channels + column;
            const long lanes = lanes_at(a->channels, column);
            store(a->z + at, sum[m][v], lanes);
            store(a->u + at, gelu(sum[m][v]), lanes);
        }
}

static int in_unit(const void *opaque, long index) {
    const struct attend *a = opaque;
    const long start = index * a->stride, count = min_of(a->stride, pixels_of(a) - start), channels = a->channels;
    vec *memory = scratch_of(read_vectors(count, channels) + 1);
    if (!memory) return 1;
    const struct rows rows = read_rows(memory, a->n + start * channels, count, channels, count, 0, a->terms);
    for (long panel = 0; panel < panels_of(channels); panel++) BY_TILES(in_tile, count, a, &rows, panel, start);
    return 0;
}

INLINE void mix_tile(const struct attend *a, const struct rows *rows_, const struct rows *gated, long panel, long start, long row,
                     int rows) {
    tile_sum sum;
    const long column = panel * PANEL, left = lanes_at(a->channels, column), right = lanes_at(a->channels, column + LANES);
    linear(rows_, row, &a->mix, panel, a->channels, rows, sum);
    for (int i = 0; i < rows; i++) {
        const long at = (start + row + i) * a->channels + column;
        store(a->m + at, sum[i][0], left);
        store(a->m + at + LANES, sum[i][1], right);
        put(gated, row + i, panel, sum[i][0] * load(a->u + at, left), sum[i][1] * load(a->u + at + LANES, right));
    }
}

INLINE void out_tile(const struct attend *a, const struct rows *rows_, long panel, long start, long row, int rows) {
    tile_sum sum;
    linear(rows_, row, &a->out, panel, a->channels, rows, sum);
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < 2; v++) {
            const long column = panel * PANEL + v * LANES, at = (start + row + i) * a->channels + column;
            const long lanes = lanes_at(a->channels, column);
            vec y = sum[i][v] + load(a->scale + column, lanes) * load(a->n + at, lanes);
            if (a->x) y += load(a->x + at, lanes);
            store(a->y + at, y, lanes);
        }
}

static int mix_and_out_unit(const void *opaque, long index) {
    const struct attend *a = opaque;
    const long start = index * a->stride, count = min_of(a->stride, pixels_of(a) - start), channels = a->channels;
    vec *memory = scratch_of(read_vectors(count, channels) + rows_vectors(count, channels) + 1);
    if (!memory) return 1;
    const struct rows rows = read_rows(memory, a->t + start * channels, count, channels, count, 0, a->terms);
    memory += read_vectors(count, channels);
    const struct rows gated = take_rows(&memory, count, channels, a->terms);
    for (long panel = 0; panel < panels_of(channels); panel++) BY_TILES(mix_tile, count, a, &rows, &gated, panel, start);
    for (long panel = 0; panel < panels_of(channels); panel++) BY_TILES(out_tile, count, a, &gated, panel, start);
    return 0;
}

static struct chain pair_of(const struct attend *a) {
    return (struct chain){.x = a->u, .y = a->t, .conv = {a->near, a->far}, .convs = 2, .batch = a->batch, .height = a->height,
                          .width = a->width, .channels = a->channels, .bands = 1, .groups = 1};
}

static int run_attend(struct attend *a, int threads) {
    const long tiles_ = (pixels_of(a) + MATRIX_ROWS - 1) / MATRIX_ROWS;
    a->stride = MATRIX_ROWS * max_of(1, min_of(STRIDE_TILES, tiles_ / (2 * threads)));
    const long units = (pixels_of(a) + a->stride - 1) / a->stride;
    struct chain pair = pair_of(a);
    return share_out(in_unit, a, units, threads) || run_chain(&pair, threads) || share_out(mix_and_out_unit, a, units, threads);
}

/* --- backward */

INLINE void plain_tile(const struct rows *a, const real *weights, real *y, long stride, long lanes, long row, int rows) {
    static const real zero[PANEL];
    tile_sum sum;
    multiply(a, row, weights, rows, same(zero), rows_at((real *)sum, PANEL));
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++)
            store(y + (row + m) * stride + v * LANES, sum[m][v], max_of(0, min_of(LANES, lanes - v * LANES)));
}

/* to[c] += the sums over pixels of a[c], and of a[c]·b[c] where b is given. */
static void add_columns(const real *a, const real *b, long pixels, long channels, real *to, real *products) {
    for (long first = 0; first < channels; first += LANES) {
        const long lanes = min_of(LANES, channels - first);
        vec sum[2] = {splat(0), splat(0)}, product[2] = {splat(0), splat(0)};
        for (long p = 0; p < pixels; p++) {
            const vec value = load(a + p * channels + first, lanes);
            sum[p % 2] += value;
            product[p % 2] += value * load(b + p * channels + first, lanes);
        }
        store(to + first, load(to + first, LANES) + (sum[0] + sum[1]), LANES);
        store(products + first, load(products + first, LANES) + (product[0] + product[1]), LANES);
    }
}

/* to += the sums over pixels of a panel. */
static void add_panel(const vec *panel, long pixels, real *to) {
    for (int v = 0; v < 2; v++) {
        vec sum[2] = {splat(0), splat(0)};
        for (long p = 0; p < pixels; p++) sum[p % 2] += panel[2 * p + v];
        store(to + v * LANES, load(to + v * LANES, LANES) + (sum[0] + sum[1]), LANES);
    }
}

/* From the result's gradient to those of t and, through the gate, of u. */
static int gate_back(const struct attend *a, long set, long start, long count) {
    const long channels = a->channels, wide = wide_of(a), at = start * channels, square = set * channels * wide;
    real *sums = a->sums + set * 4 * wide;
    vec *slice = scratch_of(3 * slice_vectors(count) + read_vectors(count, channels) + rows_vectors(count, channels) + 1);
    if (!slice) return 1;
    vec *const gated = slice + slice_vectors(count), *const change = gated + slice_vectors(count);
    vec *memory = change + slice_vectors(count);
    const struct rows d = read_rows(memory, a->grad_y + at, count, channels, count, 0, a->terms);
    memory += read_vectors(count, channels);
    const struct rows changes = take_rows(&memory, count, channels, a->terms);
    add_columns(a->grad_y + at, a->n + at, count, channels, sums, sums + wide);
    for (long panel = 0; panel < panels_of(channels); panel++) {
        const long column = panel * PANEL;
        make_slice(&d, count, a->out.panels + panel * panel_size(channels), (real *)slice);
        for (long p = 0; p < count; p++)
            for (int v = 0; v < 2; v++) {
                const long lanes = lanes_at(channels, column + v * LANES), here = at + p * channels + column + v * LANES;
                const vec u = load(a->u + here, lanes), m = load(a->m + here, lanes), grad = slice[2 * p + v];
                gated[2 * p + v] = u * m;
                change[2 * p + v] = grad * u;
                store(a->grad_u + here, grad * m, lanes);
            }
        for (long p = 0; p < count; p++) put(&changes, p, panel, change[2 * p], change[2 * p + 1]);
        outer(a->grad_y + at, channels, gated, count, a->grad_out + square + column, wide);
        outer(a->t + at, channels, change, count, a->grad_mix + square + column, wide);
        add_panel(change, count, sums + 2 * wide + column);
    }
    for (long panel = 0; panel < panels_of(channels); panel++) {
        const real *weights = a->mix.panels + panel * panel_size(channels);
        BY_TILES(plain_tile, count, &changes, weights, a->grad_t + at + panel * PANEL, channels, channels - panel * PANEL);
    }
    return 0;
}

INLINE void begin_tile(const struct attend *a, const struct rows *rows_, long panel, long start, long row, int rows) {
    static const real zero[PANEL];
    tile_sum sum;
    multiply(rows_, row, a->in.panels + panel * panel_size(a->channels), rows, same(zero), rows_at((real *)sum, PANEL));
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < 2; v++) {
            const long column = panel * PANEL + v * LANES, at = (start + row + i) * a->channels + column;
            const long lanes = lanes_at(a->channels, column);
            store(a->grad_n + at, sum[i][v] + load(a->scale + column, lanes) * load(a->grad_y + at, lanes), lanes);
        }
}

/* From u's gradient to n's. */
static int in_back(const struct attend *a, long set, long start, long count) {
    const long channels = a->channels, wide = wide_of(a), at = start * channels;
    vec *change = scratch_of(slice_vectors(count) + rows_vectors(count, channels) + 1);
    if (!change) return 1;
    vec *memory = change + slice_vectors(count);
    const struct rows changes = take_rows(&memory, count, channels, a->terms);
    for (long panel = 0; panel < panels_of(channels); panel++) {
        const long column = panel * PANEL;
        for (long p = 0; p < count; p++) {
            for (int v = 0; v < 2; v++) {
                const long lanes = lanes_at(channels, column + v * LANES), here = at + p * channels + column + v * LANES;
                vec value;
                const vec slope = gelu_slope(load(a->z + here, lanes), &value);
                change[2 * p + v] = slope * (load(a->grad_u + here, lanes) + load(a->grad_t + here, lanes));
            }
            put(&changes, p, panel, change[2 * p], change[2 * p + 1]);
        }
        outer(a->n + at, channels, change, count, a->grad_in + set * channels * wide + column, wide);
        add_panel(change, count, a->sums + (set * 4 + 3) * wide + column);
    }
    for (long panel = 0; panel < panels_of(channels); panel++) BY_TILES(begin_tile, count, a, &changes, panel, start);
    return 0;
}

/* Pixels at a time: so many that they are as large as the gradients of weights, which every stretch reads and writes. */
static int back_unit(const struct attend *a, long set, int (*stretch)(const struct attend *, long, long, long)) {
    const long end = (set + 1) * pixels_of(a) / a->sets;
    const long pixels = MATRIX_ROWS * max_of(STRIDE_TILES, (a->channels + MATRIX_ROWS - 1) / MATRIX_ROWS);
    for (long start = set * pixels_of(a) / a->sets; start < end; start += pixels)
        if (stretch(a, set, start, min_of(pixels, end - start))) return 1;
    return 0;
}
static int gate_back_unit(const void *opaque, long set) { return back_unit(opaque, set, gate_back); }
static int in_back_unit(const void *opaque, long set) { return back_unit(opaque, set, in_back); }

static int run_attend_backward(struct attend *a, struct chain *pair, int threads) {
    return share_out(gate_back_unit, a, a->sets, threads) || run_backward(pair, threads) ||
           share_out(in_back_unit, a, a->sets, threads);
}

#endif
