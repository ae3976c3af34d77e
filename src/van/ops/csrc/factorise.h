/* Non-negative matrix factorisation by multiplicative updates: pixels (N, P, D) ≈ coefficients (N, P, R) · basesᵀ (N, R, D).
 *
 *   coefficients *= pixels·bases / (coefficients·(basesᵀ·bases) + epsilon)
 *   bases *= pixelsᵀ·coefficients / (bases·(coefficientsᵀ·coefficients) + epsilon)
 *
 * A step is one pass over the pixels: while a few of them are in the cache, their coefficients are updated and what they give to
 * both sums of the second line is added up. The bases follow when all pixels are done. A row of either factor takes whole panels,
 * `wide` reals; those after the rank are never inputs, and may be anything.
 */
#ifndef VAN_FACTORISE_H
#define VAN_FACTORISE_H

#include "feed.h"
#include "norm.h"

/* Tiles of pixels that stay in the cache with what they are multiplied by; pixels of a group, and groups at most. */
enum { FACTOR_TILES = 112 / SUM_ROWS, GROUP_PIXELS = 256, MOST_GROUPS = 64 };

struct factorise {
    const real *x;              /* (N, P, D) */
    real *bases, *coefficients; /* (N, D, wide), (N, P, wide) */
    real *panels;               /* (N, wide / PANEL, D, PANEL): the bases as products with pixels read them */
    real *gram;                 /* (N, R, wide): basesᵀ·bases */
    real *partial, *sums;       /* (groups, N, D + R, wide) and (N, D + R, wide): pixelsᵀ and coefficientsᵀ times coefficients */
    long batch, pixels, channels, rank, wide, groups;
    real epsilon;
    int first, last; /* of the passes */
};

/* The groups decide the order of summation, so they follow from the shape alone. */
static long factor_groups(long pixels) { return max_of(1, min_of(MOST_GROUPS, pixels / GROUP_PIXELS)); }

/* Reals of a group's sums. */
INLINE long factor_sums(const struct factorise *f) { return (f->channels + f->rank) * f->wide; }

/* factor (rows, wide) = factor * products / (factor·gram + epsilon); memory for as much. */
static void update_factor(const struct factorise *f, real *factor, const real *products, const real *gram, long rows,
                          real *memory) {
    const struct panels weights = {gram, f->wide, PANEL, f->wide / PANEL};
    sum_products((struct inputs){factor, f->wide, 1}, rows, weights, f->rank, 0, memory, f->wide);
    for (long i = 0; i < rows * f->wide; i += LANES) {
        const vec value = load(factor + i, LANES) * load(products + i, LANES);
        store(factor + i, value / (load(memory + i, LANES) + f->epsilon), LANES);
    }
}

/* e^y for y <= 0, and 0 where that is hardly a number any more. */
INLINE vec decay(vec y) {
#ifdef VAN_DOUBLE
    for (int i = 0; i < LANES; i++) y[i] = exp(y[i]);
    return y;
#else
    return choose(y < -87, splat(0), exp_of(y));
#endif
}

/* The softmax of each of some rows. */
static void softmax_rows(const struct factorise *f, const real *products, long rows, real *to) {
    for (long row = 0; row < rows; row++, products += f->wide, to += f->wide) {
        real largest = products[0];
        vec sums = {0};
        for (long r = 1; r < f->rank; r++) largest = products[r] > largest ? products[r] : largest;
        for (long r = 0; r < f->rank; r += LANES) {
            vec e = decay(load(products + r, LANES) - largest);
            for (long i = f->rank - r; i < LANES; i++) e[i] = 0;
            sums += e;
            store(to + r, e, LANES);
        }
        const real sum = lanes_sum(sums);
        for (long r = 0; r < f->rank; r += LANES) store(to + r, load(to + r, LANES) / sum, LANES);
    }
}

/* Some pixels of an image: their coefficients, which are a softmax before the first update, and what they add to the sums. */
static void coefficients_of(const struct factorise *f, long image, long from, long rows, int onto, real *sums, real *memory) {
    const long depth = f->channels, wide = f->wide;
    const real *x = f->x + (image * f->pixels + from) * depth, *gram = f->gram + image * f->rank * wide;
    real *coefficients = f->coefficients + (image * f->pixels + from) * wide, *products = memory, *more = memory + rows * wide;
    const struct panels bases = {f->panels + image * depth * wide, PANEL, depth * PANEL, wide / PANEL};
    sum_products((struct inputs){x, depth, 1}, rows, bases, depth, 0, products, wide);
    if (f->first) softmax_rows(f, products, rows, coefficients);
    update_factor(f, coefficients, products, gram, rows, more);
    if (f->last) return;
    const struct panels weights = {coefficients, wide, PANEL, wide / PANEL};
    sum_products((struct inputs){x, 1, depth}, depth, weights, rows, onto, sums, wide);
    sum_products((struct inputs){coefficients, 1, wide}, f->rank, weights, rows, onto, sums + depth * wide, wide);
}

/* A group of an image's pixels, a few tiles at a time. */
static int coefficients_unit(const void *opaque, long index) {
    const struct factorise *f = opaque;
    const long image = index / f->groups, group = index % f->groups, tiles = (f->pixels + SUM_ROWS - 1) / SUM_ROWS;
    const long start = group * tiles / f->groups, count = (group + 1) * tiles / f->groups - start;
    const long parts = (count + FACTOR_TILES - 1) / FACTOR_TILES;
    real *sums = f->partial + (group * f->batch + image) * factor_sums(f);
    vec *memory = scratch_of((size_t)(2 * FACTOR_TILES * SUM_ROWS * f->wide / LANES));
    if (!memory) return 1;
    for (long part = 0; part < parts; part++) {
        const long from = (start + part * count / parts) * SUM_ROWS;
        const long to = min_of((start + (part + 1) * count / parts) * SUM_ROWS, f->pixels);
        coefficients_of(f, image, from, to - from, part > 0, sums, (real *)memory);
    }
    return 0;
}

/* An image's bases, except before the first pass, and what the next one reads of them. */
static int bases_unit(const void *opaque, long image) {
    const struct factorise *f = opaque;
    const long depth = f->channels, wide = f->wide;
    real *bases = f->bases + image * depth * wide, *panels = f->panels + image * depth * wide;
    const real *sums = f->sums + image * factor_sums(f);
    vec *memory = scratch_of((size_t)(depth * wide / LANES));
    if (!memory) return 1;
    if (!f->first) update_factor(f, bases, sums, sums + depth * wide, depth, (real *)memory);
    const struct panels weights = {bases, wide, PANEL, wide / PANEL};
    sum_products((struct inputs){bases, 1, wide}, f->rank, weights, depth, 0, f->gram + image * f->rank * wide, wide);
    for (long column = 0; column < wide; column += PANEL)
        for (long channel = 0; channel < depth; channel++, panels += PANEL)
            memcpy(panels, bases + channel * wide + column, PANEL * sizeof(real));
    return 0;
}

/* `steps` updates of both factors, and a last one of the coefficients. */
static int run_factorise(struct factorise *f, long steps, int threads) {
    const long size = f->batch * factor_sums(f);
    f->first = 1;
    if (share_out(bases_unit, f, f->batch, threads)) return 1;
    for (long step = 0; step < steps; step++) {
        if (share_out(coefficients_unit, f, f->batch * f->groups, threads)) return 1;
        f->first = 0;
        if (add_groups(f->partial, f->sums, size, f->groups, threads) || share_out(bases_unit, f, f->batch, threads)) return 1;
    }
    f->last = 1;
    return share_out(coefficients_unit, f, f->batch * f->groups, threads);
}

#endif
