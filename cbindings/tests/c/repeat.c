/* A step that is given the descriptors of the one before has the bits of one that is given others:
 * whatever was called in between, for every algorithm and way of keeping parameters and state. */
#include "check.h"

enum { TENSORS = 3, LEN = 700, STEPS = 38 };

static const size_t LENS[TENSORS] = {LEN, 300, 70};

struct run {
    dadapt_optimizer *opt;
    uint64_t id[TENSORS];
    void *p[TENSORS], *g[TENSORS];
    dadapt_dtype dtype;
    /* The same in two orders; a run that repeats itself has but the first. */
    dadapt_tensor tensors[2][TENSORS];
    int repeats;
    /* Whether the last tensor has no gradient. */
    int lacks_one;
};

static float get(const struct run *run, const void *array, size_t i)
{
    return run->dtype == DADAPT_DTYPE_F32 ? ((const float *)array)[i] : of_bf16(((const uint16_t *)array)[i]);
}

static void put(const struct run *run, void *array, size_t i, float x)
{
    if (run->dtype == DADAPT_DTYPE_F32)
        ((float *)array)[i] = x;
    else
        ((uint16_t *)array)[i] = bf16_of(x);
}

static size_t size_of(const struct run *run, int i)
{
    return LENS[i] * (run->dtype == DADAPT_DTYPE_F32 ? 4 : 2);
}

static void describe(struct run *run)
{
    for (int i = 0; i < TENSORS; i++) {
        const void *g = run->lacks_one && i == 2 ? NULL : run->g[i];
        run->tensors[0][i] = tensor_of(run->id[i], LENS[i], run->p[i], g);
        run->tensors[1][TENSORS - 1 - i] = run->tensors[0][i];
    }
}

static struct run new_run(dadapt_config *config, dadapt_dtype dtype, int repeats)
{
    struct run run;
    memset(&run, 0, sizeof run);
    run.dtype = dtype;
    run.repeats = repeats;
    run.opt = new_optimizer(config);
    dadapt_group group;
    OK(dadapt_optimizer_add_group(run.opt, &group));
    for (int i = 0; i < TENSORS; i++) {
        char name[8];
        snprintf(name, sizeof name, "t%d", i);
        OK(dadapt_optimizer_add_tensor(run.opt, i == 1 ? group : 0, name, dtype, LENS[i], &run.id[i]));
        run.p[i] = malloc(size_of(&run, i));
        run.g[i] = malloc(size_of(&run, i));
        for (size_t j = 0; j < LENS[i]; j++)
            put(&run, run.p[i], j, i == 2 ? 0 : value_at(j + 100 * (size_t)i));
    }
    describe(&run);
    return run;
}

static void free_run(struct run *run)
{
    for (int i = 0; i < TENSORS; i++)
        free(run->p[i]), free(run->g[i]);
    dadapt_optimizer_free(run->opt);
}

static dadapt_status step(struct run *run, int number, dadapt_report *report)
{
    for (int i = 0; i < TENSORS; i++)
        for (size_t j = 0; j < LENS[i]; j++)
            put(run, run->g[i], j, get(run, run->p[i], j) - value_at(j + (size_t)number % 5));
    if (number == 12)
        put(run, run->g[1], 7, (float)(1e300 * 1e300));
    *report = new_report();
    return dadapt_optimizer_step(run->opt, run->tensors[run->repeats ? 0 : number % 2], TENSORS, report);
}

/* What is called before the step of that number. */
static void change(struct run *run, int number)
{
    dadapt_optimizer *opt = run->opt;
    uint64_t another;
    dadapt_estimate estimate;
    dadapt_progress progress;
    memset(&progress, 0, sizeof progress);
    progress.struct_size = sizeof progress;
    switch (number) {
    case 5:
        OK(dadapt_optimizer_set_lr(opt, 1, 0));
        break;
    case 8:
        OK(dadapt_optimizer_set_lr(opt, 1, 1));
        break;
    case 10:
        OK(dadapt_optimizer_set_f64(opt, DADAPT_ALL_GROUPS, DADAPT_KEY_WEIGHT_DECAY, 0.01));
        break;
    case 15:
        OK(dadapt_optimizer_tensor_progress(opt, run->id[0], &progress));
        progress.steps = 0;
        OK(dadapt_optimizer_set_tensor_progress(opt, run->id[0], &progress));
        break;
    case 18:
        /* As from a checkpoint without master copies: they are set by this step alone. */
        OK(dadapt_optimizer_tensor_progress(opt, run->id[0], &progress));
        progress.master_is_set = 0;
        OK(dadapt_optimizer_set_tensor_progress(opt, run->id[0], &progress));
        break;
    case 20:
        if (dadapt_optimizer_step_begin(opt) == DADAPT_OK) {
            OK(dadapt_optimizer_step_tensor(opt, &run->tensors[0][1]));
            OK(dadapt_optimizer_step_end(opt, NULL));
        }
        break;
    case 22:
        if (dadapt_optimizer_step_begin(opt) == DADAPT_OK)
            OK(dadapt_optimizer_step_abort(opt, NULL, 0, NULL));
        break;
    case 24:
        /* Elsewhere, what was there being freed. */
        for (int i = 0; i < TENSORS; i++) {
            void *p = malloc(size_of(run, i));
            memcpy(p, run->p[i], size_of(run, i));
            free(run->p[i]);
            run->p[i] = p;
        }
        describe(run);
        break;
    case 26:
        OK(dadapt_optimizer_add_tensor(opt, 0, "another", DADAPT_DTYPE_F32, 5, &another));
        break;
    case 28:
        (void)dadapt_optimizer_restart(opt); /* Not all have one. */
        break;
    case 30:
        memset(&estimate, 0, sizeof estimate);
        estimate.struct_size = sizeof estimate;
        OK(dadapt_optimizer_estimate(opt, 0, &estimate));
        estimate.d *= 2;
        OK(dadapt_optimizer_set_estimate(opt, 0, &estimate));
        break;
    case 32:
        run->lacks_one = 1;
        describe(run);
        break;
    case 34:
        (void)dadapt_optimizer_freeze(opt);
        break;
    default:
        break;
    }
}

static int set_if_known(dadapt_config *config, dadapt_key key, double value)
{
    return dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, key, value) == DADAPT_OK;
}

static dadapt_config *config_of(dadapt_algorithm algorithm, int state, dadapt_dtype dtype, int variant)
{
    dadapt_config *config = new_config(algorithm);
    (void)set_if_known(config, DADAPT_KEY_STATE, state);
    (void)set_if_known(config, DADAPT_KEY_GROWTH_RATE, 1.5);
    (void)set_if_known(config, DADAPT_KEY_D0, 1e-3);
    (void)set_if_known(config, DADAPT_KEY_MOMENTUM, 0.9);
    if (dtype != DADAPT_DTYPE_F32)
        OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_MASTER, variant));
    else if (variant) {
        (void)set_if_known(config, DADAPT_KEY_SLICE_P, 3);
        (void)set_if_known(config, DADAPT_KEY_D_PER_GROUP, state == 1);
    }
    return config;
}

static void same_bits(dadapt_algorithm algorithm, int state, dadapt_dtype dtype, int variant)
{
    struct run run[2];
    for (int i = 0; i < 2; i++)
        run[i] = new_run(config_of(algorithm, state, dtype, variant), dtype, i);
    for (int number = 0; number < STEPS; number++) {
        dadapt_report report[2];
        dadapt_status status[2];
        for (int i = 0; i < 2; i++) {
            change(&run[i], number);
            status[i] = step(&run[i], number, &report[i]);
        }
        CHECK(status[0] == (number == 12 ? DADAPT_ERROR_NON_FINITE_GRADIENT : DADAPT_OK));
        CHECK(status[0] == status[1] && !memcmp(&report[0], &report[1], sizeof report[0]));
        CHECK(d_of(run[0].opt) == d_of(run[1].opt) && k_of(run[0].opt) == k_of(run[1].opt));
        for (int i = 0; i < TENSORS; i++)
            CHECK(!memcmp(run[0].p[i], run[1].p[i], size_of(&run[0], i)));
    }
    free_run(&run[0]);
    free_run(&run[1]);
}

/* Descriptors that are the same and arrays that are not: state of the caller's that lies elsewhere. */
static void state_of_the_callers_is_looked_for(void)
{
    dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_LION));
    static float p[LEN], g[LEN], arrays[2][2][LEN], before[2][LEN];
    void *state[2];
    dadapt_tensor tensor = tensor_of(0, LEN, p, g);
    OK(dadapt_optimizer_add_tensor_with_state_of_caller(opt, 0, "w", DADAPT_DTYPE_F32, LEN, &tensor.id));
    tensor.state = state;
    tensor.state_count = 2;
    for (size_t i = 0; i < LEN; i++)
        g[i] = value_at(i);
    for (int number = 0; number < 6; number++) {
        float(*from)[LEN] = arrays[number % 2], (*to)[LEN] = arrays[(number + 1) % 2];
        memcpy(to, from, sizeof arrays[0]);
        memcpy(before, from, sizeof before);
        state[0] = to[0];
        state[1] = to[1];
        OK(dadapt_optimizer_step(opt, &tensor, 1, NULL));
        CHECK(!memcmp(from, before, sizeof before) && memcmp(to, before, sizeof before));
    }
    state[1] = NULL;
    FAILS(DADAPT_ERROR_NULL_POINTER, "\"w\"", dadapt_optimizer_step(opt, &tensor, 1, NULL));
    dadapt_optimizer_free(opt);
}

/* The same of the numbers of a table's rows. */
static void rows_are_read_again(void)
{
    enum { ROWS = 6, WIDTH = 4 };
    dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_ADAGRAD));
    float table[ROWS * WIDTH] = {0}, g[WIDTH] = {1, -1, 2, 1};
    uint32_t row = 0;
    dadapt_tensor tensor = tensor_of(0, ROWS * WIDTH, table, g);
    OK(dadapt_optimizer_add_rows(opt, 0, "table", DADAPT_DTYPE_F32, ROWS, WIDTH, 0, &tensor.id));
    tensor.rows = &row;
    tensor.row_count = 1;
    tensor.row_type = DADAPT_INDEX_U32;
    for (; row < ROWS; row++) {
        CHECK(table[row * WIDTH] == 0);
        OK(dadapt_optimizer_step(opt, &tensor, 1, NULL));
        CHECK(table[row * WIDTH] != 0);
    }
    FAILS(DADAPT_ERROR_ROW_OUT_OF_RANGE, "6", dadapt_optimizer_step(opt, &tensor, 1, NULL));
    dadapt_optimizer_free(opt);
}

int main(void)
{
    for (dadapt_algorithm algorithm = 1; dadapt_algorithm_name(algorithm); algorithm++)
        for (int variant = 0; variant < 2; variant++) {
            for (int state = 0; state < 4; state++)
                same_bits(algorithm, state, DADAPT_DTYPE_F32, variant);
            same_bits(algorithm, 0, DADAPT_DTYPE_BF16, variant);
            same_bits(algorithm, 2, DADAPT_DTYPE_BF16, variant);
        }
    state_of_the_callers_is_looked_for();
    rows_are_read_again();
    return 0;
}
