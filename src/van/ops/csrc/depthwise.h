/* A chain of one or two depthwise convolutions, then GELU or nothing; forward, and gradients of everything.
 *
 * A unit of work is LANES channels of an image, or of a band of its rows. They are copied into a compact plane with zero
 * columns at both sides, every convolution writes the next plane, and only the last map goes back to memory: maps in
 * between stay in the caches. Rows outside the image are never visited; columns outside only within a tile.
 */
#ifndef VAN_DEPTHWISE_H
#define VAN_DEPTHWISE_H

#include "vector.h"

enum { MAX_CONVS = 2, BAND_VECTORS = 8192 }; /* vectors of a map in between that stay in a small second-level cache */

struct conv {
    const real *weight; /* (channels, kernel, kernel) */
    const real *bias;   /* (channels) or NULL */
    int kernel, dilation;
};

struct chain {
    const real *x;                /* (batch, height, width, channels), as y and the gradients are */
    const real *grad_y;           /* backward */
    real *y, *grad_x;             /* forward; backward, NULL where it is not asked for */
    real *grad_weight[MAX_CONVS]; /* (groups, kernel², channels rounded up), sums over a group of images */
    real *grad_bias[MAX_CONVS];   /* (groups, channels rounded up) */
    struct conv conv[MAX_CONVS];
    long batch, height, width, channels, bands, groups;
    int convs, gelu;
};

/* Rows [first, end) of LANES channels; `stride` vectors per row, of which `margin` lie before the image's columns. */
struct plane { vec *data; long first, end, stride, margin; };

INLINE long before(const struct conv *c) { return (long)c->dilation * (c->kernel - 1) / 2; }
INLINE long after(const struct conv *c) { return (long)c->dilation * (c->kernel - 1) - before(c); }
INLINE long tiles(long width) { return (width + TILE - 1) / TILE * TILE; }
INLINE vec *row_of(const struct plane *p, long y) { return p->data + (y - p->first) * p->stride + p->margin; }

/* A plane for rows that `c` reads, forward or transposed; moves *memory on. */
static struct plane take_plane(vec **memory, const struct chain *chain, const struct conv *c, long first, long end) {
    const long margin = max_of(before(c), after(c));
    struct plane p = {*memory, first, end, margin + tiles(chain->width) + margin, margin};
    *memory += (end - first) * p.stride;
    return p;
}

static size_t plane_vectors(const struct chain *chain, const struct conv *c, long rows) {
    return (size_t)rows * (size_t)(2 * max_of(before(c), after(c)) + tiles(chain->width));
}

/* Zero what lies beside the image's columns in row y. */
static void clear_sides(const struct plane *p, long y, long width) {
    vec *row = row_of(p, y);
    memset(row - p->margin, 0, (size_t)p->margin * sizeof(vec));
    memset(row + width, 0, (size_t)(p->stride - p->margin - width) * sizeof(vec));
}

INLINE void copy_rows(const struct plane *p, const real *map, const struct chain *chain, long lanes) {
    for (long y = p->first; y < p->end; y++) {
        const real *from = map + y * chain->width * chain->channels;
        vec *row = row_of(p, y);
        for (long x = 0; x < chain->width; x++) row[x] = load(from + x * chain->channels, lanes);
        clear_sides(p, y, chain->width);
    }
}

static void load_plane(const struct plane *p, const real *map, const struct chain *chain, long lanes) {
    if (lanes == LANES)
        copy_rows(p, map, chain, LANES);
    else
        copy_rows(p, map, chain, lanes);
}

/* taps[i][j] of LANES channels from `channel` on; turned by 180 degrees for the transposed convolution. */
static void load_taps(vec *taps, const struct conv *c, long channel, long lanes, int turned) {
    const int count = c->kernel * c->kernel;
    for (int t = 0; t < count; t++) {
        vec value = {0};
        for (long l = 0; l < lanes; l++) value[l] = c->weight[(channel + l) * count + (turned ? count - 1 - t : t)];
        taps[t] = value;
    }
}

/* TILE columns from x on, of output row y; the taps [low, high) of a row are those that meet the image. */
INLINE void tile(const struct plane *in, const struct conv *c, const vec *taps, vec bias, long pad, long y, long x,
                 int low, int high, vec *out) {
    vec sum[TILE];
#pragma GCC unroll 8
    for (int j = 0; j < TILE; j++) sum[j] = bias;
    for (int i = 0; i < c->kernel; i++) {
        const long source = y + (long)i * c->dilation - pad;
        if (source < in->first || source >= in->end) continue;
        const vec *row = row_of(in, source) + x - pad;
        for (int k = low; k < high; k++) {
            const vec weight = taps[i * c->kernel + k], *from = row + (long)k * c->dilation;
#pragma GCC unroll 8
            for (int j = 0; j < TILE; j++) sum[j] += weight * from[j];
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < TILE; j++) out[j] = sum[j];
}

/* Output row y: tiles(width) vectors at out. `in` holds every row of the image that the taps meet. */
static void convolve_row(const struct plane *in, const struct conv *c, const vec *taps, vec bias, long pad, long y,
                         long width, vec *out) {
    const long d = c->dilation;
    for (long x = 0; x < width; x += TILE) {
        const long last = min_of(x + TILE, width) - 1;
        const long low = pad > last ? (pad - last + d - 1) / d : 0;
        const long high = min_of(c->kernel, (pad + width - 1 - x) / d + 1);
        tile(in, c, taps, bias, pad, y, x, (int)low, (int)high, out + x);
    }
}

static void convolve(const struct plane *in, const struct plane *out, const struct conv *c, const vec *taps, vec bias,
                     long pad, long width) {
    for (long y = out->first; y < out->end; y++) {
        convolve_row(in, c, taps, bias, pad, y, width, row_of(out, y));
        clear_sides(out, y, width);
    }
}

/* --- forward */

INLINE void store_row(real *to, const vec *row, const struct chain *chain, long lanes) {
    if (chain->gelu)
        for (long x = 0; x < chain->width; x++) store(to + x * chain->channels, gelu(row[x]), lanes);
    else
        for (long x = 0; x < chain->width; x++) store(to + x * chain->channels, row[x], lanes);
}

static vec load_bias(const struct conv *c, long channel, long lanes) {
    return c->bias ? load(c->bias + channel, lanes) : splat(0);
}

/* Rows [first[i], end[i]) of the input of convolution i that rows [from, to) of the output need. */
static void needed(const struct chain *chain, long from, long to, long *first, long *end) {
    for (int i = chain->convs - 1; i >= 0; i--) {
        first[i] = from = max_of(0, from - before(&chain->conv[i]));
        end[i] = to = min_of(chain->height, to + after(&chain->conv[i]));
    }
}

static int forward_unit(const void *opaque, long index) {
    const struct chain *chain = opaque;
    const long blocks = (chain->channels + LANES - 1) / LANES, block = index % blocks;
    const long band = index / blocks % chain->bands, image = index / blocks / chain->bands;
    const long channel = block * LANES, lanes = min_of(LANES, chain->channels - channel), width = chain->width;
    const long from = band * chain->height / chain->bands, to = (band + 1) * chain->height / chain->bands;
    const long start = image * chain->height * width * chain->channels + channel;
    long first[MAX_CONVS], end[MAX_CONVS];
    needed(chain, from, to, first, end);
    size_t size = (size_t)tiles(width);
    for (int i = 0; i < chain->convs; i++) {
        const struct conv *c = &chain->conv[i];
        size += plane_vectors(chain, c, end[i] - first[i]) + (size_t)c->kernel * (size_t)c->kernel;
    }
    vec *memory = scratch_of(size), *line = memory;
    if (!memory) return 1;
    memory += tiles(width);
    struct plane in = take_plane(&memory, chain, &chain->conv[0], first[0], end[0]);
    load_plane(&in, chain->x + start, chain, lanes);
    for (int i = 0; i < chain->convs; i++) {
        const struct conv *c = &chain->conv[i];
        const vec bias = load_bias(c, channel, lanes), *taps = memory;
        load_taps(memory, c, channel, lanes, 0);
        memory += c->kernel * c->kernel;
        if (i + 1 < chain->convs) {
            struct plane out = take_plane(&memory, chain, c + 1, first[i + 1], end[i + 1]);
            convolve(&in, &out, c, taps, bias, before(c), width);
            in = out;
            continue;
        }
        for (long y = from; y < to; y++) {
            real *row = chain->y + start + y * width * chain->channels;
            convolve_row(&in, c, taps, bias, before(c), y, width, line);
            if (lanes == LANES)
                store_row(row, line, chain, LANES);
            else
                store_row(row, line, chain, lanes);
        }
    }
    return 0;
}

static int run_chain(struct chain *chain, int threads) {
    const long units = chain->batch * ((chain->channels + LANES - 1) / LANES);
    const long large = chain->height * chain->width / BAND_VECTORS + 1, idle = (threads + units - 1) / units;
    chain->bands = max_of(1, min_of(max_of(large, idle), chain->height / 8));
    return share_out(forward_unit, chain, units * chain->bands, threads);
}

/* --- backward */

/* sum[k] += sum over x of grad[x]·in[x + k·dilation], for `count` neighbouring taps. */
INLINE void correlate(const vec *grad, const vec *in, long width, long dilation, int count, vec *sum) {
    vec part[7];
#pragma GCC unroll 7
    for (int k = 0; k < count; k++) part[k] = splat(0);
    for (long x = 0; x < width; x++)
#pragma GCC unroll 7
        for (int k = 0; k < count; k++) part[k] += grad[x] * in[x + k * dilation];
#pragma GCC unroll 7
    for (int k = 0; k < count; k++) sum[k] += part[k];
}

/* Adds the gradients of the taps and of the bias; row by row, so that rounding stays small over large maps. */
static void weight_gradient(const struct plane *grad, const struct plane *in, const struct conv *c, long width,
                            vec *taps, vec *bias) {
    const long d = c->dilation, pad = before(c);
    const int kernel = c->kernel;
    for (long y = grad->first; y < grad->end; y++) {
        const vec *g = row_of(grad, y);
        vec line = splat(0);
        for (long x = 0; x < width; x++) line += g[x];
        *bias += line;
        for (int i = 0; i < kernel; i++) {
            const long source = y + i * d - pad;
            if (source < in->first || source >= in->end) continue;
            const vec *row = row_of(in, source) - pad;
            vec *sum = taps + i * kernel;
            if (kernel == 3)
                correlate(g, row, width, d, 3, sum);
            else if (kernel == 5)
                correlate(g, row, width, d, 5, sum);
            else if (kernel == 7)
                correlate(g, row, width, d, 7, sum);
            else
                for (int k = 0; k < kernel; k++) correlate(g, row + k * d, width, d, 1, sum + k);
        }
    }
}

/* grad *= GELU'(what the last convolution gave). */
static void through_gelu(const struct plane *grad, const struct plane *in, const struct conv *c, const vec *taps,
                         vec bias, long width, vec *line) {
    for (long y = grad->first; y < grad->end; y++) {
        vec *g = row_of(grad, y);
        convolve_row(in, c, taps, bias, before(c), y, width, line);
        for (long x = 0; x < width; x++) g[x] *= gelu_slope(line[x]);
    }
}

/* Vectors for the taps and tap gradients of both convolutions, and for the planes: inputs, and gradients of outputs. */
static size_t backward_vectors(const struct chain *chain) {
    size_t size = (size_t)tiles(chain->width);
    for (int i = 0; i < chain->convs; i++) {
        const struct conv *c = &chain->conv[i];
        size += 3 * (size_t)c->kernel * (size_t)c->kernel + 2 * plane_vectors(chain, c, chain->height);
    }
    return size;
}

/* All gradients of one image, LANES channels from `channel` on. */
static void backward_image(const struct chain *chain, long image, long channel, long lanes, vec *memory,
                           vec *tap_grads[MAX_CONVS], vec bias_grads[MAX_CONVS]) {
    const long width = chain->width, height = chain->height;
    const long start = image * height * width * chain->channels + channel;
    struct plane in[MAX_CONVS];
    vec *line = memory, *taps[MAX_CONVS];
    memory += tiles(width);
    for (int i = 0; i < chain->convs; i++) {
        const struct conv *c = &chain->conv[i];
        in[i] = take_plane(&memory, chain, c, 0, height);
        taps[i] = memory;
        memory += c->kernel * c->kernel;
        load_taps(taps[i], c, channel, lanes, 0);
        if (i == 0)
            load_plane(&in[0], chain->x + start, chain, lanes);
        else
            convolve(&in[i - 1], &in[i], c - 1, taps[i - 1], load_bias(c - 1, channel, lanes), before(c - 1), width);
    }
    const struct conv *c = &chain->conv[chain->convs - 1];
    struct plane grad = take_plane(&memory, chain, c, 0, height);
    load_plane(&grad, chain->grad_y + start, chain, lanes);
    if (chain->gelu)
        through_gelu(&grad, &in[chain->convs - 1], c, taps[chain->convs - 1], load_bias(c, channel, lanes), width, line);
    for (int i = chain->convs - 1; i >= 0; i--) {
        c = &chain->conv[i];
        weight_gradient(&grad, &in[i], c, width, tap_grads[i], &bias_grads[i]);
        load_taps(taps[i], c, channel, lanes, 1);
        if (i > 0) {
            struct plane next = take_plane(&memory, chain, c - 1, 0, height);
            convolve(&grad, &next, c, taps[i], splat(0), after(c), width);
            grad = next;
        } else if (chain->grad_x) {
            for (long y = 0; y < height; y++) {
                real *to = chain->grad_x + start + y * width * chain->channels;
                convolve_row(&grad, c, taps[i], splat(0), after(c), y, width, line);
                for (long x = 0; x < width; x++) store(to + x * chain->channels, line[x], lanes);
            }
        }
    }
}

/* A group of images and LANES channels; groups do not depend on the number of threads, so neither do the sums. */
static int backward_unit(const void *opaque, long index) {
    const struct chain *chain = opaque;
    const long blocks = (chain->channels + LANES - 1) / LANES, block = index % blocks, group = index / blocks;
    const long channel = block * LANES, lanes = min_of(LANES, chain->channels - channel);
    vec *memory = scratch_of(backward_vectors(chain)), *tap_grads[MAX_CONVS], bias_grads[MAX_CONVS] = {{0}};
    if (!memory) return 1;
    for (int i = 0; i < chain->convs; i++) {
        const int taps = chain->conv[i].kernel * chain->conv[i].kernel;
        tap_grads[i] = memory;
        memory += taps;
        memset(tap_grads[i], 0, (size_t)taps * sizeof(vec));
    }
    const long from = group * chain->batch / chain->groups, to = (group + 1) * chain->batch / chain->groups;
    for (long image = from; image < to; image++)
        backward_image(chain, image, channel, lanes, memory, tap_grads, bias_grads);
    for (int i = 0; i < chain->convs; i++) {
        const long taps = (long)chain->conv[i].kernel * chain->conv[i].kernel;
        for (long t = 0; t < taps; t++)
            store(chain->grad_weight[i] + ((group * taps + t) * blocks + block) * LANES, tap_grads[i][t], LANES);
        store(chain->grad_bias[i] + (group * blocks + block) * LANES, bias_grads[i], LANES);
    }
    return 0;
}

#endif
