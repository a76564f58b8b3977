/* Panics in the library, by a hook that only its test builds have: they end as a status, and the
 * handle then takes nothing but reads and free. */
#include "check.h"

dadapt_status dadapt_fault_inject(dadapt_optimizer *optimizer, int32_t place);

enum { LEN = 50, STATES = 3, IN_THE_CALL = 0, BEFORE_SWEEP = 1, IN_SWEEP = 2,
       IN_A_PART = 3 };

static void only_reads_and_free(dadapt_optimizer *opt, uint64_t id, const dadapt_tensor *t)
{
    const dadapt_status poisoned = DADAPT_ERROR_POISONED;
    const dadapt_group all = DADAPT_ALL_GROUPS;
    dadapt_report report = new_report(), untouched = new_report();
    uint64_t number = 77;
    dadapt_group group = 77;
    double value = 0.0;
    const char *isa = NULL;
    void *state = NULL;
    size_t bytes = 0, count = 0;
    dadapt_dtype dtype = 77;

    CHECK(strstr(dadapt_optimizer_last_error(opt), "internal error"));
    CHECK(strstr(dadapt_optimizer_last_error(opt), "injected"));
    FAILS(poisoned, "read and freed", dadapt_optimizer_step(opt, t, 1, &report));
    FAILS(poisoned, "read and freed", dadapt_optimizer_step(opt, NULL, 0, NULL));
    FAILS(poisoned, "", dadapt_optimizer_set_f64(opt, all, DADAPT_KEY_LR, 1.0));
    FAILS(poisoned, "", dadapt_optimizer_set_f64_by_name(opt, all, "lr", 1.0));
    FAILS(poisoned, "", dadapt_optimizer_set_lr(opt, 0, 1.0));
    FAILS(poisoned, "", dadapt_optimizer_set_state_dtype(opt, all, "s", DADAPT_DTYPE_Q8));
    FAILS(poisoned, "", dadapt_optimizer_add_group(opt, &group));
    FAILS(poisoned, "",
          dadapt_optimizer_add_tensor(opt, 0, "x", DADAPT_DTYPE_F32, 1, &number));
    FAILS(poisoned, "", dadapt_optimizer_add_tensor_with_state_of_caller(
                            opt, 0, "x", DADAPT_DTYPE_F32, 1, &number));
    FAILS(poisoned, "", dadapt_optimizer_set_log(opt, NULL, NULL));
    FAILS(poisoned, "", dadapt_optimizer_step_begin(opt));
    FAILS(poisoned, "", dadapt_optimizer_step_tensor(opt, t));
    FAILS(poisoned, "", dadapt_optimizer_step_end(opt, &report));
    FAILS(poisoned, "", dadapt_optimizer_step_abort(opt, &number, 1, &bytes));
    FAILS(poisoned, "", dadapt_optimizer_freeze(opt));
    FAILS(poisoned, "", dadapt_optimizer_restart(opt));
    CHECK(bytes == 0);
    CHECK(number == 77 && group == 77 && !memcmp(&report, &untouched, sizeof report));

    CHECK(d_of(opt) > 0.0 && k_of(opt) == 2);
    OK(dadapt_optimizer_get_f64(opt, 0, DADAPT_KEY_LR, &value));
    OK(dadapt_optimizer_get_f64_by_name(opt, 0, "lr", &value));
    OK(dadapt_optimizer_isa(opt, &isa));
    OK(dadapt_optimizer_tensor_id(opt, "w", &number));
    OK(dadapt_optimizer_state(opt, id, 0, &state, NULL, NULL));
    OK(dadapt_optimizer_state_bytes(opt, id, 0, &bytes));
    OK(dadapt_optimizer_state_count(opt, id, &count));
    OK(dadapt_optimizer_state_info(opt, id, 0, NULL, &dtype, NULL));
    OK(dadapt_optimizer_state_values(opt, id, 0, NULL, 0, 1, &value));
    CHECK(count == STATES && dtype == DADAPT_DTYPE_F32 && value == (double)*(float *)state);
    OK(dadapt_optimizer_get_state_dtype(opt, 0, "s", &dtype));
    CHECK(dtype == 0);
    OK(dadapt_optimizer_group_report(opt, 0, &report));
    CHECK(report.k == 2);
    int32_t frozen = 77;
    OK(dadapt_optimizer_is_frozen(opt, &frozen));
    CHECK(frozen == 0);
    CHECK(number == id && bytes == LEN * sizeof(float));
    CHECK(strstr(dadapt_optimizer_last_error(opt), "read and freed"));
}

static void panic_at(int32_t place)
{
    dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_ADAM));
    float p[LEN], g[LEN], p_before[LEN], state_before[STATES][LEN];
    uint64_t id;
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, LEN, &id));
    for (size_t i = 0; i < LEN; i++) {
        p[i] = value_at(i);
        g[i] = value_at(i + 100);
    }
    const dadapt_tensor t = tensor_of(id, LEN, p, g);
    OK(dadapt_optimizer_step(opt, &t, 1, NULL));
    OK(dadapt_optimizer_step(opt, &t, 1, NULL));
    const double d = d_of(opt);
    memcpy(p_before, p, sizeof p);
    for (size_t slot = 0; slot < STATES; slot++) {
        void *state = NULL;
        OK(dadapt_optimizer_state(opt, id, slot, &state, NULL, NULL));
        memcpy(state_before[slot], state, sizeof state_before[slot]);
    }

    dadapt_report report = new_report(), untouched = new_report();
    if (place == IN_THE_CALL) {
        FAILS(DADAPT_ERROR_INTERNAL, "injected in the call", dadapt_fault_inject(opt, place));
    } else if (place == IN_A_PART) {
        OK(dadapt_fault_inject(opt, place));
        OK(dadapt_optimizer_step_begin(opt));
        FAILS(DADAPT_ERROR_INTERNAL, "injected in a part", dadapt_optimizer_step_tensor(opt, &t));
    } else {
        OK(dadapt_fault_inject(opt, place));
        FAILS(DADAPT_ERROR_INTERNAL, "injected", dadapt_optimizer_step(opt, &t, 1, &report));
    }
    CHECK(!memcmp(&report, &untouched, sizeof report) && d_of(opt) == d);
    only_reads_and_free(opt, id, &t);
    /* The fault stands in for the first block, so even in the sweep nothing was written. */
    CHECK(!memcmp(p_before, p, sizeof p));
    for (size_t slot = 0; slot < STATES; slot++) {
        void *state = NULL;
        OK(dadapt_optimizer_state(opt, id, slot, &state, NULL, NULL));
        CHECK(!memcmp(state_before[slot], state, sizeof state_before[slot]));
    }
    dadapt_optimizer_free(opt);
}

/* With bf16 parameters, a master copy and 8-bit state the handle is as poisoned, and as readable. */
static void panic_in_short_types(void)
{
    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAM);
    OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_STATE, DADAPT_STATE_Q8));
    dadapt_optimizer *opt = new_optimizer(config);
    uint16_t p[LEN], p_before[LEN];
    float g[LEN];
    double values[LEN], before[STATES + 1][LEN];
    size_t count = 0;
    uint64_t id;
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_BF16, LEN, &id));
    for (size_t i = 0; i < LEN; i++) {
        p[i] = (uint16_t)(0x3f80 + i);
        g[i] = value_at(i);
    }
    dadapt_tensor t = tensor_of(id, LEN, p, g);
    t.g_dtype = DADAPT_DTYPE_F32;
    OK(dadapt_optimizer_step(opt, &t, 1, NULL));
    OK(dadapt_optimizer_state_count(opt, id, &count));
    CHECK(count == STATES + 1);
    for (size_t slot = 0; slot < count; slot++)
        OK(dadapt_optimizer_state_values(opt, id, slot, NULL, 0, LEN, before[slot]));
    memcpy(p_before, p, sizeof p);

    OK(dadapt_fault_inject(opt, IN_SWEEP));
    FAILS(DADAPT_ERROR_INTERNAL, "injected", dadapt_optimizer_step(opt, &t, 1, NULL));
    FAILS(DADAPT_ERROR_POISONED, "", dadapt_optimizer_step(opt, &t, 1, NULL));
    for (size_t slot = 0; slot < count; slot++) {
        OK(dadapt_optimizer_state_values(opt, id, slot, NULL, 0, LEN, values));
        CHECK(!memcmp(values, before[slot], sizeof values));
    }
    CHECK(!memcmp(p, p_before, sizeof p));
    dadapt_optimizer_free(opt);
}

int main(void)
{
    panic_in_short_types();
    panic_at(BEFORE_SWEEP);
    panic_at(IN_SWEEP);
    panic_at(IN_A_PART);
    panic_at(IN_THE_CALL);
    /* Other optimizers are none the worse. */
    dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_SGD));
    OK(dadapt_optimizer_step(opt, NULL, 0, NULL));
    dadapt_optimizer_free(opt);
    return EXIT_SUCCESS;
}
