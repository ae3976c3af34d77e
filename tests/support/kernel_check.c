/* The kernel against plain loops in float64: every function, every remainder of channels, every number of threads.
 *
 * One program for every processor: compiled with the flags of a build, run there or in an emulator. Prints the largest
 * difference per function, as a part of the largest value, and last of all "right"; exit code 1 where one is too large.
 */
#include "kernel.c"

#include <stdio.h>

#ifdef VAN_DOUBLE
#define ROUNDING 1e-12
#define GELU_ROUNDING 1e-12
#else
#define ROUNDING 5e-6
#define GELU_ROUNDING 1e-6
#endif
#define TINY 1e-30
enum { ALL_TERMS = 3, MOST_THREADS = 7 };
static const int THREADS[] = {1, 2, 3, MOST_THREADS};

static int wrong;

static void fail(const char *what, const char *how, double by) {
    printf("WRONG: %s: %s (%g)\n", what, how, by);
    wrong = 1;
}

/* --- numbers */

static void *memory(size_t count, size_t size) {
    void *data = calloc(count ? count : 1, size);
    if (!data) exit(3);
    return data;
}

static real *drawn(size_t count, double scale) {
    static uint64_t state = 1;
    real *data = memory(count, sizeof(real));
    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        data[i] = (real)(scale * ((double)(state >> 40) / (1 << 23) - 1));
    }
    return data;
}

static real *zeros(size_t count) { return memory(count, sizeof(real)); }
static double *exact_zeros(size_t count) { return memory(count, sizeof(double)); }

static double *exactly(const real *data, size_t count) {
    double *same = exact_zeros(count);
    for (size_t i = 0; i < count; i++) same[i] = (double)data[i];
    return same;
}

static long rounded(long value, long unit) { return (value + unit - 1) / unit * unit; }

/* Remembers the largest difference of each kind of result. */
enum { KINDS = 16 };
static struct { const char *what; double gap; } worst[KINDS];

/* least: of the largest value; a sum of many that cancel is as exact as they are. */
static void compare(const char *what, const real *got, const double *want, size_t count, double least) {
    double gap = 0, largest = least;
    for (size_t i = 0; i < count; i++) {
        const double difference = fabs((double)got[i] - want[i]);
        if (!(difference <= gap)) gap = difference; /* also when it is not a number */
        if (fabs(want[i]) > largest) largest = fabs(want[i]);
    }
    gap /= largest;
    int kind = 0;
    while (kind < KINDS - 1 && worst[kind].what && strcmp(worst[kind].what, what)) kind++;
    worst[kind].what = what;
    if (!(gap <= worst[kind].gap)) worst[kind].gap = gap;
    if (!(gap <= ROUNDING)) fail(what, "far from float64", gap);
}

/* What one thread computed and what others did: the same bits. */
static void same_bits(const char *what, const real *one, const real *other, size_t count) {
    if (memcmp(one, other, count * sizeof(real))) fail(what, "depends on the number of threads", 0);
}

static real *copied(const real *from, size_t count) {
    real *to = zeros(count);
    memcpy(to, from, count * sizeof(real));
    return to;
}

/* As GOMP_parallel, with threads of its own. */
struct call { void (*function)(void *); void *argument; };
static void *called(void *opaque) {
    const struct call *call = opaque;
    call->function(call->argument);
    return NULL;
}
static void on_threads(void (*function)(void *), void *argument, unsigned threads, unsigned flags) {
    (void)flags;
    pthread_t others[MOST_THREADS];
    struct call call = {function, argument};
    for (unsigned i = 1; i < threads; i++)
        if (pthread_create(&others[i], NULL, called, &call)) exit(3);
    function(argument);
    for (unsigned i = 1; i < threads; i++) pthread_join(others[i], NULL);
}

/* --- plain loops */

struct map { long n, h, w, c; };
static size_t size_of(struct map m) { return (size_t)(m.n * m.h * m.w * m.c); }
static size_t at(struct map m, long n, long y, long x, long c) { return (size_t)(((n * m.h + y) * m.w + x) * m.c + c); }

static double plain_gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2)); }
static double plain_slope(double x) { return 0.5 * erfc(-x / sqrt(2)) + x * exp(-x * x / 2) / sqrt(2 * acos(-1.0)); }

struct layer { const real *weight, *bias; long kernel, dilation; };

/* y of one layer; where grad is given, also what it means for x, weight and bias, which are added to. */
static double *convolved(struct map m, const double *x, const struct layer *layer) {
    double *y = exact_zeros(size_of(m));
    const long k = layer->kernel, pad = layer->dilation * (k - 1) / 2;
    for (long n = 0; n < m.n; n++)
        for (long v = 0; v < m.h; v++)
            for (long u = 0; u < m.w; u++)
                for (long c = 0; c < m.c; c++) {
                    double sum = layer->bias ? (double)layer->bias[c] : 0;
                    for (long i = 0; i < k; i++)
                        for (long j = 0; j < k; j++) {
                            const long r = v + i * layer->dilation - pad, s = u + j * layer->dilation - pad;
                            if (r >= 0 && r < m.h && s >= 0 && s < m.w)
                                sum += x[at(m, n, r, s, c)] * (double)layer->weight[(c * k + i) * k + j];
                        }
                    y[at(m, n, v, u, c)] = sum;
                }
    return y;
}

/* Gradients of a layer: of x as a new map; of weight (C, k, k) and bias added to. */
static double *taken_back(struct map m, const double *x, const struct layer *layer, const double *grad, double *grad_weight,
                          double *grad_bias) {
    double *grad_x = exact_zeros(size_of(m));
    const long k = layer->kernel, pad = layer->dilation * (k - 1) / 2;
    for (long n = 0; n < m.n; n++)
        for (long v = 0; v < m.h; v++)
            for (long u = 0; u < m.w; u++)
                for (long c = 0; c < m.c; c++) {
                    const double g = grad[at(m, n, v, u, c)];
                    grad_bias[c] += g;
                    for (long i = 0; i < k; i++)
                        for (long j = 0; j < k; j++) {
                            const long r = v + i * layer->dilation - pad, s = u + j * layer->dilation - pad;
                            if (r < 0 || r >= m.h || s < 0 || s >= m.w) continue;
                            grad_x[at(m, n, r, s, c)] += g * (double)layer->weight[(c * k + i) * k + j];
                            grad_weight[(c * k + i) * k + j] += g * x[at(m, n, r, s, c)];
                        }
                }
    return grad_x;
}

/* rows (count, inputs) times weight (outputs, inputs), plus bias. */
static double *multiplied(const double *rows, size_t count, const real *weight, const real *bias, long inputs, long outputs) {
    double *y = exact_zeros(count * (size_t)outputs);
    for (size_t row = 0; row < count; row++)
        for (long o = 0; o < outputs; o++) {
            double sum = bias ? (double)bias[o] : 0;
            for (long i = 0; i < inputs; i++) sum += rows[row * (size_t)inputs + (size_t)i] * (double)weight[o * inputs + i];
            y[row * (size_t)outputs + (size_t)o] = sum;
        }
    return y;
}

/* --- depthwise convolutions */

/* Sums of groups (groups, taps, padded channels), compared with (channels, taps). */
static void compare_sums(const char *what, const real *sums, const double *want, long groups, long taps, long channels) {
    const long wide = rounded(channels, LANES);
    real *got = zeros((size_t)(taps * channels));
    for (long c = 0; c < channels; c++)
        for (long t = 0; t < taps; t++) {
            double sum = 0;
            for (long g = 0; g < groups; g++) sum += (double)sums[(g * taps + t) * wide + c];
            got[c * taps + t] = (real)sum;
        }
    compare(what, got, want, (size_t)(taps * channels), 1);
    free(got);
}

static void depthwise(struct map m, int count, const long *sides, int gelu) {
    const long shape[] = {m.n, m.h, m.w, m.c}, options[] = {gelu, count, sides[0], sides[1], sides[2], sides[3]};
    const long groups = m.n < 2 ? 1 : 2, wide = rounded(m.c, LANES);
    const size_t size = size_of(m);
    real *x = drawn(size, 3), *grad = drawn(size, 1), *parameters[4] = {0}, *y[2], *gradients[2][5];
    struct layer layers[2];
    for (int i = 0; i < count; i++) {
        const long k = sides[2 * i];
        parameters[2 * i] = drawn((size_t)(m.c * k * k), 1.0 / (double)k);
        if ((m.c + i) % 2) parameters[2 * i + 1] = drawn((size_t)m.c, 1);
        layers[i] = (struct layer){parameters[2 * i], parameters[2 * i + 1], k, sides[2 * i + 1]};
    }
    const real *const *given = (const real *const *)parameters;
    size_t sizes[5] = {size};
    for (int i = 0; i < count; i++)
        sizes[1 + 2 * i] = (size_t)(groups * sides[2 * i] * sides[2 * i] * wide), sizes[2 + 2 * i] = (size_t)(groups * wide);
    for (size_t t = 0; t < sizeof THREADS / sizeof *THREADS; t++) {
        const int other = t > 0;
        y[other] = drawn(size, 9);
        if (van_depthwise(x, shape, options, given, y[other], THREADS[t])) exit(3);
        for (int i = 0; i < 1 + 2 * count; i++) gradients[other][i] = zeros(sizes[i]);
        if (van_depthwise_backward(x, grad, shape, options, given, gradients[other], groups, THREADS[t])) exit(3);
        if (!other) continue;
        same_bits("depthwise", y[0], y[1], size);
        for (int i = 0; i < 1 + 2 * count; i++) same_bits("gradients of depthwise", gradients[0][i], gradients[1][i], sizes[i]);
        free(y[1]);
        for (int i = 0; i < 1 + 2 * count; i++) free(gradients[1][i]);
    }
    double *maps[3] = {exactly(x, size)}, *back = exactly(grad, size);
    for (int i = 0; i < count; i++) maps[i + 1] = convolved(m, maps[i], &layers[i]);
    for (size_t i = 0; gelu && i < size; i++) {
        back[i] *= plain_slope(maps[count][i]);
        maps[count][i] = plain_gelu(maps[count][i]);
    }
    compare("depthwise", y[0], maps[count], size, TINY);
    for (int i = count - 1; i >= 0; i--) {
        const long taps = sides[2 * i] * sides[2 * i];
        double *weight = exact_zeros((size_t)(m.c * taps)), *bias = exact_zeros((size_t)m.c);
        double *before_it = taken_back(m, maps[i], &layers[i], back, weight, bias);
        compare_sums("gradients of weights", gradients[0][1 + 2 * i], weight, groups, taps, m.c);
        compare_sums("gradients of biases", gradients[0][2 + 2 * i], bias, groups, 1, m.c);
        free(back), free(weight), free(bias);
        back = before_it;
    }
    compare("gradients of maps", gradients[0][0], back, size, TINY);
    for (int i = 0; i <= count; i++) free(maps[i]);
    for (int i = 0; i < 1 + 2 * count; i++) free(gradients[0][i]);
    for (int i = 0; i < 4; i++) free(parameters[i]);
    free(x), free(grad), free(y[0]), free(back);
}

/* map becomes gelu(depthwise(map + shift)), and back. */
static void hidden(struct map m, int shifted) {
    const long shape[] = {m.n, m.h, m.w, m.c}, options[] = {1, 1, 3, 1}, groups = m.n < 2 ? 1 : 2, wide = rounded(m.c, LANES);
    const size_t size = size_of(m), sizes[3] = {(size_t)(9 * groups * wide), (size_t)(groups * wide), (size_t)(groups * wide)};
    real *x = drawn(size, 2), *grad = drawn(size, 1), *shift = shifted ? drawn((size_t)m.c, 1) : NULL;
    real *parameters[2] = {drawn((size_t)(9 * m.c), 0.5), drawn((size_t)m.c, 1)}, *y[2], *again[2], *changed[2], *gradients[2][3];
    const real *const *given = (const real *const *)parameters;
    for (size_t t = 0; t < sizeof THREADS / sizeof *THREADS; t++) {
        const int other = t > 0;
        y[other] = copied(x, size), again[other] = copied(x, size), changed[other] = copied(grad, size);
        for (int i = 0; i < 3; i++) gradients[other][i] = zeros(sizes[i]);
        if (van_hidden(y[other], shift, shape, options, given, THREADS[t])) exit(3);
        if (van_hidden_backward(again[other], shift, shape, options, given, changed[other], gradients[other], groups, THREADS[t])) exit(3);
        if (!other) continue;
        same_bits("hidden", y[0], y[1], size), same_bits("hidden", again[0], again[1], size);
        same_bits("gradients of hidden", changed[0], changed[1], size);
        for (int i = 0; i < 3; i++) same_bits("gradients of hidden", gradients[0][i], gradients[1][i], sizes[i]), free(gradients[1][i]);
        free(y[1]), free(again[1]), free(changed[1]);
    }
    const struct layer layer = {parameters[0], parameters[1], 3, 1};
    double *from = exactly(x, size), *back = exactly(grad, size);
    for (size_t i = 0; shifted && i < size; i++) from[i] += (double)shift[i % (size_t)m.c];
    double *made = convolved(m, from, &layer);
    for (size_t i = 0; i < size; i++) back[i] *= plain_slope(made[i]), made[i] = plain_gelu(made[i]);
    compare("hidden", y[0], made, size, TINY), compare("hidden", again[0], made, size, TINY);
    double *weight = exact_zeros((size_t)(9 * m.c)), *bias = exact_zeros((size_t)m.c), *moved = exact_zeros((size_t)m.c);
    double *grad_x = taken_back(m, from, &layer, back, weight, bias);
    for (size_t i = 0; i < size; i++) moved[i % (size_t)m.c] += grad_x[i];
    compare("gradients of hidden", changed[0], grad_x, size, TINY);
    compare_sums("gradients of weights", gradients[0][0], weight, groups, 9, m.c);
    compare_sums("gradients of biases", gradients[0][1], bias, groups, 1, m.c);
    compare_sums("gradients of shifts", gradients[0][2], moved, groups, 1, m.c);
    for (int i = 0; i < 3; i++) free(gradients[0][i]);
    free(x), free(grad), free(shift), free(parameters[0]), free(parameters[1]), free(y[0]), free(again[0]), free(changed[0]);
    free(from), free(back), free(made), free(weight), free(bias), free(moved), free(grad_x);
}

/* --- matrix products */

/* A matrix (outputs, inputs) in panels, in memory of its own; packed from either order, which must not matter. */
static void pack(const real *weight, long outputs, long inputs, real *panels) {
    const size_t count = (size_t)(outputs * inputs), size = (size_t)van_packed_size(outputs, inputs);
    real *turned = zeros(count), *other = zeros(size);
    for (long o = 0; o < outputs; o++)
        for (long i = 0; i < inputs; i++) turned[i * outputs + o] = weight[o * inputs + i];
    van_pack(weight, outputs, inputs, inputs, 1, panels);
    van_pack(turned, outputs, inputs, 1, outputs, other);
    if (memcmp(panels, other, size * sizeof(real))) fail("pack", "depends on the order of the weights in memory", 0);
    free(turned), free(other);
}

/* Where the weights of a folded block lie. */
enum { IN, MIX, OUT, EXPAND, PROJECT, NEAR, FAR, DEPTHWISE, PARTS_OF_BLOCK };
struct folded { real *weight[PARTS_OF_BLOCK], *bias[PARTS_OF_BLOCK], *shortcut; };

static real *placed(real **next, const real *values, long count, long room) {
    real *here = *next;
    memcpy(here, values, (size_t)count * sizeof(real));
    *next += rounded(room, LANES);
    return here;
}

static struct folded draw_block(long c, long e, real *next) {
    struct folded b;
    const long outputs[] = {c, c, c, e, c}, inputs[] = {c, c, c, c, e}, sides[] = {5, 7, 3};
    for (int i = IN; i <= PROJECT; i++) {
        const long o = outputs[i], given = inputs[i], padded = i == PROJECT ? rounded(e, PANEL) : given;
        b.weight[i] = drawn((size_t)(o * given), 1 / sqrt((double)given));
        b.bias[i] = drawn((size_t)o, 0.5);
        real *wide = zeros((size_t)(o * padded));
        for (long k = 0; k < o; k++) memcpy(wide + k * padded, b.weight[i] + k * given, (size_t)given * sizeof(real));
        pack(wide, o, padded, next);
        next += rounded(van_packed_size(o, padded), LANES);
        placed(&next, b.bias[i], o, rounded(o, PANEL));
        free(wide);
    }
    for (int i = NEAR; i <= DEPTHWISE; i++) {
        const long channels = i == DEPTHWISE ? e : c, side = sides[i - NEAR];
        b.weight[i] = drawn((size_t)(channels * side * side), 1.0 / (double)side);
        b.bias[i] = drawn((size_t)channels, 0.5);
        placed(&next, b.weight[i], channels * side * side, channels * side * side);
        placed(&next, b.bias[i], channels, channels);
    }
    b.shortcut = drawn((size_t)c, 1);
    placed(&next, b.shortcut, c, c);
    return b;
}

static double *plain_block(struct map m, long e, const double *x, const struct folded *b) {
    const size_t pixels = (size_t)(m.n * m.h * m.w), size = size_of(m);
    const struct map wide = {m.n, m.h, m.w, e};
    const struct layer near = {b->weight[NEAR], b->bias[NEAR], 5, 1}, far = {b->weight[FAR], b->bias[FAR], 7, 3};
    const struct layer depth = {b->weight[DEPTHWISE], b->bias[DEPTHWISE], 3, 1};
    double *u = multiplied(x, pixels, b->weight[IN], b->bias[IN], m.c, m.c);
    for (size_t i = 0; i < size; i++) u[i] = plain_gelu(u[i]);
    double *first = convolved(m, u, &near), *second = convolved(m, first, &far);
    double *gate = multiplied(second, pixels, b->weight[MIX], b->bias[MIX], m.c, m.c);
    for (size_t i = 0; i < size; i++) gate[i] *= u[i];
    double *t = multiplied(gate, pixels, b->weight[OUT], b->bias[OUT], m.c, m.c);
    for (size_t i = 0; i < size; i++) t[i] += (double)b->shortcut[i % (size_t)m.c] * x[i];
    double *expanded = multiplied(t, pixels, b->weight[EXPAND], b->bias[EXPAND], m.c, e), *after_it = convolved(wide, expanded, &depth);
    for (size_t i = 0; i < size_of(wide); i++) after_it[i] = plain_gelu(after_it[i]);
    double *y = multiplied(after_it, pixels, b->weight[PROJECT], b->bias[PROJECT], e, m.c);
    for (size_t i = 0; i < size; i++) y[i] += t[i];
    free(u), free(first), free(second), free(gate), free(t), free(expanded), free(after_it);
    return y;
}

/* Two folded blocks in a call. */
static void blocks(struct map m, long e) {
    const long shape[] = {m.n, m.h, m.w, m.c, e}, options[] = {5, 1, 7, 3, 3, 1}, wide = rounded(m.c, PANEL), full = rounded(e, PANEL);
    const long parts[] = {3 * rounded(van_packed_size(m.c, m.c), LANES), 3 * wide, rounded(van_packed_size(e, m.c), LANES), full,
                          rounded(van_packed_size(m.c, full), LANES), wide, rounded(25 * m.c, LANES), rounded(m.c, LANES),
                          rounded(49 * m.c, LANES), rounded(m.c, LANES), rounded(9 * e, LANES), rounded(e, LANES), rounded(m.c, LANES)};
    long size = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) size += parts[i];
    const size_t map = size_of(m), scratch_size = map * (size_t)(2 + van_block_groups(m.h * m.w, e));
    real *x = drawn(map, 1), *weights = zeros((size_t)(2 * size)), *y[2];
    struct folded drawn_blocks[2];
    for (int i = 0; i < 2; i++) drawn_blocks[i] = draw_block(m.c, e, weights + i * size);
    for (size_t t = 0; t < sizeof THREADS / sizeof *THREADS; t++) {
        real *scratch = drawn(scratch_size, 9);
        y[t > 0] = drawn(map, 9);
        if (van_blocks(x, shape, options, weights, 2, size, scratch, y[t > 0], ALL_TERMS, THREADS[t])) exit(3);
        free(scratch);
        if (t > 0) same_bits("blocks", y[0], y[1], map), free(y[1]);
    }
    double *exact = exactly(x, map);
    for (int i = 0; i < 2; i++) {
        double *made = plain_block(m, e, exact, &drawn_blocks[i]);
        free(exact);
        exact = made;
    }
    compare("blocks", y[0], exact, map, TINY);
    for (int i = 0; i < 2; i++) {
        for (int part = 0; part < PARTS_OF_BLOCK; part++) free(drawn_blocks[i].weight[part]), free(drawn_blocks[i].bias[part]);
        free(drawn_blocks[i].shortcut);
    }
    free(x), free(weights), free(y[0]), free(exact);
}

/* A strided convolution of all channels. */
static void patch(struct map m, long outputs, long k, long stride) {
    const long pad = k / 2, high = (m.h + 2 * pad - k) / stride + 1, wide = (m.w + 2 * pad - k) / stride + 1;
    const long shape[] = {m.n, m.h, m.w, m.c}, options[] = {outputs, k, stride, pad, high, wide}, row = van_packed_size(outputs, k * m.c);
    const size_t size = (size_t)(m.n * high * wide * outputs);
    real *x = drawn(size_of(m), 1), *weight = drawn((size_t)(outputs * k * k * m.c), 1 / sqrt((double)(k * k * m.c)));
    real *bias = zeros((size_t)rounded(outputs, PANEL)), *values = drawn((size_t)outputs, 1), *panels = zeros((size_t)(k * row)), *y[2];
    memcpy(bias, values, (size_t)outputs * sizeof(real));
    for (long i = 0; i < k; i++) van_pack(weight + i * k * m.c, outputs, k * m.c, k * k * m.c, 1, panels + i * row);
    for (size_t t = 0; t < sizeof THREADS / sizeof *THREADS; t++) {
        y[t > 0] = drawn(size, 9);
        if (van_patch(x, shape, options, panels, bias, y[t > 0], ALL_TERMS, THREADS[t])) exit(3);
        if (t > 0) same_bits("patch", y[0], y[1], size), free(y[1]);
    }
    double *want = exact_zeros(size);
    for (long n = 0; n < m.n; n++)
        for (long v = 0; v < high; v++)
            for (long u = 0; u < wide; u++)
                for (long o = 0; o < outputs; o++) {
                    double sum = (double)values[o];
                    for (long i = 0; i < k; i++)
                        for (long j = 0; j < k; j++) {
                            const long r = v * stride + i - pad, s = u * stride + j - pad;
                            for (long c = 0; r >= 0 && r < m.h && s >= 0 && s < m.w && c < m.c; c++)
                                sum += (double)x[at(m, n, r, s, c)] * (double)weight[((o * k + i) * k + j) * m.c + c];
                        }
                    want[((n * high + v) * wide + u) * outputs + o] = sum;
                }
    compare("patch", y[0], want, size, TINY);
    free(x), free(weight), free(bias), free(values), free(panels), free(y[0]), free(want);
}

/* --- factorisation of a map */

/* factor (rows, rank) *= products / (factor · grams + epsilon), as stated. */
static void plain_update(double *factor, const double *products, const double *gram, long rows, long rank, double epsilon) {
    for (long row = 0; row < rows; row++) {
        double scale[64] = {0};
        for (long i = 0; i < rank; i++)
            for (long k = 0; k < rank; k++) scale[i] += factor[row * rank + k] * gram[k * rank + i];
        for (long i = 0; i < rank; i++) factor[row * rank + i] *= products[row * rank + i] / (scale[i] + epsilon);
    }
}

/* to (rows, columns) = a · b; a(m, k) at a[m·across + k·along], b (depth, columns). */
static void plain_product(const double *a, long rows, long across, long along, const double *b, long depth, long columns, double *to) {
    for (long m = 0; m < rows; m++)
        for (long n = 0; n < columns; n++) {
            double sum = 0;
            for (long k = 0; k < depth; k++) sum += a[m * across + k * along] * b[k * columns + n];
            to[m * columns + n] = sum;
        }
}

/* One image's factors after some steps; coefficients (pixels, rank). */
static void plain_factors(const double *x, long pixels, long depth, long rank, long steps, double epsilon, double *bases, double *coefficients) {
    double *gram = exact_zeros((size_t)(rank * rank)), *products = exact_zeros((size_t)((pixels + depth) * rank)), *sums = products + pixels * rank;
    for (long step = 0; step <= steps; step++) {
        plain_product(x, pixels, depth, 1, bases, depth, rank, products);
        for (long p = 0; p < pixels && step == 0; p++) {
            double sum = 0;
            for (long i = 0; i < rank; i++) sum += exp(products[p * rank + i] - products[p * rank]);
            for (long i = 0; i < rank; i++) coefficients[p * rank + i] = exp(products[p * rank + i] - products[p * rank]) / sum;
        }
        plain_product(bases, rank, 1, rank, bases, depth, rank, gram);
        plain_update(coefficients, products, gram, pixels, rank, epsilon);
        if (step == steps) break;
        plain_product(x, depth, 1, depth, coefficients, pixels, rank, sums);
        plain_product(coefficients, rank, 1, rank, coefficients, pixels, rank, gram);
        plain_update(bases, sums, gram, depth, rank, epsilon);
    }
    free(gram), free(products);
}

/* The first `rank` of every `wide` reals. */
static real *narrowed(const real *from, long rows, long wide, long rank) {
    real *to = zeros((size_t)(rows * rank));
    for (long row = 0; row < rows; row++) memcpy(to + row * rank, from + row * wide, (size_t)rank * sizeof(real));
    return to;
}

static void factors(long n, long pixels, long depth, long rank) {
    enum { STEPS = 5 };
    const double epsilon = 1e-6;
    const long wide = rounded(rank, PANEL), shape[] = {n, pixels, depth, rank, wide};
    real *x = drawn((size_t)(n * pixels * depth), 1), *first = drawn((size_t)(n * depth * rank), 0.5), *found[2][2];
    for (long i = 0; i < n * pixels * depth; i++) x[i] = x[i] < 0 ? 0 : x[i];
    for (long i = 0; i < n * depth * rank; i++) first[i] = (real)fabs((double)first[i]);
    for (size_t t = 0; t < sizeof THREADS / sizeof *THREADS; t++) {
        real *bases = drawn((size_t)(n * depth * wide), 9), *coefficients = drawn((size_t)(n * pixels * wide), 9);
        real *work = drawn((size_t)van_factorise_memory(shape), 9);
        for (long row = 0; row < n * depth; row++) memcpy(bases + row * wide, first + row * rank, (size_t)rank * sizeof(real));
        if (van_factorise(x, shape, STEPS, epsilon, bases, coefficients, work, THREADS[t])) exit(3);
        real **to = found[t > 0];
        to[0] = narrowed(bases, n * depth, wide, rank);
        to[1] = narrowed(coefficients, n * pixels, wide, rank);
        free(bases), free(coefficients), free(work);
        if (t == 0) continue;
        same_bits("bases", found[0][0], to[0], (size_t)(n * depth * rank));
        same_bits("coefficients", found[0][1], to[1], (size_t)(n * pixels * rank));
        free(to[0]), free(to[1]);
    }
    double *exact = exactly(x, (size_t)(n * pixels * depth)), *bases = exactly(first, (size_t)(n * depth * rank));
    double *coefficients = exact_zeros((size_t)(n * pixels * rank));
    for (long i = 0; i < n; i++)
        plain_factors(exact + i * pixels * depth, pixels, depth, rank, STEPS, epsilon, bases + i * depth * rank, coefficients + i * pixels * rank);
    compare("bases", found[0][0], bases, (size_t)(n * depth * rank), 1);
    compare("coefficients", found[0][1], coefficients, (size_t)(n * pixels * rank), 1);
    free(x), free(first), free(exact), free(bases), free(coefficients), free(found[0][0]), free(found[0][1]);
}

/* --- GELU over its range, and what is not a number */

static void gelu_over_its_range(void) {
    enum { COUNT = 20006 };
    const long shape[] = {1, 1, COUNT, 1}, options[] = {1, 1, 1, 1};
    const real one = 1, specials[] = {0, (real)-0.0, (real)1e-30, 30000, -30000};
    real *x = zeros(COUNT), *y = zeros(COUNT), *ones = zeros(COUNT), *slope = zeros(COUNT), weight[1] = {one}, sums[2][64];
    for (int i = 0; i < COUNT; i++) x[i] = i < 5 ? specials[i] : (real)(-15 + 30.0 * (i - 5) / 20000), ones[i] = 1;
    const real *const parameters[] = {weight, NULL};
    real *gradients[] = {slope, sums[0], sums[1]};
    if (van_depthwise(x, shape, options, parameters, y, 1)) exit(3);
    if (van_depthwise_backward(x, ones, shape, options, parameters, gradients, 1, 1)) exit(3);
    double value_gap = 0, slope_gap = 0;
    for (int i = 0; i < COUNT; i++) {
        const double want = plain_gelu((double)x[i]), gap = fabs((double)y[i] - want) / fmax(1, fabs(want));
        const double slope_off = fabs((double)slope[i] - plain_slope((double)x[i]));
        if (!(gap <= value_gap)) value_gap = gap;
        if (!(slope_off <= slope_gap)) slope_gap = slope_off;
    }
    printf("%-24s %.1e\n%-24s %.1e\n", "GELU, absolute", value_gap, "its slope, absolute", slope_gap);
    if (!(value_gap <= GELU_ROUNDING)) fail("GELU", "far from float64", value_gap);
    if (!(slope_gap <= GELU_ROUNDING)) fail("slope of GELU", "far from float64", slope_gap);
    free(x), free(y), free(ones), free(slope);
}

static void not_a_number_stays(void) {
    const struct map m = {1, 9, 9, 9};
    const long shape[] = {m.n, m.h, m.w, m.c}, options[] = {1, 1, 3, 1};
    real *x = drawn(size_of(m), 1), *weight = drawn(9 * 9, 1), *y = zeros(size_of(m));
    x[at(m, 0, 4, 4, 3)] = (real)NAN;
    const real *const parameters[] = {weight, NULL};
    if (van_depthwise(x, shape, options, parameters, y, 1)) exit(3);
    int found = 0;
    for (size_t i = 0; i < size_of(m); i++) found += y[i] != y[i];
    if (found != 9) fail("not a number", "reaches another number of pixels than 9", found);
    free(x), free(weight), free(y);
}

int main(void) {
    if (van_ready()) return 4;
    van_use_threads_of(on_threads);
    printf("%ld lanes, panels of %ld\n", van_lanes(), van_panel());
    const long sides[][2] = {{1, 1}, {1, 9}, {7, 1}, {5, 6}, {7, 7}, {14, 13}, {33, 20}};
    for (int s = 0; s < 7; s++)
        for (long c = 1; c <= 35; c += s < 4 ? 1 : 17) {
            const struct map m = {1 + c % 3, sides[s][0], sides[s][1], c}, image = {m.n, m.h, m.w, 3};
            depthwise(m, 2, (const long[]){5, 1, 7, 3}, 0);
            depthwise(m, 1, (const long[]){3, 1, 0, 0}, 1);
            if (s > 2) depthwise(m, 1, (const long[]){4, 2, 0, 0}, 0);
            if (s > 2) depthwise(m, 2, (const long[]){11, 2, 1, 1}, 1);
            hidden(m, (int)(c % 2));
            blocks(m, s < 4 ? 1 + c * (1 + c % 3) : 64);
            patch(m, s < 4 ? 49 - c : 2 * c, 3, 2);
            patch(image, c, 7, 4);
        }
    not_a_number_stays();
    gelu_over_its_range();
    for (int s = 0; s < 7; s++)
        for (long c = 1; c <= 35; c += s < 4 ? 1 : 17) factors(1 + c % 3, sides[s][0] * sides[s][1], s < 4 ? 37 - c : 20, c);
    factors(2, 1100, 9, 5);
    for (int kind = 0; kind < KINDS && worst[kind].what; kind++) printf("%-24s %.1e\n", worst[kind].what, worst[kind].gap);
    puts(wrong ? "wrong" : "right");
    return wrong;
}
