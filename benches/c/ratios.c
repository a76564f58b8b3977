/* Steps through the C ABI against the memory and against plain kernels.
 *
 * Each line is a pair that takes turns on the same memory, within milliseconds of each other; times on
 * shared machines drift, the ratio of a pair does not. Prints medians, the quartiles of
 * the ratio, and the ratio of the best times.
 * Sections: floor, memory, checked, small, many, threads, rows. */
#define _GNU_SOURCE
#include "dadapt.h"
#include "kernels.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        dadapt_status status_ = (call);                                                            \
        if (status_ != DADAPT_OK) {                                                                \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, dadapt_status_name(status_),    \
                    dadapt_last_error());                                                          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { MAX_ROUNDS = 201, GPT2_TENSORS = 148 };

/* ---- Problems ------------------------------------------------------------------------------- */

static const struct algorithm {
    dadapt_algorithm code;
    kernel floor;
    /* Which of its state a step writes, and bytes moved a parameter. */
    unsigned written, bytes;
} ALGORITHMS[] = {
    {DADAPT_ALGORITHM_ADAM, adam, 7, 36},
    {DADAPT_ALGORITHM_SGD, sgd, 1, 24},
    {DADAPT_ALGORITHM_ADAGRAD, adagrad, 3, 32},
    {DADAPT_ALGORITHM_LION, lion, 3, 28},
    {DADAPT_ALGORITHM_ADAN, adan, 31, 52},
    {DADAPT_ALGORITHM_PRODIGY, prodigy, 7, 40},
    {DADAPT_ALGORITHM_EXPERIMENTAL_ADAM_PREPRINT, NULL, 7, 36},
    {DADAPT_ALGORITHM_EXPERIMENTAL_ADAN_IP, NULL, 31, 52},
    {DADAPT_ALGORITHM_PLAIN_SGD, plain_sgd, 1, 20},
    {DADAPT_ALGORITHM_PLAIN_ADAM, plain_adam, 3, 28},
    {DADAPT_ALGORITHM_PLAIN_ADAGRAD, plain_adagrad, 1, 20},
    {DADAPT_ALGORITHM_PLAIN_LION, plain_lion, 1, 20},
    {DADAPT_ALGORITHM_PLAIN_ADAN, plain_adan, 15, 44},
};
enum { ALGORITHM_COUNT = sizeof ALGORITHMS / sizeof *ALGORITHMS };

/* An optimizer and the tensors of its step, whose arrays are all ours. */
struct problem {
    const struct algorithm *algorithm;
    dadapt_optimizer *optimizer;
    size_t count, states, len; /* len: of all tensors */
    int threads;
    dadapt_tensor *tensors;
    float **state; /* of all tensors, one after the other */
};

/* Leave the values where they are, and are not known to the compiler. */
static volatile float given[COEFFICIENTS] = {0.9f, 1e-9f, 0.999f, 1e-3f, 0.9995f, 1e-10f, 1e-8f, 0.0f};

static float *array(size_t len) {
    float *made = malloc(len * sizeof(float));
    if (!made)
        exit(1);
    return made;
}

static void set(dadapt_config *config, dadapt_key key, double value) {
    CHECK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, key, value));
}

static void step(struct problem *problem) {
    CHECK(dadapt_optimizer_step(problem->optimizer, problem->tensors, problem->count, NULL));
}

static void hold_d(struct problem *problem) {
    /* d grows in the first steps and is then held: Prodigy's usual step is one sweep. */
    for (int i = 0; i < 5; i++)
        step(problem);
    if (problem->algorithm->code < DADAPT_ALGORITHM_PLAIN_SGD)
        CHECK(dadapt_optimizer_set_f64(problem->optimizer, DADAPT_ALL_GROUPS, DADAPT_KEY_GROWTH_RATE, 1));
    step(problem);
}

/* How parameters and gradients lie: as frameworks allocate them, first the one and then the other, or each
 * gradient behind its parameter. */
enum layout { BY_KIND, PAIRED };

static void allocate(dadapt_tensor *tensor, int gradient) {
    float *made = array(tensor->len);
    for (size_t j = 0; j < tensor->len; j++)
        made[j] = gradient ? 1e-2f * ((float)(j * 7919 % 1000) - 499.5f) : 1;
    if (gradient)
        tensor->g = made;
    else
        tensor->p = made;
}

static struct problem problem_laid(const struct algorithm *algorithm, size_t count, const size_t *lens,
                                   int threads, enum layout layout) {
    struct problem problem = {.algorithm = algorithm, .count = count, .threads = threads};
    dadapt_config *config;
    CHECK(dadapt_config_new(algorithm->code, &config));
    set(config, DADAPT_KEY_NUM_THREADS, threads);
    set(config, DADAPT_KEY_NON_FINITE, DADAPT_NON_FINITE_PROPAGATE);
    if (algorithm->code < DADAPT_ALGORITHM_PLAIN_SGD)
        set(config, DADAPT_KEY_D0, 1e-5);
    if (algorithm->code == DADAPT_ALGORITHM_PLAIN_SGD)
        set(config, DADAPT_KEY_MOMENTUM, 0.9);
    CHECK(dadapt_optimizer_new(config, &problem.optimizer));
    dadapt_config_free(config);
    problem.states = dadapt_algorithm_state_count(algorithm->code);
    problem.tensors = calloc(count, sizeof *problem.tensors);
    for (size_t i = 0; i < count; i++) {
        dadapt_tensor *tensor = &problem.tensors[i];
        char name[32];
        snprintf(name, sizeof name, "p%zu", i);
        *tensor = (dadapt_tensor){.struct_size = sizeof *tensor, .len = lens[i]};
        CHECK(dadapt_optimizer_add_tensor(problem.optimizer, 0, name, DADAPT_DTYPE_F32, lens[i], &tensor->id));
        allocate(tensor, 0);
        if (layout == PAIRED)
            allocate(tensor, 1);
        problem.len += lens[i];
    }
    for (size_t i = 0; layout == BY_KIND && i < count; i++)
        allocate(&problem.tensors[i], 1);
    hold_d(&problem);
    problem.state = calloc(count * problem.states, sizeof *problem.state);
    for (size_t i = 0; i < count * problem.states; i++) {
        void *state;
        size_t len;
        dadapt_dtype dtype;
        CHECK(dadapt_optimizer_state(problem.optimizer, problem.tensors[i / problem.states].id,
                                     i % problem.states, &state, &len, &dtype));
        problem.state[i] = state;
    }
    return problem;
}

static struct problem problem_new(const struct algorithm *algorithm, size_t count, const size_t *lens,
                                  int threads) {
    return problem_laid(algorithm, count, lens, threads, BY_KIND);
}

static void problem_free(struct problem *problem) {
    for (size_t i = 0; i < problem->count; i++) {
        free(problem->tensors[i].p);
        free((void *)problem->tensors[i].g);
    }
    free(problem->tensors);
    free(problem->state);
    dadapt_optimizer_free(problem->optimizer);
}

/* ---- Timing --------------------------------------------------------------------------------- */

typedef void (*action)(struct problem *);

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double time_of(action act, struct problem *problem, size_t repeats) {
    double start = now();
    for (size_t i = 0; i < repeats; i++)
        act(problem);
    return (now() - start) / (double)repeats;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *sorted, int n, double q) { return sorted[(int)(q * (n - 1) + 0.5)]; }

static const char *wanted;

static int is_wanted(const char *name) { return !wanted || !strncmp(name, wanted, strlen(wanted)); }

/* Prints ns a parameter of both, or microseconds a call where `micro`. */
static void compare(const char *name, size_t bytes, int micro, struct problem *a, action of_a,
                      struct problem *b, action of_b) {
    static double ratios[MAX_ROUNDS], ours[MAX_ROUNDS], theirs[MAX_ROUNDS];
    /* Samples of some milliseconds, in which the first step's cold caches do not count. */
    size_t repeats = a->len < 10000 ? 2000 : 20000000 / a->len + 1;
    int rounds = a->len > 20000000 ? 21 : a->len > 2000000 ? 41 : 101;
    for (int i = 0; i < rounds; i++) {
        ours[i] = time_of(of_a, a, repeats);
        theirs[i] = time_of(of_b, b, repeats);
        ratios[i] = ours[i] / theirs[i];
    }
    qsort(ratios, (size_t)rounds, sizeof *ratios, ascending);
    qsort(ours, (size_t)rounds, sizeof *ours, ascending);
    qsort(theirs, (size_t)rounds, sizeof *theirs, ascending);
    double unit_a = micro ? 1e6 : 1e9 / (double)a->len, unit_b = micro ? 1e6 : 1e9 / (double)b->len;
    double ratio = quantile(ratios, rounds, 0.5) * unit_a / unit_b;
    printf("%-66s %9zu %4zu  %8.3f %8.3f  %.3f [%.3f, %.3f] best %.3f\n", name, a->len, bytes,
           quantile(ours, rounds, 0.5) * unit_a, quantile(theirs, rounds, 0.5) * unit_b, ratio,
           quantile(ratios, rounds, 0.25) * unit_a / unit_b, quantile(ratios, rounds, 0.75) * unit_a / unit_b,
           ours[0] / theirs[0] * unit_a / unit_b);
    fflush(stdout);
}

/* ---- What takes turns ------------------------------------------------------------------------- */

static void copy_coefficients(float *c) {
    for (int i = 0; i < COEFFICIENTS; i++)
        c[i] = given[i];
}

static void run_kernel(struct problem *problem, kernel kernel) {
    float c[COEFFICIENTS], sums[SUMS];
    copy_coefficients(c);
    for (size_t i = 0; i < problem->count; i++) {
        dadapt_tensor *tensor = &problem->tensors[i];
        kernel(tensor->len, tensor->p, tensor->g, problem->state + i * problem->states, c, sums);
        __asm__ volatile("" : : "m"(sums));
    }
}

static void run_floor(struct problem *problem) { run_kernel(problem, problem->algorithm->floor); }

static void run_two_divisions(struct problem *problem) { run_kernel(problem, adam_two_divisions); }

static void run_ceiling(struct problem *problem) {
    dadapt_tensor *first = &problem->tensors[0];
    ceiling(first->len, first->p, first->g, problem->state, problem->states, problem->algorithm->written,
            given[7], problem->threads);
}

static void set_check(struct problem *problem, int policy) {
    CHECK(dadapt_optimizer_set_f64(problem->optimizer, DADAPT_ALL_GROUPS, DADAPT_KEY_NON_FINITE, policy));
}

static void checked_step(struct problem *problem) {
    set_check(problem, DADAPT_NON_FINITE_REJECT);
    step(problem);
}

static void step_and_read(struct problem *problem) {
    set_check(problem, DADAPT_NON_FINITE_PROPAGATE);
    step(problem);
    read_gradient(problem->len, problem->tensors[0].g, problem->threads);
}

/* ---- Sections --------------------------------------------------------------------------------- */

static const char *name_of(const struct algorithm *algorithm) { return dadapt_algorithm_name(algorithm->code); }

static void against(const char *what, size_t len, int threads, int floors) {
    for (const struct algorithm *a = ALGORITHMS; a < ALGORITHMS + ALGORITHM_COUNT; a++) {
        char name[80], base[80];
        snprintf(name, sizeof name, "%s: %s / %s, %d thread%s", what, name_of(a),
                 floors ? "C kernel" : "same streams", threads, threads > 1 ? "s" : "");
        snprintf(base, sizeof base, "%s: C %s / same streams", what, name_of(a));
        if (!is_wanted(name) || (floors && !a->floor))
            continue;
        struct problem problem = problem_new(a, 1, &len, threads);
        compare(name, a->bytes, 0, &problem, step, &problem, floors ? run_floor : run_ceiling);
        if (floors)
            compare(base, a->bytes, 0, &problem, run_floor, &problem, run_ceiling);
        if (floors && a->floor == adam)
            compare("floor: C adam with two divisions / with one", a->bytes, 0, &problem, run_two_divisions,
                    &problem, run_floor);
        problem_free(&problem);
    }
}

static void checked(size_t len, int threads) {
    char name[80];
    snprintf(name, sizeof name, "checked: adam / unchecked and one read of g, %d thread%s", threads,
             threads > 1 ? "s" : "");
    if (!is_wanted(name))
        return;
    struct problem problem = problem_new(ALGORITHMS, 1, &len, threads);
    compare(name, 40, 0, &problem, checked_step, &problem, step_and_read);
    problem_free(&problem);
}

static void small(size_t len) {
    char name[80];
    snprintf(name, sizeof name, "small: adam / C kernel, microseconds a step");
    if (!is_wanted(name))
        return;
    struct problem problem = problem_new(ALGORITHMS, 1, &len, 1);
    compare(name, 36, 1, &problem, step, &problem, run_floor);
    problem_free(&problem);
}

/* The 148 tensors of GPT-2 124M, in the order of the model. */
static size_t gpt2(size_t *lens) {
    const size_t d = 768;
    const size_t block[12] = {d, d, d * 3 * d, 3 * d, d * d, d, d, d, d * 4 * d, 4 * d, 4 * d * d, d};
    size_t n = 0;
    lens[n++] = 50257 * d;
    lens[n++] = 1024 * d;
    for (int layer = 0; layer < 12; layer++)
        for (int i = 0; i < 12; i++)
            lens[n++] = block[i];
    lens[n++] = d;
    lens[n++] = d;
    return n;
}

/* Descriptors that are not those of the step before, if only in what they say of one type: all are read
 * and checked, as where a framework has put gradients elsewhere. */
static void step_anew(struct problem *problem) {
    problem->tensors[0].dtype ^= DADAPT_DTYPE_F32;
    step(problem);
}

/* Of two equal problems beyond the cache the one that is allocated first is slower, by 3 to 7 % on the machine
 * that this was written on. So each is first once: the ratio is the geometric mean of both lines. */
static void many_laid(const char *name, const char *what, size_t count, const size_t *lens, size_t len, int threads,
                      enum layout layout, int second) {
    const char *order = second ? "second" : "first";
    struct problem many, flat;
    if (second)
        flat = problem_new(ALGORITHMS, 1, &len, threads);
    many = problem_laid(ALGORITHMS, count, lens, threads, layout);
    if (!second)
        flat = problem_new(ALGORITHMS, 1, &len, threads);
    char line[120];
    snprintf(line, sizeof line, "%s, %s", name, order);
    compare(line, 36, 0, &many, step, &flat, step);
    if (threads == 1) {
        snprintf(line, sizeof line, "many: the same, other descriptors in each step, %s", order);
        compare(line, 36, 0, &many, step_anew, &flat, step);
        /* The kernel alone, which checks nothing: what the arrays cost by lying apart. */
        snprintf(line, sizeof line, "many: C adam, %s / one tensor, %s", what, order);
        compare(line, 36, 0, &many, run_floor, &flat, run_floor);
    }
    problem_free(&many);
    problem_free(&flat);
}

static void many(const char *what, size_t count, const size_t *lens, int threads, enum layout layout) {
    char name[80];
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += lens[i];
    snprintf(name, sizeof name, "many: adam, %s / one tensor, %d thread%s", what, threads, threads > 1 ? "s" : "");
    for (int second = 0; is_wanted(name) && second < 2; second++)
        many_laid(name, what, count, lens, len, threads, layout, second);
}

/* Speed-up: both optimizers step on the same memory, whose state is ours. */
static void threads(const struct algorithm *algorithm, size_t len) {
    char name[80];
    snprintf(name, sizeof name, "threads: %s, 1 thread / 2 threads", name_of(algorithm));
    if (!is_wanted(name))
        return;
    struct problem problems[2];
    float *state[MAX_STATE];
    for (int i = 0; i < MAX_STATE; i++)
        state[i] = array(len + 8192) + 272 * i;
    for (int i = 0; i < 2; i++) {
        size_t tiny = 16;
        struct problem *problem = &problems[i];
        *problem = problem_new(algorithm, 1, &tiny, i + 1);
        dadapt_tensor *tensor = &problem->tensors[0];
        CHECK(dadapt_optimizer_add_tensor_with_state_of_caller(problem->optimizer, 0, "shared", DADAPT_DTYPE_F32,
                                                               len, &tensor->id));
        free(tensor->p);
        free((void *)tensor->g);
        tensor->len = problem->len = len;
        tensor->state = (void *const *)state;
        tensor->state_count = problem->states;
        tensor->p = i ? problems[0].tensors[0].p : array(len);
        tensor->g = i ? problems[0].tensors[0].g : array(len);
        for (size_t j = 0; !i && j < len; j++) {
            ((float *)tensor->p)[j] = 1;
            ((float *)tensor->g)[j] = 1e-2f * ((float)(j * 7919 % 1000) - 499.5f);
        }
        step(problem);
    }
    compare(name, algorithm->bytes, 0, &problems[0], step, &problems[1], step);
    problems[1].tensors[0].p = NULL;
    problems[1].tensors[0].g = NULL;
    for (int i = 0; i < 2; i++)
        problem_free(&problems[i]);
    for (int i = 0; i < MAX_STATE; i++)
        free(state[i] - 272 * i);
}

/* AdaGrad of an embedding: only touched rows are paid for. */
static void rows(void) {
    enum { ROWS = 10000000, WIDTH = 16, TOUCHED = 1000, STEPS = 500 };
    if (!is_wanted("rows"))
        return;
    dadapt_config *config;
    dadapt_optimizer *optimizer;
    dadapt_tensor tensor = {.struct_size = sizeof tensor, .len = (size_t)ROWS * WIDTH, .row_count = TOUCHED,
                            .row_type = DADAPT_INDEX_U32};
    CHECK(dadapt_config_new(DADAPT_ALGORITHM_ADAGRAD, &config));
    CHECK(dadapt_optimizer_new(config, &optimizer));
    dadapt_config_free(config);
    CHECK(dadapt_optimizer_add_rows(optimizer, 0, "embedding", DADAPT_DTYPE_F32, ROWS, WIDTH, 0, &tensor.id));
    float *table = array(tensor.len), *g = array(TOUCHED * WIDTH);
    uint32_t *drawn = malloc(sizeof(uint32_t) * STEPS * TOUCHED);
    for (size_t i = 0; i < tensor.len; i++)
        table[i] = 0.01f;
    for (size_t i = 0; i < TOUCHED * WIDTH; i++)
        g[i] = (float)(i % 37) - 18;
    uint64_t seed = 1;
    for (size_t i = 0; i < STEPS * TOUCHED; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        drawn[i] = (uint32_t)((seed >> 33) % ROWS);
    }
    tensor.p = table;
    tensor.g = g;
    for (int again = 0; again < 2; again++) {
        double times[STEPS];
        for (int i = 0; i < STEPS; i++) {
            tensor.rows = drawn + i * TOUCHED;
            double start = now();
            CHECK(dadapt_optimizer_step(optimizer, &tensor, 1, NULL));
            times[i] = 1e3 * (now() - start);
        }
        qsort(times, STEPS, sizeof *times, ascending);
        printf("rows: 1,000 of 10,000,000 by 16, %s: ms a step %.3f [%.3f, %.3f], worst %.3f\n",
               again ? "touched before" : "touched first", quantile(times, STEPS, 0.5),
               quantile(times, STEPS, 0.25), quantile(times, STEPS, 0.75), times[STEPS - 1]);
    }
    free(table), free(g), free(drawn);
    dadapt_optimizer_free(optimizer);
}

int main(int argc, char **argv) {
    wanted = argc > 1 ? argv[1] : NULL;
    printf("%-66s %9s %4s  %8s %8s  ratio: median [quartiles], of the best times\n", "ns a parameter", "len", "B", "first", "second");
    against("floor", 100000, 1, 1);
    against("floor", 1000000, 1, 1);
    for (int t = 1; t <= 2; t++) {
        against("memory", 10000000, t, 0);
        against("memory", 50000000, t, 0);
    }
    for (int t = 1; t <= 2; t++)
        for (size_t len = 100000; len <= 10000000; len *= 10)
            checked(len, t);
    for (size_t len = 10; len <= 10000; len *= 10)
        small(len);
    size_t thousand[1000], shapes[GPT2_TENSORS];
    for (int i = 0; i < 1000; i++)
        thousand[i] = 1000;
    size_t tensors = gpt2(shapes);
    for (int t = 1; t <= 2; t++) {
        many("1,000 of 1,000", 1000, thousand, t, BY_KIND);
        many("1,000 of 1,000, in pairs", 1000, thousand, t, PAIRED);
        many("GPT-2", tensors, shapes, t, BY_KIND);
    }
    for (const struct algorithm *a = ALGORITHMS; a < ALGORITHMS + 2; a++)
        for (size_t len = 10000; len <= 10000000; len *= 10)
            threads(a, len);
    rows();
    return 0;
}
