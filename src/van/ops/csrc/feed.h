/* The feed-forward of training, values and gradients: y = project·gelu(depthwise(expand·x)).
 *
 * A unit takes some images and one panel of expanded channels after another through all steps, so that a panel's maps stay in
 * the second-level cache: the expanded map, the largest of all, never exists as a whole, not even in the backward pass, which
 * computes it again. What panels add to a map of x's size is summed in `groups` maps, what images add to a gradient of weights
 * in `sets`; both follow from the shape alone, as sums must.
 */
#ifndef VAN_FEED_H
#define VAN_FEED_H

#include "gradients.h"
#include "matrix.h"

/* Pixels of a pass over all tiles of a weight's gradient, whose panel stays in the first-level cache. */
enum { OUTER_PIXELS = 128 };

struct feed {
    const real *x, *grad_y;       /* (N, H, W, inputs), (N, H, W, outputs) */
    const real *expand, *project; /* panels: of hidden from x; of the result from hidden, which backward takes to x */
    const real *turned;           /* backward: panels of hidden's gradient from grad_y */
    const real *shift, *bias;     /* the expansion's, or NULL; the projection's, or NULL */
    const real *begin;            /* what the result is added to, or NULL */
    struct conv conv;
    real *partial;                     /* (groups, N, H, W, outputs), backward inputs */
    real *grad_expand, *grad_project;  /* (sets, inputs, hidden rounded up), (sets, outputs, hidden rounded up) */
    real *sums;                        /* (sets, kernel² + 2, hidden rounded up): of taps, of their bias, of the shift */
    long batch, height, width, inputs, hidden, outputs, sets, groups, together; /* together: images at a time */
    int terms;                                                                  /* see struct rows */
};

/* What a unit covers: images [from, to), panels [first, end). */
struct slice_share { long from, to, first, end, set, group; };

static struct slice_share feed_share(const struct feed *f, long index) {
    const long set = index / f->groups, group = index % f->groups, panels = panels_of(f->hidden);
    return (struct slice_share){set * f->batch / f->sets, (set + 1) * f->batch / f->sets, group * panels / f->groups,
                                (group + 1) * panels / f->groups, set, group};
}

/* --- a weight's gradient, which is a sum over pixels */

/* gradient (rows, PANEL), `wide` apart, += aᵀ · panel. */
static void outer(const real *a, long rows, const vec *panel, long pixels, real *gradient, long wide) {
    for (long from = 0; from < pixels; from += OUTER_PIXELS) {
        const struct panels one = {(const real *)(panel + 2 * from), PANEL, 0, 1};
        sum_products((struct inputs){a + from * rows, 1, rows}, rows, one, min_of(OUTER_PIXELS, pixels - from), 1, gradient, wide);
    }
}

/* --- one panel of some images */

/* Row m of the panel = row m of a · weights. */
INLINE void slice_tile(const struct rows *a, const real *weights, const real *zero, real *slice, long row, int rows) {
    multiply(a, row, weights, rows, same(zero), rows_at(slice + row * PANEL, PANEL));
}

static void make_slice(const struct rows *a, long count, const real *weights, real *slice) {
    static const real zero[PANEL];
    BY_TILES(slice_tile, count, a, weights, zero, slice);
}

/* Panels of some pixels that go to the next product together, so that it reads and writes its results less often. */
enum { MOST_SLICES = 8, SLICES_BYTES = 256 * 1024 };
struct slices { struct rows rows[MOST_SLICES]; long count, apart; const real *weights; }; /* apart: reals between panels' weights */

INLINE void onto_tile(const struct slices *s, const real *weights, real *y, long stride, long lanes, long row, int rows) {
    tile_sum sum;
    const struct place here = rows_at((real *)sum, PANEL);
    const long left = min_of(LANES, lanes), right = max_of(0, min_of(LANES, lanes - LANES));
    y += row * stride;
    for (int m = 0; m < rows; m++) {
        sum[m][0] = load(y + m * stride, left);
        sum[m][1] = load(y + m * stride + LANES, right);
    }
    for (long i = 0; i < s->count; i++) multiply(&s->rows[i], row, weights + i * s->apart, rows, here, here);
    for (int m = 0; m < rows; m++) {
        store(y + m * stride, sum[m][0], left);
        store(y + m * stride + LANES, sum[m][1], right);
    }
}

static long slices_together(long count) {
    return max_of(1, min_of(MOST_SLICES, SLICES_BYTES / (count * PANEL * (long)sizeof(real))));
}

/* A slice, and as many rows as a tile may write beyond it. */
static size_t slice_vectors(long count) { return 2 * (size_t)(count + MATRIX_ROWS); }

/* y (count, channels) += panels [panel, panel + many) · weights of their inputs; memory of many · read_vectors(count, PANEL). */
static void add_slices(const struct feed *f, const vec *slice, long many, long count, long panel, long channels, real *y, vec *memory) {
    const long whole = panel_size(panels_of(f->hidden) * PANEL);
    struct slices s = {.count = many, .apart = panel_size(PANEL)};
    for (long i = 0; i < many; i++) {
        const real *from = (const real *)(slice + (size_t)i * slice_vectors(count));
        s.rows[i] = read_rows(memory + (size_t)i * read_vectors(count, PANEL), from, count, PANEL, count, 0, f->terms);
    }
    for (long output = 0; output < panels_of(channels); output++) {
        const real *weights = f->project + output * whole + panel * s.apart;
        BY_TILES(onto_tile, count, &s, weights, y + output * PANEL, channels, channels - output * PANEL);
    }
}

/* Reals that a panel's part of the depthwise weights takes, filled up with zeros: taps, bias, shift, three kinds of sums. */
static long slice_parameters(const struct feed *f) { return (2 * (long)f->conv.kernel * f->conv.kernel + 4) * PANEL; }

/* The chain of a panel's depthwise convolution, with its parameters in `memory`. */
static struct chain slice_chain(const struct feed *f, long panel, long images, real *slice, real *memory) {
    const long first = panel * PANEL, lanes = min_of(PANEL, f->hidden - first), taps = (long)f->conv.kernel * f->conv.kernel;
    real *bias = memory + taps * PANEL, *shift = bias + PANEL, *sums = shift + PANEL;
    memset(memory, 0, (size_t)slice_parameters(f) * sizeof(real));
    memcpy(memory, f->conv.weight + first * taps, (size_t)(lanes * taps) * sizeof(real));
    if (f->conv.bias) memcpy(bias, f->conv.bias + first, (size_t)lanes * sizeof(real));
    if (f->shift) memcpy(shift, f->shift + first, (size_t)lanes * sizeof(real));
    return (struct chain){
        .x = slice, .y = slice, .shift = shift, .conv = {{memory, bias, f->conv.kernel, f->conv.dilation}}, .convs = 1, .gelu = 1,
        .batch = images, .height = f->height, .width = f->width, .channels = PANEL, .bands = 1, .groups = 1, .strips = 2,
        .grad_weight = {sums}, .grad_bias = {sums + taps * PANEL}, .grad_shift = sums + (taps + 1) * PANEL,
    };
}

/* --- units */

/* y = map + bias, each of which may be NULL. */
static void begin_slices(const real *map, const real *bias, long pixels, long channels, real *y) {
    if (!map && !bias) memset(y, 0, (size_t)(pixels * channels) * sizeof(real));
    else if (!bias) memcpy(y, map, (size_t)(pixels * channels) * sizeof(real));
    else
        for (long p = 0; p < pixels; p++)
            for (long c = 0; c < channels; c += LANES) {
                const long lanes = min_of(LANES, channels - c), at = p * channels + c;
                store(y + at, load(bias + c, lanes) + (map ? load(map + at, lanes) : splat(0)), lanes);
            }
}

static int feed_forward_unit(const void *opaque, long index) {
    const struct feed *f = opaque;
    const struct slice_share s = feed_share(f, index);
    const long pixels = f->height * f->width, most = f->together * pixels;
    const size_t parameters = (size_t)(slice_parameters(f) / LANES + 1);
    const long slices = slices_together(most);
    vec *slice = more_scratch_of((size_t)slices * (slice_vectors(most) + read_vectors(most, PANEL)) + parameters +
                                 read_vectors(most, f->inputs) + 1);
    if (!slice) return 1;
    vec *const memory = slice + (size_t)slices * slice_vectors(most), *const read = memory + parameters;
    vec *const again = read + read_vectors(most, f->inputs);
    for (long image = s.from; image < s.to; image += f->together) {
        const long images = min_of(f->together, s.to - image), count = images * pixels;
        real *y = f->partial + (s.group * f->batch + image) * pixels * f->outputs;
        const struct rows a = read_rows(read, f->x + image * pixels * f->inputs, count, f->inputs, count, 0, f->terms);
        const real *begin = f->begin && !s.group ? f->begin + image * pixels * f->outputs : NULL;
        begin_slices(begin, s.group ? NULL : f->bias, count, f->outputs, y);
        for (long panel = s.first; panel < s.end; panel += slices) {
            const long many = min_of(slices, s.end - panel);
            for (long i = 0; i < many; i++) {
                real *here = (real *)(slice + (size_t)i * slice_vectors(count));
                make_slice(&a, count, f->expand + (panel + i) * panel_size(f->inputs), here);
                const struct chain chain = slice_chain(f, panel + i, images, here, (real *)memory);
                for (long j = 0; j < images; j++)
                    if (forward_unit(&chain, j)) return 1;
            }
            add_slices(f, slice, many, count, panel, f->outputs, y, again);
        }
    }
    return 0;
}

/* A panel of some images: from the result's gradient, d, to that of the expansion's result, change. */
static int slice_back(const struct feed *f, const struct rows *a, const struct rows *d, long set, long panel, long image,
                      long images, vec *slice, vec *change, vec *memory) {
    const long pixels = f->height * f->width, count = images * pixels, wide = panels_of(f->hidden) * PANEL;
    const long kinds = (long)f->conv.kernel * f->conv.kernel + 2, column = panel * PANEL;
    make_slice(a, count, f->expand + panel * panel_size(f->inputs), (real *)slice);
    make_slice(d, count, f->turned + panel * panel_size(f->outputs), (real *)change);
    struct chain chain = slice_chain(f, panel, images, (real *)slice, (real *)memory);
    chain.grad_y = chain.grad_x = (real *)change;
    if (backward_unit(&chain, 0)) return 1;
    outer(f->grad_y + image * pixels * f->outputs, f->outputs, slice, count, f->grad_project + set * f->outputs * wide + column, wide);
    outer(f->x + image * pixels * f->inputs, f->inputs, change, count, f->grad_expand + set * f->inputs * wide + column, wide);
    for (long i = 0; i < kinds; i++) {
        real *to = f->sums + (set * kinds + i) * wide + column;
        for (long v = 0; v < PANEL; v++) to[v] += chain.grad_weight[0][i * PANEL + v];
    }
    return 0;
}

static int feed_backward_unit(const void *opaque, long index) {
    const struct feed *f = opaque;
    const struct slice_share s = feed_share(f, index);
    const long pixels = f->height * f->width, most = f->together * pixels;
    const size_t parameters = (size_t)(slice_parameters(f) / LANES + 1);
    const size_t first = read_vectors(most, f->inputs), second = read_vectors(most, f->outputs);
    const long slices = slices_together(most);
    vec *slice = more_scratch_of(slice_vectors(most) + (size_t)slices * (slice_vectors(most) + read_vectors(most, PANEL)) + parameters +
                                 first + second + 1);
    if (!slice) return 1;
    vec *const changes = slice + slice_vectors(most), *const memory = changes + (size_t)slices * slice_vectors(most);
    vec *const read = memory + parameters, *const again = read + first + second;
    for (long image = s.from; image < s.to; image += f->together) {
        const long images = min_of(f->together, s.to - image), count = images * pixels;
        const real *x = f->x + image * pixels * f->inputs, *grad_y = f->grad_y + image * pixels * f->outputs;
        real *grad_x = f->partial + (s.group * f->batch + image) * pixels * f->inputs;
        const struct rows a = read_rows(read, x, count, f->inputs, count, 0, f->terms);
        const struct rows d = read_rows(read + first, grad_y, count, f->outputs, count, 0, f->terms);
        begin_slices(NULL, NULL, count, f->inputs, grad_x);
        for (long panel = s.first; panel < s.end; panel += slices) {
            const long many = min_of(slices, s.end - panel);
            for (long i = 0; i < many; i++) {
                vec *const change = changes + (size_t)i * slice_vectors(count);
                if (slice_back(f, &a, &d, s.set, panel + i, image, images, slice, change, memory)) return 1;
            }
            add_slices(f, changes, many, count, panel, f->inputs, grad_x, again);
        }
    }
    return 0;
}

/* --- panels of weights, made for the call */

struct packing {
    const real *weight; /* element (output, input) at weight[output·across + input·along] */
    real *panels;
    long outputs, inputs, across, along, room; /* room: inputs of the panels; those beyond are 0 */
};

static int pack_unit(const void *opaque, long panel) {
    const struct packing *p = opaque;
    const long outputs = min_of(PANEL, p->outputs - panel * PANEL);
    const real *weight = p->weight + panel * PANEL * p->across;
    real *to = p->panels + panel * panel_size(p->room);
#ifndef VAN_TILES
    memset(to + panel_size(p->inputs), 0, (size_t)(panel_size(p->room) - panel_size(p->inputs)) * sizeof(real));
#endif
#if !defined(VAN_TILES) && !defined(VAN_BFLOAT16)
    if (p->across == 1 && outputs == PANEL) {
        for (long k = 0; k < p->inputs; k++, to += PANEL, weight += p->along) memcpy(to, weight, PANEL * sizeof(real));
        return 0;
    }
    if (p->along == 1 && outputs == PANEL) { /* a line of an output's inputs after the other: they may alias in the cache */
        for (long first = 0; first < p->inputs; first += LANES)
            for (long n = 0; n < PANEL; n++)
                for (long k = first; k < min_of(first + LANES, p->inputs); k++) to[k * PANEL + n] = weight[n * p->across + k];
        return 0;
    }
#endif
    pack_panel(weight, p->across, p->along, outputs, p->inputs, to);
    return 0;
}

static int run_packing(struct packing p, int threads) { return share_out(pack_unit, &p, panels_of(p.outputs), threads); }

/* y = what the groups added up, a stretch of a map at a time. */
enum { STRETCH = 1024 * LANES };
struct group_sum { const real *partial; real *y; long size, groups; };

static int group_sum_unit(const void *opaque, long index) {
    const struct group_sum *g = opaque;
    const long end = min_of((index + 1) * STRETCH, g->size);
    for (long at = index * STRETCH; at < end; at += LANES) {
        const long lanes = min_of(LANES, end - at);
        vec sum = load(g->partial + at, lanes);
        for (long group = 1; group < g->groups; group++) sum += load(g->partial + group * g->size + at, lanes);
        store(g->y + at, sum, lanes);
    }
    return 0;
}

static int add_groups(const real *partial, real *y, long size, long groups, int threads) {
    const struct group_sum g = {partial, y, size, groups};
    return groups > 1 && share_out(group_sum_unit, &g, (size + STRETCH - 1) / STRETCH, threads);
}

#endif
