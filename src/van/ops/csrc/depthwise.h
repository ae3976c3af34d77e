/* A chain of one or two depthwise convolutions, then GELU or nothing.
 *
 * A unit of work is some strips of LANES channels of an image, or of a band of its rows. It sweeps down the rows: each is
 * copied into compact memory with zero columns at both sides, every convolution makes the row for which it has what it
 * needs, and only rows that a kernel still reaches are kept. So maps in between stay in the nearest caches, and memory is
 * read in whole pages. Rows outside the image are never visited; columns outside only within a tile.
 */
#ifndef VAN_DEPTHWISE_H
#define VAN_DEPTHWISE_H

#include "vector.h"

enum { MAX_CONVS = 2 };
/* Of a unit: strips, and what they take of a small second-level cache. */
enum { MAX_STRIPS = 16, SWEEP_BYTES = 512 * 1024 };

struct conv {
    const real *weight; /* (channels, kernel, kernel) */
    const real *bias;   /* (channels) or NULL */
    int kernel, dilation;
};

struct chain {
    const real *x;                /* (batch, height, width, channels), as y and the gradients are */
    const real *shift;            /* (channels) or NULL: added to x as it is read */
    const real *grad_y;           /* backward */
    real *y;                      /* may be x itself; backward: NULL where it is not wanted again */
    real *grad_x;                 /* backward: NULL where it is not asked for, or grad_y itself */
    real *grad_shift;             /* (groups, channels rounded up) or NULL */
    real *grad_weight[MAX_CONVS]; /* (groups, kernel², channels rounded up), sums over a group of images */
    real *grad_bias[MAX_CONVS];   /* (groups, channels rounded up) */
    struct conv conv[MAX_CONVS];
    long batch, height, width, channels, bands, groups, strips; /* strips of a unit */
    int convs, gelu;
};

/* Rows [first, end) of LANES channels; `stride` vectors per row, of which `margin` lie before the image's columns.
 * wrap: bits of a row's number that are ignored, because later rows take the place of earlier ones. */
struct plane { vec *data; long first, end, stride, margin, wrap; };

INLINE long before(const struct conv *c) { return (long)c->dilation * (c->kernel - 1) / 2; }
INLINE long after(const struct conv *c) { return (long)c->dilation * (c->kernel - 1) - before(c); }
INLINE long span(const struct conv *c) { return (long)c->dilation * (c->kernel - 1); }
INLINE long tiles(long width) { return (width + TILE - 1) / TILE * TILE; }
INLINE vec *row_of(const struct plane *p, long y) { return p->data + ((y - p->first) & ~p->wrap) * p->stride + p->margin; }

/* A plane for rows that `c` reads, forward or transposed; moves *memory on. */
static struct plane take_plane(vec **memory, const struct chain *chain, const struct conv *c, long first, long end) {
    const long margin = max_of(before(c), after(c));
    struct plane p = {*memory, first, end, margin + tiles(chain->width) + margin, margin, 0};
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

/* The same where the sides are clear but for what a tile has written. */
INLINE void clear_tile(const struct plane *p, long y, long width) {
    vec *row = row_of(p, y);
    for (long x = width; x < tiles(width); x++) row[x] = splat(0);
}

/* What holds the last `kept` rows at least: a power of two of them, or all where they are no more. */
static long window(long rows, long kept) {
    long size = 1;
    while (size < kept) size *= 2;
    return min_of(size, rows);
}

/* A plane, its sides clear, that rows pass through from first to end; the last `kept` of them stay. */
static struct plane take_window(vec **memory, const struct chain *chain, const struct conv *c, long first, long end,
                                long kept) {
    const long size = window(end - first, kept);
    struct plane p = take_plane(memory, chain, c, first, first + size);
    for (long y = first; y < first + size; y++) clear_sides(&p, y, chain->width);
    if (size < end - first) p.wrap = ~(size - 1);
    p.end = end;
    return p;
}

INLINE void copy_row(vec *row, const real *from, vec shift, const struct chain *chain, long lanes) {
    for (long x = 0; x < chain->width; x++) row[x] = load(from + x * chain->channels, lanes) + shift;
}

/* Row y of the strip that starts at `map`, shifted. */
static void load_row(const struct plane *p, long y, const real *map, vec shift, const struct chain *chain, long lanes) {
    const real *from = map + y * chain->width * chain->channels;
    if (lanes == LANES)
        copy_row(row_of(p, y), from, shift, chain, LANES);
    else
        copy_row(row_of(p, y), from, shift, chain, lanes);
}

INLINE void put_row(real *to, const vec *row, const struct chain *chain, long lanes, int activated) {
    for (long x = 0; x < chain->width; x++) store(to + x * chain->channels, activated ? gelu(row[x]) : row[x], lanes);
}

/* A row of a strip, GELU applied where asked. */
static void store_row(real *to, const vec *row, const struct chain *chain, long lanes, int activated) {
    if (lanes < LANES)
        put_row(to, row, chain, lanes, activated);
    else if (activated)
        put_row(to, row, chain, LANES, 1);
    else
        put_row(to, row, chain, LANES, 0);
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

/* Row `row`, from the first column that a tile of TILE sums meets, times taps [low, high) of a row of the kernel. */
INLINE void add_row(vec *sum, const vec *row, const vec *taps, int dilation, int low, int high) {
    for (int k = low; k < high; k++) {
        const vec weight = taps[k], *from = row + (long)k * dilation;
#pragma GCC unroll 8
        for (int j = 0; j < TILE; j++) sum[j] += weight * from[j];
    }
}

/* The same for all taps, with every column read once; kernel and dilation are constants. */
INLINE void add_whole_row(vec *sum, const vec *row, const vec *taps, int kernel, int dilation) {
    vec weight[7];
#pragma GCC unroll 7
    for (int k = 0; k < kernel; k++) weight[k] = taps[k];
#pragma GCC unroll 26
    for (int column = 0; column < TILE + (kernel - 1) * dilation; column++) {
        const vec value = held(row[column]);
#pragma GCC unroll 7
        for (int k = 0; k < kernel; k++) {
            const int j = column - k * dilation;
            if (j >= 0 && j < TILE) sum[j] += weight[k] * value;
        }
    }
}

/* TILE columns from x on, of output row y; the taps [low, high) of a row are those that meet the image. */
INLINE void tile(const struct plane *in, const struct conv *c, const vec *taps, vec bias, long pad, long y, long x,
                 int low, int high, vec *out) {
    const int whole = low == 0 && high == c->kernel ? 100 * c->kernel + c->dilation : 0;
    vec sum[TILE];
#pragma GCC unroll 8
    for (int j = 0; j < TILE; j++) sum[j] = bias;
    for (int i = 0; i < c->kernel; i++) {
        const long source = y + (long)i * c->dilation - pad;
        if (source < in->first || source >= in->end) continue;
        const vec *row = row_of(in, source) + x - pad, *weights = taps + i * c->kernel;
        if (whole == 301)
            add_whole_row(sum, row, weights, 3, 1);
        else if (whole == 501)
            add_whole_row(sum, row, weights, 5, 1);
        else if (whole == 703)
            add_whole_row(sum, row, weights, 7, 3);
        else
            add_row(sum, row, weights, c->dilation, low, high);
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

static vec load_or_zero(const real *p, long channel, long lanes) { return p ? load(p + channel, lanes) : splat(0); }

static vec load_bias(const struct conv *c, long channel, long lanes) { return load_or_zero(c->bias, channel, lanes); }

INLINE long strips_of(const struct chain *chain) { return (chain->channels + LANES - 1) / LANES; }

/* As many strips in a unit as the cache holds, while every thread finds units enough; sums never depend on it. */
static long strips_together(const struct chain *chain, long images, size_t vectors, int threads) {
    const long all = strips_of(chain), fitting = SWEEP_BYTES / (long)(vectors * sizeof(vec));
    return max_of(1, min_of(min_of(fitting, MAX_STRIPS), images * all / (2 * threads)));
}

/* --- forward */

/* Rows [first[i], end[i]) of the input of convolution i, and of the last one's output, that rows [from, to) of the
 * output need. */
static void needed(const struct chain *chain, long from, long to, long *first, long *end) {
    first[chain->convs] = from;
    end[chain->convs] = to;
    for (int i = chain->convs - 1; i >= 0; i--) {
        first[i] = from = max_of(0, from - before(&chain->conv[i]));
        end[i] = to = min_of(chain->height, to + after(&chain->conv[i]));
    }
}

struct strip {
    long channel, lanes;
    vec shift;
    struct plane in[MAX_CONVS]; /* what each convolution reads */
    vec *taps[MAX_CONVS], bias[MAX_CONVS];
};

static size_t strip_vectors(const struct chain *chain) {
    size_t size = 0;
    for (int i = 0; i < chain->convs; i++) {
        const struct conv *c = &chain->conv[i];
        size += plane_vectors(chain, c, window(chain->height, span(c) + 1)) + (size_t)c->kernel * (size_t)c->kernel;
    }
    return size;
}

static struct strip take_strip(vec **memory, const struct chain *chain, long number, const long *first, const long *end) {
    const long channel = number * LANES;
    struct strip s = {.channel = channel, .lanes = min_of(LANES, chain->channels - channel)};
    s.shift = load_or_zero(chain->shift, channel, s.lanes);
    for (int i = 0; i < chain->convs; i++) {
        const struct conv *c = &chain->conv[i];
        s.in[i] = take_window(memory, chain, c, first[i], end[i], span(c) + 1);
        s.taps[i] = *memory;
        *memory += c->kernel * c->kernel;
        s.bias[i] = load_bias(c, channel, s.lanes);
        load_taps(s.taps[i], c, channel, s.lanes, 0);
    }
    return s;
}

/* What row y of the input makes possible: a row of every convolution. */
static void advance(const struct chain *chain, const struct strip *s, long image, long y, const long *first,
                    const long *end, vec *line) {
    const long width = chain->width, start = image * chain->height * width * chain->channels + s->channel;
    if (y < end[0]) load_row(&s->in[0], y, chain->x + start, s->shift, chain, s->lanes);
    for (int i = 0; i < chain->convs; i++) {
        const struct conv *c = &chain->conv[i];
        const int last = i + 1 == chain->convs;
        y -= after(c);
        if (y < first[i + 1] || y >= end[i + 1]) continue;
        convolve_row(&s->in[i], c, s->taps[i], s->bias[i], before(c), y, width, last ? line : row_of(&s->in[i + 1], y));
        if (last)
            store_row(chain->y + start + y * width * chain->channels, line, chain, s->lanes, chain->gelu);
        else
            clear_tile(&s->in[i + 1], y, width);
    }
}

static int forward_unit(const void *opaque, long index) {
    const struct chain *chain = opaque;
    const long sets = (strips_of(chain) + chain->strips - 1) / chain->strips, set = index % sets;
    const long band = index / sets % chain->bands, image = index / sets / chain->bands;
    const long number = set * chain->strips, count = min_of(chain->strips, strips_of(chain) - number);
    long first[MAX_CONVS + 1], end[MAX_CONVS + 1], lag = 0;
    needed(chain, band * chain->height / chain->bands, (band + 1) * chain->height / chain->bands, first, end);
    struct strip strip[MAX_STRIPS];
    vec *memory = scratch_of((size_t)tiles(chain->width) + (size_t)count * strip_vectors(chain)), *line = memory;
    if (!memory) return 1;
    memory += tiles(chain->width);
    for (long i = 0; i < count; i++) strip[i] = take_strip(&memory, chain, number + i, first, end);
    for (int i = 0; i < chain->convs; i++) lag += after(&chain->conv[i]);
    for (long y = first[0]; y < end[chain->convs] + lag; y++)
        for (long i = 0; i < count; i++) advance(chain, &strip[i], image, y, first, end, line);
    return 0;
}

/* Few images and channels are divided by rows too, so that no thread is idle, unless y takes the place of x. */
static int run_chain(struct chain *chain, int threads) {
    const long units = chain->batch * strips_of(chain), idle = (threads + units - 1) / units;
    chain->bands = chain->x == chain->y ? 1 : max_of(1, min_of(idle, chain->height / 8));
    chain->strips = strips_together(chain, chain->batch * chain->bands, strip_vectors(chain), threads);
    const long sets = (strips_of(chain) + chain->strips - 1) / chain->strips;
    return share_out(forward_unit, chain, chain->batch * chain->bands * sets, threads);
}

#endif
