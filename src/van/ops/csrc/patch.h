/* The strided convolution of a patch embedding: the pixels under the kernel gathered into rows, then a matrix product. */
#ifndef VAN_PATCH_H
#define VAN_PATCH_H

#include "block.h"

enum { PATCH_TILES = 112 / MATRIX_ROWS }; /* at most, of a unit */

struct patch {
    const real *x; /* (N, height, width, inputs) */
    real *y;       /* (N, out_height, out_width, outputs) */
    struct product product;
    long batch, height, width, inputs, outputs, kernel, stride, pad, out_height, out_width;
    long depth, tiles, chunks, splits; /* depth: inputs of a row of the kernel; the others as of struct block */
    int terms; /* see struct rows */
};

/* What row i of the kernel sees at output pixel `pixel`, (kernel, inputs), zeros outside the map. */
static void gather(const struct patch *p, long pixel, long i, real *to) {
    const long x = pixel % p->out_width * p->stride - p->pad, y = pixel / p->out_width % p->out_height * p->stride - p->pad + i;
    const long image = pixel / p->out_width / p->out_height;
    if (y < 0 || y >= p->height) {
        memset(to, 0, (size_t)p->depth * sizeof(real));
        return;
    }
    const long low = min_of(p->kernel, max_of(0, -x)), high = max_of(low, min_of(p->kernel, p->width - x));
    const real *from = p->x + ((image * p->height + y) * p->width + x + low) * p->inputs;
    memset(to, 0, (size_t)(low * p->inputs) * sizeof(real));
    memcpy(to + low * p->inputs, from, (size_t)((high - low) * p->inputs) * sizeof(real));
    memset(to + high * p->inputs, 0, (size_t)((p->kernel - high) * p->inputs) * sizeof(real));
}

INLINE void patch_tile(const struct patch *p, long i, long panel, real *y, const struct rows *a, long row, int rows) {
    const long column = panel * PANEL;
    const real *weights = p->product.panels + (i * panels_of(p->outputs) + panel) * panel_size(p->depth);
    multiply_onto(a, row, weights, rows, y + row * p->outputs + column, p->outputs, p->outputs - column);
}

/* A row of the kernel at a time, so that what it sees stays in the cache. */
static int patch_unit(const void *opaque, long index) {
    const struct patch *p = opaque;
    const long chunk = index / p->splits, split = index % p->splits, panels = panels_of(p->outputs);
    const long from = chunk * p->tiles / p->chunks * MATRIX_ROWS;
    const long to = min_of((chunk + 1) * p->tiles / p->chunks * MATRIX_ROWS, p->batch * p->out_height * p->out_width);
    const long count = to - from;
    const long first = split * panels / p->splits, end = (split + 1) * panels / p->splits;
    const long left = first * PANEL, right = min_of(end * PANEL, p->outputs);
    const size_t gathered = (size_t)(count * p->depth / LANES + 1);
    vec *memory = scratch_of(gathered + read_vectors(count, p->depth));
    if (!memory) return 1;
    real *y = p->y + from * p->outputs;
    for (long row = 0; row < count; row++)
        memcpy(y + row * p->outputs + left, p->product.bias + left, (size_t)(right - left) * sizeof(real));
    for (long i = 0; i < p->kernel; i++) {
        for (long row = 0; row < count; row++) gather(p, from + row, i, (real *)memory + row * p->depth);
        const struct rows a = read_rows(memory + gathered, (real *)memory, count, p->depth, count, 0, p->terms);
        for (long panel = first; panel < end; panel++) BY_TILES(patch_tile, count, p, i, panel, y, &a);
    }
    return 0;
}

static int run_patch(struct patch *p, int threads) {
    const long pixels = p->batch * p->out_height * p->out_width;
    p->depth = p->kernel * p->inputs;
    p->tiles = (pixels + MATRIX_ROWS - 1) / MATRIX_ROWS;
    p->chunks = chunks_of(pixels, PATCH_TILES, threads);
    p->splits = p->chunks < threads ? min_of(panels_of(p->outputs), threads) : 1;
    return share_out(patch_unit, p, p->chunks * p->splits, threads);
}

#endif
