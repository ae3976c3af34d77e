/* The plain C interface; every function returns 0, or 1 when there is no memory. Maps are (N, H, W, C), contiguous. */
#include "gradients.h"
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
