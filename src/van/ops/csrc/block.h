/* A folded block of the network in one call: 1x1 convolutions as matrix products whose results are finished in registers.
 *
 *   u = gelu(in·x)    t = far(near(u))    a = shortcut·x + out·((mix·t) ⊙ u)    y = a + project·gelu(depthwise(expand·a))
 *
 * Weights of matrix products lie in panels of PANEL outputs: (outputs / PANEL, inputs, PANEL), padded with zeros, as do
 * biases. The feed-forward takes a band of rows and one panel of expanded channels at a time, so the expanded map, eight
 * times the size of the others, exists only in the cache.
 */
#ifndef VAN_BLOCK_H
#define VAN_BLOCK_H

#include "depthwise.h"

enum { PANEL = 2 * LANES, CHUNK = 8 * MATRIX_ROWS, BAND_BYTES = 384 * 1024 };

struct product { const real *panels, *bias; };

struct block {
    const real *x, *shortcut;
    real *u, *t, *y; /* t becomes the attention's result */
    struct product in, mix, out, expand, project;
    struct conv near, far, depthwise;
    long batch, height, width, channels, hidden, chunks, bands;
};

typedef vec tile_sum[MATRIX_ROWS][2];

/* sum[m] += a[m]·panel for `rows` rows of `depth` elements; constants, so that the sums stay in registers. */
INLINE void multiply(const real *a, long stride, const real *panel, long depth, int rows, tile_sum sum) {
    for (long k = 0; k < depth; k++) {
        const vec left = load(panel + k * PANEL, LANES), right = load(panel + k * PANEL + LANES, LANES);
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            sum[m][0] += a[m * stride + k] * left;
            sum[m][1] += a[m * stride + k] * right;
        }
    }
}

/* done = a·panel + bias. */
INLINE void linear(const real *a, long stride, const struct product *p, long panel, long depth, int rows, tile_sum done) {
    tile_sum sum;
    const vec left = load(p->bias + panel * PANEL, LANES), right = load(p->bias + panel * PANEL + LANES, LANES);
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++) sum[m][0] = left, sum[m][1] = right;
    multiply(a, stride, p->panels + panel * depth * PANEL, depth, rows, sum);
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++) done[m][0] = sum[m][0], done[m][1] = sum[m][1];
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

INLINE long lanes_at(long channels, long column) { return max_of(0, min_of(LANES, channels - column)); }
INLINE long panels_of(long channels) { return (channels + PANEL - 1) / PANEL; }

/* Pixels [*from, *to) of the whole batch that chunk `index` covers. */
INLINE void chunk_of(const struct block *b, long index, long *from, long *to) {
    const long pixels = b->batch * b->height * b->width;
    *from = index * CHUNK;
    *to = min_of(*from + CHUNK, pixels);
}

/* --- u = gelu(in·x) */

INLINE void enter_tile(const struct block *b, long panel, long start, long row, int rows) {
    tile_sum sum;
    const long first = (start + row) * b->channels;
    linear(b->x + first, b->channels, &b->in, panel, b->channels, rows, sum);
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            const long column = panel * PANEL + v * LANES;
            store(b->u + first + m * b->channels + column, gelu(sum[m][v]), lanes_at(b->channels, column));
        }
}

static int enter_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    long from, to;
    chunk_of(b, index, &from, &to);
    for (long panel = 0; panel < panels_of(b->channels); panel++) BY_TILES(enter_tile, to - from, b, panel, from);
    return 0;
}

/* --- t = shortcut·x + out·((mix·t) ⊙ u) */

INLINE void gate_tile(const struct block *b, long panel, long start, real *gated, long row, int rows) {
    tile_sum sum;
    const long first = (start + row) * b->channels;
    linear(b->t + first, b->channels, &b->mix, panel, b->channels, rows, sum);
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            const long column = panel * PANEL + v * LANES, lanes = lanes_at(b->channels, column);
            const vec u = load(b->u + first + m * b->channels + column, lanes);
            store(gated + (row + m) * b->channels + column, sum[m][v] * u, lanes);
        }
}

INLINE void leave_tile(const struct block *b, long panel, long start, const real *gated, long row, int rows) {
    tile_sum sum;
    const long first = (start + row) * b->channels;
    linear(gated + row * b->channels, b->channels, &b->out, panel, b->channels, rows, sum);
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            const long column = panel * PANEL + v * LANES, lanes = lanes_at(b->channels, column);
            const vec x = load(b->x + first + m * b->channels + column, lanes);
            const vec shortcut = load(b->shortcut + column, lanes);
            store(b->t + first + m * b->channels + column, sum[m][v] + shortcut * x, lanes);
        }
}

static int gate_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    long from, to;
    chunk_of(b, index, &from, &to);
    real *gated = (real *)scratch_of((size_t)(CHUNK * b->channels / LANES + 1));
    if (!gated) return 1;
    for (long panel = 0; panel < panels_of(b->channels); panel++) BY_TILES(gate_tile, to - from, b, panel, from, gated);
    for (long panel = 0; panel < panels_of(b->channels); panel++) BY_TILES(leave_tile, to - from, b, panel, from, gated);
    return 0;
}

/* --- y = t + project·gelu(depthwise(expand·t)) */

struct band {
    const struct block *block;
    struct plane plane[2]; /* a panel of expanded rows, LANES channels each */
    real *hidden;          /* (rows, width, PANEL) after GELU */
    long image, from, to;  /* output rows */
};

INLINE void expand_tile(const struct band *band, long panel, const real *a, long row, int rows) {
    const struct block *b = band->block;
    tile_sum sum;
    linear(a + row * b->channels, b->channels, &b->expand, panel, b->channels, rows, sum);
    long y = band->plane[0].first + row / b->width, x = row % b->width;
    for (int m = 0; m < rows; m++) {
        row_of(&band->plane[0], y)[x] = sum[m][0];
        row_of(&band->plane[1], y)[x] = sum[m][1];
        if (++x == b->width) x = 0, y++;
    }
}

static void activate(const struct band *band, long panel, vec *taps, vec *line) {
    const struct block *b = band->block;
    const struct conv *c = &b->depthwise;
    for (int v = 0; v < 2; v++) {
        const long channel = panel * PANEL + v * LANES, lanes = lanes_at(b->hidden, channel);
        load_taps(taps, c, channel, lanes, 0);
        const vec bias = load_bias(c, channel, lanes);
        for (long y = band->from; y < band->to; y++) {
            real *to = band->hidden + (y - band->from) * b->width * PANEL + v * LANES;
            convolve_row(&band->plane[v], c, taps, bias, before(c), y, b->width, line);
            for (long x = 0; x < b->width; x++) store(to + x * PANEL, gelu(line[x]), LANES);
        }
    }
}

/* Adds what one panel of hidden channels gives to every output; the first panel also brings shortcut and bias. */
INLINE void project_tile(const struct band *band, long panel, long output, long start, long row, int rows) {
    const struct block *b = band->block;
    tile_sum sum;
    const long column = output * PANEL, first = (start + row) * b->channels + column;
    const long left = lanes_at(b->channels, column), right = lanes_at(b->channels, column + LANES);
    const real *from = (panel ? b->y : b->t) + first;
    if (right == LANES) {
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            sum[m][0] = load(from + m * b->channels, LANES);
            sum[m][1] = load(from + m * b->channels + LANES, LANES);
        }
    } else {
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            sum[m][0] = load(from + m * b->channels, left);
            sum[m][1] = load(from + m * b->channels + LANES, right);
        }
    }
    if (!panel) {
        const vec one = load(b->project.bias + column, LANES), two = load(b->project.bias + column + LANES, LANES);
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) sum[m][0] += one, sum[m][1] += two;
    }
    const long padded = panels_of(b->hidden) * PANEL;
    multiply(band->hidden + row * PANEL, PANEL, b->project.panels + (output * padded + panel * PANEL) * PANEL, PANEL, rows,
             sum);
    real *y = b->y + first;
    if (right == LANES) {
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            store(y + m * b->channels, sum[m][0], LANES);
            store(y + m * b->channels + LANES, sum[m][1], LANES);
        }
    } else {
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            store(y + m * b->channels, sum[m][0], left);
            store(y + m * b->channels + LANES, sum[m][1], right);
        }
    }
}

static int feed_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    const struct conv *c = &b->depthwise;
    const long image = index / b->bands, number = index % b->bands, pixels = b->height * b->width;
    struct band band = {.block = b, .image = image, .from = number * b->height / b->bands,
                        .to = (number + 1) * b->height / b->bands};
    const long first = max_of(0, band.from - before(c)), end = min_of(b->height, band.to + after(c));
    const struct chain shape = {.width = b->width};
    const long taps = (long)c->kernel * c->kernel, outputs = (band.to - band.from) * b->width;
    vec *memory = scratch_of(2 * plane_vectors(&shape, c, end - first) + (size_t)(taps + tiles(b->width) + 2 * outputs));
    if (!memory) return 1;
    for (int v = 0; v < 2; v++) {
        band.plane[v] = take_plane(&memory, &shape, c, first, end);
        for (long y = first; y < end; y++) clear_sides(&band.plane[v], y, b->width);
    }
    vec *line = memory + taps, *kernel = memory;
    band.hidden = (real *)(line + tiles(b->width));
    const real *a = b->t + (image * pixels + first * b->width) * b->channels;
    const long start = image * pixels + band.from * b->width;
    for (long panel = 0; panel < panels_of(b->hidden); panel++) {
        BY_TILES(expand_tile, (end - first) * b->width, &band, panel, a);
        activate(&band, panel, kernel, line);
        for (long output = 0; output < panels_of(b->channels); output++)
            BY_TILES(project_tile, outputs, &band, panel, output, start);
    }
    return 0;
}

static int run_block(struct block *b, int threads) {
    const long pixels = b->height * b->width;
    b->chunks = (b->batch * pixels + CHUNK - 1) / CHUNK;
    const long row_bytes = 2 * PANEL * b->width * (long)sizeof(real);
    const long fitting = b->height * row_bytes / BAND_BYTES + 1, idle = (threads + b->batch - 1) / b->batch;
    b->bands = max_of(1, min_of(max_of(fitting, idle), b->height));
    if (share_out(enter_unit, b, b->chunks, threads)) return 1;
    struct chain pair = {.x = b->u, .y = b->t, .conv = {b->near, b->far}, .convs = 2, .batch = b->batch,
                         .height = b->height, .width = b->width, .channels = b->channels};
    if (run_chain(&pair, threads) || share_out(gate_unit, b, b->chunks, threads)) return 1;
    return share_out(feed_unit, b, b->batch * b->bands, threads);
}

#endif
