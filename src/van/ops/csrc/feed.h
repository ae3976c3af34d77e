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

/* Rows of a tile of a weight's gradient; pixels of a pass over all tiles, whose panel stays in the first-level cache. */
#ifdef VAN_TILES
enum { OUTER_ROWS = 14, OUTER_PIXELS = 128 };
#else
enum { OUTER_ROWS = MATRIX_ROWS, OUTER_PIXELS = 128 };
#endif

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

/* gradient[m] += the sum over p of a[p·stride + m] · panel[p]; `rows` is a constant, so that the sums stay in registers. */
INLINE void outer_tile(const real *a, long stride, const vec *panel, long pixels, real *gradient, long wide, int rows) {
    vec sum[OUTER_ROWS][2];
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) sum[m][v] = load(gradient + m * wide + v * LANES, LANES);
    for (long p = 0; p < pixels; p++, a += stride, panel += 2) {
        const vec one = panel[0], two = panel[1];
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            sum[m][0] += a[m] * one;
            sum[m][1] += a[m] * two;
        }
    }
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) store(gradient + m * wide + v * LANES, sum[m][v], LANES);
}

/* gradient (rows, PANEL), `wide` apart, += aᵀ · panel. */
static void outer(const real *a, long rows, const vec *panel, long pixels, real *gradient, long wide) {
    for (long from = 0; from < pixels; from += OUTER_PIXELS) {
        const long count = min_of(OUTER_PIXELS, pixels - from);
        const real *at = a + from * rows;
        const vec *some = panel + 2 * from;
        long m = 0;
#define OUTER(tall) \
    for (; m + (tall) <= rows; m += (tall)) outer_tile(at + m, rows, some, count, gradient + m * wide, wide, tall);
        OUTER(OUTER_ROWS)
        OUTER(OUTER_ROWS > 8 ? 8 : 4)
        OUTER(4)
        OUTER(1)
#undef OUTER
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

INLINE void onto_tile(const struct rows *a, const real *weights, real *y, long stride, long lanes, long row, int rows) {
    multiply_onto(a, row, weights, rows, y + row * stride, stride, lanes);
}

/* y (count, channels) += panel · weights of its inputs; memory of read_vectors(count, PANEL). */
static void add_slice(const struct feed *f, const real *slice, long count, long panel, long channels, real *y, vec *memory) {
    const struct rows a = read_rows(memory, slice, count, PANEL, count, 0, f->terms);
    const long apart = panel_size(panels_of(f->hidden) * PANEL);
    for (long output = 0; output < panels_of(channels); output++) {
        const real *weights = f->project + output * apart + panel_size(panel * PANEL);
        BY_TILES(onto_tile, count, &a, weights, y + output * PANEL, channels, channels - output * PANEL);
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

/* A slice, and as many rows as a tile may write beyond it. */
static size_t slice_vectors(long count) { return 2 * (size_t)(count + MATRIX_ROWS); }

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
    vec *slice = more_scratch_of(slice_vectors(most) + parameters + read_vectors(most, f->inputs) + read_vectors(most, PANEL) + 1);
    if (!slice) return 1;
    vec *const memory = slice + slice_vectors(most), *const read = memory + parameters, *const again = read + read_vectors(most, f->inputs);
    for (long image = s.from; image < s.to; image += f->together) {
        const long images = min_of(f->together, s.to - image), count = images * pixels;
        real *y = f->partial + (s.group * f->batch + image) * pixels * f->outputs;
        const struct rows a = read_rows(read, f->x + image * pixels * f->inputs, count, f->inputs, count, 0, f->terms);
        const real *begin = f->begin && !s.group ? f->begin + image * pixels * f->outputs : NULL;
        begin_slices(begin, s.group ? NULL : f->bias, count, f->outputs, y);
        for (long panel = s.first; panel < s.end; panel++) {
            make_slice(&a, count, f->expand + panel * panel_size(f->inputs), (real *)slice);
            const struct chain chain = slice_chain(f, panel, images, (real *)slice, (real *)memory);
            for (long i = 0; i < images; i++)
                if (forward_unit(&chain, i)) return 1;
            add_slice(f, (real *)slice, count, panel, f->outputs, y, again);
        }
    }
    return 0;
}

static int feed_backward_unit(const void *opaque, long index) {
    const struct feed *f = opaque;
    const struct slice_share s = feed_share(f, index);
    const long pixels = f->height * f->width, most = f->together * pixels, wide = panels_of(f->hidden) * PANEL;
    const long sums = (long)f->conv.kernel * f->conv.kernel + 2;
    const size_t parameters = (size_t)(slice_parameters(f) / LANES + 1);
    const size_t first = read_vectors(most, f->inputs), second = read_vectors(most, f->outputs);
    vec *slice = more_scratch_of(2 * slice_vectors(most) + parameters + first + second + read_vectors(most, PANEL) + 1);
    if (!slice) return 1;
    vec *const change = slice + slice_vectors(most), *const memory = change + slice_vectors(most);
    vec *const read = memory + parameters, *const again = read + first + second;
    for (long image = s.from; image < s.to; image += f->together) {
        const long images = min_of(f->together, s.to - image), count = images * pixels;
        const real *x = f->x + image * pixels * f->inputs, *grad_y = f->grad_y + image * pixels * f->outputs;
        real *grad_x = f->partial + (s.group * f->batch + image) * pixels * f->inputs;
        const struct rows a = read_rows(read, x, count, f->inputs, count, 0, f->terms);
        const struct rows d = read_rows(read + first, grad_y, count, f->outputs, count, 0, f->terms);
        begin_slices(NULL, NULL, count, f->inputs, grad_x);
        for (long panel = s.first; panel < s.end; panel++) {
            make_slice(&a, count, f->expand + panel * panel_size(f->inputs), (real *)slice);
            make_slice(&d, count, f->turned + panel * panel_size(f->outputs), (real *)change);
            struct chain chain = slice_chain(f, panel, images, (real *)slice, (real *)memory);
            chain.grad_y = chain.grad_x = (real *)change;
            if (backward_unit(&chain, 0)) return 1;
            outer(grad_y, f->outputs, slice, count, f->grad_project + s.set * f->outputs * wide + panel * PANEL, wide);
            outer(x, f->inputs, change, count, f->grad_expand + s.set * f->inputs * wide + panel * PANEL, wide);
            for (long i = 0; i < sums; i++) {
                real *to = f->sums + (s.set * sums + i) * wide + panel * PANEL;
                for (long v = 0; v < PANEL; v++) to[v] += chain.grad_weight[0][i * PANEL + v];
            }
            add_slice(f, (real *)change, count, panel, f->inputs, grad_x, again);
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
    memset(to + p->inputs * PANEL, 0, (size_t)((p->room - p->inputs) * PANEL) * sizeof(real));
    if (p->across == 1 && outputs == PANEL) {
        for (long k = 0; k < p->inputs; k++, to += PANEL, weight += p->along) memcpy(to, weight, PANEL * sizeof(real));
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
