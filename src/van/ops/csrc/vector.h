/* A register of floats (of doubles with VAN_DOUBLE) as one value, GELU on them, and work shared out among threads.
 *
 * A vector is exactly one register: 64 bytes with AVX-512, 32 with AVX2, 16 with SSE and NEON. Wider ones the compiler
 * would keep in memory. Layouts in memory follow: strips of LANES channels, panels of PANEL outputs.
 */
#ifndef VAN_VECTOR_H
#define VAN_VECTOR_H

#ifdef __SSE2__
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
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define LANES ((int)(VECTOR_BYTES / sizeof(real)))
typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef lane_int ivec __attribute__((vector_size(VECTOR_BYTES)));
/* One anywhere in memory. A copy by memcpy would do, but goes through other registers on ARM. */
typedef vec loose_vec __attribute__((aligned(sizeof(real)), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

/* Accumulators that fit the register file: outputs per tile of a depthwise row; rows per tile of a matrix product, each two
 * vectors wide, beside the two of weights and what a row gives: 32 registers hold 14 rows (9 with NEON, which keeps what rows
 * give for several steps), 16 hold 6, or 5 where a product needs
 * one for itself before it is added. At most so many tiles are one unit of work. */
#if defined(VAN_TILES)
enum { TILE = 8, MATRIX_ROWS = 32, UNIT_TILES = 8 };
#elif defined(__AVX512F__)
enum { TILE = 8, MATRIX_ROWS = 14, UNIT_TILES = 8 };
#elif defined(__AVX2__)
enum { TILE = 8, MATRIX_ROWS = 6, UNIT_TILES = 16 };
#elif defined(__aarch64__)
enum { TILE = 8, MATRIX_ROWS = 9, UNIT_TILES = 12 };
#else
enum { TILE = 8, MATRIX_ROWS = 5, UNIT_TILES = 20 };
#endif

INLINE long min_of(long a, long b) { return a < b ? a : b; }
INLINE long max_of(long a, long b) { return a > b ? a : b; }
INLINE vec splat(real value) { return (vec){0} + value; }
INLINE vec choose(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }

/* Keeps a value in a register, where the compiler would read it from memory at every use, as GCC does on x86. */
INLINE vec held(vec value) {
#if defined(__AVX512F__)
    __asm__("" : "+v"(value));
#elif defined(__SSE2__)
    __asm__("" : "+x"(value));
#endif
    return value;
}

/* The first `lanes` lanes at p, the rest 0. All of them is one instruction, and the case that must be fast. */
INLINE vec load(const real *p, long lanes) {
    vec value = {0};
    if (lanes == LANES) return *(const loose_vec *)p;
    memcpy(&value, p, (size_t)lanes * sizeof(real));
    return value;
}

INLINE void store(real *p, vec value, long lanes) {
    if (lanes == LANES)
        *(loose_vec *)p = value;
    else
        memcpy(p, &value, (size_t)lanes * sizeof(real));
}

#define SIGN ((ivec){0} + (lane_int)((uint64_t)1 << (8 * sizeof(real) - 1)))
INLINE vec magnitude(vec x) { return (vec)((ivec)x & ~SIGN); }

/* The smaller of a and a bound; not a number stays that. */
INLINE vec at_most(vec a, real bound) {
#if defined(VAN_DOUBLE)
    return choose(a > bound, splat(bound), a);
#elif defined(__AVX512F__)
    return (vec)_mm512_min_ps((__m512)splat(bound), (__m512)a);
#elif defined(__AVX2__)
    return (vec)_mm256_min_ps((__m256)splat(bound), (__m256)a);
#elif defined(__SSE2__)
    return (vec)_mm_min_ps((__m128)splat(bound), (__m128)a);
#else
    return choose(a > bound, splat(bound), a);
#endif
}

/* The larger of a and 0; not a number stays that. */
INLINE vec positive(vec a) {
#if defined(VAN_DOUBLE)
    return choose(a < 0, splat(0), a);
#elif defined(__AVX512F__)
    return (vec)_mm512_max_ps(_mm512_setzero_ps(), (__m512)a);
#elif defined(__AVX2__)
    return (vec)_mm256_max_ps(_mm256_setzero_ps(), (__m256)a);
#elif defined(__SSE2__)
    return (vec)_mm_max_ps(_mm_setzero_ps(), (__m128)a);
#else
    return choose(a < 0, splat(0), a);
#endif
}

/* 1 / a for ordinary a, to the last bit or two: with AVX-512 and less from an estimate of 14 and 12 bits, which is
 * faster than division. */
INLINE vec reciprocal(vec a) {
#if defined(VAN_DOUBLE)
    return 1 / a;
#elif defined(__AVX512F__)
    const vec guess = (vec)_mm512_rcp14_ps((__m512)a);
    return guess + guess * (1.0f - a * guess);
#elif defined(__AVX2__)
    const vec guess = (vec)_mm256_rcp_ps((__m256)a);
    return guess + guess * (1.0f - a * guess);
#elif defined(__SSE2__)
    const vec guess = (vec)_mm_rcp_ps((__m128)a);
    return guess + guess * (1.0f - a * guess);
#else
    return 1 / a;
#endif
}

/* --- GELU: x·Phi(x) with Phi(x) = erfc(-x / sqrt 2) / 2 */

#ifndef VAN_DOUBLE

/* e^y for -87 <= y <= 0: 2^n·exp(r), n the nearest integer of y / ln 2, found by a constant that pushes fractions out. */
INLINE vec exp_of(vec y) {
    const vec push = splat(12582912.0f), shifted = y * 1.44269504f + push, n = shifted - push;
    const vec r = (y - n * 0.693145752f) - n * 1.42860677e-6f;
    vec e = splat(1.0f / 5040);
    e = e * r + 1.0f / 720;
    e = e * r + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    return (vec)((ivec)e + (((ivec)shifted - (ivec)push) << 23));
}

#endif

/* exp(-a²/2) and erfc(a / sqrt 2) / 2 for 0 <= a <= 13. */
INLINE void gauss(vec a, vec *density, vec *tail) {
#ifdef VAN_DOUBLE
    for (int i = 0; i < LANES; i++) {
        (*density)[i] = exp(-0.5 * a[i] * a[i]);
        (*tail)[i] = 0.5 * erfc(a[i] * 0.70710678118654752440);
    }
#else
    *density = exp_of(-0.5f * a * a);
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

#if defined(__AVX512F__) && !defined(VAN_DOUBLE)

/* Phi(-a) for 3a within half a step of n = 0 … 15: coefficients of a polynomial in 3a - n, lane n, the constant first. Own
 * minimax fit, error below 6e-8; 1.2e-7 in the last, which ends with 0. */
static const float PHI[5][16] = {
    {0.5f, 0.36944133f, 0.252492547f, 0.158655256f, 0.0912112221f, 0.0477903523f, 0.0227501299f, 0.00981532782f,
     0.00383038027f, 0.00134989817f, 0.000429060601f, 0.000122866593f, 3.16713522e-05f, 7.34347259e-06f,
     1.53064445e-06f, 2.73417356e-07f},
    {-0.132980511f, -0.125793815f, -0.106482558f, -0.0806572288f, -0.0546705164f, -0.0331594422f, -0.0179971699f,
     -0.00874063f, -0.00379857956f, -0.00147719402f, -0.000514031271f, -0.000160056967f, -4.45953883e-05f,
     -1.11181471e-05f, -2.48026777e-06f, -3.89062421e-07f},
    {-3.9495867e-06f, 0.00698841037f, 0.0118311895f, 0.0134426784f, 0.012148886f, 0.00921092648f, 0.00599908968f,
     0.00339917769f, 0.00168831064f, 0.000738633855f, 0.000285593676f, 9.78224707e-05f, 2.97342867e-05f,
     8.03119656e-06f, 1.92953598e-06f, 1.0481549e-06f},
    {0.00248478539f, 0.00206123432f, 0.00109368982f, 5.15450711e-06f, -0.000779537484f, -0.00108532456f,
     -0.000996936462f, -0.000719380507f, -0.000431212684f, -0.000220278249f, -9.72484195e-05f, -3.7424863e-05f,
     -1.26264058e-05f, -3.74950901e-06f, -9.82901724e-07f, -1.07617586e-06f},
    {-5.09051715e-05f, -0.00018548638f, -0.00027806795f, -0.000247734279f, -0.000137415322f, -1.96476904e-05f,
     5.47388736e-05f, 7.64873766e-05f, 6.41250226e-05f, 4.11011861e-05f, 2.15666623e-05f, 9.55114319e-06f,
     3.62943683e-06f, 1.19541278e-06f, 3.4355736e-07f, -3.30244598e-06f},
};
#define EDGE (15.5f / 3)

INLINE vec phi_term(int power, ivec lane) {
    return (vec)_mm512_permutexvar_ps((__m512i)lane, _mm512_loadu_ps(PHI[power]));
}

/* max(x, 0) - |x|·Phi(-|x|) */
INLINE vec gelu(vec x) {
    const vec a = at_most(magnitude(x), EDGE), push = splat(12582912.0f), shifted = 3 * a + push;
    const vec u = 3 * a - (shifted - push);
    const ivec lane = (ivec)shifted;
    vec tail = phi_term(4, lane);
    for (int power = 3; power >= 0; power--) tail = tail * u + phi_term(power, lane);
    return positive(x) - a * tail;
}

#else

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
    const vec a = at_most(magnitude(x), EDGE);
    return positive(x) - a * ((real)0.5 - half_erf(a));
}

#endif

#if defined(__AVX512F__) && !defined(VAN_DOUBLE)
#include "slope.h"
#else

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

#endif

/* --- what a thread keeps from call to call: its number, and memory: fresh pages cost more than the arithmetic */

struct thread {
    struct { real *data; size_t bytes; } kept[2]; /* the second for units that call others */
    long number;
};
static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;

static void thread_free(void *opaque) {
    for (int i = 0; i < 2; i++) free(((struct thread *)opaque)->kept[i].data);
    free(opaque);
}

static void make_thread_key(void) { pthread_key_create(&thread_key, thread_free); }

static struct thread *this_thread(void) {
    static long threads;
    pthread_once(&thread_once, make_thread_key);
    struct thread *mine = pthread_getspecific(thread_key);
    if (!mine && (mine = calloc(1, sizeof *mine))) {
        mine->number = __atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED);
        pthread_setspecific(thread_key, mine);
    }
    return mine;
}

/* At least `vectors` vectors of this thread, aligned; NULL when there is no memory. */
static vec *kept_of(int which, size_t vectors) {
    struct thread *mine = this_thread();
    if (!mine) return NULL;
    if (mine->kept[which].bytes < vectors * sizeof(vec)) {
        free(mine->kept[which].data);
        mine->kept[which].bytes = 0;
        if (posix_memalign((void **)&mine->kept[which].data, 64, vectors * sizeof(vec))) return mine->kept[which].data = NULL, NULL;
        mine->kept[which].bytes = vectors * sizeof(vec);
    }
    return (vec *)mine->kept[which].data;
}
static vec *scratch_of(size_t vectors) { return kept_of(0, vectors); }
static vec *more_scratch_of(size_t vectors) { return kept_of(1, vectors); }

/* --- threads: those of the host's own OpenMP pool, so that two pools never fight for the cores */

typedef void (*parallel_function)(void (*)(void *), void *, unsigned, unsigned);

/* Units lie in as many parts as there are threads. A thread begins with the part it had in the last job, which wrote the
 * same pixels as a rule and left them in its cache, and then helps the others. */
enum { PARTS = 64 };

struct job {
    int (*unit)(const void *arguments, long index); /* nonzero: out of memory */
    const void *arguments;
    long units, parts, next[PARTS];
    int failed;
};

static parallel_function host_parallel;

#if defined(VAN_TILES) && !defined(VAN_EMULATED_TILES)
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
    const struct thread *mine = this_thread();
    const long first = mine ? mine->number : 0;
    open_tiles();
    for (long i = 0; i < job->parts; i++) {
        const long part = (first + i) % job->parts, end = (part + 1) * job->units / job->parts;
        long index;
        while ((index = __atomic_fetch_add(&job->next[part], 1, __ATOMIC_RELAXED)) < end)
            if (job->unit(job->arguments, index)) __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
    }
    close_tiles();
}

/* Runs unit(arguments, 0 … units - 1), every unit once, in any order; what a unit computes never depends on the rest. */
static int share_out(int (*unit)(const void *, long), const void *arguments, long units, int threads) {
    struct job job = {unit, arguments, units, max_of(1, min_of(min_of(threads, units), PARTS)), {0}, 0};
    for (long part = 0; part < job.parts; part++) job.next[part] = part * units / job.parts;
    if (host_parallel && job.parts > 1)
        host_parallel(work, &job, (unsigned)min_of(threads, units), 0);
    else
        work(&job);
    return job.failed;
}

#endif
