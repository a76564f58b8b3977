/* What every algorithm has in common, by its number, and what only some have: options, freezing,
 * restarts, one d a group, sliced statistics. */
#include "check.h"

#include <math.h>

enum { ROWS = 40, COLUMNS = 8, STEPS = 300, LEN = 130, SLOTS = 6 };
enum { LAST_KEY = DADAPT_KEY_D_PER_GROUP };

static const dadapt_group all = DADAPT_ALL_GROUPS;

static int has_key(dadapt_algorithm algorithm, dadapt_key key)
{
    dadapt_config *config = new_config(algorithm);
    double value;
    const dadapt_status status = dadapt_config_get_f64(config, all, key, &value);
    if (status != DADAPT_OK)
        check_status(__FILE__, __LINE__, "get", status, DADAPT_ERROR_KEY_NOT_FOR_ALGORITHM,
                     dadapt_key_name(key));
    dadapt_config_free(config);
    return status == DADAPT_OK;
}

static int adapts(dadapt_algorithm algorithm)
{
    return has_key(algorithm, DADAPT_KEY_D0);
}

static int restarts(dadapt_algorithm algorithm)
{
    return algorithm == DADAPT_ALGORITHM_ADAN || algorithm == DADAPT_ALGORITHM_EXPERIMENTAL_ADAN_IP;
}

static size_t slot_of(dadapt_algorithm algorithm, const char *name)
{
    size_t slot = 0;
    while (strcmp(dadapt_algorithm_state_name(algorithm, slot), name) != 0)
        slot++;
    return slot;
}

/* ---- Training ---- */

/* Half the mean square of A w - A x, and its gradient by w. */
static double least_squares(const float *w, float *gradient)
{
    double loss = 0.0, sums[COLUMNS] = {0.0};
    for (size_t row = 0; row < ROWS; row++) {
        double residual = 0.0;
        for (size_t i = 0; i < COLUMNS; i++)
            residual += (double)value_at(row * COLUMNS + i) *
                        ((double)w[i] - (double)value_at(9000 + i));
        loss += residual * residual / 2.0 / ROWS;
        for (size_t i = 0; i < COLUMNS; i++)
            sums[i] += residual * (double)value_at(row * COLUMNS + i) / ROWS;
    }
    for (size_t i = 0; i < COLUMNS; i++)
        gradient[i] = (float)sums[i];
    return loss;
}

/* The loss falls: of those that adapt far, with no rate set; of the plain ones at their default
 * rate, which is small, at all. */
static void training(dadapt_algorithm algorithm)
{
    dadapt_optimizer *opt = new_optimizer(new_config(algorithm));
    float w[COLUMNS] = {0.0f}, gradient[COLUMNS];
    uint64_t id;
    double last_d = d_of(opt);
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, COLUMNS, &id));
    const double first = least_squares(w, gradient);
    for (int step = 0; step < STEPS; step++) {
        dadapt_report report = new_report();
        const dadapt_tensor t = tensor_of(id, COLUMNS, w, gradient);
        OK(dadapt_optimizer_step(opt, &t, 1, &report));
        CHECK(report.k == (uint64_t)step + 1 && report.applied == 1 && report.d >= last_d);
        CHECK((report.movement == DADAPT_MOVEMENT_FIXED) == !adapts(algorithm));
        CHECK(report.reserved == 0 && report.sweeps >= DADAPT_SWEEPS_ONE);
        CHECK(report.sweeps == DADAPT_SWEEPS_ONE || algorithm == DADAPT_ALGORITHM_PRODIGY);
        if (step == 0 && algorithm == DADAPT_ALGORITHM_PRODIGY)
            CHECK(report.sweeps == DADAPT_SWEEPS_TWO);
        last_d = report.d;
        least_squares(w, gradient);
    }
    const double last = least_squares(w, gradient);
    CHECK(first > 1.0 && last < (adapts(algorithm) ? 0.25 : 1.0) * first);
    CHECK(adapts(algorithm) ? last_d > 1e-4 : last_d == 1.0);
    dadapt_optimizer_free(opt);
}

/* Every option that the algorithm has can be set to its default, and what was read is what was set;
 * the others are refused by name. */
static void defaults(dadapt_algorithm algorithm)
{
    dadapt_config *config = new_config(algorithm);
    int found = 0;
    for (dadapt_key key = 1; key <= LAST_KEY; key++) {
        double value = -1.0, again = -2.0, min = 0.0, max = 0.0;
        dadapt_bounds flags = 0;
        OK(dadapt_key_bounds(key, &min, &max, &flags));
        if (!has_key(algorithm, key)) {
            FAILS(DADAPT_ERROR_KEY_NOT_FOR_ALGORITHM, dadapt_key_name(key),
                  dadapt_config_set_f64(config, all, key, min));
            continue;
        }
        OK(dadapt_config_get_f64(config, all, key, &value));
        CHECK(value >= min && value <= max);
        OK(dadapt_config_set_f64(config, all, key, value));
        OK(dadapt_config_get_f64(config, 0, key, &again));
        CHECK(value == again);
        if (flags & DADAPT_BOUNDS_PER_GROUP)
            OK(dadapt_config_set_f64(config, 0, key, value));
        else
            FAILS(DADAPT_ERROR_NOT_PER_GROUP, dadapt_key_name(key),
                  dadapt_config_set_f64(config, 0, key, value));
        found++;
    }
    CHECK(found >= 8); /* the four of all algorithms, and lr, weight_decay, layer_scale, one more */
    dadapt_config_free(config);
}

/* ---- Tensors of any algorithm ---- */

typedef struct {
    dadapt_optimizer *opt;
    uint64_t id;
    float p[LEN], g[LEN];
    int of_caller;
    size_t states;
    void *state[SLOTS];
} run;

static void gradient_of_run(run *r)
{
    for (size_t i = 0; i < LEN; i++)
        r->g[i] = r->p[i] - value_at(i + 1000);
}

static dadapt_tensor tensor_of_run(run *r)
{
    dadapt_tensor t = tensor_of(r->id, LEN, r->p, r->g);
    if (r->of_caller) {
        t.state = r->state;
        t.state_count = r->states;
    }
    return t;
}

static dadapt_report step(run *r)
{
    dadapt_report report = new_report();
    gradient_of_run(r);
    const dadapt_tensor t = tensor_of_run(r);
    OK(dadapt_optimizer_step(r->opt, &t, 1, &report));
    return report;
}

/* Frees the configuration. */
static void start(run *r, dadapt_algorithm algorithm, dadapt_config *config, int of_caller)
{
    memset(r, 0, sizeof *r);
    r->opt = new_optimizer(config);
    r->of_caller = of_caller;
    r->states = dadapt_algorithm_state_count(algorithm);
    CHECK(r->states <= SLOTS);
    for (size_t i = 0; i < LEN; i++)
        r->p[i] = value_at(i);
    if (!of_caller) {
        OK(dadapt_optimizer_add_tensor(r->opt, 0, "w", DADAPT_DTYPE_F32, LEN, &r->id));
        return;
    }
    OK(dadapt_optimizer_add_tensor_with_state_of_caller(r->opt, 0, "w", DADAPT_DTYPE_F32, LEN,
                                                        &r->id));
    for (size_t slot = 0; slot < r->states; slot++) {
        size_t bytes = 0;
        OK(dadapt_optimizer_state_bytes(r->opt, r->id, slot, &bytes));
        /* As large as asked for, so that valgrind sees what is beyond; full of NaNs. */
        r->state[slot] = bytes > 0 ? malloc(bytes) : NULL;
        CHECK(bytes == 0 || r->state[slot] != NULL);
        if (bytes > 0)
            memset(r->state[slot], 0xff, bytes);
    }
}

static void finish(run *r)
{
    dadapt_optimizer_free(r->opt);
    if (r->of_caller)
        for (size_t slot = 0; slot < r->states; slot++)
            free(r->state[slot]);
}

/* After a freeze d stays and steps go on, with the statistics' memory given back. */
static void freezing(dadapt_algorithm algorithm)
{
    static run r[2]; /* the library's state, and the caller's */
    for (int i = 0; i < 2; i++) {
        start(&r[i], algorithm, new_config(algorithm), i);
        for (int n = 0; n < 5; n++)
            step(&r[i]);
        const double d = d_of(r[i].opt);
        int32_t frozen = 77;
        OK(dadapt_optimizer_is_frozen(r[i].opt, &frozen));
        CHECK(frozen == 0);
        OK(dadapt_optimizer_freeze(r[i].opt));
        OK(dadapt_optimizer_freeze(r[i].opt));
        OK(dadapt_optimizer_is_frozen(r[i].opt, &frozen));
        CHECK(frozen == 1);
        FAILS(DADAPT_ERROR_NULL_POINTER, "frozen", dadapt_optimizer_is_frozen(r[i].opt, NULL));
        for (size_t slot = 0; slot < r[i].states; slot++) {
            const char *name = dadapt_algorithm_state_name(algorithm, slot);
            const int statistic = algorithm != DADAPT_ALGORITHM_SGD &&
                                  (!strcmp(name, "s") || !strcmp(name, "p0"));
            const int unused = !strcmp(name, "momentum_buffer"); /* its momentum is 0 */
            size_t bytes = 77, len = 77;
            void *state = &r;
            OK(dadapt_optimizer_state_bytes(r[i].opt, r[i].id, slot, &bytes));
            CHECK(bytes == (statistic || unused ? 0 : LEN * sizeof(float)));
            if (i == 1 && bytes == 0) {
                free(r[i].state[slot]);
                r[i].state[slot] = NULL;
            }
            if (i == 0) {
                OK(dadapt_optimizer_state(r[i].opt, r[i].id, slot, &state, &len, NULL));
                CHECK(len * sizeof(float) == bytes && (state == NULL) == (len == 0));
            }
        }
        const float before = r[i].p[0];
        for (int n = 0; n < 3; n++) {
            const dadapt_report report = step(&r[i]);
            CHECK(report.movement == DADAPT_MOVEMENT_FIXED && report.d == d && report.d_hat == d);
            CHECK(report.applied == 1 && report.k == 6 + (uint64_t)n);
            CHECK(report.numerator == 0.0 && report.denominator == 0.0);
        }
        CHECK(r[i].p[0] != before);
    }
    CHECK(!memcmp(r[0].p, r[1].p, sizeof r[0].p));
    finish(&r[0]);
    finish(&r[1]);
}

/* exp_avg_diff is 0 after the first gradient, and after none that follows. */
static int has_difference(run *r, dadapt_algorithm algorithm)
{
    void *state = NULL;
    OK(dadapt_optimizer_state(r->opt, r->id, slot_of(algorithm, "exp_avg_diff"), &state, NULL,
                              NULL));
    for (size_t i = 0; i < LEN; i++)
        if (((const float *)state)[i] != 0.0f)
            return 1;
    return 0;
}

static void restarting(dadapt_algorithm algorithm)
{
    static run r;
    start(&r, algorithm, new_config(algorithm), 0);
    for (int n = 0; n < 5; n++)
        step(&r);
    const run before = r;
    const double d = d_of(r.opt);
    if (!restarts(algorithm)) {
        FAILS(DADAPT_ERROR_NO_RESTART, dadapt_algorithm_name(algorithm),
              dadapt_optimizer_restart(r.opt));
    } else {
        CHECK(has_difference(&r, algorithm));
        OK(dadapt_optimizer_restart(r.opt));
    }
    CHECK(d_of(r.opt) == d && k_of(r.opt) == 5 && !memcmp(&before, &r, sizeof r));
    const dadapt_report report = step(&r);
    CHECK(report.k == 6 && report.d >= d);
    if (restarts(algorithm))
        CHECK(!has_difference(&r, algorithm));
    finish(&r);
}

/* Each group with its own d is as an optimizer of its own, to the last bit. */
static void d_per_group(dadapt_algorithm algorithm)
{
    static run alone[2];
    static float p[2][LEN], g[2][LEN];
    dadapt_config *config = new_config(algorithm);
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_D_PER_GROUP, 1));
    OK(dadapt_config_add_group(config, NULL));
    dadapt_optimizer *opt = new_optimizer(config);
    uint64_t id[2];
    for (dadapt_group i = 0; i < 2; i++) {
        start(&alone[i], algorithm, new_config(algorithm), 0);
        OK(dadapt_optimizer_set_lr(opt, i, i == 0 ? 1.0 : 0.5)); /* they may differ */
        OK(dadapt_optimizer_set_lr(alone[i].opt, 0, i == 0 ? 1.0 : 0.5));
        OK(dadapt_optimizer_add_tensor(opt, i, NULL, DADAPT_DTYPE_F32, LEN, &id[i]));
        for (size_t n = 0; n < LEN; n++)
            alone[i].p[n] *= i == 0 ? 1.0f : 100.0f;
        memcpy(p[i], alone[i].p, sizeof p[i]);
        dadapt_report report = new_report();
        OK(dadapt_optimizer_group_report(opt, i, &report));
        CHECK(report.k == 0 && report.d == 1e-6 && report.applied == 0);
        CHECK(report.movement == DADAPT_MOVEMENT_NO_PROGRESS);
        CHECK(report.sweeps == DADAPT_SWEEPS_NONE);
    }
    for (int n = 0; n < 10; n++) {
        dadapt_tensor t[2];
        dadapt_report whole = new_report();
        for (size_t i = 0; i < 2; i++) {
            gradient_of_run(&alone[i]);
            memcpy(g[i], alone[i].g, sizeof g[i]);
            t[i] = tensor_of(id[i], LEN, p[i], g[i]);
        }
        OK(dadapt_optimizer_step(opt, t, 2, &whole));
        for (dadapt_group i = 0; i < 2; i++) {
            const dadapt_report expected = step(&alone[i]);
            dadapt_report report = new_report();
            OK(dadapt_optimizer_group_report(opt, i, &report));
            CHECK(!memcmp(&report, &expected, sizeof report));
            CHECK(i > 0 || !memcmp(&report, &whole, sizeof report));
            CHECK(!memcmp(p[i], alone[i].p, sizeof p[i]));
        }
    }
    CHECK(d_of(opt) == d_of(alone[0].opt) && d_of(alone[0].opt) != d_of(alone[1].opt));
    FAILS(DADAPT_ERROR_FIXED, "d_per_group",
          dadapt_optimizer_set_f64(opt, all, DADAPT_KEY_D_PER_GROUP, 0));
    dadapt_optimizer_free(opt);
    finish(&alone[0]);
    finish(&alone[1]);
}

/* Statistics of every third element, in memory of the library's or of the caller's. */
static void slices(dadapt_algorithm algorithm)
{
    static run r[2];
    for (int i = 0; i < 2; i++) {
        dadapt_config *config = new_config(algorithm);
        OK(dadapt_config_set_f64(config, 0, DADAPT_KEY_SLICE_P, 3));
        start(&r[i], algorithm, config, i);
        FAILS(DADAPT_ERROR_FIXED, "slice_p",
              dadapt_optimizer_set_f64(r[i].opt, 0, DADAPT_KEY_SLICE_P, 2));
        OK(dadapt_optimizer_set_f64(r[i].opt, 0, DADAPT_KEY_SLICE_P, 3)); /* nothing new */
    }
    for (int n = 0; n < 5; n++) {
        const dadapt_report one = step(&r[0]), other = step(&r[1]);
        CHECK(!memcmp(&one, &other, sizeof one) && one.applied == 1);
    }
    CHECK(d_of(r[0].opt) > 1e-6);
    CHECK(!memcmp(r[0].p, r[1].p, sizeof r[0].p));
    for (size_t slot = 0; slot < r[0].states; slot++) {
        const char *name = dadapt_algorithm_state_name(algorithm, slot);
        const size_t expected = !strcmp(name, "s") || !strcmp(name, "p0") ? (LEN + 2) / 3 : LEN;
        size_t len = 0, bytes = 0;
        void *state = NULL;
        OK(dadapt_optimizer_state(r[0].opt, r[0].id, slot, &state, &len, NULL));
        OK(dadapt_optimizer_state_bytes(r[1].opt, r[1].id, slot, &bytes));
        CHECK(len == expected && bytes == expected * sizeof(float));
        CHECK(!memcmp(state, r[1].state[slot], bytes));
    }
    finish(&r[0]);
    finish(&r[1]);
}

/* One d for all groups: every group's report is the step's. And what is refused. */
static void group_reports(void)
{
    static run r;
    dadapt_config *config = new_config(DADAPT_ALGORITHM_LION);
    OK(dadapt_config_add_group(config, NULL));
    start(&r, DADAPT_ALGORITHM_LION, config, 0);
    const dadapt_report whole = step(&r);
    dadapt_report report = new_report(), untouched = new_report();
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "no group 2; there are 2",
          dadapt_optimizer_group_report(r.opt, 2, &report));
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "", dadapt_optimizer_group_report(r.opt, all, &report));
    FAILS(DADAPT_ERROR_NULL_POINTER, "report", dadapt_optimizer_group_report(r.opt, 0, NULL));
    CHECK(!memcmp(&report, &untouched, sizeof report));
    report.struct_size = untouched.struct_size = 4;
    FAILS(DADAPT_ERROR_STRUCT_SIZE, "report->struct_size is 4",
          dadapt_optimizer_group_report(r.opt, 0, &report));
    report.struct_size = untouched.struct_size = offsetof(dadapt_report, d_hat);
    OK(dadapt_optimizer_group_report(r.opt, 1, &report));
    CHECK(report.k == whole.k && report.d == whole.d);
    CHECK(!memcmp(&report.d_hat, &untouched.d_hat,
                  sizeof report - offsetof(dadapt_report, d_hat)));
    report = new_report();
    OK(dadapt_optimizer_group_report(r.opt, 1, &report));
    CHECK(!memcmp(&report, &whole, sizeof report));
    finish(&r);
}

/* Prodigy drops the p0 of a tensor that starts at 0, and steps as one whose p0 the caller keeps. */
static void zero_starts(void)
{
    const dadapt_algorithm prodigy = DADAPT_ALGORITHM_PRODIGY;
    const size_t p0 = slot_of(prodigy, "p0");
    static run r[2];
    void *state = &r;
    size_t len = 77, bytes = 77;
    for (int i = 0; i < 2; i++) {
        start(&r[i], prodigy, new_config(prodigy), i);
        memset(r[i].p, 0, sizeof r[i].p);
    }
    OK(dadapt_optimizer_state(r[0].opt, r[0].id, p0, &state, &len, NULL));
    CHECK(state != NULL && len == LEN);
    for (int n = 0; n < 5; n++) {
        step(&r[0]);
        step(&r[1]);
    }
    OK(dadapt_optimizer_state(r[0].opt, r[0].id, p0, &state, &len, NULL));
    CHECK(state == NULL && len == 0);
    OK(dadapt_optimizer_state_bytes(r[1].opt, r[1].id, p0, &bytes));
    CHECK(bytes == LEN * sizeof(float));
    CHECK(!memcmp(r[0].p, r[1].p, sizeof r[0].p) && d_of(r[0].opt) == d_of(r[1].opt));
    CHECK(d_of(r[0].opt) > 1e-6 && r[0].p[0] != 0.0f);
    finish(&r[0]);
    finish(&r[1]);
}

/* A cap holds d down, and says so. */
static void cap(void)
{
    static run r;
    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAM);
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_D_CAP, 2e-6));
    start(&r, DADAPT_ALGORITHM_ADAM, config, 0);
    int capped = 0;
    for (int n = 0; n < 10; n++)
        capped += step(&r).movement == DADAPT_MOVEMENT_CAPPED;
    CHECK(capped > 0 && d_of(r.opt) == 2e-6);
    finish(&r);
}

int main(void)
{
    dadapt_algorithm algorithm = 1;
    for (; dadapt_algorithm_name(algorithm); algorithm++) {
        training(algorithm);
        defaults(algorithm);
        freezing(algorithm);
        restarting(algorithm);
        if (adapts(algorithm))
            d_per_group(algorithm);
        if (has_key(algorithm, DADAPT_KEY_SLICE_P))
            slices(algorithm);
    }
    CHECK(algorithm == DADAPT_ALGORITHM_PLAIN_ADAN + 1);
    CHECK(has_key(DADAPT_ALGORITHM_LION, DADAPT_KEY_SLICE_P)); /* slices ran */
    group_reports();
    zero_starts();
    cap();
    return EXIT_SUCCESS;
}
