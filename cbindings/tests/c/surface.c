/* Everything but the step: versions, names, options, groups, tensors, and what they refuse. */
#include "check.h"

#include <math.h>

enum { LAST_KEY = DADAPT_KEY_SLICE_BY_LINE };

static void versions(void)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", DADAPT_VERSION_MAJOR, DADAPT_VERSION_MINOR,
             DADAPT_VERSION_PATCH);
    CHECK(!strcmp(dadapt_version(), text));
    CHECK(dadapt_version_number() == DADAPT_VERSION_NUMBER);
    CHECK(dadapt_abi_version() == DADAPT_ABI_VERSION);
}

static void names(void)
{
    CHECK(!strcmp(dadapt_status_name(DADAPT_OK), "DADAPT_OK"));
    CHECK(!strcmp(dadapt_status_name(DADAPT_ERROR_LENGTH), "DADAPT_ERROR_LENGTH"));
    CHECK(!strcmp(dadapt_status_name(DADAPT_ERROR_INTERNAL), "DADAPT_ERROR_INTERNAL"));
    CHECK(!strcmp(dadapt_status_name(-1), "unknown status"));
    CHECK(!strcmp(dadapt_status_name(DADAPT_ERROR_NOTHING_TO_ROUND + 1), "unknown status"));

    CHECK(!strcmp(dadapt_algorithm_name(DADAPT_ALGORITHM_ADAM), "adam"));
    CHECK(!strcmp(dadapt_algorithm_name(DADAPT_ALGORITHM_SGD), "sgd"));
    CHECK(dadapt_algorithm_name(0) == NULL && dadapt_algorithm_name(99) == NULL);
    dadapt_algorithm algorithm = -7;
    OK(dadapt_algorithm_from_name("sgd", &algorithm));
    CHECK(algorithm == DADAPT_ALGORITHM_SGD);
    OK(dadapt_algorithm_from_name("adam", NULL));
    FAILS(DADAPT_ERROR_UNKNOWN_ALGORITHM, "\"lioness\"; there are adam, sgd",
          dadapt_algorithm_from_name("lioness", &algorithm));
    FAILS(DADAPT_ERROR_NULL_POINTER, "name", dadapt_algorithm_from_name(NULL, &algorithm));
    FAILS(DADAPT_ERROR_INVALID_UTF8, "name", dadapt_algorithm_from_name("\xff", &algorithm));
    CHECK(algorithm == DADAPT_ALGORITHM_SGD);

    CHECK(dadapt_algorithm_state_count(DADAPT_ALGORITHM_ADAM) == 3);
    CHECK(!strcmp(dadapt_algorithm_state_name(DADAPT_ALGORITHM_ADAM, 0), "exp_avg"));
    CHECK(!strcmp(dadapt_algorithm_state_name(DADAPT_ALGORITHM_ADAM, 1), "exp_avg_sq"));
    CHECK(!strcmp(dadapt_algorithm_state_name(DADAPT_ALGORITHM_ADAM, 2), "s"));
    CHECK(dadapt_algorithm_state_name(DADAPT_ALGORITHM_ADAM, 3) == NULL);
    CHECK(dadapt_algorithm_state_count(DADAPT_ALGORITHM_SGD) == 2);
    CHECK(dadapt_algorithm_state_count(0) == 0 && dadapt_algorithm_state_name(0, 0) == NULL);

    CHECK(!strcmp(dadapt_dtype_name(DADAPT_DTYPE_F32), "f32"));
    CHECK(!strcmp(dadapt_dtype_name(DADAPT_DTYPE_F64), "f64"));
    CHECK(dadapt_dtype_name(0) == NULL);
    CHECK(!strcmp(dadapt_isa_name(DADAPT_ISA_AVX512), "avx512") && dadapt_isa_name(0) == NULL);
    CHECK(!strcmp(dadapt_movement_name(DADAPT_MOVEMENT_GREW), "grew"));
    CHECK(dadapt_movement_name(DADAPT_MOVEMENT_NON_FINITE) != NULL);
    CHECK(!strcmp(dadapt_movement_name(DADAPT_MOVEMENT_CAPPED), "limited by d_cap"));
    CHECK(!strcmp(dadapt_movement_name(DADAPT_MOVEMENT_FIXED), "not estimated"));
    CHECK(dadapt_movement_name(0) == NULL);
    CHECK(dadapt_movement_name(DADAPT_MOVEMENT_FIXED + 1) == NULL);

    const char *isa = NULL;
    OK(dadapt_isa(&isa));
    CHECK(isa != NULL);
    FAILS(DADAPT_ERROR_NULL_POINTER, "name", dadapt_isa(NULL));
}

static void keys(void)
{
    CHECK(!strcmp(dadapt_key_name(DADAPT_KEY_WEIGHT_DECAY), "weight_decay"));
    CHECK(dadapt_key_name(0) == NULL && dadapt_key_name(LAST_KEY + 1) == NULL);
    for (dadapt_key key = DADAPT_KEY_LR; key <= LAST_KEY; key++) {
        dadapt_key found = 0;
        OK(dadapt_key_from_name(dadapt_key_name(key), &found));
        CHECK(found == key);
        OK(dadapt_key_bounds(key, NULL, NULL, NULL));
    }
    dadapt_key key = 77;
    FAILS(DADAPT_ERROR_UNKNOWN_KEY, "\"weight_decai\"", dadapt_key_from_name("weight_decai", &key));
    CHECK(key == 77);

    double min = -1.0, max = -1.0;
    dadapt_bounds flags = 99;
    OK(dadapt_key_bounds(DADAPT_KEY_MOMENTUM, &min, &max, &flags));
    CHECK(min == 0.0 && max == 1.0 && flags == (DADAPT_BOUNDS_OPEN_MAX | DADAPT_BOUNDS_PER_GROUP));
    OK(dadapt_key_bounds(DADAPT_KEY_NUM_THREADS, &min, &max, &flags));
    CHECK(min == 0.0 && max == 4096.0 && flags == DADAPT_BOUNDS_INTEGER);
    OK(dadapt_key_bounds(DADAPT_KEY_D0, &min, &max, &flags));
    CHECK(min == 0.0 && isinf(max) && flags == (DADAPT_BOUNDS_OPEN_MIN | DADAPT_BOUNDS_OPEN_MAX));
    FAILS(DADAPT_ERROR_UNKNOWN_KEY, "99", dadapt_key_bounds(99, &min, &max, &flags));
    CHECK(min == 0.0 && isinf(max));
}

static void configurations(void)
{
    dadapt_config *config = (dadapt_config *)&config;
    FAILS(DADAPT_ERROR_UNKNOWN_ALGORITHM, "99", dadapt_config_new(99, &config));
    CHECK(config == (dadapt_config *)&config);
    FAILS(DADAPT_ERROR_NULL_POINTER, "config", dadapt_config_new(DADAPT_ALGORITHM_ADAM, NULL));

    config = new_config(DADAPT_ALGORITHM_ADAM);
    CHECK(!strcmp(dadapt_config_last_error(config), ""));
    uint32_t group = 99;
    OK(dadapt_config_add_group(config, &group));
    CHECK(group == 1);
    OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_WEIGHT_DECAY, 0.25));
    OK(dadapt_config_set_f64_by_name(config, 1, "weight_decay", 0.5));
    OK(dadapt_config_add_group(config, NULL));
    double value = -1.0;
    OK(dadapt_config_get_f64(config, 0, DADAPT_KEY_WEIGHT_DECAY, &value));
    CHECK(value == 0.25);
    OK(dadapt_config_get_f64_by_name(config, 1, "weight_decay", &value));
    CHECK(value == 0.5);
    OK(dadapt_config_get_f64(config, 2, DADAPT_KEY_WEIGHT_DECAY, &value));
    CHECK(value == 0.25);
    OK(dadapt_config_get_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_BETA2, &value));
    CHECK(value == 0.999);

    const dadapt_group all = DADAPT_ALL_GROUPS;
    FAILS(DADAPT_ERROR_UNKNOWN_KEY, "99", dadapt_config_set_f64(config, all, 99, 1.0));
    FAILS(DADAPT_ERROR_UNKNOWN_KEY, "\"lrr\"",
          dadapt_config_set_f64_by_name(config, all, "lrr", 1.0));
    FAILS(DADAPT_ERROR_KEY_NOT_FOR_ALGORITHM, "adam has no option momentum",
          dadapt_config_set_f64(config, all, DADAPT_KEY_MOMENTUM, 0.5));
    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "weight_decay = -0.5 is not within its bounds, [0.0, inf)",
          dadapt_config_set_f64(config, 1, DADAPT_KEY_WEIGHT_DECAY, -0.5));
    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "beta1 = 1.0 is not within its bounds, [0.0, 1.0)",
          dadapt_config_set_f64(config, all, DADAPT_KEY_BETA1, 1.0));
    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "decouple = 0.5 is not within its bounds, a whole number",
          dadapt_config_set_f64(config, all, DADAPT_KEY_DECOUPLE, 0.5));
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "no group 7; there are 3",
          dadapt_config_set_f64(config, 7, DADAPT_KEY_WEIGHT_DECAY, 0.5));
    FAILS(DADAPT_ERROR_NOT_PER_GROUP, "growth_rate",
          dadapt_config_set_f64(config, 1, DADAPT_KEY_GROWTH_RATE, 2.0));
    CHECK(strstr(dadapt_config_last_error(config), "growth_rate"));
    FAILS(DADAPT_ERROR_NULL_POINTER, "key", dadapt_config_set_f64_by_name(config, 1, NULL, 2.0));
    CHECK(!strcmp(dadapt_config_last_error(config), dadapt_last_error()));
    for (dadapt_key key = DADAPT_KEY_LR; key <= LAST_KEY; key++) {
        double before = -1.0, after = -2.0;
        if (dadapt_config_get_f64(config, all, key, &before) != DADAPT_OK) {
            CHECK(key == DADAPT_KEY_MOMENTUM || key == DADAPT_KEY_BETA3 ||
                  key == DADAPT_KEY_NO_PROX || key == DADAPT_KEY_D_COEF ||
                  key == DADAPT_KEY_SAFEGUARD_WARMUP || key == DADAPT_KEY_DAMPENING);
            continue;
        }
        FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "NaN", dadapt_config_set_f64(config, all, key, NAN));
        CHECK(strstr(dadapt_last_error(), dadapt_key_name(key)));
        OK(dadapt_config_get_f64(config, all, key, &after));
        CHECK(before == after);
    }
    value = 42.0;
    FAILS(DADAPT_ERROR_UNKNOWN_KEY, "-3", dadapt_config_get_f64(config, 0, -3, &value));
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "7", dadapt_config_get_f64(config, 7, DADAPT_KEY_LR, &value));
    FAILS(DADAPT_ERROR_NULL_POINTER, "value",
          dadapt_config_get_f64(config, 0, DADAPT_KEY_LR, NULL));
    FAILS(DADAPT_ERROR_NULL_POINTER, "key",
          dadapt_config_get_f64_by_name(config, 0, NULL, &value));
    CHECK(value == 42.0);
    OK(dadapt_config_get_f64(config, 1, DADAPT_KEY_WEIGHT_DECAY, &value));
    CHECK(value == 0.5);
    dadapt_config_free(config);
}

static void tensors(void)
{
    dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_ADAM));
    uint64_t id = 99;
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, 10, &id));
    CHECK(id == 0);
    OK(dadapt_optimizer_add_tensor(opt, 0, NULL, DADAPT_DTYPE_F64, 3, &id));
    CHECK(id == 1);
    OK(dadapt_optimizer_tensor_id(opt, "1", &id));
    CHECK(id == 1);
    OK(dadapt_optimizer_tensor_id(opt, "w", &id));
    CHECK(id == 0);
    uint32_t group = 0;
    OK(dadapt_optimizer_add_group(opt, &group));
    CHECK(group == 1);
    OK(dadapt_optimizer_add_tensor_with_state_of_caller(opt, group, "c", DADAPT_DTYPE_F64, 5, &id));
    CHECK(id == 2);

    id = 99;
    FAILS(DADAPT_ERROR_DUPLICATE_NAME, "\"w\"",
          dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, 1, &id));
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "no group 9; there are 2",
          dadapt_optimizer_add_tensor(opt, 9, "x", DADAPT_DTYPE_F32, 1, &id));
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "no group",
          dadapt_optimizer_add_tensor(opt, DADAPT_ALL_GROUPS, "x", DADAPT_DTYPE_F32, 1, &id));
    FAILS(DADAPT_ERROR_UNKNOWN_DTYPE, "6", dadapt_optimizer_add_tensor(opt, 0, "x", 6, 1, &id));
    FAILS(DADAPT_ERROR_TOO_LONG, "\"x\"",
          dadapt_optimizer_add_tensor(opt, 0, "x", DADAPT_DTYPE_F32, SIZE_MAX, &id));
    FAILS(DADAPT_ERROR_OUT_OF_MEMORY, "\"x\"",
          dadapt_optimizer_add_tensor(opt, 0, "x", DADAPT_DTYPE_F32, SIZE_MAX / 64, &id));
    FAILS(DADAPT_ERROR_INVALID_UTF8, "name",
          dadapt_optimizer_add_tensor(opt, 0, "\xc3\x28", DADAPT_DTYPE_F32, 1, &id));
    FAILS(DADAPT_ERROR_NULL_POINTER, "id",
          dadapt_optimizer_add_tensor(opt, 0, "x", DADAPT_DTYPE_F32, 1, NULL));
    FAILS(DADAPT_ERROR_UNKNOWN_TENSOR, "\"x\"", dadapt_optimizer_tensor_id(opt, "x", &id));
    CHECK(id == 99);
    CHECK(strstr(dadapt_optimizer_last_error(opt), "\"x\""));

    void *state = NULL;
    size_t len = 0, bytes = 0;
    dadapt_dtype dtype = 0;
    OK(dadapt_optimizer_state(opt, 1, 2, &state, &len, &dtype));
    CHECK(len == 3 && dtype == DADAPT_DTYPE_F64);
    for (size_t i = 0; i < len; i++)
        CHECK(((double *)state)[i] == 0.0);
    OK(dadapt_optimizer_state(opt, 1, 2, NULL, NULL, NULL));
    OK(dadapt_optimizer_state_bytes(opt, 0, 2, &bytes));
    CHECK(bytes == 40);
    OK(dadapt_optimizer_state_bytes(opt, 2, 0, &bytes));
    CHECK(bytes == 40);
    void *const kept = state;
    FAILS(DADAPT_ERROR_UNKNOWN_STATE, "\"3\"",
          dadapt_optimizer_state(opt, 0, 3, &state, &len, &dtype));
    FAILS(DADAPT_ERROR_UNKNOWN_TENSOR, "id 3",
          dadapt_optimizer_state(opt, 3, 0, &state, &len, &dtype));
    FAILS(DADAPT_ERROR_STATE_OF_CALLER, "\"c\"",
          dadapt_optimizer_state(opt, 2, 0, &state, &len, &dtype));
    FAILS(DADAPT_ERROR_UNKNOWN_STATE, "\"3\"", dadapt_optimizer_state_bytes(opt, 0, 3, &bytes));
    FAILS(DADAPT_ERROR_UNKNOWN_TENSOR, "id 3", dadapt_optimizer_state_bytes(opt, 3, 0, &bytes));
    FAILS(DADAPT_ERROR_NULL_POINTER, "bytes", dadapt_optimizer_state_bytes(opt, 0, 0, NULL));
    CHECK(state == kept && len == 3 && dtype == DADAPT_DTYPE_F64 && bytes == 40);

    FAILS(DADAPT_ERROR_FIXED, "num_threads", dadapt_optimizer_set_f64(opt, DADAPT_ALL_GROUPS,
                                                                      DADAPT_KEY_NUM_THREADS, 2));
    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "lr = -1.0", dadapt_optimizer_set_lr(opt, 0, -1.0));
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "5", dadapt_optimizer_set_lr(opt, 5, 1.0));
    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "lr = NaN",
          dadapt_optimizer_set_f64_by_name(opt, 0, "lr", NAN));
    double value = 0.0;
    OK(dadapt_optimizer_get_f64(opt, 0, DADAPT_KEY_LR, &value));
    CHECK(value == 1.0);
    OK(dadapt_optimizer_get_f64_by_name(opt, DADAPT_ALL_GROUPS, "num_threads", &value));
    CHECK(value >= 1.0);
    const char *isa = NULL, *default_isa = NULL;
    OK(dadapt_optimizer_isa(opt, &isa));
    OK(dadapt_isa(&default_isa));
    CHECK(!strcmp(isa, default_isa));
    FAILS(DADAPT_ERROR_NULL_POINTER, "name is NULL", dadapt_optimizer_isa(opt, NULL));
    dadapt_algorithm algorithm = 0;
    OK(dadapt_optimizer_algorithm(opt, &algorithm));
    CHECK(algorithm == DADAPT_ALGORITHM_ADAM);
    FAILS(DADAPT_ERROR_NULL_POINTER, "algorithm", dadapt_optimizer_algorithm(opt, NULL));
    FAILS(DADAPT_ERROR_NULL_POINTER, "d is NULL", dadapt_optimizer_d(opt, NULL));
    FAILS(DADAPT_ERROR_NULL_POINTER, "k is NULL", dadapt_optimizer_k(opt, NULL));
    CHECK(d_of(opt) == 1e-6 && k_of(opt) == 0);
    OK(dadapt_optimizer_set_f64(opt, DADAPT_ALL_GROUPS, DADAPT_KEY_D0, 1e-3));
    CHECK(d_of(opt) == 1e-3);
    dadapt_optimizer_free(opt);
}

/* Every function that takes a handle refuses NULL, but for _free and _last_error. */
static void null_handles(void)
{
    const dadapt_status null = DADAPT_ERROR_NULL_POINTER;
    double value = 1.5;
    uint32_t group = 5;
    uint64_t number = 5;
    size_t size = 5;
    void *state = &value;
    dadapt_dtype dtype = 5;
    const char *isa = "none";
    dadapt_optimizer *opt = (dadapt_optimizer *)&opt;
    dadapt_config_free(NULL);
    dadapt_optimizer_free(NULL);
    CHECK(!strcmp(dadapt_config_last_error(NULL), ""));
    CHECK(!strcmp(dadapt_optimizer_last_error(NULL), ""));

    FAILS(null, "config is NULL", dadapt_config_add_group(NULL, &group));
    FAILS(null, "config is NULL", dadapt_config_set_f64(NULL, 0, DADAPT_KEY_LR, 1.0));
    FAILS(null, "config is NULL", dadapt_config_set_f64_by_name(NULL, 0, "lr", 1.0));
    FAILS(null, "config is NULL", dadapt_config_get_f64(NULL, 0, DADAPT_KEY_LR, &value));
    FAILS(null, "config is NULL", dadapt_config_get_f64_by_name(NULL, 0, "lr", &value));
    FAILS(null, "config is NULL", dadapt_optimizer_new(NULL, &opt));
    CHECK(opt == (dadapt_optimizer *)&opt);
    dadapt_config *config = new_config(DADAPT_ALGORITHM_SGD);
    FAILS(null, "optimizer is NULL", dadapt_optimizer_new(config, NULL));
    dadapt_config_free(config);

    FAILS(null, "optimizer is NULL", dadapt_optimizer_add_group(NULL, &group));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_set_f64(NULL, 0, DADAPT_KEY_LR, 1.0));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_set_f64_by_name(NULL, 0, "lr", 1.0));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_set_lr(NULL, 0, 1.0));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_get_f64(NULL, 0, DADAPT_KEY_LR, &value));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_get_f64_by_name(NULL, 0, "lr", &value));
    FAILS(null, "optimizer is NULL",
          dadapt_optimizer_add_tensor(NULL, 0, "w", DADAPT_DTYPE_F32, 1, &number));
    FAILS(null, "optimizer is NULL",
          dadapt_optimizer_add_tensor_with_state_of_caller(NULL, 0, "w", DADAPT_DTYPE_F32, 1,
                                                           &number));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_tensor_id(NULL, "w", &number));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_d(NULL, &value));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_k(NULL, &number));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_isa(NULL, &isa));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_algorithm(NULL, &dtype));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_set_log(NULL, NULL, NULL));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_step(NULL, NULL, 0, NULL));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_group_report(NULL, 0, NULL));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_step_begin(NULL));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_step_tensor(NULL, NULL));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_step_end(NULL, NULL));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_step_abort(NULL, &number, 1, &size));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_freeze(NULL));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_is_frozen(NULL, &dtype));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_restart(NULL));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_state(NULL, 0, 0, &state, &size, &dtype));
    FAILS(null, "optimizer is NULL", dadapt_optimizer_state_bytes(NULL, 0, 0, &size));
    CHECK(value == 1.5 && group == 5 && number == 5 && size == 5 && dtype == 5);
    CHECK(state == &value && !strcmp(isa, "none"));
}

int main(void)
{
    CHECK(!strcmp(dadapt_last_error(), ""));
    versions();
    names();
    keys();
    configurations();
    tensors();
    null_handles();
    return EXIT_SUCCESS;
}
