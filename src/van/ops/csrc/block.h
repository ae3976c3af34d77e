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
#include "matrix.h"

enum { GROUPS = 4, SMALL_MAP = 256, FEW_PIXELS = 64 };
/* Of a band: its rows and planes; its hidden channels between expansion and projection. */
#ifdef VAN_TILES
enum { BAND_BYTES = 512 * 1024, HIDDEN_BYTES = 512 * 1024 };
#elif defined(__AVX512F__)
enum { BAND_BYTES = 384 * 1024, HIDDEN_BYTES = 256 * 1024 };
#else
enum { BAND_BYTES = 128 * 1024, HIDDEN_BYTES = 128 * 1024 }; /* panels are narrow, and second-level caches may be small */
#endif

struct block {
    const real *x, *shortcut;
    real *u, *t, *y; /* t becomes the attention's result; y may be x, which is not read any more when y is written */
    struct product in, mix, out, expand, project;
    struct conv near, far, depthwise;
    long batch, height, width, channels, hidden;
    long tiles, chunks, splits; /* of matrix products: tiles of pixels, units of them, divisions of the outputs */
    long bands, groups;         /* of the feed-forward: bands of rows, groups of hidden channels */
    int terms;                  /* see struct rows */
    real *partial;              /* (groups, N, H, W, C): what each group of hidden channels adds; y for one */
};

/* What a unit of a matrix product covers: pixels [from, to) of the whole batch, panels [first, end) of the outputs. */
struct share { long from, to, first, end; };

INLINE struct share share_of(const struct block *b, long index) {
    const long chunk = index / b->splits, split = index % b->splits, panels = panels_of(b->channels);
    return (struct share){
        .from = chunk * b->tiles / b->chunks * MATRIX_ROWS,
        .to = min_of((chunk + 1) * b->tiles / b->chunks * MATRIX_ROWS, b->batch * b->height * b->width),
        .first = split * panels / b->splits, .end = (split + 1) * panels / b->splits};
}

/* --- u = gelu(in·x) */

INLINE void enter_tile(const struct block *b, const struct rows *a, long panel, long start, long row, int rows) {
    tile_sum sum;
    const long first = (start + row) * b->channels;
    linear(a, row, &b->in, panel, b->channels, rows, sum);
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            const long column = panel * PANEL + v * LANES;
            store(b->u + first + m * b->channels + column, gelu(sum[m][v]), lanes_at(b->channels, column));
        }
}

static int enter_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    const struct share s = share_of(b, index);
    const long count = s.to - s.from, channels = b->channels;
    vec *memory = scratch_of(read_vectors(count, channels) + 1);
    if (!memory) return 1;
    const struct rows a = read_rows(memory, b->x + s.from * channels, count, channels, count, 0, b->terms);
    for (long panel = s.first; panel < s.end; panel++) BY_TILES(enter_tile, count, b, &a, panel, s.from);
    return 0;
}

/* --- u = (mix·t) ⊙ u */

INLINE void gate_tile(const struct block *b, const struct rows *a, long panel, long start, long row, int rows) {
    tile_sum sum;
    const long first = (start + row) * b->channels;
    linear(a, row, &b->mix, panel, b->channels, rows, sum);
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
    const long count = s.to - s.from, channels = b->channels;
    vec *memory = scratch_of(read_vectors(count, channels) + 1);
    if (!memory) return 1;
    const struct rows a = read_rows(memory, b->t + s.from * channels, count, channels, count, 0, b->terms);
    for (long panel = s.first; panel < s.end; panel++) BY_TILES(gate_tile, count, b, &a, panel, s.from);
    return 0;
}

/* --- t = shortcut·x + out·u */

INLINE void leave_tile(const struct block *b, const struct rows *a, long panel, long start, long row, int rows) {
    tile_sum sum;
    const long first = (start + row) * b->channels;
    linear(a, row, &b->out, panel, b->channels, rows, sum);
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
    const long count = s.to - s.from, channels = b->channels;
    vec *memory = scratch_of(read_vectors(count, channels) + 1);
    if (!memory) return 1;
    const struct rows a = read_rows(memory, b->u + s.from * channels, count, channels, count, 0, b->terms);
    for (long panel = s.first; panel < s.end; panel++) BY_TILES(leave_tile, count, b, &a, panel, s.from);
    return 0;
}

/* --- both in one, where a unit has all outputs: u stays in the cache */

INLINE void gate_rows(const struct block *b, const struct rows *a, const struct rows *gated, long panel, long start, long row,
                      int rows) {
    tile_sum sum;
    const long column = panel * PANEL, left = lanes_at(b->channels, column), right = lanes_at(b->channels, column + LANES);
    linear(a, row, &b->mix, panel, b->channels, rows, sum);
    const real *u = b->u + (start + row) * b->channels + column;
    for (int m = 0; m < rows; m++, u += b->channels)
        put(gated, row + m, panel, sum[m][0] * load(u, left), sum[m][1] * load(u + LANES, right));
}

static int gate_and_leave_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    const struct share s = share_of(b, index);
    const long count = s.to - s.from, channels = b->channels;
    vec *memory = scratch_of(read_vectors(count, channels) + rows_vectors(count, channels));
    if (!memory) return 1;
    const struct rows a = read_rows(memory, b->t + s.from * channels, count, channels, count, 0, b->terms);
    memory += read_vectors(count, channels);
    const struct rows gated = take_rows(&memory, count, channels, b->terms);
    for (long panel = 0; panel < s.end; panel++) BY_TILES(gate_rows, count, b, &a, &gated, panel, s.from);
    for (long panel = 0; panel < s.end; panel++) BY_TILES(leave_tile, count, b, &gated, panel, s.from);
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
    struct rows hidden;    /* some panels of them after GELU */
    long from, to;         /* output rows */
};

/* Zero columns between rows of a plane. */
INLINE long margin_of(const struct block *b) { return max_of(before(&b->depthwise), after(&b->depthwise)); }

/* Vectors of a plane of `rows` rows, and as many as a tile may write or read beyond them. */
static size_t band_vectors(const struct block *b, long rows) {
    const long margin = margin_of(b);
    return (size_t)(margin + rows * (b->width + margin) + max_of(TILE + margin, MATRIX_ROWS));
}

/* A plane whose rows share their margins: what lies right of one is left of the next. */
static struct plane take_band(vec **memory, const struct block *b, long first, long end) {
    const long margin = margin_of(b);
    const struct plane p = {*memory, first, end, b->width + margin, margin, 0};
    *memory += band_vectors(b, end - first);
    memset(p.data, 0, (size_t)margin * sizeof(vec));
    return p;
}

INLINE void expand_tile(const struct band *band, long panel, const struct rows *a, long row, int rows) {
    const struct block *b = band->block;
    const struct plane *one = &band->plane[0], *two = &band->plane[1];
    if (GAPS) {
        const struct place to = {(real *)(row_of(one, one->first) + row), (real *)(row_of(two, two->first) + row), LANES};
        multiply(a, row, b->expand.panels + panel * panel_size(b->channels), rows, same(b->expand.bias + panel * PANEL), to);
        return;
    }
    tile_sum sum;
    linear(a, row, &b->expand, panel, b->channels, rows, sum);
    long x = row % b->width, at = one->margin + row / b->width * one->stride;
    for (int m = 0; m < rows; m++) {
        one->data[at + x] = sum[m][0];
        two->data[at + x] = sum[m][1];
        if (++x == b->width) x = 0, at += one->stride;
    }
}

/* gelu(depthwise(…)) of a panel; memory for its taps and two lines. */
static void activate(const struct band *band, long panel, long slot, vec *memory) {
    const struct block *b = band->block;
    const struct conv *c = &b->depthwise;
    vec *taps[2], *line[2], bias[2];
    for (int v = 0; v < 2; v++) {
        const long channel = panel * PANEL + v * LANES, lanes = lanes_at(b->hidden, channel);
        taps[v] = memory;
        line[v] = memory + c->kernel * c->kernel;
        memory = line[v] + tiles(b->width);
        load_taps(taps[v], c, channel, lanes, 0);
        bias[v] = load_bias(c, channel, lanes);
    }
    const struct plane *p = band->plane;
    for (long y = p->first; y < p->end; y++)
        for (int v = 0; v < 2; v++) memset(row_of(p + v, y) + b->width, 0, (size_t)p->margin * sizeof(vec));
    for (long y = band->from; y < band->to; y++) {
        for (int v = 0; v < 2; v++)
            convolve_row(&band->plane[v], c, taps[v], bias[v], before(c), y, b->width, line[v]);
        for (long x = 0; x < b->width; x++)
            put(&band->hidden, (y - band->from) * b->width + x, slot, gelu(line[0][x]), gelu(line[1][x]));
    }
}

/* Adds what some panels of hidden channels give to every output. */
INLINE void project_tile(const struct band *band, long panel, long output, real *y, long row, int rows) {
    const struct block *b = band->block;
    const long column = output * PANEL, padded = panels_of(b->hidden) * PANEL;
    const real *weights = b->project.panels + output * panel_size(padded) + panel_size(panel * PANEL);
    multiply_onto(&band->hidden, row, weights, rows, y + row * b->channels + column, b->channels, b->channels - column);
}

/* What the hidden channels of a unit are added to: t + bias, or 0 in all groups but the first. */
static void begin(const struct block *b, const real *t, long group, long pixels, real *y) {
    if (group) {
        memset(y, 0, (size_t)(pixels * b->channels) * sizeof(real));
        return;
    }
    for (long pixel = 0; pixel < pixels; pixel++, t += b->channels, y += b->channels)
        for (long c = 0; c < b->channels; c += LANES) {
            const long lanes = min_of(LANES, b->channels - c);
            store(y + c, load(t + c, lanes) + load(b->project.bias + c, lanes), lanes);
        }
}

static int feed_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    const struct conv *c = &b->depthwise;
    const long group = index % b->groups, number = index / b->groups % b->bands, image = index / b->groups / b->bands;
    const long pixels = b->height * b->width, panels = panels_of(b->hidden), channels = b->channels;
    const long from = group * panels / b->groups, to = (group + 1) * panels / b->groups;
    struct band band = {.block = b, .from = number * b->height / b->bands, .to = (number + 1) * b->height / b->bands};
    const long first = max_of(0, band.from - before(c)), end = min_of(b->height, band.to + after(c));
    const long outputs = (band.to - band.from) * b->width, gap = margin_of(b);
    const long given = (end - first) * (b->width + (GAPS ? gap : 0));
    const long one = (long)(rows_vectors(outputs, PANEL) * sizeof(vec));
    const long most = max_of(1, min_of(to - from, HIDDEN_BYTES / one)); /* panels between expansion and projection */
    const size_t work = 2 * (size_t)(c->kernel * c->kernel + tiles(b->width));
    vec *memory = scratch_of(2 * band_vectors(b, end - first) + work + read_vectors(given, channels) +
                             rows_vectors(outputs, most * PANEL));
    if (!memory) return 1;
    for (int v = 0; v < 2; v++) band.plane[v] = take_band(&memory, b, first, end);
    vec *const lines = memory;
    memory += work;
    const real *t = b->t + (image * pixels + first * b->width) * channels;
    const struct rows a = read_rows(memory, t, given, channels, b->width, gap, b->terms);
    memory += read_vectors(given, channels);
    const long start = (image * pixels + band.from * b->width) * channels;
    real *y = b->partial + group * b->batch * pixels * channels + start;
    begin(b, b->t + start, group, outputs, y);
    for (long panel = from; panel < to; panel += most) {
        const long together = min_of(most, to - panel);
        vec *place = memory;
        band.hidden = take_rows(&place, outputs, together * PANEL, b->terms);
        for (long slot = 0; slot < together; slot++) {
            BY_TILES(expand_tile, given, &band, panel + slot, &a);
            activate(&band, panel + slot, slot, lines);
        }
        for (long output = 0; output < panels_of(channels); output++)
            BY_TILES(project_tile, outputs, &band, panel, output, y);
    }
    return 0;
}

/* y = what the groups added up, for one image of a small map. */
static int finish_unit(const void *opaque, long index) {
    const struct block *b = opaque;
    const long size = b->height * b->width * b->channels, map = b->batch * size;
    for (long at = index * size; at < (index + 1) * size; at += LANES) {
        const long lanes = min_of(LANES, (index + 1) * size - at);
        vec sum = load(b->partial + at, lanes);
        for (long group = 1; group < b->groups; group++) sum += load(b->partial + group * map + at, lanes);
        store(b->y + at, sum, lanes);
    }
    return 0;
}

/* Units that so many pixels are divided into, of `most` tiles at most and as many for each thread. Few pixels stay together:
 * their outputs are divided, so that no thread reads all weights. */
static long chunks_of(long pixels, long most, int threads) {
    const long tiles = (pixels + MATRIX_ROWS - 1) / MATRIX_ROWS;
    const long chunks = max_of((tiles + most - 1) / most, min_of(2 * threads, tiles / 2));
    return pixels <= FEW_PIXELS ? 1 : max_of(1, min_of((chunks + threads - 1) / threads * threads, tiles));
}

/* Small maps are divided by channels, large ones by rows: a band computes its neighbours' rows again. The groups follow
 * from the shape alone, because they decide the order of summation. */
static int run_block(struct block *b, int threads) {
    const long pixels = b->height * b->width, panels = panels_of(b->channels);
    b->tiles = (b->batch * pixels + MATRIX_ROWS - 1) / MATRIX_ROWS;
    b->chunks = chunks_of(b->batch * pixels, UNIT_TILES, threads);
    b->splits = b->chunks < threads ? min_of(panels, 2 * threads / b->chunks) : 1;
    b->groups = block_groups(pixels, b->hidden);
    if (b->groups == 1) b->partial = b->y;
    const long pixel_bytes = (long)(sizeof(vec) * (2 + read_vectors(MATRIX_ROWS, b->channels) / MATRIX_ROWS));
    const long fitting = pixels * pixel_bytes / BAND_BYTES + 1;
    const long idle = b->groups > 1 ? 1 : (threads + b->batch - 1) / b->batch;
    b->bands = max_of(fitting, idle);
    while (b->groups == 1 && b->batch * b->bands % threads) b->bands++; /* nobody waits for a last band */
    b->bands = max_of(1, min_of(b->bands, b->height));
    struct chain pair = {.x = b->u, .y = b->t, .conv = {b->near, b->far}, .convs = 2, .batch = b->batch,
                         .height = b->height, .width = b->width, .channels = b->channels};
    const long units = b->chunks * b->splits;
    const int narrow = b->splits > 1;
    return share_out(enter_unit, b, units, threads) || run_chain(&pair, threads) ||
           (narrow ? share_out(gate_unit, b, units, threads) || share_out(leave_unit, b, units, threads)
                   : share_out(gate_and_leave_unit, b, units, threads)) ||
           share_out(feed_unit, b, b->batch * b->bands * b->groups, threads) ||
           (b->groups > 1 && share_out(finish_unit, b, b->batch, threads));
}

#endif
