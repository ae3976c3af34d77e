/* Gradients of a chain of depthwise convolutions: one sweep down the rows, like the forward one (depthwise.h).
 *
 * While a row of x comes in, the maps between the convolutions are computed again, the result's gradient is met where
 * they reach it and taken back through GELU and every convolution, whose weights' gradients are summed on the way.
 */
#ifndef VAN_GRADIENTS_H
#define VAN_GRADIENTS_H

#include "depthwise.h"

/* What a strip needs besides the forward's: per convolution the gradient of its output, turned taps, sums. */
struct back_strip {
    long channel, lanes;
    vec shift, shift_grad;
    struct plane in[MAX_CONVS], grad[MAX_CONVS];
    vec *taps[MAX_CONVS], *turned[MAX_CONVS], bias[MAX_CONVS];
    vec *tap_grads[MAX_CONVS], bias_grads[MAX_CONVS];
};

/* Rows of the input of convolution i that its weights' gradient still needs when the newest one comes. */
static long rows_kept(const struct chain *chain, int i) {
    long rows = 1;
    for (; i < chain->convs; i++) rows += span(&chain->conv[i]);
    return rows;
}

static size_t back_strip_vectors(const struct chain *chain) {
    size_t size = 0;
    for (int i = 0; i < chain->convs; i++) {
        const struct conv *c = &chain->conv[i];
        const long rows = window(chain->height, rows_kept(chain, i)) + window(chain->height, span(c) + 1);
        size += plane_vectors(chain, c, rows) + 3 * (size_t)c->kernel * (size_t)c->kernel;
    }
    return size;
}

static struct back_strip take_back_strip(vec **memory, const struct chain *chain, long number) {
    const long channel = number * LANES, height = chain->height;
    struct back_strip s = {.channel = channel, .lanes = min_of(LANES, chain->channels - channel)};
    s.shift = load_or_zero(chain->shift, channel, s.lanes);
    for (int i = 0; i < chain->convs; i++) {
        const struct conv *c = &chain->conv[i];
        const long taps = (long)c->kernel * c->kernel;
        s.in[i] = take_window(memory, chain, c, 0, height, rows_kept(chain, i));
        s.grad[i] = take_window(memory, chain, c, 0, height, span(c) + 1);
        s.taps[i] = *memory;
        s.turned[i] = s.taps[i] + taps;
        s.tap_grads[i] = s.turned[i] + taps;
        *memory = s.tap_grads[i] + taps;
        s.bias[i] = load_bias(c, channel, s.lanes);
        load_taps(s.taps[i], c, channel, s.lanes, 0);
        load_taps(s.turned[i], c, channel, s.lanes, 1);
        memset(s.tap_grads[i], 0, (size_t)taps * sizeof(vec));
        s.bias_grads[i] = splat(0);
    }
    return s;
}

/* sum[k] += sum over x of grad[x]·in[x + k·dilation], for `count` neighbouring taps. Few sums are kept for even and odd
 * columns apart, so that none waits for the one before; the column after an odd width's last is 0 in grad. */
INLINE void correlate(const vec *grad, const vec *in, long width, long dilation, int count, vec *sum) {
    const int ways = count < 5 ? 2 : 1;
    vec part[2][7];
    for (int w = 0; w < ways; w++)
#pragma GCC unroll 7
        for (int k = 0; k < count; k++) part[w][k] = splat(0);
    for (long x = 0; x < width; x += ways)
#pragma GCC unroll 2
        for (int w = 0; w < ways; w++)
#pragma GCC unroll 7
            for (int k = 0; k < count; k++) part[w][k] += grad[x + w] * in[x + w + k * dilation];
#pragma GCC unroll 7
    for (int k = 0; k < count; k++) sum[k] += ways == 2 ? part[0][k] + part[1][k] : part[0][k];
}

INLINE vec sum_of(const vec *row, long width) {
    vec sum = splat(0);
    for (long x = 0; x < width; x++) sum += row[x];
    return sum;
}

/* Adds what row y gives to the gradients of the taps and of the bias; row by row, so that rounding stays small. */
static void weight_gradient(const struct plane *grad, const struct plane *in, const struct conv *c, long y, long width,
                            vec *taps, vec *bias) {
    const long d = c->dilation, pad = before(c);
    const int kernel = c->kernel;
    const vec *g = row_of(grad, y);
    *bias += sum_of(g, width);
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

/* Row y of the last convolution's gradient: the result's, times GELU'(what the convolution gave); start: the strip's
 * place in the maps. */
static void meet(const struct chain *chain, const struct back_strip *s, long start, long y, vec *line) {
    const int last = chain->convs - 1;
    const struct conv *c = &chain->conv[last];
    vec *g = row_of(&s->grad[last], y);
    load_row(&s->grad[last], y, chain->grad_y + start, splat(0), chain, s->lanes);
    if (!chain->gelu) return;
    convolve_row(&s->in[last], c, s->taps[last], s->bias[last], before(c), y, chain->width, line);
    for (long x = 0; x < chain->width; x++) g[x] *= gelu_slope(line[x], &line[x]);
    if (chain->y) store_row(chain->y + start + y * chain->width * chain->channels, line, chain, s->lanes, 0);
}

/* What row y of the input makes possible. */
static void retreat(const struct chain *chain, struct back_strip *s, long image, long y, vec *line) {
    const long width = chain->width, height = chain->height, row = width * chain->channels;
    const long start = image * height * row + s->channel;
    const int last = chain->convs - 1;
    if (y < height) load_row(&s->in[0], y, chain->x + start, s->shift, chain, s->lanes);
    for (int i = 0; i < last; i++) {
        const struct conv *c = &chain->conv[i];
        y -= after(c);
        if (y < 0 || y >= height) continue;
        convolve_row(&s->in[i], c, s->taps[i], s->bias[i], before(c), y, width, row_of(&s->in[i + 1], y));
        clear_tile(&s->in[i + 1], y, width);
    }
    y -= after(&chain->conv[last]);
    if (y >= 0 && y < height) meet(chain, s, start, y, line);
    for (int i = last; i >= 0; i--) {
        const struct conv *c = &chain->conv[i];
        if (y >= 0 && y < height)
            weight_gradient(&s->grad[i], &s->in[i], c, y, width, s->tap_grads[i], &s->bias_grads[i]);
        y -= before(c);
        if (y < 0 || y >= height || (i == 0 && !chain->grad_x)) continue;
        convolve_row(&s->grad[i], c, s->turned[i], splat(0), after(c), y, width, i ? row_of(&s->grad[i - 1], y) : line);
        if (i) {
            clear_tile(&s->grad[i - 1], y, width);
        } else {
            store_row(chain->grad_x + start + y * row, line, chain, s->lanes, 0);
            s->shift_grad += sum_of(line, width);
        }
    }
}

/* The sums over a group of images. */
static void put_sums(const struct chain *chain, const struct back_strip *s, long group) {
    const long padded = strips_of(chain) * LANES, at = group * padded + s->channel;
    for (int i = 0; i < chain->convs; i++) {
        const long taps = (long)chain->conv[i].kernel * chain->conv[i].kernel;
        for (long t = 0; t < taps; t++)
            store(chain->grad_weight[i] + (group * taps + t) * padded + s->channel, s->tap_grads[i][t], LANES);
        store(chain->grad_bias[i] + at, s->bias_grads[i], LANES);
    }
    if (chain->grad_shift) store(chain->grad_shift + at, s->shift_grad, LANES);
}

/* A group of images and some strips; groups do not depend on the number of threads, so neither do the sums. */
static int backward_unit(const void *opaque, long index) {
    const struct chain *chain = opaque;
    const long strips = strips_of(chain), sets = (strips + chain->strips - 1) / chain->strips;
    const long group = index / sets, first = index % sets * chain->strips, count = min_of(chain->strips, strips - first);
    const long from = group * chain->batch / chain->groups, to = (group + 1) * chain->batch / chain->groups;
    const long steps = chain->height + rows_kept(chain, 0) - 1;
    struct back_strip strip[MAX_STRIPS];
    vec *memory = scratch_of((size_t)tiles(chain->width) + (size_t)count * back_strip_vectors(chain)), *line = memory;
    if (!memory) return 1;
    memory += tiles(chain->width);
    for (long i = 0; i < count; i++) strip[i] = take_back_strip(&memory, chain, first + i);
    for (long image = from; image < to; image++)
        for (long y = 0; y < steps; y++)
            for (long i = 0; i < count; i++) retreat(chain, &strip[i], image, y, line);
    for (long j = 0; j < count; j++) put_sums(chain, &strip[j], group);
    return 0;
}

static int run_backward(struct chain *chain, int threads) {
    chain->strips = strips_together(chain, chain->groups, back_strip_vectors(chain), threads);
    const long sets = (strips_of(chain) + chain->strips - 1) / chain->strips;
    return share_out(backward_unit, chain, chain->groups * sets, threads);
}

#endif
