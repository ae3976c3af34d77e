/* Runs the kernel over odd shapes on buffers of exactly the size they must have; for the sanitizers. */
#include "kernel.c"

#include <stdio.h>

static real *filled(size_t count, unsigned seed) {
    real *data = malloc((count ? count : 1) * sizeof(real));
    for (size_t i = 0; i < count; i++) data[i] = (real)((i * 2654435761u + seed * 97u) % 2001) / 1000 - 1;
    return data;
}

/* With VALUES: some of the results, a line each, as parts of the largest where that is more than 1, to compare processors by.
 * Weights are packed, so layouts do not matter. */
static void show(const real *data, size_t count) {
#ifdef VALUES
    double largest = 1;
    for (size_t i = 0; i < count; i++)
        if (fabs((double)data[i]) > largest) largest = fabs((double)data[i]);
    for (size_t i = 0; i < count; i += 1 + count / 50) printf("%.9g\n", (double)data[i] / largest);
#else
    (void)data, (void)count;
#endif
}

static long rounded(long value, long unit) { return (value + unit - 1) / unit * unit; }

static void depthwise(long n, long h, long w, long c, int k, int d, int k2, int d2, int gelu) {
    const long shape[] = {n, h, w, c}, options[] = {gelu, k2 ? 2 : 1, k, d, k2, d2}, groups = n < 2 ? 1 : 2;
    const size_t map = (size_t)(n * h * w * c);
    const int sides[] = {k, k2};
    real *x = filled(map, 1), *grad = filled(map, 2), *y = filled(map, 3), *parameters[4] = {0}, *gradients[5] = {filled(map, 4)};
    for (int i = 0; i < (k2 ? 2 : 1); i++) {
        const long taps = sides[i] * sides[i];
        parameters[2 * i] = filled((size_t)(c * taps), 5);
        if (c % 2) parameters[2 * i + 1] = filled((size_t)c, 6);
        gradients[1 + 2 * i] = filled((size_t)(groups * taps * rounded(c, LANES)), 7);
        gradients[2 + 2 * i] = filled((size_t)(groups * rounded(c, LANES)), 8);
    }
    for (int threads = 1; threads <= 16; threads *= 16) {
        if (van_depthwise(x, shape, options, (const real *const *)parameters, y, threads)) exit(3);
        if (van_depthwise_backward(x, grad, shape, options, (const real *const *)parameters, gradients, groups, threads)) exit(3);
    }
    show(y, map), show(gradients[0], map);
    free(x), free(grad), free(y);
    for (int i = 0; i < 4; i++) free(parameters[i]);
    for (int i = 0; i < 5; i++) free(gradients[i]);
}

static void hidden(long n, long h, long w, long c, int shifted, int threads) {
    const long shape[] = {n, h, w, c}, options[] = {1, 1, 3, 1}, groups = n < 2 ? 1 : 2, wide = rounded(c, LANES);
    const size_t map = (size_t)(n * h * w * c);
    real *x = filled(map, 1), *grad = filled(map, 2), *shift = shifted ? filled((size_t)c, 3) : NULL;
    real *parameters[2] = {filled((size_t)(9 * c), 4), filled((size_t)c, 5)};
    real *gradients[3] = {filled((size_t)(9 * groups * wide), 6), filled((size_t)(groups * wide), 7), filled((size_t)(groups * wide), 8)};
    if (van_hidden(x, shift, shape, options, (const real *const *)parameters, threads)) exit(3);
    if (van_hidden_backward(x, shift, shape, options, (const real *const *)parameters, grad, gradients, groups, threads)) exit(3);
    show(x, map), show(grad, map);
    free(x), free(grad), free(shift);
    for (int i = 0; i < 2; i++) free(parameters[i]);
    for (int i = 0; i < 3; i++) free(gradients[i]);
}

static void feed(long n, long h, long w, long c, long e, long k, long sets, long groups, long together, int threads) {
    const long shape[] = {n, h, w, c, e, k}, options[] = {3, 1, sets, groups, together}, wide = rounded(e, PANEL);
    const size_t maps[] = {(size_t)(n * h * w * c), (size_t)(n * h * w * k)};
    real *x = filled(maps[0], 1), *grad = filled(maps[1], 2), *y = filled(maps[1], 3), *grad_x = filled(maps[0], 3);
    real *parameters[6] = {filled((size_t)(e * c), 4), filled((size_t)e, 5), filled((size_t)(9 * e), 6), NULL, filled((size_t)(k * e), 7), filled((size_t)k, 8)};
    real *partial = filled((size_t)groups * (c > k ? maps[0] : maps[1]), 9), *gradients[4] = {grad_x};
    const long rows[] = {c, k, 11};
    for (int i = 0; i < 3; i++) gradients[1 + i] = calloc((size_t)(sets * rows[i] * wide), sizeof(real));
    for (int backward = 0; backward < 2; backward++) {
        real *panels = filled((size_t)van_feed_panels(shape, backward), 10);
        if (backward ? van_feed_backward(x, grad, shape, options, (const real *const *)parameters, panels, partial, gradients, 3, threads)
                     : van_feed(x, c % 2 && c == k ? grad : NULL, shape, options, (const real *const *)parameters, panels, partial, y, 3, threads)) exit(3);
        free(panels);
    }
    show(y, maps[1]), show(grad_x, maps[0]), show(gradients[2], (size_t)k);
    free(x), free(grad), free(y), free(partial);
    for (int i = 0; i < 6; i++) free(parameters[i]);
    for (int i = 0; i < 4; i++) free(gradients[i]);
}

static void attention(long n, long h, long w, long c, long sets, int threads) {
    const long shape[] = {n, h, w, c}, options[] = {5, 1, 7, 3, sets}, wide = rounded(c, PANEL), groups = n < 2 ? 1 : 2;
    const size_t map = (size_t)(n * h * w * c);
    const long sizes[11] = {c * c, c, 25 * c, c, 49 * c, c, c * c, c, c * c, c, c};
    real *x = filled(map, 1), *grad = filled(map, 2), *y = filled(map, 3), *parameters[11], *maps[4], *gradients[11];
    for (int i = 0; i < 11; i++) parameters[i] = c % 3 == 0 && i % 2 && i < 10 ? NULL : filled((size_t)sizes[i], 4 + (unsigned)i);
    for (int i = 0; i < 4; i++) maps[i] = filled(map, 5);
    const long sums[] = {sets * c * wide, sets * c * wide, sets * c * wide, sets * 4 * wide, groups * 25 * rounded(c, LANES), groups * rounded(c, LANES), groups * 49 * rounded(c, LANES), groups * rounded(c, LANES)};
    for (int i = 0; i < 3; i++) gradients[i] = filled(map, 6);
    for (int i = 0; i < 8; i++) gradients[3 + i] = calloc((size_t)sums[i], sizeof(real));
    real *panels = filled((size_t)van_attention_panels(c), 7);
    const real *const *given = (const real *const *)parameters;
    if (van_attention(x, c % 2 ? grad : NULL, shape, options, given, maps, panels, y, 3, threads)) exit(3);
    if (van_attention_backward(x, grad, shape, options, given, maps, panels, gradients, groups, 3, threads)) exit(3);
    show(y, map), show(gradients[0], map), show(gradients[5], (size_t)c);
    free(x), free(grad), free(y), free(panels);
    for (int i = 0; i < 11; i++) free(parameters[i]), free(gradients[i]);
    for (int i = 0; i < 4; i++) free(maps[i]);
}

static void factors(long n, long pixels, long depth, long rank, int threads) {
    const long wide = rounded(rank, PANEL), shape[] = {n, pixels, depth, rank, wide};
    real *x = filled((size_t)(n * pixels * depth), 1), *bases = filled((size_t)(n * depth * wide), 2);
    real *coefficients = filled((size_t)(n * pixels * wide), 3), *memory = filled((size_t)van_factorise_memory(shape), 4);
    for (long i = 0; i < n * pixels * depth; i++) x[i] = x[i] < 0 ? 0 : x[i];
    for (long i = 0; i < n * depth * wide; i++) bases[i] = bases[i] < 0 ? -bases[i] : bases[i];
    if (van_factorise(x, shape, 3, 1e-6, bases, coefficients, memory, threads)) exit(3);
    for (long i = 0; i < n * depth; i += 5) show(bases + i * wide, (size_t)rank);
    for (long i = 0; i < n * pixels; i += 50) show(coefficients + i * wide, (size_t)rank);
    free(x), free(bases), free(coefficients), free(memory);
}

#ifndef VAN_DOUBLE
static void blocks(long n, long h, long w, long c, long e, int terms, int threads) {
    const long shape[] = {n, h, w, c, e}, options[] = {5, 1, 7, 3, 3, 1}, wide = rounded(c, PANEL), full = rounded(e, PANEL);
    const long parts[17] = {van_packed_size(c, c), wide, van_packed_size(c, c), wide, van_packed_size(c, c), wide,
                            van_packed_size(e, c), full, van_packed_size(c, full), wide, c * 25, c, c * 49, c, e * 9, e, c};
    const size_t map = (size_t)(n * h * w * c);
    long size = 0;
    for (int i = 0; i < 17; i++) size += rounded(parts[i], LANES);
    real *weights = filled((size_t)(2 * size), 1), *x = filled(map, 4), *y = filled(map, 3);
    const long matrices[5][2] = {{c, c}, {c, c}, {c, c}, {e, c}, {c, e}};
    for (int block = 0; block < 2; block++) {
        real *next = weights + block * size;
        for (int i = 0; i < 17; next += rounded(parts[i++], LANES)) {
            if (i > 8 || i % 2) continue;
            const long outputs = matrices[i / 2][0], inputs = matrices[i / 2][1], given = i == 8 ? full : inputs;
            real *matrix = filled((size_t)(outputs * inputs), 6 + (unsigned)i), *wide_matrix = calloc((size_t)(outputs * given), sizeof(real));
            for (long o = 0; o < outputs; o++)
                for (long k = 0; k < inputs; k++) wide_matrix[o * given + k] = matrix[o * inputs + k] / 10;
            van_pack(wide_matrix, outputs, given, given, 1, next);
            free(matrix), free(wide_matrix);
        }
    }
    real *scratch = filled(map * (size_t)(2 + van_block_groups(h * w, e)), 5);
    if (van_blocks(x, shape, options, weights, 2, size, scratch, y, terms, threads)) exit(3);
    show(y, map);
    free(weights), free(scratch), free(x), free(y);
}

static void patch(long n, long h, long w, long c, long outputs, long k, long stride, int terms, int threads) {
    const long pad = k / 2, high = (h + 2 * pad - k) / stride + 1, wide = (w + 2 * pad - k) / stride + 1;
    const long shape[] = {n, h, w, c}, options[] = {outputs, k, stride, pad, high, wide}, full = rounded(outputs, PANEL);
    real *x = filled((size_t)(n * h * w * c), 1), *y = filled((size_t)(n * high * wide * outputs), 2);
    const long row = van_packed_size(outputs, k * c);
    real *panels = filled((size_t)(k * row), 3), *weight = filled((size_t)(outputs * k * k * c), 5), *bias = filled((size_t)full, 4);
    for (long i = 0; i < k; i++) van_pack(weight + i * k * c, outputs, k * c, k * k * c, 1, panels + i * row);
    if (van_patch(x, shape, options, panels, bias, y, terms, threads)) exit(3);
    show(y, (size_t)(n * high * wide * outputs));
    free(x), free(y), free(panels), free(weight), free(bias);
}

#endif

/* As GOMP_parallel, one after the other. */
static void in_turn(void (*function)(void *), void *argument, unsigned threads, unsigned flags) {
    (void)flags;
    for (unsigned i = 0; i < threads; i++) function(argument);
}

int main(void) {
    if (van_ready()) return 4;
    van_use_threads_of(in_turn);
    const long sides[][2] = {{1, 1}, {1, 9}, {7, 1}, {7, 7}, {14, 13}, {33, 20}};
    for (int s = 0; s < 6; s++)
        for (long c = 1; c <= 35; c += s < 3 ? 1 : 17) {
            const long h = sides[s][0], w = sides[s][1], n = 1 + c % 3;
            depthwise(n, h, w, c, 5, 1, 7, 3, 0);
            depthwise(n, h, w, c, 3, 1, 0, 0, 1);
            depthwise(n, h, w, c, 4, 2, 0, 0, 0);
            depthwise(n, h, w, c, 11, 2, 1, 1, 0);
            hidden(n, h, w, c, 1, 1);
            hidden(n, h, w, c, 0, 16);
            feed(n, h, w, c, 1 + 2 * c, 1 + c % 7, 1, 1, 2, 1);
            feed(n, h, w, c, 70, c, n, 2, 1, 16);
            attention(n, h, w, c, 1, 1);
            attention(n, h, w, c, 3, 16);
            factors(n, h * w, 37 - c, c, 1);
            factors(n, h * w, c, 1 + 2 * c, 16);
#ifndef VAN_DOUBLE
            blocks(n, h, w, c, 1 + 2 * c, 3, 1);
            blocks(n, h, w, c, 64, 2, 16);
            patch(n, h, w, c, 2 * c, 3, 2, 2, 1);
            patch(n, h, w, 3, c, 7, 4, 3, 16);
#endif
        }
    puts("clean");
    return 0;
}
