/* AMX in plain C, for processors without it: compiled in front of the kernel with -include. */
#ifndef EMULATED_TILES_H
#define EMULATED_TILES_H

#include <stdint.h>
#include <string.h>

#define VAN_EMULATED_TILES

union emulated_tile { float sums[16][16]; uint16_t halves[16][32]; };
static __thread union emulated_tile emulated_tiles[8];

static float emulated_float(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

__attribute__((noinline)) static void emulated_copy(int tile, char *memory, long stride, int out) {
    for (int row = 0; row < 16; row++) {
        void *const line = emulated_tiles[tile].halves[row];
        memcpy(out ? memory + row * stride : line, out ? line : memory + row * stride, 64);
    }
}

__attribute__((noinline)) static void emulated_add(int sum, int row, int weight) {
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 32; k++) {
            const float factor = emulated_float(emulated_tiles[row].halves[m][k]);
            for (int n = 0; n < 16; n++)
                emulated_tiles[sum].sums[m][n] += factor * emulated_float(emulated_tiles[weight].halves[k / 2][2 * n + k % 2]);
        }
}

#define READ(tile, from, stride) emulated_copy(tile, (char *)(from), (long)(stride), 0);
#define WRITE(tile, to, stride) emulated_copy(tile, (char *)(to), (long)(stride), 1);
#define ADD(sum, row, weight) emulated_add(sum, row, weight);

#endif
