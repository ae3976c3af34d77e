/* LayerNorm over the channels of each pixel, in place. */
#ifndef VAN_NORM_H
#define VAN_NORM_H

#include "vector.h"

enum { NORM_PIXELS = 64 }; /* of a unit */

struct norm {
    real *map;                 /* (pixels, channels) */
    const real *weight, *bias; /* (channels) each */
    double epsilon;
    long pixels, channels;
};

INLINE real lanes_sum(vec values) {
    real part[LANES];
    memcpy(part, &values, sizeof part);
    for (int n = LANES / 2; n; n /= 2)
        for (int i = 0; i < n; i++) part[i] += part[i + n];
    return part[0];
}

static void norm_pixel(const struct norm *n, real *x) {
    const long whole = n->channels / LANES * LANES;
    vec sums = {0}, squares = {0};
    for (long c = 0; c < whole; c += LANES) sums += load(x + c, LANES);
    real sum = lanes_sum(sums), square = 0;
    for (long c = whole; c < n->channels; c++) sum += x[c];
    const real mean = sum / (real)n->channels;
    for (long c = 0; c < whole; c += LANES) {
        const vec away = load(x + c, LANES) - mean;
        squares += away * away;
    }
    square = lanes_sum(squares);
    for (long c = whole; c < n->channels; c++) square += (x[c] - mean) * (x[c] - mean);
    const real scale = (real)(1 / sqrt((double)square / (double)n->channels + n->epsilon));
    for (long c = 0; c < n->channels; c += LANES) {
        const long lanes = min_of(LANES, n->channels - c);
        store(x + c, (load(x + c, lanes) - mean) * scale * load(n->weight + c, lanes) + load(n->bias + c, lanes), lanes);
    }
}

static int norm_unit(const void *opaque, long index) {
    const struct norm *n = opaque;
    const long end = min_of((index + 1) * NORM_PIXELS, n->pixels);
    for (long pixel = index * NORM_PIXELS; pixel < end; pixel++) norm_pixel(n, n->map + pixel * n->channels);
    return 0;
}

static int run_norm(const struct norm *n, int threads) {
    return share_out(norm_unit, n, (n->pixels + NORM_PIXELS - 1) / NORM_PIXELS, threads);
}

#endif
