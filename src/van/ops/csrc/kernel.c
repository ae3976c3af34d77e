/* The plain C interface; every function returns 0, or 1 when there is no memory. Maps are (N, H, W, C), contiguous. */
#include "attend.h"
#include "factorise.h"
#include "norm.h"
#include "patch.h"

#if defined(VAN_TILES) && !defined(VAN_EMULATED_TILES)
#define ASKS_FOR_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* The host's GOMP_parallel, or NULL for one thread. */
EXPORT void van_use_threads_of(parallel_function parallel) { host_parallel = parallel; }

/* Nonzero where the system does not let this process use the instructions that the kernel was compiled for. */
EXPORT int van_ready(void) {
#ifdef ASKS_FOR_TILES
    return (int)syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */);
#else
    return 0;
#endif
}

/* Reals of a vector, and outputs of a panel: what layouts in memory are rounded up to. */
EXPORT long van_lanes(void) { return LANES; }
EXPORT long van_panel(void) { return PANEL; }

/* What a packed matrix takes, in reals. */
EXPORT long van_packed_size(long outputs, long inputs) { return panels_of(outputs) * panel_size(inputs); }

/* (outputs, inputs), element (o, i) at weight[o·across + i·along], as products read it. */
EXPORT void van_pack(const real *weight, long outputs, long inputs, long across, long along, real *panels) {
    for (long first = 0; first < outputs; first += PANEL, weight += PANEL * across, panels += panel_size(inputs))
        pack_panel(weight, across, along, min_of(PANEL, outputs - first), inputs, panels);
}

static struct chain chain_of(const long *shape, const long *options, const real *const *parameters) {
    struct chain chain = {
        .batch = shape[0], .height = shape[1], .width = shape[2], .channels = shape[3],
        .gelu = (int)options[0], .convs = (int)options[1], .bands = 1, .groups = 1,
    };
    for (int i = 0; i < chain.convs; i++)
        chain.conv[i] = (struct conv){
            parameters[2 * i], parameters[2 * i + 1], (int)options[2 + 2 * i], (int)options[3 + 2 * i]};
    return chain;
}

/* shape: N, H, W, C. options: gelu, convolutions, then kernel side and dilation of each. parameters: weight and bias
 * (or NULL) of each. */
EXPORT int van_depthwise(const real *x, const long *shape, const long *options, const real *const *parameters, real *y,
                         int threads) {
    struct chain chain = chain_of(shape, options, parameters);
    chain.x = x;
    chain.y = y;
    return run_chain(&chain, threads);
}

/* gradients: of x (or NULL), then of weight and bias of each convolution: sums over `groups` groups of images, see
 * struct chain. */
EXPORT int van_depthwise_backward(const real *x, const real *grad_y, const long *shape, const long *options,
                                  const real *const *parameters, real *const *gradients, long groups, int threads) {
    struct chain chain = chain_of(shape, options, parameters);
    chain.x = x;
    chain.grad_y = grad_y;
    chain.grad_x = gradients[0];
    for (int i = 0; i < chain.convs; i++) {
        chain.grad_weight[i] = gradients[1 + 2 * i];
        chain.grad_bias[i] = gradients[2 + 2 * i];
    }
    chain.groups = groups;
    return run_backward(&chain, threads);
}

/* map becomes gelu(depthwise(map + shift)); shift: (C). The rest as above. */
EXPORT int van_hidden(real *map, const real *shift, const long *shape, const long *options,
                      const real *const *parameters, int threads) {
    struct chain chain = chain_of(shape, options, parameters);
    chain.x = chain.y = map;
    chain.shift = shift;
    return run_chain(&chain, threads);
}

/* The same, while grad, the result's gradient, becomes that of map. gradients: of weight, bias and shift, sums over groups. */
EXPORT int van_hidden_backward(real *map, const real *shift, const long *shape, const long *options,
                               const real *const *parameters, real *grad, real *const *gradients, long groups,
                               int threads) {
    struct chain chain = chain_of(shape, options, parameters);
    chain.x = chain.y = map;
    chain.shift = shift;
    chain.grad_y = chain.grad_x = grad;
    chain.grad_weight[0] = gradients[0];
    chain.grad_bias[0] = gradients[1];
    chain.grad_shift = gradients[2];
    chain.groups = groups;
    return run_backward(&chain, threads);
}

EXPORT long van_block_groups(long pixels, long hidden) {
    const long groups = block_groups(pixels, hidden);
    return groups > 1 ? groups : 0;
}

/* The next `count` reals of packed weights, which begin a whole vector each. */
static const real *next_of(const real **weights, long count) {
    const real *part = *weights;
    *weights += (count + LANES - 1) / LANES * LANES;
    return part;
}

static struct product next_product(const real **weights, long outputs, long inputs) {
    const real *panels = next_of(weights, van_packed_size(outputs, inputs));
    return (struct product){panels, next_of(weights, panels_of(outputs) * PANEL)};
}

static struct conv next_conv(const real **weights, long channels, const long *options) {
    const real *weight = next_of(weights, channels * options[0] * options[0]);
    return (struct conv){weight, next_of(weights, channels), (int)options[0], (int)options[1]};
}

/* Blocks of one shape, one after another. shape: N, H, W, C, hidden channels. options: kernel side and dilation of near,
 * far and depthwise. weights: `blocks` times `size` reals: panels and bias of in, mix, out, expand, project; weight and
 * bias of near, far, depthwise; shortcut. scratch: 2 + van_block_groups maps of (N, H, W, C); y: another.
 * terms: on AMX 3 for products of whole floats, 2 for 16 of their bits, 1 with VAN_BFLOAT16. */
EXPORT int van_blocks(const real *x, const long *shape, const long *options, const real *weights, long blocks, long size,
                      real *scratch, real *y, int terms, int threads) {
    const long map = shape[0] * shape[1] * shape[2] * shape[3], channels = shape[3], hidden = shape[4];
    for (long i = 0; i < blocks; i++, x = y) {
        const real *next = weights + i * size;
        struct block b = {
            .x = x, .u = scratch, .t = scratch + map, .partial = scratch + 2 * map, .y = y,
            .batch = shape[0], .height = shape[1], .width = shape[2], .channels = channels, .hidden = hidden, .terms = terms,
        };
        b.in = next_product(&next, channels, channels);
        b.mix = next_product(&next, channels, channels);
        b.out = next_product(&next, channels, channels);
        b.expand = next_product(&next, hidden, channels);
        b.project = next_product(&next, channels, panels_of(hidden) * PANEL);
        b.near = next_conv(&next, channels, options);
        b.far = next_conv(&next, channels, options + 2);
        b.depthwise = next_conv(&next, hidden, options + 4);
        b.shortcut = next_of(&next, channels);
        if (run_block(&b, threads)) return 1;
    }
    return 0;
}

/* LayerNorm of a map of (pixels, channels), in place. parameters: weight, then bias, (2, channels). */
EXPORT int van_norm(real *map, long pixels, long channels, const real *parameters, double epsilon, int threads) {
    const struct norm n = {map, parameters, parameters + channels, epsilon, pixels, channels};
    return run_norm(&n, threads);
}

/* shape: N, H, W, C. options: outputs, kernel side, stride, padding, height and width of the result; panels: those of each
 * row of the kernel, (outputs, kernel, C); terms as above. */
EXPORT int van_patch(const real *x, const long *shape, const long *options, const real *panels, const real *bias, real *y,
                     int terms, int threads) {
    struct patch p = {
        .x = x, .y = y, .product = {panels, bias},
        .batch = shape[0], .height = shape[1], .width = shape[2], .inputs = shape[3],
        .outputs = options[0], .kernel = options[1], .stride = options[2], .pad = options[3],
        .out_height = options[4], .out_width = options[5], .terms = terms,
    };
    return run_patch(&p, threads);
}

/* --- factors of maps (factorise.h). shape: N, pixels, channels, rank, and the rank rounded up to whole panels: the reals in a
 * row of both factors. bases: the first ones, which become the last. */

/* Reals of `memory`. */
EXPORT long van_factorise_memory(const long *shape) {
    const long groups = factor_groups(shape[1]), rows = shape[2] + shape[3];
    return shape[0] * shape[4] * rows * (groups > 1 ? groups + 2 : 2);
}

EXPORT int van_factorise(const real *x, const long *shape, long steps, double epsilon, real *bases, real *coefficients, real *memory,
                         int threads) {
    struct factorise f = {
        .x = x, .bases = bases, .coefficients = coefficients, .epsilon = (real)epsilon,
        .batch = shape[0], .pixels = shape[1], .channels = shape[2], .rank = shape[3], .wide = shape[4],
        .groups = factor_groups(shape[1]),
    };
    f.panels = memory;
    f.gram = f.panels + f.batch * f.channels * f.wide;
    f.sums = f.gram + f.batch * f.rank * f.wide;
    f.partial = f.groups > 1 ? f.sums + f.batch * factor_sums(&f) : f.sums;
    return run_factorise(&f, steps, threads);
}

/* --- the feed-forward in training (feed.h). shape: N, H, W, inputs, hidden, outputs. options: kernel side, dilation; sets,
 * groups, images together. parameters: expand (hidden, inputs) and its bias, weight and bias of the depthwise convolution, project
 * (outputs, hidden) and its bias; biases may be NULL. panels: memory of van_feed_panels; partial: (groups, N, H, W, channels of the
 * result), not needed for one group. */

static struct feed feed_of(const real *x, const long *shape, const long *options, const real *const *parameters, int terms) {
    return (struct feed){
        .x = x, .shift = parameters[1], .bias = parameters[5],
        .conv = {parameters[2], parameters[3], (int)options[0], (int)options[1]},
        .batch = shape[0], .height = shape[1], .width = shape[2], .inputs = shape[3], .hidden = shape[4], .outputs = shape[5],
        .sets = options[2], .groups = options[3], .together = options[4], .terms = terms,
    };
}

/* Reals of the panels: forward of two matrices, backward of three. */
EXPORT long van_feed_panels(const long *shape, int backward) {
    const long inputs = shape[3], hidden = shape[4], outputs = shape[5], whole = panels_of(hidden) * PANEL;
    const long one = van_packed_size(hidden, inputs);
    return backward ? one + van_packed_size(hidden, outputs) + van_packed_size(inputs, whole) : one + van_packed_size(outputs, whole);
}

/* begin: what the result is added to, or NULL. */
EXPORT int van_feed(const real *x, const real *begin, const long *shape, const long *options, const real *const *parameters, real *panels,
                    real *partial, real *y, int terms, int threads) {
    struct feed f = feed_of(x, shape, options, parameters, terms);
    real *second = panels + van_packed_size(f.hidden, f.inputs);
    const long whole = panels_of(f.hidden) * PANEL;
    f.begin = begin;
    f.expand = panels;
    f.project = second;
    f.partial = f.groups > 1 ? partial : y;
    return run_packing((struct packing){parameters[0], panels, f.hidden, f.inputs, f.inputs, 1, f.inputs}, threads) ||
           run_packing((struct packing){parameters[4], second, f.outputs, f.hidden, f.hidden, 1, whole}, threads) ||
           share_out(feed_forward_unit, &f, f.sets * f.groups, threads) ||
           add_groups(partial, y, f.batch * f.height * f.width * f.outputs, f.groups, threads);
}

/* gradients: of x; of the expansion, of the projection, of the depthwise convolution with its bias and the expansion's, all sums
 * of sets, see struct feed, and 0 before. */
EXPORT int van_feed_backward(const real *x, const real *grad_y, const long *shape, const long *options,
                             const real *const *parameters, real *panels, real *partial, real *const *gradients, int terms,
                             int threads) {
    struct feed f = feed_of(x, shape, options, parameters, terms);
    const long whole = panels_of(f.hidden) * PANEL;
    real *second = panels + van_packed_size(f.hidden, f.inputs), *third = second + van_packed_size(f.hidden, f.outputs);
    f.grad_y = grad_y;
    f.expand = panels;
    f.turned = second;
    f.project = third;
    f.partial = f.groups > 1 ? partial : gradients[0];
    f.grad_expand = gradients[1];
    f.grad_project = gradients[2];
    f.sums = gradients[3];
    return run_packing((struct packing){parameters[0], panels, f.hidden, f.inputs, f.inputs, 1, f.inputs}, threads) ||
           run_packing((struct packing){parameters[4], second, f.hidden, f.outputs, 1, f.hidden, f.outputs}, threads) ||
           run_packing((struct packing){parameters[0], third, f.inputs, f.hidden, 1, f.inputs, whole}, threads) ||
           share_out(feed_backward_unit, &f, f.sets * f.groups, threads) ||
           add_groups(partial, gradients[0], f.batch * f.height * f.width * f.inputs, f.groups, threads);
}

/* --- the attention in training (attend.h). shape: N, H, W, C. options: kernel side and dilation of near and far; sets.
 * parameters: weight and bias of in, near, far, mix, out; scale. Biases may be NULL. maps: z, u, t, m. panels: memory of
 * van_attention_panels. */

EXPORT long van_attention_panels(long channels) { return 3 * (van_packed_size(channels, channels) + panels_of(channels) * PANEL); }

/* Packs a matrix, turned for gradients, and its bias; moves *panels on. */
static int pack_square(struct product *p, const real *weight, const real *bias, long channels, int turned, real **panels, int threads) {
    real *values = *panels + van_packed_size(channels, channels);
    p->panels = *panels;
    p->bias = values;
    *panels = values + panels_of(channels) * PANEL;
    memset(values, 0, (size_t)(panels_of(channels) * PANEL) * sizeof(real));
    if (bias && !turned) memcpy(values, bias, (size_t)channels * sizeof(real));
    return run_packing((struct packing){weight, (real *)p->panels, channels, channels, turned ? 1 : channels, turned ? channels : 1, channels},
                       threads);
}

static int attend_of(struct attend *a, const real *n, const long *shape, const long *options, const real *const *parameters,
                     real *const *maps, real *panels, int terms, int backward, int threads) {
    const long channels = shape[3];
    *a = (struct attend){
        .n = n, .scale = parameters[10], .z = maps[0], .u = maps[1], .t = maps[2], .m = maps[3],
        .near = {parameters[2], parameters[3], (int)options[0], (int)options[1]},
        .far = {parameters[4], parameters[5], (int)options[2], (int)options[3]},
        .batch = shape[0], .height = shape[1], .width = shape[2], .channels = channels, .sets = options[4], .terms = terms,
    };
    return pack_square(&a->in, parameters[0], parameters[1], channels, backward, &panels, threads) ||
           pack_square(&a->mix, parameters[6], parameters[7], channels, backward, &panels, threads) ||
           pack_square(&a->out, parameters[8], parameters[9], channels, backward, &panels, threads);
}

/* x: what y begins with, or NULL. */
EXPORT int van_attention(const real *n, const real *x, const long *shape, const long *options, const real *const *parameters,
                         real *const *maps, real *panels, real *y, int terms, int threads) {
    struct attend a;
    if (attend_of(&a, n, shape, options, parameters, maps, panels, terms, 0, threads)) return 1;
    a.x = x;
    a.y = y;
    return run_attend(&a, threads);
}

/* gradients: of n; two more maps to work in; of in and mix (inputs, outputs), of out (outputs, inputs), and the sums of struct
 * attend, all over sets and 0 before; of weight and bias of near and far over `groups` groups of images. */
EXPORT int van_attention_backward(const real *n, const real *grad_y, const long *shape, const long *options,
                                  const real *const *parameters, real *const *maps, real *panels, real *const *gradients,
                                  long groups, int terms, int threads) {
    struct attend a;
    if (attend_of(&a, n, shape, options, parameters, maps, panels, terms, 1, threads)) return 1;
    a.grad_y = grad_y;
    a.grad_n = gradients[0];
    a.grad_u = gradients[1];
    a.grad_t = gradients[2];
    a.grad_in = gradients[3];
    a.grad_mix = gradients[4];
    a.grad_out = gradients[5];
    a.sums = gradients[6];
    struct chain pair = pair_of(&a);
    pair.grad_y = pair.grad_x = a.grad_t;
    for (int i = 0; i < 2; i++) {
        pair.grad_weight[i] = gradients[7 + 2 * i];
        pair.grad_bias[i] = gradients[8 + 2 * i];
    }
    pair.groups = groups;
    return run_attend_backward(&a, &pair, threads);
}
