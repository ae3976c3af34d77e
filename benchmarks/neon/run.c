/* Runs one part of a network on one image so many times, for its instructions to be counted.
 *
 *   run TIMES block SIDE CHANNELS HIDDEN      run TIMES patch SIDE INPUTS OUTPUTS
 */
#include "kernel.c"

static real *zeros(long count) {
    real *data = NULL;
    if (posix_memalign((void **)&data, 64, (size_t)count * sizeof(real))) exit(3);
    memset(data, 0, (size_t)count * sizeof(real));
    return data;
}

int main(int count, char **words) {
    if (count != 6) return 2;
    const long times = atol(words[1]), side = atol(words[3]), c = atol(words[4]), e = atol(words[5]), map = side * side * c;
    const long block_shape[] = {1, side, side, c, e}, sides[] = {5, 1, 7, 3, 3, 1}, wide = panels_of(e) * PANEL;
    const long size = 3 * van_packed_size(c, c) + van_packed_size(e, c) + van_packed_size(c, wide) + 90 * c + 11 * wide + 32 * PANEL;
    const long patch_shape[] = {1, side, side, c}, options[] = {e, 3, 2, 1, (side + 1) / 2, (side + 1) / 2};
    real *x = zeros(map), *y = zeros(map + side * side * e), *scratch = zeros(map * (2 + van_block_groups(side * side, e)));
    real *weights = zeros(size), *panels = zeros(3 * van_packed_size(e, 3 * c)), *bias = zeros(wide);
    const int block = words[2][0] == 'b';
    for (long i = 0; i < times; i++)
        if (block ? van_blocks(x, block_shape, sides, weights, 1, size, scratch, y, 3, 1)
                  : van_patch(x, patch_shape, options, panels, bias, y, 3, 1))
            return 3;
    return 0;
}
