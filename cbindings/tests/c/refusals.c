/* Steps that are refused: after each of them every buffer, the state, d and k are what they were,
 * byte by byte, and in the end the optimizer goes on like one that was never asked for them. */
#include "check.h"

#include <math.h>

enum { A_LEN = 21, B_LEN = 9, STATES = 3, WARM_UP = 3 };

/* All of an optimizer's arrays. Tensor a's state is the library's, tensor b's is here. */
typedef struct {
    float a[A_LEN + 1], ga[A_LEN + 1];
    double b[B_LEN + 1], gb[B_LEN + 1];
    double state[STATES][B_LEN + 1];
} arrays;

typedef struct {
    dadapt_optimizer *opt;
    uint64_t a, b;
    void *state[STATES];
    arrays memory;
} scene;

/* The good step: both tensors. */
static void describe(scene *s, dadapt_tensor *t)
{
    t[0] = tensor_of(s->a, A_LEN, s->memory.a, s->memory.ga);
    t[1] = tensor_of(s->b, B_LEN, s->memory.b, s->memory.gb);
    t[1].dtype = DADAPT_DTYPE_F64;
    t[1].state = s->state;
    t[1].state_count = STATES;
    for (int i = 0; i < STATES; i++)
        s->state[i] = s->memory.state[i];
}

static void good_step(scene *s)
{
    dadapt_tensor t[2];
    dadapt_report report = new_report();
    describe(s, t);
    for (size_t i = 0; i < A_LEN; i++)
        s->memory.ga[i] = s->memory.a[i] + value_at(i + 100);
    for (size_t i = 0; i < B_LEN; i++)
        s->memory.gb[i] = s->memory.b[i] + (double)value_at(i + 200);
    OK(dadapt_optimizer_step(s->opt, t, 2, &report));
    CHECK(report.applied == 1 && report.k == k_of(s->opt) && report.d == d_of(s->opt));
}

static void start(scene *s)
{
    memset(s, 0, sizeof *s);
    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAM);
    OK(dadapt_config_add_group(config, NULL));
    s->opt = new_optimizer(config);
    OK(dadapt_optimizer_add_tensor(s->opt, 0, "a", DADAPT_DTYPE_F32, A_LEN, &s->a));
    OK(dadapt_optimizer_add_tensor_with_state_of_caller(s->opt, 1, "b", DADAPT_DTYPE_F64, B_LEN,
                                                        &s->b));
    for (size_t i = 0; i < A_LEN; i++)
        s->memory.a[i] = value_at(i);
    for (size_t i = 0; i < B_LEN; i++)
        s->memory.b[i] = (double)value_at(i + 50);
    for (int i = 0; i < WARM_UP; i++)
        good_step(s);
    CHECK(k_of(s->opt) == WARM_UP && d_of(s->opt) > 1e-6);
}

/* What must not change. */
typedef struct {
    arrays memory;
    float state[STATES][A_LEN];
    double d;
    uint64_t k;
} snapshot;

static snapshot take(scene *s)
{
    snapshot now;
    memset(&now, 0, sizeof now);
    now.memory = s->memory;
    for (size_t slot = 0; slot < STATES; slot++) {
        void *state = NULL;
        size_t len = 0;
        OK(dadapt_optimizer_state(s->opt, s->a, slot, &state, &len, NULL));
        CHECK(len == A_LEN);
        memcpy(now.state[slot], state, sizeof now.state[slot]);
    }
    now.d = d_of(s->opt);
    now.k = k_of(s->opt);
    return now;
}

/* The step fails, says so on the handle too, and leaves everything as it was. */
static void refused(scene *s, const dadapt_tensor *t, size_t n, dadapt_status status,
                    const char *words, int line)
{
    dadapt_report report = new_report(), untouched = new_report();
    snapshot before = take(s);
    check_status(__FILE__, line, "step", dadapt_optimizer_step(s->opt, t, n, &report), status,
                 words);
    CHECK(!strcmp(dadapt_optimizer_last_error(s->opt), dadapt_last_error()));
    snapshot after = take(s);
    if (memcmp(&before, &after, sizeof before) || memcmp(&report, &untouched, sizeof report)) {
        fprintf(stderr, "%s:%d: the refused step changed something\n", __FILE__, line);
        exit(EXIT_FAILURE);
    }
}

#define REFUSED(status, words, change)                     \
    do {                                                   \
        dadapt_tensor t[2];                                \
        describe(s, t);                                    \
        change;                                            \
        refused(s, t, 2, status, words, __LINE__);         \
    } while (0)

static void arrays_that_do_not_fit(scene *s)
{
    arrays *m = &s->memory;
    REFUSED(DADAPT_ERROR_UNKNOWN_TENSOR, "id 2", t[1].id = 2);
    REFUSED(DADAPT_ERROR_UNKNOWN_TENSOR, "id 18446744073709551615", t[1].id = UINT64_MAX);
    REFUSED(DADAPT_ERROR_TENSOR_TWICE, "\"a\"", t[1] = t[0]);
    REFUSED(DADAPT_ERROR_NULL_POINTER, "the parameter of tensor \"a\"", t[0].p = NULL);
    REFUSED(DADAPT_ERROR_LENGTH, "has 20 elements, and 21 are registered", t[0].len = A_LEN - 1);
    REFUSED(DADAPT_ERROR_LENGTH, "\"b\"", t[1].len = B_LEN + 1);
    REFUSED(DADAPT_ERROR_LENGTH, "\"a\"", t[0].len = 0);
    REFUSED(DADAPT_ERROR_DTYPE, "given as f64, and f32", t[0].dtype = DADAPT_DTYPE_F64);
    REFUSED(DADAPT_ERROR_UNKNOWN_DTYPE, "type 9", t[0].dtype = 9);
    REFUSED(DADAPT_ERROR_MISALIGNED, "the parameter of tensor \"a\" is not aligned to the 4 bytes",
            t[0].p = (char *)m->a + 1);
    REFUSED(DADAPT_ERROR_MISALIGNED, "the gradient of tensor \"b\" is not aligned to the 8 bytes",
            t[1].g = (const char *)m->gb + 4);
    REFUSED(DADAPT_ERROR_MISALIGNED, "exp_avg_sq of tensor \"b\"",
            s->state[1] = (char *)m->state[1] + 2);

    REFUSED(DADAPT_ERROR_OVERLAP, "the gradient of tensor \"a\"", t[0].g = m->a);
    REFUSED(DADAPT_ERROR_OVERLAP, "the parameter of tensor \"a\"", t[0].g = m->a + 1);
    REFUSED(DADAPT_ERROR_OVERLAP, "tensor \"b\"", t[1].p = m->a);
    REFUSED(DADAPT_ERROR_OVERLAP, "the state of tensor \"b\"", t[1].p = m->state[2] + 1);
    REFUSED(DADAPT_ERROR_OVERLAP, "the state of tensor \"b\"", s->state[1] = m->state[0]);
    void *own = NULL;
    OK(dadapt_optimizer_state(s->opt, s->a, 1, &own, NULL, NULL));
    REFUSED(DADAPT_ERROR_OVERLAP, "the state of tensor \"a\"", t[0].p = own);

    REFUSED(DADAPT_ERROR_STATE_COUNT, "\"b\" needs 3 state arrays of the caller's in a step, and 2",
            t[1].state_count = 2);
    REFUSED(DADAPT_ERROR_STATE_COUNT, "and 0 are given", t[1].state_count = 0);
    REFUSED(DADAPT_ERROR_STATE_COUNT, "state_count is 1000000", t[1].state_count = 1000000);
    REFUSED(DADAPT_ERROR_STATE_COUNT, "\"a\" needs 0",
            (t[0].state = s->state, t[0].state_count = STATES));
    REFUSED(DADAPT_ERROR_NULL_POINTER, "tensors[1].state is NULL", t[1].state = NULL);
    REFUSED(DADAPT_ERROR_NULL_POINTER, "s of tensor \"b\"", s->state[2] = NULL);
    refused(s, NULL, 1, DADAPT_ERROR_NULL_POINTER, "tensors is NULL, and n is 1", __LINE__);
}

static void structs_that_do_not_fit(scene *s)
{
    REFUSED(DADAPT_ERROR_STRUCT_SIZE, "tensors[0].struct_size is 0", t[0].struct_size = 0);
    REFUSED(DADAPT_ERROR_STRUCT_SIZE, "tensors[0].struct_size is 8", t[0].struct_size = 8);
    REFUSED(DADAPT_ERROR_STRUCT_SIZE, "tensors[0].", t[0].struct_size = SIZE_MAX);
    REFUSED(DADAPT_ERROR_STRUCT_SIZE, "tensors[1].struct_size is 0", t[1].struct_size = 0);
    REFUSED(DADAPT_ERROR_STRUCT_SIZE, "tensors[1].struct_size is", t[1].struct_size += 8);
    REFUSED(DADAPT_ERROR_RESERVED, "tensors[0].reserved is 1", t[0].reserved = 1);
    REFUSED(DADAPT_ERROR_RESERVED, "tensors[1].reserved is -2", t[1].reserved = -2);

    struct {
        dadapt_tensor known;
        uint64_t later;
    } longer[2];
    dadapt_tensor t[2];
    describe(s, t);
    memset(longer, 0, sizeof longer);
    for (int i = 0; i < 2; i++) {
        longer[i].known = t[i];
        longer[i].known.struct_size = sizeof longer[i];
    }
    longer[1].later = 1;
    refused(s, &longer[0].known, 2, DADAPT_ERROR_RESERVED, "tensors[1] has fields of a later",
            __LINE__);

    dadapt_report report = new_report();
    report.struct_size = 0;
    dadapt_report untouched = report;
    snapshot before = take(s);
    FAILS(DADAPT_ERROR_STRUCT_SIZE, "report->struct_size is 0",
          dadapt_optimizer_step(s->opt, t, 2, &report));
    snapshot after = take(s);
    CHECK(!memcmp(&before, &after, sizeof before) && !memcmp(&report, &untouched, sizeof report));
}

static void options_that_do_not_fit(scene *s)
{
    OK(dadapt_optimizer_set_lr(s->opt, 1, 0.5));
    REFUSED(DADAPT_ERROR_MIXED_LR, "layer_scale", (void)0);
    OK(dadapt_optimizer_set_lr(s->opt, 1, 1.0));
    OK(dadapt_optimizer_set_f64(s->opt, 0, DADAPT_KEY_LAYER_SCALE, 1e300));
    REFUSED(DADAPT_ERROR_COEFFICIENT, "group 0", (void)0);
    OK(dadapt_optimizer_set_f64(s->opt, 0, DADAPT_KEY_LAYER_SCALE, 1.0));
}

static void gradients_that_are_not_finite(scene *s)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float *const place = &s->memory.ga[17];
    const float good = *place;
    for (int i = 0; i < 3; i++) {
        *place = bad[i];
        REFUSED(DADAPT_ERROR_NON_FINITE_GRADIENT, "element 17", (void)0);
    }
    *place = good;
    s->memory.gb[8] = (double)NAN;
    REFUSED(DADAPT_ERROR_NON_FINITE_GRADIENT, "tensor \"b\" is NaN at element 8", (void)0);

    /* Under the policy to skip, the step succeeds and changes as little. */
    OK(dadapt_optimizer_set_f64(s->opt, DADAPT_ALL_GROUPS, DADAPT_KEY_NON_FINITE,
                                DADAPT_NON_FINITE_SKIP));
    dadapt_tensor t[2];
    describe(s, t);
    snapshot before = take(s);
    dadapt_report report = new_report();
    OK(dadapt_optimizer_step(s->opt, t, 2, &report));
    CHECK(report.applied == 0 && report.movement == DADAPT_MOVEMENT_NON_FINITE);
    CHECK(report.k == before.k && report.d == before.d);
    snapshot after = take(s);
    CHECK(!memcmp(&before, &after, sizeof before));
    OK(dadapt_optimizer_set_f64(s->opt, DADAPT_ALL_GROUPS, DADAPT_KEY_NON_FINITE,
                                DADAPT_NON_FINITE_REJECT));
}

/* Steps that are fine, and change nothing. */
static void steps_without_effect(scene *s)
{
    dadapt_tensor t[2];
    dadapt_report report = new_report();
    snapshot before = take(s);
    OK(dadapt_optimizer_step(s->opt, NULL, 0, NULL));
    OK(dadapt_optimizer_set_lr(s->opt, DADAPT_ALL_GROUPS, 0.0));
    describe(s, t);
    OK(dadapt_optimizer_step(s->opt, t, 2, &report));
    CHECK(report.applied == 0 && report.movement == DADAPT_MOVEMENT_LR_ZERO);
    OK(dadapt_optimizer_set_lr(s->opt, DADAPT_ALL_GROUPS, 1.0));
    snapshot after = take(s);
    CHECK(!memcmp(&before.memory, &after.memory, sizeof before.memory));
    CHECK(!memcmp(before.state, after.state, sizeof before.state) && before.d == after.d);
}

/* An absent gradient leaves its tensor alone, and the others go on. */
static void absent_gradient(scene *s)
{
    dadapt_tensor t[2];
    describe(s, t);
    t[0].g = NULL;
    snapshot before = take(s);
    OK(dadapt_optimizer_step(s->opt, t, 2, NULL));
    snapshot after = take(s);
    CHECK(!memcmp(before.memory.a, after.memory.a, sizeof before.memory.a));
    CHECK(!memcmp(before.state, after.state, sizeof before.state));
    CHECK(memcmp(before.memory.b, after.memory.b, sizeof before.memory.b));
    CHECK(after.k == before.k + 1);
}

/* Under the policy to propagate, a NaN reaches its parameter and leaves d alone. */
static void propagation(scene *s)
{
    OK(dadapt_optimizer_set_f64(s->opt, DADAPT_ALL_GROUPS, DADAPT_KEY_NON_FINITE,
                                DADAPT_NON_FINITE_PROPAGATE));
    dadapt_tensor t[2];
    describe(s, t);
    s->memory.ga[3] = NAN;
    double d = d_of(s->opt);
    dadapt_report report = new_report();
    OK(dadapt_optimizer_step(s->opt, t, 2, &report));
    CHECK(report.applied == 1 && report.movement == DADAPT_MOVEMENT_NON_FINITE);
    CHECK(isnan(s->memory.a[3]) && !isnan(s->memory.a[2]) && d_of(s->opt) == d);
}

int main(void)
{
    static scene asked, never_asked;
    start(&asked);
    start(&never_asked);
    arrays_that_do_not_fit(&asked);
    structs_that_do_not_fit(&asked);
    options_that_do_not_fit(&asked);
    gradients_that_are_not_finite(&asked);
    for (int i = 0; i < 3; i++) {
        good_step(&asked);
        good_step(&never_asked);
    }
    snapshot first = take(&asked), second = take(&never_asked);
    CHECK(!memcmp(&first, &second, sizeof first));

    steps_without_effect(&asked);
    absent_gradient(&asked);
    propagation(&asked);
    dadapt_optimizer_free(asked.opt);
    dadapt_optimizer_free(never_asked.opt);
    return EXIT_SUCCESS;
}
