/* Edges of compiled modules for a guided fuzzer (bench/instrumented.py).
 *
 * gcc's -fsanitize-coverage=trace-pc calls __sanitizer_cov_trace_pc at every basic block; libFuzzer, which atheris
 * brings, wants counters of its own. This object is linked into every instrumented module: each has a table of counters,
 * and its constructor tells libFuzzer of it where that is loaded. Offsets are taken from the module's start, so that a
 * block has the same counter in every run. */
#include <stddef.h>
#include <stdint.h>

#define COUNTERS 32768 /* 2^15: more than the blocks of any module; two may share one */

extern const char __ehdr_start[] __attribute__((visibility("hidden")));
void __sanitizer_cov_8bit_counters_init(uint8_t *, uint8_t *) __attribute__((weak));
void __sanitizer_cov_pcs_init(const uintptr_t *, const uintptr_t *) __attribute__((weak));

static uint8_t counters[COUNTERS];
static uintptr_t table[COUNTERS][2]; /* (address, flags): made up, but libFuzzer wants one for each counter */

__attribute__((visibility("hidden"))) void __sanitizer_cov_trace_pc(void) {
    uint32_t offset = (uint32_t)((uintptr_t)__builtin_return_address(0) - (uintptr_t)__ehdr_start);
    uint8_t *counter = &counters[(offset * 2654435761u) >> 17];
    if (*counter != 255) ++*counter;
}

/* Comparisons of floating-point numbers: libFuzzer has no use for them, gcc calls them. */
__attribute__((visibility("hidden"))) void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a, (void)b; }
__attribute__((visibility("hidden"))) void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a, (void)b; }

__attribute__((constructor)) static void begin(void) {
    if (!__sanitizer_cov_8bit_counters_init || !__sanitizer_cov_pcs_init) return;
    for (size_t at = 0; at < COUNTERS; at++) table[at][0] = (uintptr_t)__ehdr_start + at;
    __sanitizer_cov_8bit_counters_init(counters, counters + COUNTERS);
    __sanitizer_cov_pcs_init(&table[0][0], &table[COUNTERS][0]);
}
