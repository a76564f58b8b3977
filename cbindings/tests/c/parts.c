/* Steps in parts: tensors given one at a time, by several threads, to the bits of a whole step. */
#include "check.h"

#include <math.h>
#include <pthread.h>

enum { TENSORS = 9, THREADS = 3, STEPS = 5, LONGEST = 9001, SLOTS = 6 };

/* From none to several blocks. */
static const size_t lens[TENSORS] = {1, 17, 0, LONGEST, 4096, 130, 64, 3, 5000};

static float p[2][TENSORS][LONGEST], g[TENSORS][LONGEST];

/* Tensor 6 starts at 0 and has no gradient but 0 for two steps, tensor 7 has none in step 1. */
static int has_gradient(size_t tensor, int step)
{
    return tensor != 7 || step != 1;
}

static void gradients(int step)
{
    for (size_t t = 0; t < TENSORS; t++)
        for (size_t i = 0; i < lens[t]; i++)
            g[t][i] = t == 6 && step < 2 ? 0.0f : p[0][t][i] - value_at(5000 + 1000 * t + i);
}

static dadapt_optimizer *start(dadapt_algorithm algorithm, float (*at)[LONGEST], uint64_t *ids)
{
    dadapt_config *config = new_config(algorithm);
    OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_NUM_THREADS, 2));
    /* Large enough that floats move from the first step on. */
    const dadapt_status set = dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_D0, 0.01);
    CHECK(set == DADAPT_OK || set == DADAPT_ERROR_KEY_NOT_FOR_ALGORITHM);
    dadapt_optimizer *opt = new_optimizer(config);
    for (size_t t = 0; t < TENSORS; t++) {
        OK(dadapt_optimizer_add_tensor(opt, 0, NULL, DADAPT_DTYPE_F32, lens[t], &ids[t]));
        for (size_t i = 0; i < lens[t]; i++)
            at[t][i] = t == 6 ? 0.0f : value_at(777 * t + i);
    }
    return opt;
}

typedef struct {
    dadapt_optimizer *opt;
    const uint64_t *ids;
    size_t first;
    int step;
} worker;

/* Every third tensor, the last first. Each gradient is spoilt and freed as soon as it may be. */
static void *give_tensors(void *context)
{
    const worker *w = context;
    for (size_t n = TENSORS / THREADS; n-- > 0;) {
        const size_t t = w->first + n * THREADS;
        if (!has_gradient(t, w->step))
            continue;
        const size_t bytes = (lens[t] + 1) * sizeof(float);
        float *const gradient = malloc(bytes);
        CHECK(gradient != NULL);
        memcpy(gradient, g[t], bytes - sizeof(float));
        const dadapt_tensor given = tensor_of(w->ids[t], lens[t], p[1][t], gradient);
        OK(dadapt_optimizer_step_tensor(w->opt, &given));
        memset(gradient, 0x7f, bytes);
        free(gradient);
    }
    return NULL;
}

static void give_by_threads(dadapt_optimizer *opt, const uint64_t *ids, int step)
{
    pthread_t threads[THREADS];
    worker workers[THREADS];
    const double d = d_of(opt);
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (worker){opt, ids, i, step};
        CHECK(pthread_create(&threads[i], NULL, give_tensors, &workers[i]) == 0);
    }
    /* Meanwhile the optimizer can be read. */
    double lr = 0.0;
    OK(dadapt_optimizer_get_f64(opt, 0, DADAPT_KEY_LR, &lr));
    CHECK(lr > 0.0 && d_of(opt) == d);
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void same_bits_as_whole_steps(dadapt_algorithm algorithm)
{
    uint64_t ids[2][TENSORS];
    dadapt_optimizer *opt[2];
    for (int o = 0; o < 2; o++) {
        opt[o] = start(algorithm, p[o], ids[o]);
        if (algorithm == DADAPT_ALGORITHM_PRODIGY)
            OK(dadapt_optimizer_freeze(opt[o]));
    }
    for (int step = 0; step < STEPS; step++) {
        dadapt_tensor whole[TENSORS];
        dadapt_report report[2] = {new_report(), new_report()};
        gradients(step);
        for (size_t t = 0; t < TENSORS; t++)
            whole[t] = tensor_of(ids[0][t], lens[t], p[0][t],
                                 has_gradient(t, step) ? g[t] : NULL);
        OK(dadapt_optimizer_step(opt[0], whole, TENSORS, &report[0]));
        OK(dadapt_optimizer_step_begin(opt[1]));
        give_by_threads(opt[1], ids[1], step);
        OK(dadapt_optimizer_step_end(opt[1], &report[1]));
        CHECK(!memcmp(&report[0], &report[1], sizeof report[0]));
        CHECK(report[1].k == (uint64_t)step + 1 && report[1].d == d_of(opt[1]));
        CHECK(!memcmp(p[0], p[1], sizeof p[0]));
    }
    for (size_t t = 0; t < TENSORS; t++) /* something was done */
        CHECK(lens[t] == 0 || p[1][t][0] != (t == 6 ? 0.0f : value_at(777 * t)));
    for (size_t t = 0; t < TENSORS; t++)
        for (size_t slot = 0; slot < dadapt_algorithm_state_count(algorithm); slot++) {
            void *state[2] = {NULL, NULL};
            size_t len[2] = {0, 0};
            for (int o = 0; o < 2; o++)
                OK(dadapt_optimizer_state(opt[o], ids[o][t], slot, &state[o], &len[o], NULL));
            CHECK(len[0] == len[1]);
            CHECK(len[0] == 0 || !memcmp(state[0], state[1], len[0] * sizeof(float)));
        }
    dadapt_optimizer_free(opt[0]);
    dadapt_optimizer_free(opt[1]);
}

/* ---- What is refused ---- */

enum { A = 17, B = 9 };

typedef struct {
    float a[A + 1], ga[A], b[B], gb[B], state[SLOTS][B];
} arrays;

typedef struct {
    dadapt_optimizer *opt;
    uint64_t a, b;
    void *state[SLOTS];
    size_t states;
    arrays memory;
} scene;

static void set_scene(scene *s, dadapt_algorithm algorithm)
{
    memset(s, 0, sizeof *s);
    dadapt_config *config = new_config(algorithm);
    OK(dadapt_config_add_group(config, NULL));
    s->opt = new_optimizer(config);
    s->states = dadapt_algorithm_state_count(algorithm);
    OK(dadapt_optimizer_add_tensor(s->opt, 0, "a", DADAPT_DTYPE_F32, A, &s->a));
    OK(dadapt_optimizer_add_tensor_with_state_of_caller(s->opt, 1, "b", DADAPT_DTYPE_F32, B,
                                                        &s->b));
    for (size_t i = 0; i < A; i++) {
        s->memory.a[i] = value_at(i);
        s->memory.ga[i] = value_at(i + 100);
    }
    for (size_t i = 0; i < B; i++) {
        s->memory.b[i] = value_at(i + 200);
        s->memory.gb[i] = value_at(i + 300);
    }
    for (size_t i = 0; i < SLOTS; i++)
        s->state[i] = s->memory.state[i];
}

static dadapt_tensor tensor_a(scene *s)
{
    return tensor_of(s->a, A, s->memory.a, s->memory.ga);
}

static dadapt_tensor tensor_b(scene *s)
{
    dadapt_tensor b = tensor_of(s->b, B, s->memory.b, s->memory.gb);
    b.state = s->state;
    b.state_count = s->states;
    return b;
}

static void whole_step(scene *s)
{
    const dadapt_tensor t[2] = {tensor_a(s), tensor_b(s)};
    OK(dadapt_optimizer_step(s->opt, t, 2, NULL));
}

/* The call fails and leaves all arrays, d and k as they were. */
#define REFUSED(status, words, call)                                        \
    do {                                                                    \
        const arrays before = s->memory;                                    \
        const double d = d_of(s->opt);                                      \
        const uint64_t k = k_of(s->opt);                                    \
        FAILS(status, words, call);                                         \
        CHECK(!strcmp(dadapt_optimizer_last_error(s->opt), dadapt_last_error())); \
        CHECK(!memcmp(&before, &s->memory, sizeof before));                 \
        CHECK(d_of(s->opt) == d && k_of(s->opt) == k);                      \
    } while (0)

/* The tensor, changed so, is refused. */
#define BAD(status, words, good, change)                                          \
    do {                                                                          \
        dadapt_tensor t = good(s);                                                \
        change;                                                                   \
        REFUSED(status, words, dadapt_optimizer_step_tensor(s->opt, &t));         \
    } while (0)

static void without_a_step(scene *s)
{
    const dadapt_status none = DADAPT_ERROR_NO_STEP_OPEN;
    const dadapt_tensor a = tensor_a(s);
    dadapt_report report = new_report(), untouched = new_report();
    REFUSED(none, "step_begin", dadapt_optimizer_step_tensor(s->opt, &a));
    REFUSED(none, "step_begin", dadapt_optimizer_step_end(s->opt, &report));
    CHECK(!memcmp(&report, &untouched, sizeof report));
    uint64_t ids[2] = {77, 77};
    size_t count = 77;
    OK(dadapt_optimizer_step_abort(s->opt, ids, 2, &count));
    CHECK(count == 0 && ids[0] == 77);
    OK(dadapt_optimizer_step_abort(s->opt, NULL, 0, NULL));
}

static void other_calls_in_a_step(scene *s)
{
    const dadapt_status open = DADAPT_ERROR_STEP_OPEN;
    const dadapt_group all = DADAPT_ALL_GROUPS;
    const dadapt_tensor a = tensor_a(s);
    dadapt_group group = 77;
    uint64_t id = 77;
    REFUSED(open, "end or abort", dadapt_optimizer_step_begin(s->opt));
    REFUSED(open, "end or abort", dadapt_optimizer_step(s->opt, &a, 1, NULL));
    REFUSED(open, "", dadapt_optimizer_set_f64(s->opt, all, DADAPT_KEY_EPS, 1e-7));
    REFUSED(open, "", dadapt_optimizer_set_f64_by_name(s->opt, all, "eps", 1e-7));
    REFUSED(open, "", dadapt_optimizer_set_lr(s->opt, 0, 0.5));
    REFUSED(open, "", dadapt_optimizer_add_group(s->opt, &group));
    REFUSED(open, "", dadapt_optimizer_add_tensor(s->opt, 0, "x", DADAPT_DTYPE_F32, 1, &id));
    REFUSED(open, "", dadapt_optimizer_add_tensor_with_state_of_caller(s->opt, 0, "x",
                                                                       DADAPT_DTYPE_F32, 1, &id));
    REFUSED(open, "", dadapt_optimizer_freeze(s->opt));
    REFUSED(open, "", dadapt_optimizer_restart(s->opt));
    CHECK(group == 77 && id == 77);
    double eps = 0.0;
    int32_t frozen = 77;
    OK(dadapt_optimizer_get_f64(s->opt, 0, DADAPT_KEY_EPS, &eps));
    OK(dadapt_optimizer_is_frozen(s->opt, &frozen));
    CHECK(eps == 1e-8 && frozen == 0);
}

static void bad_states(scene *s)
{
    BAD(DADAPT_ERROR_OVERLAP, "tensor \"b\"", tensor_b, t.p = s->memory.state[1]);
    BAD(DADAPT_ERROR_STATE_COUNT, "\"b\" needs 3", tensor_b, t.state_count = 2);
    BAD(DADAPT_ERROR_STATE_COUNT, "tensor->state_count is 7; no algorithm", tensor_b,
        t.state_count = SLOTS + 1);
    BAD(DADAPT_ERROR_NULL_POINTER, "tensor->state is NULL", tensor_b, t.state = NULL);
}

static void bad_arrays(scene *s)
{
    REFUSED(DADAPT_ERROR_NULL_POINTER, "tensor is NULL",
            dadapt_optimizer_step_tensor(s->opt, NULL));
    BAD(DADAPT_ERROR_STRUCT_SIZE, "tensor->struct_size is 0", tensor_a, t.struct_size = 0);
    BAD(DADAPT_ERROR_STRUCT_SIZE, "tensor->struct_size is", tensor_a, t.struct_size = SIZE_MAX);
    BAD(DADAPT_ERROR_RESERVED, "tensor->reserved is 3", tensor_a, t.reserved = 3);
    BAD(DADAPT_ERROR_UNKNOWN_TENSOR, "id 7", tensor_a, t.id = 7);
    BAD(DADAPT_ERROR_LENGTH, "has 16 elements, and 17", tensor_a, t.len = A - 1);
    BAD(DADAPT_ERROR_DTYPE, "given as f64", tensor_a, t.dtype = DADAPT_DTYPE_F64);
    BAD(DADAPT_ERROR_UNKNOWN_DTYPE, "type 9", tensor_a, t.dtype = 9);
    BAD(DADAPT_ERROR_NULL_POINTER, "the parameter of tensor \"a\"", tensor_a, t.p = NULL);
    BAD(DADAPT_ERROR_MISALIGNED, "the parameter of tensor \"a\"", tensor_a,
        t.p = (char *)s->memory.a + 1);
    BAD(DADAPT_ERROR_OVERLAP, "tensor \"a\"", tensor_a, t.g = s->memory.a);

    struct {
        dadapt_tensor known;
        uint64_t later;
    } longer;
    memset(&longer, 0, sizeof longer);
    longer.known = tensor_a(s);
    longer.known.struct_size = sizeof longer;
    longer.later = 1;
    REFUSED(DADAPT_ERROR_RESERVED, "tensor has fields of a later version",
            dadapt_optimizer_step_tensor(s->opt, &longer.known));

    const float good = s->memory.ga[16];
    s->memory.ga[16] = NAN;
    BAD(DADAPT_ERROR_NON_FINITE_GRADIENT, "tensor \"a\" is NaN at element 16", tensor_a, (void)0);
    s->memory.ga[16] = good;
}

/* Refused calls leave no trace: the steps go on like those of an optimizer that was never asked. */
static void refusals(void)
{
    static scene asked, never_asked;
    scene *const s = &asked;
    set_scene(s, DADAPT_ALGORITHM_ADAM);
    set_scene(&never_asked, DADAPT_ALGORITHM_ADAM);
    for (int step = 0; step < 3; step++) {
        const dadapt_tensor a = tensor_a(s), b = tensor_b(s);
        without_a_step(s);
        OK(dadapt_optimizer_step_begin(s->opt));
        other_calls_in_a_step(s);
        bad_states(s);
        bad_arrays(s);
        OK(dadapt_optimizer_step_tensor(s->opt, &b));
        bad_arrays(s);
        OK(dadapt_optimizer_step_tensor(s->opt, &a));
        REFUSED(DADAPT_ERROR_TENSOR_TWICE, "\"a\"", dadapt_optimizer_step_tensor(s->opt, &a));

        dadapt_report report = new_report();
        report.struct_size = 1;
        const dadapt_report untouched = report;
        REFUSED(DADAPT_ERROR_STRUCT_SIZE, "report->struct_size is 1",
                dadapt_optimizer_step_end(s->opt, &report));
        CHECK(!memcmp(&report, &untouched, sizeof report));
        OK(dadapt_optimizer_step_end(s->opt, NULL)); /* it was still open */
        whole_step(&never_asked);
        CHECK(!memcmp(&asked.memory, &never_asked.memory, sizeof asked.memory));
        CHECK(d_of(asked.opt) == d_of(never_asked.opt) && k_of(asked.opt) == (uint64_t)step + 1);
    }
    OK(dadapt_optimizer_step_begin(s->opt));
    dadapt_optimizer_free(asked.opt); /* in the middle of a step */
    dadapt_optimizer_free(never_asked.opt);
}

static void beginnings(void)
{
    static scene scenes[2];
    const dadapt_group all = DADAPT_ALL_GROUPS;
    scene *s = &scenes[0];
    set_scene(s, DADAPT_ALGORITHM_PRODIGY);
    REFUSED(DADAPT_ERROR_NOT_IN_PARTS, "prodigy", dadapt_optimizer_step_begin(s->opt));
    whole_step(s);
    OK(dadapt_optimizer_freeze(s->opt));
    OK(dadapt_optimizer_step_begin(s->opt));
    OK(dadapt_optimizer_step_abort(s->opt, NULL, 0, NULL));

    s = &scenes[1];
    set_scene(s, DADAPT_ALGORITHM_ADAM);
    OK(dadapt_optimizer_set_f64(s->opt, all, DADAPT_KEY_NON_FINITE, DADAPT_NON_FINITE_SKIP));
    REFUSED(DADAPT_ERROR_NOT_IN_PARTS, "non_finite", dadapt_optimizer_step_begin(s->opt));
    OK(dadapt_optimizer_set_f64(s->opt, all, DADAPT_KEY_NON_FINITE, DADAPT_NON_FINITE_REJECT));
    OK(dadapt_optimizer_set_lr(s->opt, 1, 0.5));
    REFUSED(DADAPT_ERROR_MIXED_LR, "layer_scale", dadapt_optimizer_step_begin(s->opt));
    OK(dadapt_optimizer_set_lr(s->opt, 1, 1.0));
    OK(dadapt_optimizer_step_begin(s->opt));
    for (int i = 0; i < 2; i++)
        dadapt_optimizer_free(scenes[i].opt);
}

static void aborts(dadapt_algorithm algorithm)
{
    /* SGD's first step waits for the norm of all gradients: nothing has been updated. */
    const size_t updated = algorithm == DADAPT_ALGORITHM_SGD ? 0 : 2;
    static scene aborted;
    scene *const s = &aborted;
    set_scene(s, algorithm);
    const arrays before = s->memory;
    const double d0 = d_of(s->opt);
    const dadapt_tensor a = tensor_a(s), b = tensor_b(s);
    uint64_t ids[3] = {77, 77, 77};
    size_t count = 77;
    for (size_t capacity = 0; capacity <= 3; capacity++) {
        OK(dadapt_optimizer_step_begin(s->opt));
        OK(dadapt_optimizer_step_tensor(s->opt, &b));
        OK(dadapt_optimizer_step_tensor(s->opt, &a));
        REFUSED(DADAPT_ERROR_NULL_POINTER, "ids is NULL",
                dadapt_optimizer_step_abort(s->opt, NULL, 2, &count));
        OK(dadapt_optimizer_step_abort(s->opt, capacity ? ids : NULL, capacity, &count));
        CHECK(count == updated && d_of(s->opt) == d0 && k_of(s->opt) == 0);
        for (size_t i = 0; i < 3; i++)
            CHECK(ids[i] == (i < capacity && i < updated ? (i == 0 ? s->b : s->a) : 77));
        CHECK((memcmp(before.a, s->memory.a, sizeof before.a) != 0) == (updated == 2));
        CHECK((memcmp(before.b, s->memory.b, sizeof before.b) != 0) == (updated == 2));
        without_a_step(s);
    }
    OK(dadapt_optimizer_step_begin(s->opt));
    OK(dadapt_optimizer_step_tensor(s->opt, &a));
    OK(dadapt_optimizer_step_abort(s->opt, NULL, 0, NULL));
    if (updated > 0) {
        whole_step(s);
        CHECK(k_of(s->opt) == 1);
    } else { /* nothing of it is left */
        static scene never_asked;
        set_scene(&never_asked, algorithm);
        for (int step = 0; step < 3; step++) {
            whole_step(s);
            whole_step(&never_asked);
            CHECK(!memcmp(&s->memory, &never_asked.memory, sizeof s->memory));
            CHECK(d_of(s->opt) == d_of(never_asked.opt));
        }
        dadapt_optimizer_free(never_asked.opt);
    }
    dadapt_optimizer_free(s->opt);
}

static void *fail_often(void *context)
{
    const worker *w = context;
    char words[32];
    const uint64_t id = 1000 + w->first;
    snprintf(words, sizeof words, "id %d;", (int)id);
    const dadapt_tensor t = tensor_of(id, 1, p[0][0], g[0]);
    for (int i = 0; i < 50; i++) {
        FAILS(DADAPT_ERROR_UNKNOWN_TENSOR, words, dadapt_optimizer_step_tensor(w->opt, &t));
    }
    return NULL;
}

/* Threads that fail at once read each its own error. */
static void failing_threads(void)
{
    uint64_t ids[TENSORS];
    pthread_t threads[THREADS];
    worker workers[THREADS];
    dadapt_optimizer *opt = start(DADAPT_ALGORITHM_LION, p[0], ids);
    OK(dadapt_optimizer_step_begin(opt));
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (worker){opt, ids, i, 0};
        CHECK(pthread_create(&threads[i], NULL, fail_often, &workers[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(strstr(dadapt_optimizer_last_error(opt), "id 100"));
    OK(dadapt_optimizer_step_end(opt, NULL));
    dadapt_optimizer_free(opt);
}

typedef struct {
    dadapt_optimizer *opt;
    int lines;
} log_reader;

static void read_line(void *context, const char *line)
{
    log_reader *reader = context;
    CHECK(!strncmp(line, "adam step ", 10) && atoi(line + 10) == reader->lines);
    reader->lines++;
    /* The step is over: the callback may begin another. */
    OK(dadapt_optimizer_step_begin(reader->opt));
    OK(dadapt_optimizer_step_abort(reader->opt, NULL, 0, NULL));
}

static void log_lines(void)
{
    static scene s;
    set_scene(&s, DADAPT_ALGORITHM_ADAM);
    log_reader reader = {s.opt, 0};
    const dadapt_tensor a = tensor_a(&s);
    OK(dadapt_optimizer_set_log(s.opt, read_line, &reader));
    OK(dadapt_optimizer_set_f64(s.opt, DADAPT_ALL_GROUPS, DADAPT_KEY_LOG_EVERY, 1));
    for (int step = 0; step < 3; step++) {
        OK(dadapt_optimizer_step_begin(s.opt));
        OK(dadapt_optimizer_step_tensor(s.opt, &a));
        CHECK(reader.lines == step);
        OK(dadapt_optimizer_step_end(s.opt, NULL));
        CHECK(reader.lines == step + 1);
    }
    dadapt_optimizer_free(s.opt);
}

int main(void)
{
    for (dadapt_algorithm algorithm = 1; dadapt_algorithm_name(algorithm); algorithm++)
        same_bits_as_whole_steps(algorithm);
    refusals();
    beginnings();
    aborts(DADAPT_ALGORITHM_ADAM);
    aborts(DADAPT_ALGORITHM_SGD);
    failing_threads();
    log_lines();
    return EXIT_SUCCESS;
}
