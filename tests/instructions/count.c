/* Counts instructions under callgrind: steps of every algorithm, element type and instruction set, each
 * in a dump of its own that is named after it. tests/instructions/main.rs compiles and reads it.
 *
 * d stands still while steps are counted: how many sweeps a step takes may depend on it. Gradients are
 * checked in the kind that says so, and state kept in full but in those that are named after it. */
#include <dadapt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/callgrind.h>

enum { LEN = 65536, SCALAR_LEN = 2048, SMALL = 1000, MANY = 1000, STEPS = 2, PATIENCE = 100 };

/* Where d starts. It stays there, or has gone on to the other and stays there. */
static const double D0 = 1e-6, D_CAP = 2e-6;

#define OK(call)                                                                            \
    do {                                                                                    \
        if ((call) != DADAPT_OK) {                                                          \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, dadapt_last_error()); \
            exit(EXIT_FAILURE);                                                             \
        }                                                                                   \
    } while (0)

static const dadapt_group all = DADAPT_ALL_GROUPS;

struct kind {
    dadapt_algorithm algorithm;
    dadapt_dtype dtype;
    int isa;
    int state; /* what it is kept in: an index of STATES, which are the option's codes */
};

static const char *const STATES[] = {"kernel", "compact", "bf16-state", "q8-state"};
enum { STATE_KINDS = sizeof STATES / sizeof *STATES };

/* Sets an option of the algorithms that have it. */
static void set_if_there(dadapt_config *config, dadapt_key key, double value)
{
    double old;
    if (dadapt_config_get_f64(config, all, key, &old) == DADAPT_OK)
        OK(dadapt_config_set_f64(config, all, key, value));
}

static dadapt_optimizer *optimizer_of(struct kind kind, double d_cap, int non_finite)
{
    dadapt_config *config = NULL;
    dadapt_optimizer *optimizer = NULL;
    OK(dadapt_config_new(kind.algorithm, &config));
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_ISA, kind.isa));
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_NUM_THREADS, 1));
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_NON_FINITE, non_finite));
    set_if_there(config, DADAPT_KEY_D0, D0);
    set_if_there(config, DADAPT_KEY_D_CAP, d_cap);
    dadapt_key state;
    OK(dadapt_key_from_name("state", &state));
    OK(dadapt_config_set_f64(config, all, state, kind.state));
    OK(dadapt_optimizer_new(config, &optimizer));
    dadapt_config_free(config);
    return optimizer;
}

static double d_of(const dadapt_optimizer *optimizer)
{
    double d;
    OK(dadapt_optimizer_d(optimizer, &d));
    return d;
}

/* Counts `STEPS` steps of `tensors` tensors, `len` elements each, under that name. All parameters lie together and then
 * all gradients, or, where `paired`, each gradient behind its parameter. */
static void count_laid(struct kind kind, const char *what, size_t tensors, size_t len, double d_cap,
                       int non_finite, int paired)
{
    const size_t size = kind.dtype == DADAPT_DTYPE_F32 ? sizeof(float) : sizeof(double);
    dadapt_optimizer *optimizer = optimizer_of(kind, d_cap, non_finite);
    dadapt_tensor *list = calloc(tensors, sizeof *list);
    char *arrays = malloc(2 * tensors * len * size);
    for (size_t i = 0; i < 2 * tensors * len; i++) {
        const double value = 1.0 + (double)(i * 7 % 64) / 64.0;
        if (kind.dtype == DADAPT_DTYPE_F32)
            ((float *)arrays)[i] = (float)value;
        else
            ((double *)arrays)[i] = value;
    }
    const size_t to_next = (paired ? 2 : 1) * len * size, to_g = (paired ? 1 : tensors) * len * size;
    for (size_t i = 0; i < tensors; i++) {
        char name[32];
        uint64_t id;
        snprintf(name, sizeof name, "t%zu", i);
        OK(dadapt_optimizer_add_tensor(optimizer, 0, name, kind.dtype, len, &id));
        list[i] = (dadapt_tensor){.struct_size = sizeof *list,
                                  .id = id,
                                  .len = len,
                                  .p = arrays + i * to_next,
                                  .g = arrays + i * to_next + to_g};
    }
    dadapt_report report = {.struct_size = sizeof report};
    const int adapts = d_of(optimizer) == D0; /* else d is 1 */
    /* Until d is where it stays, a step that has not moved it, and one that knows. */
    for (int step = 0, still = 0; still < 3; step++) {
        OK(dadapt_optimizer_step(optimizer, list, tensors, &report));
        still += !adapts || report.d == d_cap;
        if (step == PATIENCE) {
            fprintf(stderr, "%s: d is still %g\n", dadapt_algorithm_name(kind.algorithm), report.d);
            exit(EXIT_FAILURE);
        }
    }
    const int sweeps = report.sweeps;

    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
    for (int step = 0; step < STEPS; step++)
        OK(dadapt_optimizer_step(optimizer, list, tensors, &report));
    char title[128];
    snprintf(title, sizeof title, "%s %s %s %s / %zu", what, dadapt_algorithm_name(kind.algorithm),
             dadapt_dtype_name(kind.dtype), dadapt_isa_name(kind.isa), STEPS * tensors * len);
    CALLGRIND_DUMP_STATS_AT(title);
    CALLGRIND_STOP_INSTRUMENTATION;

    if (report.sweeps != sweeps || (adapts && report.d != d_cap)) {
        fprintf(stderr, "%s: d or the sweeps have changed\n", title);
        exit(EXIT_FAILURE);
    }
    dadapt_optimizer_free(optimizer);
    free(list);
    free(arrays);
}

static void count(struct kind kind, const char *what, size_t tensors, size_t len, double d_cap,
                  int non_finite)
{
    count_laid(kind, what, tensors, len, d_cap, non_finite, 0);
}

int main(int argc, char **argv)
{
    const dadapt_dtype dtypes[] = {DADAPT_DTYPE_F32, DADAPT_DTYPE_F64};
    if (!RUNNING_ON_VALGRIND) {
        fprintf(stderr, "to be run under valgrind --tool=callgrind\n");
        return EXIT_FAILURE;
    }
    /* Instruction sets by name. */
    for (int i = 1; i < argc; i++) {
        const int isa = strcmp(argv[i], "scalar") ? DADAPT_ISA_AVX2 : DADAPT_ISA_SCALAR;
        const size_t len = isa == DADAPT_ISA_SCALAR ? SCALAR_LEN : LEN;
        for (size_t dtype = 0; dtype < 2; dtype++) {
            struct kind kind = {0, dtypes[dtype], isa, 0};
            for (kind.algorithm = 1; dadapt_algorithm_name(kind.algorithm); kind.algorithm++)
                count(kind, "kernel", 1, len, D_CAP, DADAPT_NON_FINITE_PROPAGATE);
            /* While d is d0, Prodigy takes two sweeps. */
            kind.algorithm = DADAPT_ALGORITHM_PRODIGY;
            count(kind, "two-sweeps", 1, len, D0, DADAPT_NON_FINITE_PROPAGATE);
            kind.algorithm = DADAPT_ALGORITHM_ADAM;
            count(kind, "checked", 1, len, D_CAP, DADAPT_NON_FINITE_REJECT);
        }
        /* State that is decoded and encoded. */
        struct kind coded = {DADAPT_ALGORITHM_ADAM, DADAPT_DTYPE_F32, isa, 0};
        for (coded.state = 1; coded.state < STATE_KINDS; coded.state++)
            count(coded, STATES[coded.state], 1, len, D_CAP, DADAPT_NON_FINITE_PROPAGATE);
    }
    const struct kind adam = {DADAPT_ALGORITHM_ADAM, DADAPT_DTYPE_F32,
                              argc > 2 ? DADAPT_ISA_AVX2 : DADAPT_ISA_SCALAR, 0};
    count(adam, "small", 1, SMALL, D_CAP, DADAPT_NON_FINITE_PROPAGATE);
    count(adam, "many", MANY, SMALL, D_CAP, DADAPT_NON_FINITE_PROPAGATE);
    count_laid(adam, "pairs", MANY, SMALL, D_CAP, DADAPT_NON_FINITE_PROPAGATE, 1);
    return 0;
}
