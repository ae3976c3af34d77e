/* A folded block of the network in one call: 1x1 convolutions as matrix products whose results are finished in registers.
 *
 *   u = gelu(in·x)    t = far(near(u))    u = (mix·t) ⊙ u    t = shortcut·x + out·u    y = t + project·gelu(depthwise(expand·t))
 *
 * Weights of matrix products lie in panels of PANEL outputs: (outputs / PANEL, inputs, PANEL), padded with zeros, as do
 * biases. The feed-forward takes a band of rows and one panel of expanded channels at a time, so the expanded map, eight
 * times the size of the others, exists only in the cache.
 */
#ifndef VAN_BLOCK_H
#define VAN_BLOCK_H

#include "depthwise.h"

enum { PANEL = 2 * LANES, BAND_BYTES = 384 * 1024, GROUPS = 4, SMALL_MAP = 256 };

struct product { const real *panels, *bias; };

struct block {
    const real *x, *shortcut;
    real *u, *t, *y; /* t becomes the attention's result */
    struct product in, mix, out, expand, project;
    struct conv near, far, depthwise;
    long batch, height, width, channels, hidden;
    long chunk, chunks, splits; /* of matrix products: pixels per unit, such chunks, divisions of the outputs */
    long bands, groups;         /* of the feed-forward: bands of rows, groups of hidden channels */
    real *partial;              /* (groups, N, H, W, C): what each group of hidden channels adds; y for one */
};

typedef vec tile_sum[MATRIX_ROWS][2];

/* done[m] = a[m]·panel + (left, right) for `rows` rows of `depth` elements; `rows` is a constant, so that the sums stay
 * in registers. */
INLINE void multiply(const real *a, long stride, const real *panel, long depth, vec left, vec right, int rows,
                     tile_sum done) {
    tile_sum sum;
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++) sum[m][0] = left, sum[m][1] = right;
    for (long k = 0; k < depth; k++) {
        const vec one = load(panel + k * PANEL, LANES), two = load(panel + k * PANEL + LANES, LANES);
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            sum[m][0] += a[m * stride + k] * one;
            sum[m][1] += a[m * stride + k] * two;
        }
    }
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++) done[m][0] = sum[m][0], done[m][1] = sum[m][1];
}

/* done = a·panel + bias. */
INLINE void linear(const real *a, long stride, const struct product *p, long panel, long depth, int rows, tile_sum done) {
    const real *bias = p->bias + panel * PANEL;
    multiply(a, stride, p->panels + panel * depth * PANEL, depth, load(bias, LANES), load(bias + LANES, LANES), rows, done);
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

/* What a unit of a matrix product covers: pixels [from, to) of the whole batch, panels [first, end) of the outputs. */
struct share { long from, to, first, end; };

INLINE struct share share_of(const struct block *b, long index) {
    const long chunk = index / b->splits, split = index % b->splits, panels = panels_of(b->channels);
    return (struct share){
        .from = chunk * b->chunk, .to = min_of((chunk + 1) * b->chunk, b->batch * b->height * b->width),
        .first = split * panels / b->splits, .end = (split + 1) * panels / b->splits};
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
    const struct share s = share_of(b, index);
    for (long panel = s.first; panel < s.end; panel++) BY_TILES(enter_tile, s.to - s.from, b, panel, s.from);
    return 0;
}

/* --- u = (mix·t) ⊙ u */

INLINE void gate_tile(const struct block *b, long panel, long start, long row, int rows) {
    tile_sum sum;
    const long first = (start + row) * b->channels;
    linear(b->t + first, b->channels, &b->mix, panel, b->channels, rows, sum);
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            const long column = panel * PANEL + v * LANES, lanes = lanes_at(b->channels, column);
            real *u = b->u + first + m * b->channels + column;
            store(u, sum[m][v] * load(u, lanes), lanes);
        }
}

static int gate_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    const struct share s = share_of(b, index);
    for (long panel = s.first; panel < s.end; panel++) BY_TILES(gate_tile, s.to - s.from, b, panel, s.from);
    return 0;
}

/* --- t = shortcut·x + out·u */

INLINE void leave_tile(const struct block *b, long panel, long start, long row, int rows) {
    tile_sum sum;
    const long first = (start + row) * b->channels;
    linear(b->u + first, b->channels, &b->out, panel, b->channels, rows, sum);
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            const long column = panel * PANEL + v * LANES, lanes = lanes_at(b->channels, column);
            const vec x = load(b->x + first + m * b->channels + column, lanes);
            const vec shortcut = load(b->shortcut + column, lanes);
            store(b->t + first + m * b->channels + column, sum[m][v] + shortcut * x, lanes);
        }
}

static int leave_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    const struct share s = share_of(b, index);
    for (long panel = s.first; panel < s.end; panel++) BY_TILES(leave_tile, s.to - s.from, b, panel, s.from);
    return 0;
}

/* The number of partial maps that a block of this shape needs. */
static long block_groups(long pixels, long hidden) {
    return pixels > SMALL_MAP ? 1 : min_of(GROUPS, panels_of(hidden));
}

/* --- y = t + project·gelu(depthwise(expand·t)) */

struct band {
    const struct block *block;
    struct plane plane[2]; /* a panel of expanded rows, LANES channels each */
    real *hidden;          /* (rows, width, PANEL) after GELU */
    long from, to;         /* output rows */
    real *y;               /* where the hidden channels of this unit are added up */
};

INLINE void expand_tile(const struct band *band, long panel, const real *a, long row, int rows) {
    const struct block *b = band->block;
    tile_sum sum;
    linear(a + row * b->channels, b->channels, &b->expand, panel, b->channels, rows, sum);
    const long y = row / b->width, stride = band->plane[0].stride;
    long x = row % b->width;
    vec *left = band->plane[0].data + y * stride + band->plane[0].margin;
    const long right = band->plane[1].data - band->plane[0].data;
    for (int m = 0; m < rows; m++) {
        left[x] = sum[m][0];
        left[x + right] = sum[m][1];
        if (++x == b->width) x = 0, left += stride;
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

/* Adds what one panel of hidden channels gives to every output. */
INLINE void project_tile(const struct band *band, long panel, long output, long start, int fresh, long row, int rows) {
    const struct block *b = band->block;
    tile_sum sum;
    const long column = output * PANEL, padded = panels_of(b->hidden) * PANEL;
    const real *weights = b->project.panels + (output * padded + panel * PANEL) * PANEL;
    multiply(band->hidden + row * PANEL, PANEL, weights, PANEL, splat(0), splat(0), rows, sum);
    real *y = band->y + (start + row) * b->channels + column;
    const long left = lanes_at(b->channels, column), right = lanes_at(b->channels, column + LANES);
    const real *from = fresh ? b->t + (start + row) * b->channels + column : y;
    if (fresh && b->groups > 1) {
        for (int m = 0; m < rows; m++, y += b->channels) {
            store(y, sum[m][0], left);
            store(y + LANES, sum[m][1], right);
        }
        return;
    }
    const vec one = fresh ? load(b->project.bias + column, LANES) : splat(0);
    const vec two = fresh ? load(b->project.bias + column + LANES, LANES) : splat(0);
    for (int m = 0; m < rows; m++, y += b->channels, from += b->channels) {
        store(y, load(from, left) + one + sum[m][0], left);
        store(y + LANES, load(from + LANES, right) + two + sum[m][1], right);
    }
}

static int feed_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    const struct conv *c = &b->depthwise;
    const long group = index % b->groups, number = index / b->groups % b->bands, image = index / b->groups / b->bands;
    const long pixels = b->height * b->width, panels = panels_of(b->hidden);
    struct band band = {.block = b, .from = number * b->height / b->bands, .to = (number + 1) * b->height / b->bands,
                        .y = b->partial + group * b->batch * pixels * b->channels};
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
    const long from = group * panels / b->groups, to = (group + 1) * panels / b->groups;
    for (long panel = from; panel < to; panel++) {
        BY_TILES(expand_tile, (end - first) * b->width, &band, panel, a);
        activate(&band, panel, kernel, line);
        for (long output = 0; output < panels_of(b->channels); output++)
            BY_TILES(project_tile, outputs, &band, panel, output, start, panel == from);
    }
    return 0;
}

/* y = t + bias + what the groups added up, for one image of a small map. */
static int finish_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    const long pixels = b->height * b->width, map = b->batch * pixels * b->channels;
    for (long pixel = index * pixels; pixel < (index + 1) * pixels; pixel++)
        for (long c = 0; c < b->channels; c += LANES) {
            const long lanes = min_of(LANES, b->channels - c), at = pixel * b->channels + c;
            vec sum = load(b->t + at, lanes) + load(b->project.bias + c, lanes);
            for (long group = 0; group < b->groups; group++) sum += load(b->partial + group * map + at, lanes);
            store(b->y + at, sum, lanes);
        }
    return 0;
}

/* Small maps are divided by channels, large ones by rows: a band computes its neighbours' rows again. The groups follow
 * from the shape alone, because they decide the order of summation. */
static int run_block(struct block *b, int threads) {
    const long pixels = b->height * b->width, panels = panels_of(b->channels);
    b->chunk = 8 * MATRIX_ROWS;
    b->chunks = (b->batch * pixels + b->chunk - 1) / b->chunk;
    b->splits = max_of(1, min_of(panels, 4 * threads / b->chunks));
    b->groups = block_groups(pixels, b->hidden);
    if (b->groups == 1) b->partial = b->y;
    const long fitting = b->height * b->width * 2 * PANEL * (long)sizeof(real) / BAND_BYTES + 1;
    const long idle = b->groups > 1 ? 1 : (threads + b->batch - 1) / b->batch;
    b->bands = max_of(fitting, idle);
    while (b->groups == 1 && b->batch * b->bands % threads) b->bands++; /* nobody waits for a last band */
    b->bands = max_of(1, min_of(b->bands, b->height));
    struct chain pair = {.x = b->u, .y = b->t, .conv = {b->near, b->far}, .convs = 2, .batch = b->batch,
                         .height = b->height, .width = b->width, .channels = b->channels};
    const long units = b->chunks * b->splits;
    return share_out(enter_unit, b, units, threads) || run_chain(&pair, threads) ||
           share_out(gate_unit, b, units, threads) || share_out(leave_unit, b, units, threads) ||
           share_out(feed_unit, b, b->batch * b->bands * b->groups, threads) ||
           (b->groups > 1 && share_out(finish_unit, b, b->batch, threads));
}

#endif
