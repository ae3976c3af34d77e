/* Sixteen floats (eight doubles with VAN_DOUBLE) as one value, GELU on them, and work shared out among threads.
 *
 * The compiler lowers the vectors to whatever the machine has: one AVX-512 register, two of AVX2, four of SSE or NEON.
 * All memory layouts are therefore the same everywhere; only the number of accumulators differs.
 */
#ifndef VAN_VECTOR_H
#define VAN_VECTOR_H

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && !defined(VAN_DOUBLE)
#define VAN_TILES /* matrix products on AMX */
#endif

#ifdef VAN_DOUBLE
typedef double real;
typedef int64_t lane_int;
#else
typedef float real;
typedef int32_t lane_int;
#endif
#define LANES ((int)(64 / sizeof(real)))
typedef real vec __attribute__((vector_size(64)));
typedef lane_int ivec __attribute__((vector_size(64)));

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

/* Accumulators that fit the register file: outputs per tile of a depthwise row, rows per tile of a matrix product. */
#if defined(VAN_TILES)
enum { TILE = 8, MATRIX_ROWS = 32 };
#elif defined(__AVX512F__)
enum { TILE = 8, MATRIX_ROWS = 14 };
#elif defined(__AVX2__) || defined(__aarch64__)
enum { TILE = 4, MATRIX_ROWS = 3 };
#else
enum { TILE = 2, MATRIX_ROWS = 1 };
#endif

INLINE long min_of(long a, long b) { return a < b ? a : b; }
INLINE long max_of(long a, long b) { return a > b ? a : b; }
INLINE vec splat(real value) { return (vec){0} + value; }
INLINE vec choose(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }

/* The first `lanes` lanes at p, the rest 0. All of them is one instruction, and the case that must be fast. */
INLINE vec load(const real *p, long lanes) {
    vec value = {0};
    if (lanes == LANES)
        memcpy(&value, p, sizeof value);
    else
        memcpy(&value, p, (size_t)lanes * sizeof(real));
    return value;
}

INLINE void store(real *p, vec value, long lanes) {
    if (lanes == LANES)
        memcpy(p, &value, sizeof value);
    else
        memcpy(p, &value, (size_t)lanes * sizeof(real));
}

#define SIGN ((ivec){0} + (lane_int)((uint64_t)1 << (8 * sizeof(real) - 1)))
INLINE vec magnitude(vec x) { return (vec)((ivec)x & ~SIGN); }

/* The smaller of a and a bound; not a number stays that. */
INLINE vec at_most(vec a, real bound) {
#if defined(__AVX512F__) && !defined(VAN_DOUBLE)
    return (vec)_mm512_min_ps((__m512)splat(bound), (__m512)a);
#else
    return choose(a > bound, splat(bound), a);
#endif
}

/* 1 / a for ordinary a, to the last bit or two. */
INLINE vec reciprocal(vec a) {
#if defined(__AVX512F__) && !defined(VAN_DOUBLE)
    const vec guess = (vec)_mm512_rcp14_ps((__m512)a);
    return guess + guess * (1.0f - a * guess);
#else
    return 1 / a;
#endif
}

/* --- GELU: x·Phi(x) with Phi(x) = erfc(-x / sqrt 2) / 2 */

/* exp(-a²/2) and erfc(a / sqrt 2) / 2 for 0 <= a <= 13. */
INLINE void gauss(vec a, vec *density, vec *tail) {
#ifdef VAN_DOUBLE
    for (int i = 0; i < LANES; i++) {
        (*density)[i] = exp(-0.5 * a[i] * a[i]);
        (*tail)[i] = 0.5 * erfc(a[i] * 0.70710678118654752440);
    }
#else
    /* exp(y) = 2^n·exp(r), n the nearest integer of y / ln 2, found by a constant that pushes fractions out. */
    const vec push = splat(12582912.0f), y = -0.5f * a * a;
    const vec shifted = y * 1.44269504f + push, n = shifted - push;
    const vec r = (y - n * 0.693145752f) - n * 1.42860677e-6f;
    vec e = splat(1.0f / 5040);
    e = e * r + 1.0f / 720;
    e = e * r + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    *density = (vec)((ivec)e + (((ivec)shifted - (ivec)push) << 23));
    /* erfc(z)·exp(z²) as a polynomial in t = 1 / (1 + 0.33 z): own minimax fit, relative error below 2e-8. */
    const vec t = reciprocal(1.0f + (0.33f * 0.707106781f) * a);
    vec p = splat(-0.11018399894237518f);
    p = p * t + 0.33362507820129395f;
    p = p * t - 0.08172682672739029f;
    p = p * t + 0.09438833594322205f;
    p = p * t + 0.26380690932273865f;
    p = p * t + 0.11293849349021912f;
    p = p * t + 0.20264777541160583f;
    p = p * t + 0.1845042109489441f;
    *tail = 0.5f * p * t * *density;
#endif
}

/* Phi(a) - 1/2 for 0 <= a <= EDGE: own minimax fit, error below 1e-8 before rounding. */
INLINE vec half_erf(vec a) {
#ifdef VAN_DOUBLE
    vec density, tail;
    gauss(a, &density, &tail);
    return 0.5 - tail;
#else
    const vec u = a * a;
    vec p = splat(2.412301647325421e-08f), q = splat(1.2436510132829426e-06f);
    p = p * u + 6.439633580157533e-06f;
    q = q * u + 7.250774069689214e-05f;
    p = p * u + 0.00016329600475728512f;
    q = q * u + 0.0018532705726101995f;
    p = p * u + 0.004646751563996077f;
    q = q * u + 0.028290675953030586f;
    p = p * u + 0.033185482025146484f;
    q = q * u + 0.24984949827194214f;
    p = p * u + 0.398942232131958f;
    q = q * u + 1.0f;
    return a * p * reciprocal(q);
#endif
}

/* max(x, 0) - |x|·Phi(-|x|); beyond the edge the second term is as good as 0. */
#ifdef VAN_DOUBLE
#define EDGE 13
#else
#define EDGE 5.2f
#endif

INLINE vec gelu(vec x) {
    const vec size = magnitude(x), a = at_most(size, EDGE);
    return ((real)0.5 * x + (real)0.5 * size) - a * ((real)0.5 - half_erf(a));
}

/* a with the sign of x; a is not negative. */
INLINE vec signed_as(vec a, vec x) { return (vec)((ivec)a | ((ivec)x & SIGN)); }

/* The slope; *value becomes GELU itself. Beyond 12 the tail is as good as 0, and no longer an ordinary float. */
INLINE vec gelu_slope(vec x, vec *value) {
    const vec a = at_most(magnitude(x), 12);
    vec density, tail;
    gauss(a, &density, &tail);
    const vec below = (real)0.5 + signed_as((real)0.5 - tail, x); /* Phi(x) */
    *value = x * below;
    return below + signed_as(a * density, x) * (real)0.39894228040143267794;
}

/* --- threads: those of the host's own OpenMP pool, so that two pools never fight for the cores */

typedef void (*parallel_function)(void (*)(void *), void *, unsigned, unsigned);

struct job {
    int (*unit)(const void *arguments, long index); /* nonzero: out of memory */
    const void *arguments;
    long units, next;
    int failed;
};

static parallel_function host_parallel;

#ifdef VAN_TILES
/* Eight tiles of 16 rows of 64 bytes. */
INLINE void open_tiles(void) {
    struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
    __asm__ volatile("ldtilecfg %0" ::"m"(shape));
}
INLINE void close_tiles(void) { __asm__ volatile("tilerelease" ::: "memory"); }
#else
INLINE void open_tiles(void) {}
INLINE void close_tiles(void) {}
#endif

static void work(void *opaque) {
    struct job *job = opaque;
    long index;
    open_tiles();
    while ((index = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) < job->units)
        if (job->unit(job->arguments, index)) __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
    close_tiles();
}

/* Runs unit(arguments, 0 … units - 1), every unit once, in any order; what a unit computes never depends on the rest. */
static int share_out(int (*unit)(const void *, long), const void *arguments, long units, int threads) {
    struct job job = {unit, arguments, units, 0, 0};
    if (host_parallel && threads > 1 && units > 1)
        host_parallel(work, &job, (unsigned)min_of(threads, units), 0);
    else
        work(&job);
    return job.failed;
}

/* --- memory that a thread keeps from call to call: fresh pages cost more than the arithmetic */

struct scratch { real *data; size_t bytes; };
static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void scratch_free(void *opaque) {
    free(((struct scratch *)opaque)->data);
    free(opaque);
}

static void scratch_make_key(void) { pthread_key_create(&scratch_key, scratch_free); }

/* At least `vectors` vectors of this thread, aligned; NULL when there is no memory. */
static vec *scratch_of(size_t vectors) {
    pthread_once(&scratch_once, scratch_make_key);
    struct scratch *mine = pthread_getspecific(scratch_key);
    if (!mine) {
        if (!(mine = calloc(1, sizeof *mine))) return NULL;
        pthread_setspecific(scratch_key, mine);
    }
    if (mine->bytes < vectors * sizeof(vec)) {
        free(mine->data);
        mine->bytes = 0;
        if (posix_memalign((void **)&mine->data, 64, vectors * sizeof(vec))) return mine->data = NULL, NULL;
        mine->bytes = vectors * sizeof(vec);
    }
    return (vec *)mine->data;
}

#endif
