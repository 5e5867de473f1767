// SPDX-License-Identifier: Apache-2.0
// Instructions between two moments of a program: a plugin of qemu-user (API 1 of qemu-plugin.h, whose declarations
// are repeated, as few packages have the header), or with -DCALLGRIND a library that switches callgrind.
#include <stdint.h>
#ifdef CALLGRIND
#include <valgrind/callgrind.h>

void begin(void)
{
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void end(const char *name)
{
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}
#else
#include <stdio.h>
#include <string.h>

struct qemu_plugin_tb;
enum { ADD_U64 };
typedef void translated_t(uint64_t, struct qemu_plugin_tb *);
typedef void called_t(uint64_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                      uint64_t, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, translated_t *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t, called_t *);

int qemu_plugin_version = 1;
static uint64_t count;
static FILE *file;

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
    qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &count, qemu_plugin_tb_n_insns(tb));
}

// A moment is a system call of a process number that there is not.
static void called(uint64_t id, unsigned cpu, int64_t number, uint64_t first, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    if ((uint32_t)first >> 16 == 0x5EED) {
        fprintf(file, "%u %llu\n", (unsigned)(first & 0xFFFF), (unsigned long long)count);
        fflush(file);
    }
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "to=", 3))
            file = fopen(argv[i] + 3, "w");
    if (!file)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
#endif
