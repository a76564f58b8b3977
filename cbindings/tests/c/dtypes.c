/* Short types: bf16 and f16 parameters and gradients, state in bf16 and 8 bits, master copies. */
#include "check.h"

#include <math.h>

enum { LEN = 1500, STEPS = 12, SLOTS = 6 };

static const dadapt_group all = DADAPT_ALL_GROUPS;

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    CHECK(memory != NULL);
    memset(memory, 0x7f, bytes);
    return memory;
}

static dadapt_config *config_of(dadapt_algorithm algorithm, double state, double master)
{
    dadapt_config *config = new_config(algorithm);
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_STATE, state));
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_MASTER, master));
    return config;
}

static void names_and_options(void)
{
    CHECK(!strcmp(dadapt_dtype_name(DADAPT_DTYPE_BF16), "bf16"));
    CHECK(!strcmp(dadapt_dtype_name(DADAPT_DTYPE_F16), "f16"));
    CHECK(!strcmp(dadapt_dtype_name(DADAPT_DTYPE_Q8), "q8"));
    CHECK(dadapt_dtype_name(DADAPT_DTYPE_Q8 + 1) == NULL && dadapt_dtype_name(-1) == NULL);

    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAM);
    const struct {
        dadapt_key key;
        double value, most;
    } defaults[] = {{DADAPT_KEY_STATE, DADAPT_STATE_FULL, DADAPT_STATE_Q8},
                    {DADAPT_KEY_MASTER, 1, 1},
                    {DADAPT_KEY_SEED, 0, 9007199254740992.0},
                    {DADAPT_KEY_SLICE_BY_LINE, 0, 1}};
    for (int i = 0; i < 4; i++) {
        double value = -1.0, max = -1.0;
        OK(dadapt_config_get_f64(config, all, defaults[i].key, &value));
        OK(dadapt_key_bounds(defaults[i].key, NULL, &max, NULL));
        CHECK(value == defaults[i].value && max == defaults[i].most);
    }
    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "state = 4", dadapt_config_set_f64(config, all,
                                                                         DADAPT_KEY_STATE, 4));

    /* By slot: of all groups, those to come included, or of one. */
    dadapt_dtype dtype = 77;
    OK(dadapt_config_get_state_dtype(config, 0, "s", &dtype));
    CHECK(dtype == 0);
    OK(dadapt_config_set_state_dtype(config, all, "s", DADAPT_DTYPE_Q8));
    OK(dadapt_config_add_group(config, NULL));
    OK(dadapt_config_set_state_dtype(config, 1, "exp_avg", DADAPT_DTYPE_BF16));
    OK(dadapt_config_get_state_dtype(config, 1, "s", &dtype));
    CHECK(dtype == DADAPT_DTYPE_Q8);
    OK(dadapt_config_get_state_dtype(config, 0, "exp_avg", &dtype));
    CHECK(dtype == 0);
    OK(dadapt_config_set_state_dtype(config, 0, "s", 0));
    OK(dadapt_config_get_state_dtype(config, 0, "s", &dtype));
    CHECK(dtype == 0);
    OK(dadapt_config_get_state_dtype(config, all, "s", &dtype));
    CHECK(dtype == DADAPT_DTYPE_Q8);

    FAILS(DADAPT_ERROR_UNKNOWN_DTYPE, "type 6",
          dadapt_config_set_state_dtype(config, all, "s", 6));
    FAILS(DADAPT_ERROR_UNKNOWN_DTYPE, "type -1",
          dadapt_config_set_state_dtype(config, all, "s", -1));
    FAILS(DADAPT_ERROR_STATE_DTYPE, "its range is too short; take bf16 or q8",
          dadapt_config_set_state_dtype(config, all, "s", DADAPT_DTYPE_F16));
    FAILS(DADAPT_ERROR_UNKNOWN_STATE, "\"x0\"",
          dadapt_config_set_state_dtype(config, all, "x0", DADAPT_DTYPE_BF16));
    FAILS(DADAPT_ERROR_UNKNOWN_STATE, "\"master\"",
          dadapt_config_set_state_dtype(config, all, "master", DADAPT_DTYPE_BF16));
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "7",
          dadapt_config_set_state_dtype(config, 7, "s", DADAPT_DTYPE_Q8));
    FAILS(DADAPT_ERROR_NULL_POINTER, "slot is NULL",
          dadapt_config_set_state_dtype(config, all, NULL, DADAPT_DTYPE_Q8));
    FAILS(DADAPT_ERROR_INVALID_UTF8, "slot",
          dadapt_config_set_state_dtype(config, all, "\xff", DADAPT_DTYPE_Q8));
    FAILS(DADAPT_ERROR_NULL_POINTER, "config is NULL",
          dadapt_config_set_state_dtype(NULL, all, "s", DADAPT_DTYPE_Q8));
    dtype = 77;
    FAILS(DADAPT_ERROR_UNKNOWN_STATE, "\"z\"",
          dadapt_config_get_state_dtype(config, all, "z", &dtype));
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "7", dadapt_config_get_state_dtype(config, 7, "s", &dtype));
    FAILS(DADAPT_ERROR_NULL_POINTER, "dtype is NULL",
          dadapt_config_get_state_dtype(config, all, "s", NULL));
    FAILS(DADAPT_ERROR_NULL_POINTER, "config is NULL",
          dadapt_config_get_state_dtype(NULL, all, "s", &dtype));
    CHECK(dtype == 77);
    OK(dadapt_config_get_state_dtype(config, all, "s", &dtype));
    CHECK(dtype == DADAPT_DTYPE_Q8);
    dadapt_config_free(config);

    /* Algorithms that compute parameters from their state. */
    const dadapt_algorithm exact[] = {DADAPT_ALGORITHM_SGD, DADAPT_ALGORITHM_ADAGRAD};
    for (int i = 0; i < 2; i++) {
        double value = -1.0;
        config = new_config(exact[i]);
        FAILS(DADAPT_ERROR_NOTHING_TO_ROUND, "parameters are computed from it",
              dadapt_config_set_f64(config, all, DADAPT_KEY_STATE, DADAPT_STATE_BF16));
        OK(dadapt_config_get_f64(config, all, DADAPT_KEY_STATE, &value));
        CHECK(value == DADAPT_STATE_FULL);
        FAILS(DADAPT_ERROR_STATE_DTYPE, "rounding it rounds the model",
              dadapt_config_set_state_dtype(config, all, i ? "sk" : "s", DADAPT_DTYPE_BF16));
        dadapt_config_free(config);
    }
}

/* Names, types, sizes of a tensor's state; options that tensors hold fixed. */
static void state_of_tensors(void)
{
    dadapt_optimizer *opt =
        new_optimizer(config_of(DADAPT_ALGORITHM_ADAM, DADAPT_STATE_COMPACT, 1));
    uint64_t short_one, plain, other = 99;
    OK(dadapt_optimizer_add_tensor(opt, 0, "short", DADAPT_DTYPE_BF16, LEN, &short_one));
    OK(dadapt_optimizer_add_tensor_with_state_of_caller(opt, 0, "plain", DADAPT_DTYPE_F32, LEN,
                                                        &plain));
    const struct {
        const char *name;
        dadapt_dtype dtype;
        size_t bytes;
    } expected[] = {{"exp_avg", DADAPT_DTYPE_BF16, 2 * LEN},
                    {"exp_avg_sq", DADAPT_DTYPE_BF16, 2 * LEN},
                    {"s", DADAPT_DTYPE_Q8, LEN + 6},
                    {"master", DADAPT_DTYPE_F32, 4 * LEN}};
    size_t count = 0;
    OK(dadapt_optimizer_state_count(opt, plain, &count));
    CHECK(count == 3 && count == dadapt_algorithm_state_count(DADAPT_ALGORITHM_ADAM));
    OK(dadapt_optimizer_state_count(opt, short_one, &count));
    CHECK(count == 4);
    for (size_t slot = 0; slot < count; slot++) {
        const char *name = NULL;
        dadapt_dtype dtype = 0, same = 0;
        size_t len = 0, same_len = 0, bytes = 0;
        void *state = NULL;
        OK(dadapt_optimizer_state_info(opt, short_one, slot, &name, &dtype, &len));
        OK(dadapt_optimizer_state_bytes(opt, short_one, slot, &bytes));
        OK(dadapt_optimizer_state(opt, short_one, slot, &state, &same_len, &same));
        CHECK(!strcmp(name, expected[slot].name) && dtype == expected[slot].dtype);
        CHECK(len == LEN && bytes == expected[slot].bytes && state != NULL);
        CHECK(same == dtype && same_len == len);
        OK(dadapt_optimizer_state_info(opt, short_one, slot, NULL, NULL, NULL));
    }
    const char *name = "none";
    dadapt_dtype dtype = 77;
    size_t len = 77;
    FAILS(DADAPT_ERROR_UNKNOWN_STATE, "\"4\"",
          dadapt_optimizer_state_info(opt, short_one, 4, &name, &dtype, &len));
    FAILS(DADAPT_ERROR_UNKNOWN_STATE, "\"3\"",
          dadapt_optimizer_state_info(opt, plain, 3, &name, &dtype, &len));
    FAILS(DADAPT_ERROR_UNKNOWN_TENSOR, "id 9",
          dadapt_optimizer_state_info(opt, 9, 0, &name, &dtype, &len));
    FAILS(DADAPT_ERROR_NULL_POINTER, "optimizer is NULL",
          dadapt_optimizer_state_info(NULL, 0, 0, &name, &dtype, &len));
    FAILS(DADAPT_ERROR_UNKNOWN_TENSOR, "id 9", dadapt_optimizer_state_count(opt, 9, &len));
    FAILS(DADAPT_ERROR_NULL_POINTER, "count is NULL",
          dadapt_optimizer_state_count(opt, plain, NULL));
    FAILS(DADAPT_ERROR_NULL_POINTER, "optimizer is NULL",
          dadapt_optimizer_state_count(NULL, 0, &len));
    CHECK(!strcmp(name, "none") && dtype == 77 && len == 77);

    /* What decides the state of tensors that there are. */
    FAILS(DADAPT_ERROR_FIXED, "state", dadapt_optimizer_set_f64(opt, all, DADAPT_KEY_STATE, 0));
    FAILS(DADAPT_ERROR_FIXED, "master", dadapt_optimizer_set_f64(opt, 0, DADAPT_KEY_MASTER, 0));
    FAILS(DADAPT_ERROR_FIXED, "before tensors are added",
          dadapt_optimizer_set_state_dtype(opt, all, "s", DADAPT_DTYPE_F32));
    OK(dadapt_optimizer_get_state_dtype(opt, 0, "s", &dtype));
    CHECK(dtype == 0);
    OK(dadapt_optimizer_set_state_dtype(opt, 0, "s", DADAPT_DTYPE_Q8)); /* as it is */
    dadapt_group group = 0;
    OK(dadapt_optimizer_add_group(opt, &group));
    OK(dadapt_optimizer_set_state_dtype(opt, group, "exp_avg", DADAPT_DTYPE_Q8));
    OK(dadapt_optimizer_get_state_dtype(opt, group, "exp_avg", &dtype));
    CHECK(dtype == DADAPT_DTYPE_Q8);
    OK(dadapt_optimizer_add_tensor(opt, group, "later", DADAPT_DTYPE_F16, 3, &other));
    OK(dadapt_optimizer_state_info(opt, other, 0, NULL, &dtype, NULL));
    CHECK(dtype == DADAPT_DTYPE_Q8);
    FAILS(DADAPT_ERROR_STATE_DTYPE, "too short",
          dadapt_optimizer_set_state_dtype(opt, group, "s", DADAPT_DTYPE_F16));
    FAILS(DADAPT_ERROR_UNKNOWN_DTYPE, "9", dadapt_optimizer_set_state_dtype(opt, group, "s", 9));
    FAILS(DADAPT_ERROR_NULL_POINTER, "slot",
          dadapt_optimizer_set_state_dtype(opt, group, NULL, DADAPT_DTYPE_Q8));
    FAILS(DADAPT_ERROR_NULL_POINTER, "optimizer is NULL",
          dadapt_optimizer_set_state_dtype(NULL, group, "s", DADAPT_DTYPE_Q8));
    FAILS(DADAPT_ERROR_NULL_POINTER, "dtype is NULL",
          dadapt_optimizer_get_state_dtype(opt, group, "s", NULL));
    FAILS(DADAPT_ERROR_NULL_POINTER, "optimizer is NULL",
          dadapt_optimizer_get_state_dtype(NULL, group, "s", &dtype));
    OK(dadapt_optimizer_step_begin(opt));
    FAILS(DADAPT_ERROR_STEP_OPEN, "",
          dadapt_optimizer_set_state_dtype(opt, group, "s", DADAPT_DTYPE_Q8));
    OK(dadapt_optimizer_step_abort(opt, NULL, 0, NULL));

    /* Tensors that cannot be. State of doubles is not rounded, be it by the option or by slot. */
    other = 99;
    FAILS(DADAPT_ERROR_STATE_DTYPE, "\"x\" cannot be kept in bf16: a tensor of f64 has state of f64",
          dadapt_optimizer_add_tensor(opt, 0, "x", DADAPT_DTYPE_F64, 1, &other));
    FAILS(DADAPT_ERROR_DTYPE_NOT_FOR, "cannot be of q8: it is a type of state alone",
          dadapt_optimizer_add_tensor(opt, 0, "x", DADAPT_DTYPE_Q8, 1, &other));
    FAILS(DADAPT_ERROR_STATE_DTYPE, "exp_avg of tensor \"x\" cannot be kept in q8",
          dadapt_optimizer_add_tensor(opt, group, "x", DADAPT_DTYPE_F64, 1, &other));
    FAILS(DADAPT_ERROR_UNKNOWN_TENSOR, "\"x\"", dadapt_optimizer_tensor_id(opt, "x", NULL));
    CHECK(other == 99);
    dadapt_optimizer_free(opt);

    opt = new_optimizer(new_config(DADAPT_ALGORITHM_ADAGRAD));
    FAILS(DADAPT_ERROR_DTYPE_NOT_FOR, "a table of rows is of f32 or f64",
          dadapt_optimizer_add_rows(opt, 0, "t", DADAPT_DTYPE_BF16, 2, 2, 0, &other));
    OK(dadapt_optimizer_add_rows(opt, 0, "t", DADAPT_DTYPE_F32, 2, 2, 0, &other));
    OK(dadapt_optimizer_state_count(opt, other, &len));
    CHECK(len == 4);
    OK(dadapt_optimizer_state_info(opt, other, 3, &name, &dtype, &len));
    CHECK(!strcmp(name, "weighted_sk") && dtype == DADAPT_DTYPE_F32 && len == 4);
    dadapt_optimizer_free(opt);

    for (dadapt_algorithm algorithm = 1; dadapt_algorithm_name(algorithm); algorithm++) {
        opt = new_optimizer(new_config(algorithm));
        OK(dadapt_optimizer_add_tensor(opt, 0, NULL, DADAPT_DTYPE_F16, 5, &other));
        OK(dadapt_optimizer_state_count(opt, other, &count));
        CHECK(count == dadapt_algorithm_state_count(algorithm) + 1 && count <= SLOTS);
        for (size_t slot = 0; slot < count; slot++) {
            const char *last = slot == count - 1 ? "master" : NULL;
            OK(dadapt_optimizer_state_info(opt, other, slot, &name, NULL, NULL));
            CHECK(!strcmp(name, last ? last : dadapt_algorithm_state_name(algorithm, slot)));
        }
        dadapt_optimizer_free(opt);
    }
}

/* An optimizer of one tensor, with the state of the library's or here. */
typedef struct {
    dadapt_optimizer *opt;
    uint64_t id;
    size_t count, bytes[SLOTS];
    void *state[SLOTS];
    int of_caller;
    uint16_t p[LEN], g[LEN];
} scene;

static void start(scene *s, dadapt_config *config, dadapt_dtype dtype, int of_caller)
{
    memset(s, 0, sizeof *s);
    s->of_caller = of_caller;
    s->opt = new_optimizer(config);
    if (of_caller)
        OK(dadapt_optimizer_add_tensor_with_state_of_caller(s->opt, 0, "w", dtype, LEN, &s->id));
    else
        OK(dadapt_optimizer_add_tensor(s->opt, 0, "w", dtype, LEN, &s->id));
    OK(dadapt_optimizer_state_count(s->opt, s->id, &s->count));
    CHECK(s->count <= SLOTS);
    for (size_t slot = 0; slot < s->count; slot++) {
        OK(dadapt_optimizer_state_bytes(s->opt, s->id, slot, &s->bytes[slot]));
        if (of_caller)
            s->state[slot] = allocate(s->bytes[slot]);
        else
            OK(dadapt_optimizer_state(s->opt, s->id, slot, &s->state[slot], NULL, NULL));
    }
    for (size_t i = 0; i < LEN; i++)
        s->p[i] = bf16_of(value_at(i));
}

static void end(scene *s)
{
    for (size_t slot = 0; s->of_caller && slot < s->count; slot++)
        free(s->state[slot]);
    dadapt_optimizer_free(s->opt);
}

static dadapt_tensor describe(scene *s)
{
    dadapt_tensor t = tensor_of(s->id, LEN, s->p, s->g);
    t.dtype = DADAPT_DTYPE_BF16;
    t.g_dtype = DADAPT_DTYPE_BF16;
    if (s->of_caller) {
        t.state = s->state;
        t.state_count = s->count;
    }
    return t;
}

/* Writes the gradient of |p - target|^2/2 and returns that. */
static double gradient(scene *s)
{
    double loss = 0.0;
    for (size_t i = 0; i < LEN; i++) {
        const float g = of_bf16(s->p[i]) - value_at(i + 5000);
        s->g[i] = bf16_of(g);
        loss += (double)g * (double)g / 2;
    }
    return loss;
}

static dadapt_report step(scene *s)
{
    dadapt_report report = new_report();
    gradient(s);
    const dadapt_tensor t = describe(s);
    OK(dadapt_optimizer_step(s->opt, &t, 1, &report));
    CHECK(report.applied == 1 && report.overflows == 0);
    return report;
}

static void same(scene *a, scene *b)
{
    CHECK(!memcmp(a->p, b->p, sizeof a->p) && d_of(a->opt) == d_of(b->opt));
    for (size_t slot = 0; slot < a->count; slot++) {
        CHECK(a->bytes[slot] == b->bytes[slot] &&
              !memcmp(a->state[slot], b->state[slot], a->bytes[slot]));
    }
}

/* What state there is as numbers: by the library, and by what the header says of the types. */
static void values_are_what_is_kept(scene *s)
{
    static double values[LEN], part[LEN];
    for (size_t slot = 0; slot < s->count; slot++) {
        const char *name = NULL;
        dadapt_dtype dtype = 0;
        size_t len = 0, moved = 0;
        const void *const given = s->of_caller ? s->state[slot] : NULL;
        OK(dadapt_optimizer_state_info(s->opt, s->id, slot, &name, &dtype, &len));
        OK(dadapt_optimizer_state_values(s->opt, s->id, slot, given, 0, len, values));
        const unsigned char *const bytes = s->state[slot];
        for (size_t i = 0; i < len; i++) {
            double expected = NAN;
            if (dtype == DADAPT_DTYPE_F32) {
                expected = (double)((const float *)s->state[slot])[i];
            } else if (dtype == DADAPT_DTYPE_BF16) {
                expected = (double)of_bf16(((const uint16_t *)s->state[slot])[i]);
            } else {
                const int shared = bytes[len + i / 256], code = bytes[i];
                const int exponent = (code & 0x7f) >> 3, fraction = code & 7;
                if (strcmp(name, "exp_avg_sq") != 0) { /* 1-4-3 */
                    const int bottom = (shared > 19 ? shared : 19) - 15 - 127 - 3;
                    expected = ldexp(8 + fraction, bottom + exponent) - ldexp(8, bottom);
                    expected = code & 0x80 ? -expected : expected;
                } else { /* 5-3 */
                    const int bottom = (shared > 32 ? shared : 32) - 31 - 127 - 3;
                    expected = shared ? ldexp(8 + fraction, bottom + (code >> 3)) : 0.0;
                }
            }
            CHECK(values[i] == expected);
            moved += values[i] != 0.0;
        }
        CHECK(moved * 10 > 9 * len);
        const size_t firsts[] = {0, 1, 255, 1023, 1024, 1499};
        for (int i = 0; i < 6; i++) {
            const size_t n = (len - firsts[i]) / 2 + 1;
            part[n] = 42.0;
            OK(dadapt_optimizer_state_values(s->opt, s->id, slot, given, firsts[i], n, part));
            CHECK(!memcmp(part, values + firsts[i], n * sizeof *part) && part[n] == 42.0);
        }
        OK(dadapt_optimizer_state_values(s->opt, s->id, slot, given, len, 0, NULL));
    }
}

/* A state of the library's and one of the caller's, in parts too: the same bits. Other seeds have
 * others, unless nothing is rounded. */
static void trains(dadapt_algorithm algorithm, double state, double master)
{
    static scene own, caller, parts, seeded;
    const int whole = algorithm == DADAPT_ALGORITHM_PRODIGY; /* does not step in parts */
    dadapt_config *other = config_of(algorithm, state, master);
    OK(dadapt_config_set_f64(other, all, DADAPT_KEY_SEED, 12345));
    start(&own, config_of(algorithm, state, master), DADAPT_DTYPE_BF16, 0);
    start(&caller, config_of(algorithm, state, master), DADAPT_DTYPE_BF16, 1);
    start(&parts, config_of(algorithm, state, master), DADAPT_DTYPE_BF16, 1);
    start(&seeded, other, DADAPT_DTYPE_BF16, 0);
    CHECK(own.count == dadapt_algorithm_state_count(algorithm) + (master != 0.0));
    for (int i = 0; i < STEPS; i++) {
        const dadapt_report first = step(&own), second = step(&caller);
        CHECK(!memcmp(&first, &second, sizeof first));
        step(&seeded);
        gradient(&parts);
        const dadapt_tensor t = describe(&parts);
        if (whole) {
            OK(dadapt_optimizer_step(parts.opt, &t, 1, NULL));
        } else {
            dadapt_report report = new_report();
            OK(dadapt_optimizer_step_begin(parts.opt));
            OK(dadapt_optimizer_step_tensor(parts.opt, &t));
            OK(dadapt_optimizer_step_end(parts.opt, &report));
            CHECK(!memcmp(&first, &report, sizeof first));
        }
        same(&own, &caller);
        same(&own, &parts);
    }
    CHECK(d_of(own.opt) > 1e-6);
    values_are_what_is_kept(&own);
    values_are_what_is_kept(&caller);
    size_t different = 0;
    for (size_t slot = 0; slot < own.count; slot++)
        different += memcmp(own.state[slot], seeded.state[slot], own.bytes[slot]) != 0;
    CHECK((different > 0 || memcmp(own.p, seeded.p, sizeof own.p) != 0) ==
          (state != DADAPT_STATE_FULL || master == 0.0));
    end(&caller);
    end(&parts);
    end(&seeded);

    /* It is training, and freezing leaves it so. */
    const double before = gradient(&own);
    for (int i = 0; i < 150; i++)
        step(&own);
    OK(dadapt_optimizer_freeze(own.opt));
    const char *name = NULL;
    size_t len = 99, bytes = 99;
    OK(dadapt_optimizer_state_info(own.opt, own.id, 2, &name, NULL, &len));
    OK(dadapt_optimizer_state_bytes(own.opt, own.id, 2, &bytes));
    CHECK(!strcmp(name, "s") && len == 0 && bytes == 0);
    OK(dadapt_optimizer_state(own.opt, own.id, 2, &own.state[2], &len, NULL));
    CHECK(own.state[2] == NULL && len == 0);
    OK(dadapt_optimizer_state_values(own.opt, own.id, 2, NULL, 0, 0, NULL));
    for (int i = 0; i < 5; i++)
        step(&own);
    const double after = gradient(&own);
    CHECK(after < 0.5 * before);
    end(&own);
}

/* State of the caller's that is no longer needed may be NULL. */
static void frozen_state_of_the_caller(void)
{
    static scene s;
    start(&s, config_of(DADAPT_ALGORITHM_ADAM, DADAPT_STATE_Q8, 1), DADAPT_DTYPE_BF16, 1);
    step(&s);
    step(&s);
    OK(dadapt_optimizer_freeze(s.opt));
    free(s.state[2]);
    s.state[2] = NULL;
    step(&s);
    OK(dadapt_optimizer_state_values(s.opt, s.id, 2, NULL, 0, 0, NULL));
    double value = 42.0;
    FAILS(DADAPT_ERROR_LENGTH, "there are 0",
          dadapt_optimizer_state_values(s.opt, s.id, 2, NULL, 0, 1, &value));
    CHECK(value == 42.0);
    end(&s);
}

static void values_that_are_refused(void)
{
    static scene own, caller;
    double values[2] = {42.0, 42.0};
    start(&own, config_of(DADAPT_ALGORITHM_ADAM, DADAPT_STATE_BF16, 1), DADAPT_DTYPE_BF16, 0);
    start(&caller, config_of(DADAPT_ALGORITHM_ADAM, DADAPT_STATE_BF16, 1), DADAPT_DTYPE_BF16, 1);
    step(&own);
    step(&caller);
    FAILS(DADAPT_ERROR_NULL_POINTER, "optimizer is NULL",
          dadapt_optimizer_state_values(NULL, 0, 0, NULL, 0, 1, values));
    FAILS(DADAPT_ERROR_NULL_POINTER, "values is NULL",
          dadapt_optimizer_state_values(own.opt, own.id, 0, NULL, 0, 1, NULL));
    FAILS(DADAPT_ERROR_UNKNOWN_TENSOR, "id 9",
          dadapt_optimizer_state_values(own.opt, 9, 0, NULL, 0, 1, values));
    FAILS(DADAPT_ERROR_UNKNOWN_STATE, "\"4\"",
          dadapt_optimizer_state_values(own.opt, own.id, 4, NULL, 0, 1, values));
    FAILS(DADAPT_ERROR_LENGTH, "2 elements of exp_avg from 1499 on: there are 1500",
          dadapt_optimizer_state_values(own.opt, own.id, 0, NULL, LEN - 1, 2, values));
    FAILS(DADAPT_ERROR_LENGTH, "elements of exp_avg",
          dadapt_optimizer_state_values(own.opt, own.id, 0, NULL, 1, SIZE_MAX, values));
    FAILS(DADAPT_ERROR_STATE_COUNT, "\"w\"",
          dadapt_optimizer_state_values(own.opt, own.id, 0, own.state[0], 0, 1, values));
    FAILS(DADAPT_ERROR_STATE_OF_CALLER, "\"w\"",
          dadapt_optimizer_state_values(caller.opt, caller.id, 0, NULL, 0, 1, values));
    char *const odd = allocate(caller.bytes[0] + 1);
    FAILS(DADAPT_ERROR_MISALIGNED, "exp_avg of tensor \"w\"",
          dadapt_optimizer_state_values(caller.opt, caller.id, 0, odd + 1, 0, 1, values));
    free(odd);
    CHECK(values[0] == 42.0 && values[1] == 42.0);
    end(&own);
    end(&caller);
}

typedef struct {
    scene arrays;
    unsigned char state[SLOTS][4 * LEN];
    double d;
    uint64_t k;
} snapshot;

static void take(scene *s, snapshot *now)
{
    memset(now, 0, sizeof *now);
    memcpy(now->arrays.p, s->p, sizeof s->p);
    memcpy(now->arrays.g, s->g, sizeof s->g);
    for (size_t slot = 0; slot < s->count; slot++)
        memcpy(now->state[slot], s->state[slot], s->bytes[slot]);
    now->d = d_of(s->opt);
    now->k = k_of(s->opt);
}

static void refused(scene *s, const dadapt_tensor *t, dadapt_status status, const char *words,
                    int line)
{
    static snapshot before, after;
    dadapt_report report = new_report(), untouched = new_report();
    take(s, &before);
    check_status(__FILE__, line, "step", dadapt_optimizer_step(s->opt, t, 1, &report), status,
                 words);
    OK(dadapt_optimizer_step_begin(s->opt));
    check_status(__FILE__, line, "part", dadapt_optimizer_step_tensor(s->opt, t), status, words);
    OK(dadapt_optimizer_step_abort(s->opt, NULL, 0, NULL));
    take(s, &after);
    if (memcmp(&before, &after, sizeof before) || memcmp(&report, &untouched, sizeof report)) {
        fprintf(stderr, "%s:%d: the refused step changed something\n", __FILE__, line);
        exit(EXIT_FAILURE);
    }
}

#define REFUSED(s, status, words, change)         \
    do {                                          \
        dadapt_tensor t = describe(s);            \
        change;                                   \
        refused(s, &t, status, words, __LINE__);  \
    } while (0)

static void steps_that_are_refused(void)
{
    static scene s, never_asked;
    static uint16_t more[LEN + 1];
    start(&s, config_of(DADAPT_ALGORITHM_ADAM, DADAPT_STATE_COMPACT, 1), DADAPT_DTYPE_BF16, 1);
    start(&never_asked, config_of(DADAPT_ALGORITHM_ADAM, DADAPT_STATE_COMPACT, 1),
          DADAPT_DTYPE_BF16, 1);
    for (int i = 0; i < 3; i++) {
        step(&s);
        step(&never_asked);
    }
    REFUSED(&s, DADAPT_ERROR_UNKNOWN_DTYPE, "type 6", t.dtype = 6);
    REFUSED(&s, DADAPT_ERROR_UNKNOWN_DTYPE, "type 6", t.g_dtype = 6);
    REFUSED(&s, DADAPT_ERROR_UNKNOWN_DTYPE, "type -2", t.g_dtype = -2);
    REFUSED(&s, DADAPT_ERROR_DTYPE, "given as q8, and bf16", t.dtype = DADAPT_DTYPE_Q8);
    REFUSED(&s, DADAPT_ERROR_DTYPE, "given as f16, and bf16", t.dtype = DADAPT_DTYPE_F16);
    REFUSED(&s, DADAPT_ERROR_GRADIENT_DTYPE, "is of f64", t.g_dtype = DADAPT_DTYPE_F64);
    REFUSED(&s, DADAPT_ERROR_GRADIENT_DTYPE, "is of q8", t.g_dtype = DADAPT_DTYPE_Q8);
    REFUSED(&s, DADAPT_ERROR_MISALIGNED, "the parameter of tensor \"w\" is not aligned to the 2",
            t.p = (char *)more + 1);
    REFUSED(&s, DADAPT_ERROR_MISALIGNED, "the gradient of tensor \"w\" is not aligned to the 2",
            t.g = (char *)more + 1);
    REFUSED(&s, DADAPT_ERROR_MISALIGNED, "the gradient of tensor \"w\" is not aligned to the 4",
            (t.g = more + 1, t.g_dtype = DADAPT_DTYPE_F32));
    REFUSED(&s, DADAPT_ERROR_OVERLAP, "the gradient", t.g = s.p + 1);

    /* State that is not as large, or not where it must be. */
    for (size_t slot = 0; slot < s.count; slot++) {
        const char *const names[] = {"exp_avg of", "exp_avg_sq of", "s of", "master of"};
        void *state[SLOTS];
        memcpy(state, s.state, sizeof state);
        state[slot] = NULL;
        REFUSED(&s, DADAPT_ERROR_NULL_POINTER, names[slot], t.state = state);
        state[slot] = (char *)s.state[slot] + 1;
        if (slot == 2) /* bytes are aligned everywhere, but this would end in what is the master's */
            state[slot] = (char *)s.state[3] + 1;
        REFUSED(&s, slot == 2 ? DADAPT_ERROR_OVERLAP : DADAPT_ERROR_MISALIGNED,
                slot == 2 ? "the state" : names[slot], t.state = state);
        state[slot] = s.p;
        REFUSED(&s, DADAPT_ERROR_OVERLAP, "the state", t.state = state);
    }
    REFUSED(&s, DADAPT_ERROR_STATE_COUNT, "needs 4 state arrays of the caller's in a step, and 3",
            t.state_count = 3);
    REFUSED(&s, DADAPT_ERROR_STATE_COUNT, "and 5 are given", {
        static void *state[SLOTS];
        memcpy(state, s.state, sizeof state);
        t.state = state;
        t.state_count = 5;
    });
    s.g[7] = 0x7f80;
    REFUSED(&s, DADAPT_ERROR_NON_FINITE_GRADIENT, "element 7", (void)0);
    s.g[7] = 0xffc0;
    REFUSED(&s, DADAPT_ERROR_NON_FINITE_GRADIENT, "NaN at element 7", (void)0);
    for (int i = 0; i < 3; i++) {
        step(&s);
        step(&never_asked);
    }
    same(&s, &never_asked);
    end(&s);
    end(&never_asked);

    /* Doubles go with doubles. */
    double p = 1.0, g = 1.0;
    uint64_t id;
    dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_ADAM));
    OK(dadapt_optimizer_add_tensor(opt, 0, "double", DADAPT_DTYPE_F64, 1, &id));
    dadapt_tensor t = tensor_of(id, 1, &p, &g);
    t.g_dtype = DADAPT_DTYPE_BF16;
    FAILS(DADAPT_ERROR_GRADIENT_DTYPE, "is of bf16, which does not go with a parameter of f64",
          dadapt_optimizer_step(opt, &t, 1, NULL));
    t.g_dtype = DADAPT_DTYPE_F32;
    FAILS(DADAPT_ERROR_GRADIENT_DTYPE, "f64", dadapt_optimizer_step(opt, &t, 1, NULL));
    CHECK(p == 1.0 && k_of(opt) == 0);
    t.g_dtype = DADAPT_DTYPE_F64;
    OK(dadapt_optimizer_step(opt, &t, 1, NULL));
    dadapt_optimizer_free(opt);

    /* Adan keeps the last gradient, which must not be rounded. */
    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAN);
    OK(dadapt_config_set_state_dtype(config, all, "pre_grad", DADAPT_DTYPE_BF16));
    opt = new_optimizer(config);
    float single = 1.0f, single_g = 1.0f;
    uint16_t short_g = bf16_of(1.0f);
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, 1, &id));
    t = tensor_of(id, 1, &single, &single_g);
    FAILS(DADAPT_ERROR_GRADIENT_KEPT_IN, "pre_grad keeps a copy of it in bf16",
          dadapt_optimizer_step(opt, &t, 1, NULL));
    t.g_dtype = DADAPT_DTYPE_F16;
    t.g = &short_g;
    FAILS(DADAPT_ERROR_GRADIENT_KEPT_IN, "is of f16", dadapt_optimizer_step(opt, &t, 1, NULL));
    CHECK(single == 1.0f && k_of(opt) == 0);
    t.g_dtype = DADAPT_DTYPE_BF16;
    OK(dadapt_optimizer_step(opt, &t, 1, NULL));
    CHECK(k_of(opt) == 1);
    dadapt_optimizer_free(opt);

    /* A table's gradients are of its own type. */
    opt = new_optimizer(new_config(DADAPT_ALGORITHM_ADAGRAD));
    uint32_t row = 0;
    OK(dadapt_optimizer_add_rows(opt, 0, "table", DADAPT_DTYPE_F32, 1, 1, 0, &id));
    t = tensor_of(id, 1, &single, &short_g);
    t.rows = &row;
    t.row_count = 1;
    t.row_type = DADAPT_INDEX_U32;
    t.g_dtype = DADAPT_DTYPE_BF16;
    FAILS(DADAPT_ERROR_GRADIENT_DTYPE, "bf16", dadapt_optimizer_step(opt, &t, 1, NULL));
    dadapt_optimizer_free(opt);
}

/* Every mix of types trains, and what is exact in all of them gives the same bits. */
static void mixes(void)
{
    const dadapt_dtype types[] = {DADAPT_DTYPE_F32, DADAPT_DTYPE_BF16, DADAPT_DTYPE_F16};
    /* 1, -2 and 0.5 in each. */
    const float singles[] = {1.0f, -2.0f, 0.5f};
    const uint16_t brains[] = {0x3f80, 0xc000, 0x3f00}, halves[] = {0x3c00, 0xc000, 0x3800};
    const void *const numbers[] = {singles, brains, halves};
    double d[3][3];
    float first_master[3] = {0.0f, 0.0f, 0.0f};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            float p[3];
            uint64_t id;
            void *master = p;
            dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_ADAM));
            OK(dadapt_optimizer_add_tensor(opt, 0, "w", types[i], 3, &id));
            memcpy(p, numbers[i], i ? sizeof halves : sizeof singles);
            dadapt_tensor t = tensor_of(id, 3, p, numbers[j]);
            t.g_dtype = i == j ? 0 : types[j];
            for (int k = 0; k < 3; k++)
                OK(dadapt_optimizer_step(opt, &t, 1, NULL));
            if (i)
                OK(dadapt_optimizer_state(opt, id, 3, &master, NULL, NULL));
            if (i + j == 0)
                memcpy(first_master, p, sizeof p);
            CHECK(!memcmp(first_master, master, sizeof first_master));
            d[i][j] = d_of(opt);
            CHECK(d[i][j] == d[0][0] && d[0][0] > 1e-6);
            dadapt_optimizer_free(opt);
        }
}

/* The master copy takes over what the caller changes in the parameter, and nothing else. */
static void changed_parameters(void)
{
    static scene s;
    start(&s, config_of(DADAPT_ALGORITHM_ADAM, DADAPT_STATE_FULL, 1), DADAPT_DTYPE_BF16, 0);
    for (int i = 0; i < 3; i++)
        step(&s);
    float *const master = s.state[3];
    for (size_t i = 0; i < LEN; i++)
        CHECK(bf16_of(master[i]) == s.p[i]);
    s.p[11] = bf16_of(100.0f);
    const float neighbour = master[12];
    step(&s);
    CHECK(fabsf(master[11] - 100.0f) < 1.0f && fabsf(master[12] - neighbour) < 0.1f);
    CHECK(s.p[11] == bf16_of(master[11]));
    end(&s);
}

/* f16 ends at 65504: what goes beyond is infinite, and is counted. */
static void overflow(void)
{
    for (int master = 0; master < 2; master++) {
        dadapt_config *config = config_of(DADAPT_ALGORITHM_PLAIN_SGD, DADAPT_STATE_FULL, master);
        OK(dadapt_config_set_f64(config, all, DADAPT_KEY_LR, 1.0));
        dadapt_optimizer *opt = new_optimizer(config);
        uint16_t p[] = {0x7bff, 0x3c00}, first = p[1]; /* 65504, 1 */
        const float g[] = {-4096.0f, -1.0f};
        uint64_t id;
        OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F16, 2, &id));
        dadapt_tensor t = tensor_of(id, 2, p, g);
        t.g_dtype = DADAPT_DTYPE_F32;
        dadapt_report report = new_report();
        OK(dadapt_optimizer_step(opt, &t, 1, &report));
        CHECK(report.overflows == 1 && p[0] == 0x7c00 && p[1] == 0x4000 && p[1] != first);
        if (master) {
            void *state = NULL;
            OK(dadapt_optimizer_state(opt, id, 1, &state, NULL, NULL));
            CHECK(*(float *)state == 69600.0f);
            dadapt_report group = new_report();
            OK(dadapt_optimizer_group_report(opt, 0, &group));
            CHECK(group.overflows == 1);
        }
        dadapt_optimizer_free(opt);
    }
}

/* Any number of threads, any instruction set: the same bits, noise included. */
static void threads_and_instruction_sets(double state, double master)
{
    enum { MANY = 140001 };
    const double threads[] = {1, 2, 3, 2};
    uint16_t *const p = allocate(MANY * sizeof *p), *const g = allocate(MANY * sizeof *g);
    uint16_t *const expected = allocate(MANY * sizeof *expected);
    double expected_d = 0.0;
    for (int run = 0; run < 4; run++) {
        dadapt_config *config = config_of(DADAPT_ALGORITHM_PRODIGY, state, master);
        OK(dadapt_config_set_f64(config, all, DADAPT_KEY_NUM_THREADS, threads[run]));
        OK(dadapt_config_set_f64(config, all, DADAPT_KEY_SLICE_P, 3));
        OK(dadapt_config_set_f64(config, all, DADAPT_KEY_SLICE_BY_LINE, 1));
        if (run == 3)
            OK(dadapt_config_set_f64(config, all, DADAPT_KEY_ISA, DADAPT_ISA_SCALAR));
        dadapt_optimizer *opt = new_optimizer(config);
        uint64_t id;
        OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_BF16, MANY, &id));
        for (size_t i = 0; i < MANY; i++)
            p[i] = bf16_of(value_at(i) + 1.0f / 128); /* as in training.c */
        for (int i = 0; i < 3; i++) {
            for (size_t j = 0; j < MANY; j++)
                g[j] = bf16_of(of_bf16(p[j]) - value_at(j + 5000));
            const dadapt_tensor t = tensor_of(id, MANY, p, g);
            OK(dadapt_optimizer_step(opt, &t, 1, NULL));
        }
        if (run == 0) {
            memcpy(expected, p, MANY * sizeof *p);
            expected_d = d_of(opt);
        }
        CHECK(!memcmp(expected, p, MANY * sizeof *p));
        CHECK(expected_d == d_of(opt) && expected_d > 1e-6);
        size_t len = 0;
        static double values[100];
        OK(dadapt_optimizer_state_info(opt, id, 2, NULL, NULL, &len));
        CHECK(len > MANY / 3 - 16 && len < MANY / 3 + 16);
        OK(dadapt_optimizer_state_values(opt, id, 2, NULL, len - 100, 100, values));
        CHECK(values[99] != 0.0 || values[98] != 0.0);
        dadapt_optimizer_free(opt);
    }
    free(p);
    free(g);
    free(expected);
}

int main(void)
{
    names_and_options();
    state_of_tensors();
    trains(DADAPT_ALGORITHM_ADAM, DADAPT_STATE_COMPACT, 1);
    trains(DADAPT_ALGORITHM_ADAM, DADAPT_STATE_FULL, 1);
    trains(DADAPT_ALGORITHM_ADAM, DADAPT_STATE_Q8, 0);
    trains(DADAPT_ALGORITHM_PRODIGY, DADAPT_STATE_BF16, 0);
    frozen_state_of_the_caller();
    values_that_are_refused();
    steps_that_are_refused();
    mixes();
    changed_parameters();
    overflow();
    threads_and_instruction_sets(DADAPT_STATE_COMPACT, 1);
    threads_and_instruction_sets(DADAPT_STATE_Q8, 0);
    return EXIT_SUCCESS;
}
