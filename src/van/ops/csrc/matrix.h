/* Matrix products: rows of pixels times panels of weights, results of a tile at a time.
 *
 * Two ways behind the same names, chosen by the compiler's flags: on AMX (matrix_tiles.h), else on vector registers
 * (matrix_registers.h). Sums are float32 in both. Maps are float32 too; with VAN_BFLOAT16 what is multiplied is rounded to
 * bfloat16 first.
 */
#ifndef VAN_MATRIX_H
#define VAN_MATRIX_H

#include "vector.h"

enum { PANEL = 2 * LANES };

struct product { const real *panels, *bias; };

/* Sums of a tile: [row][half of the panel]. */
typedef vec tile_sum[MATRIX_ROWS][2];
/* Where both halves of a tile's first row lie, and how many reals the rows are apart; 0: they are all the same. */
struct place { real *left, *right; long stride; };

INLINE struct place same(const real *row) { return (struct place){(real *)row, (real *)row + LANES, 0}; }
INLINE struct place rows_at(real *first, long stride) { return (struct place){first, first + LANES, stride}; }

INLINE long lanes_at(long channels, long column) { return max_of(0, min_of(LANES, channels - column)); }
INLINE long panels_of(long channels) { return (channels + PANEL - 1) / PANEL; }

#ifdef VAN_TILES
#include "matrix_tiles.h"
#else
#include "matrix_registers.h"
#endif

/* done = row m of `rows` · panel + bias. */
INLINE void linear(const struct rows *a, long row, const struct product *p, long panel, long depth, int rows, tile_sum done) {
    multiply(a, row, p->panels + panel * panel_size(depth), rows, same(p->bias + panel * PANEL), rows_at((real *)done, PANEL));
}

/* Row m of `to`, `stride` apart and `lanes` long, += row m of `a` · panel. Sums begin with what is there either way, so
 * that a row's do not depend on the tile it is in. */
INLINE void multiply_onto(const struct rows *a, long row, const real *panel, int rows, real *to, long stride, long lanes) {
    if (lanes >= PANEL && rows % SIDE == 0) {
        multiply(a, row, panel, rows, rows_at(to, stride), rows_at(to, stride));
        return;
    }
    tile_sum sum;
    const struct place here = rows_at((real *)sum, PANEL);
    const long left = min_of(LANES, lanes), right = max_of(0, min_of(LANES, lanes - LANES));
    for (int m = 0; m < rows; m++) {
        sum[m][0] = load(to + m * stride, left);
        sum[m][1] = load(to + m * stride + LANES, right);
    }
    multiply(a, row, panel, rows, here, here);
    for (int m = 0; m < rows; m++) {
        store(to + m * stride, sum[m][0], left);
        store(to + m * stride + LANES, sum[m][1], right);
    }
}

/* --- sums of whole reals on vector registers, in every build: of gradients of weights, of factors */

#ifdef VAN_TILES
enum { SUM_ROWS = 14 };
#else
enum { SUM_ROWS = MATRIX_ROWS };
#endif

/* Element (m, k) at data[m·across + k·along]. */
struct inputs { const real *data; long across, along; };
/* `count` panels, `apart` from each other, whose rows are `pitch` apart. */
struct panels { const real *data; long pitch, apart, count; };

/* Row m of `to`, `wide` apart, = or += the sum over k of a(m, k) · row k of a panel; `rows` is a constant, so that the sums
 * stay in registers. */
INLINE void sum_tile(struct inputs a, const real *panel, long pitch, long depth, int onto, real *to, long wide, int rows) {
    vec sum[SUM_ROWS][2];
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) sum[m][v] = onto ? load(to + m * wide + v * LANES, LANES) : splat(0);
    for (long k = 0; k < depth; k++, a.data += a.along, panel += pitch) {
        const vec one = load(panel, LANES), two = load(panel + LANES, LANES);
#pragma GCC unroll 14
        for (int m = 0; m < rows; m++) {
            sum[m][0] += a.data[m * a.across] * one;
            sum[m][1] += a.data[m * a.across] * two;
        }
    }
#pragma GCC unroll 14
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) store(to + m * wide + v * LANES, sum[m][v], LANES);
}

/* `to` (rows, panels), rows `wide` apart, = or += a · panels. */
static void sum_products(struct inputs a, long rows, struct panels panels, long depth, int onto, real *to, long wide) {
    long m = 0;
#define SUMS(tall)                                                                                                    \
    for (; m + (tall) <= rows; m += (tall), a.data += (tall) * a.across)                                              \
        for (long i = 0; i < panels.count; i++)                                                                       \
            sum_tile(a, panels.data + i * panels.apart, panels.pitch, depth, onto, to + m * wide + i * PANEL, wide, tall);
    SUMS(SUM_ROWS)
    SUMS(SUM_ROWS > 8 ? 8 : 4)
    SUMS(4)
    SUMS(1)
#undef SUMS
}

#endif
