/* A plugin of QEMU that counts what an emulated ARM program executes, and writes it to standard error at the end.
 *
 * The interface is version 1 of QEMU's (5.x to 9.0), declared here because its header is rarely installed.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t qemu_plugin_id_t;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*call)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, void (*call)(unsigned, void *), int flags, void *data);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*call)(qemu_plugin_id_t, void *), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

struct counts { uint64_t all, multiply_adds, loads, stores; };
static struct counts total;

/* Instructions of the ARMv8 manual, by their fixed bits. */
static struct counts of_instruction(uint32_t code) {
    struct counts one = {.all = 1};
    const int vectors = (code & 0xbf20fc00) == 0x0e20cc00, by_element = (code & 0xbf80b400) == 0x0f801000; /* FMLA, FMLS */
    one.multiply_adds = vectors || by_element;
    if ((code & 0x0a000000) == 0x08000000) *(code >> 22 & 1 ? &one.loads : &one.stores) = 1;
    return one;
}

static void executed(unsigned processor, void *data) {
    (void)processor;
    const struct counts *block = data;
    total.all += block->all, total.multiply_adds += block->multiply_adds;
    total.loads += block->loads, total.stores += block->stores;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    struct counts *block = calloc(1, sizeof *block);
    if (!block) return;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        const struct counts one = of_instruction(*(const uint32_t *)qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)));
        block->all += one.all, block->multiply_adds += one.multiply_adds;
        block->loads += one.loads, block->stores += one.stores;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, block);
}

static void finished(qemu_plugin_id_t id, void *data) {
    (void)id, (void)data;
    fprintf(stderr, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", total.all, total.multiply_adds, total.loads, total.stores);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count, char **options) {
    (void)info, (void)count, (void)options;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
