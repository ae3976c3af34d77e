/* The strided convolution of a patch embedding: the pixels under the kernel gathered into rows, then a matrix product. */
#ifndef VAN_PATCH_H
#define VAN_PATCH_H

#include "block.h"

struct patch {
    const real *x; /* (N, height, width, inputs) */
    real *y;       /* (N, out_height, out_width, outputs) */
    struct product product;
    long batch, height, width, inputs, outputs, kernel, stride, pad, out_height, out_width;
    long depth, chunk, chunks, splits;
    int terms; /* see struct rows */
};

/* What the kernel sees at output pixel `pixel`, (kernel, kernel, inputs), zeros outside the map. */
static void gather(const struct patch *p, long pixel, real *to) {
    const long x = pixel % p->out_width * p->stride - p->pad, y = pixel / p->out_width % p->out_height * p->stride - p->pad;
    const long image = pixel / p->out_width / p->out_height, run = p->kernel * p->inputs;
    const long low = min_of(p->kernel, max_of(0, -x)), high = max_of(low, min_of(p->kernel, p->width - x));
    for (long i = 0; i < p->kernel; i++, to += run) {
        if (y + i < 0 || y + i >= p->height) {
            memset(to, 0, (size_t)run * sizeof(real));
            continue;
        }
        const real *from = p->x + ((image * p->height + y + i) * p->width + x + low) * p->inputs;
        memset(to, 0, (size_t)(low * p->inputs) * sizeof(real));
        memcpy(to + low * p->inputs, from, (size_t)((high - low) * p->inputs) * sizeof(real));
        memset(to + high * p->inputs, 0, (size_t)((p->kernel - high) * p->inputs) * sizeof(real));
    }
}

INLINE void patch_tile(const struct patch *p, long panel, long start, const struct rows *a, long row, int rows) {
    tile_sum sum;
    linear(a, row, &p->product, panel, p->depth, rows, sum);
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            const long column = panel * PANEL + v * LANES;
            store(p->y + (start + row + m) * p->outputs + column, sum[m][v], lanes_at(p->outputs, column));
        }
}

static int patch_unit(const void *opaque, long index) {
    const struct patch *p = opaque;
    const long chunk = index / p->splits, split = index % p->splits, panels = panels_of(p->outputs);
    const long from = chunk * p->chunk, to = min_of(from + p->chunk, p->batch * p->out_height * p->out_width);
    const size_t gathered = (size_t)((to - from) * p->depth / LANES + 1);
    vec *memory = scratch_of(gathered + read_vectors(to - from, p->depth));
    if (!memory) return 1;
    for (long pixel = from; pixel < to; pixel++) gather(p, pixel, (real *)memory + (pixel - from) * p->depth);
    const struct rows a = read_rows(memory + gathered, (real *)memory, p->depth, to - from, p->depth, p->terms);
    for (long panel = split * panels / p->splits; panel < (split + 1) * panels / p->splits; panel++)
        BY_TILES(patch_tile, to - from, p, panel, from, &a);
    return 0;
}

static int run_patch(struct patch *p, int threads) {
    p->depth = p->kernel * p->kernel * p->inputs;
    p->chunk = 64;
    p->chunks = (p->batch * p->out_height * p->out_width + p->chunk - 1) / p->chunk;
    p->splits = max_of(1, min_of(panels_of(p->outputs), 2 * threads / p->chunks));
    return share_out(patch_unit, p, p->chunks * p->splits, threads);
}

#endif
