/* Runs of several steps: what changes between steps, and what must not matter to the bits. */
#include "check.h"

enum { LEN = 130, STEPS = 6, STATES = 6 };

/* The gradient of |x - target|^2/2, with targets that look random. */
static void gradient(size_t len, const float *x, float *g)
{
    for (size_t i = 0; i < len; i++)
        g[i] = x[i] - value_at(i + 1000);
}

static void fill(size_t len, float *x)
{
    for (size_t i = 0; i < len; i++)
        x[i] = value_at(i);
}

static void *allocate(size_t bytes)
{
    void *memory = calloc(1, bytes);
    CHECK(memory != NULL);
    return memory;
}

/* Tensors and groups join, options change, pointers move: as long as both optimizers are told the
 * same, they agree. The second one gets its arrays at another place in each step, its tensors in
 * the other order, its descriptors where no struct is aligned, and its state from the caller, which
 * holds anything before the first gradient. */
static void changes_between_steps(dadapt_algorithm algorithm)
{
    const size_t states = dadapt_algorithm_state_count(algorithm);
    dadapt_optimizer *opt[2];
    float p[2][2][LEN], g[2][LEN];
    float state[2][2][STATES][LEN]; /* of the second optimizer: place, tensor, slot, element */
    uint64_t id[2][2];
    double last_d = 0.0;
    CHECK(states <= STATES);
    memset(state, 0x7f, sizeof state);
    for (int o = 0; o < 2; o++) {
        opt[o] = new_optimizer(new_config(algorithm));
        fill(LEN, p[o][0]);
        fill(LEN, p[o][1]);
    }
    for (int step = 0; step < STEPS; step++) {
        for (int o = 0; o < 2; o++) {
            const dadapt_group all = DADAPT_ALL_GROUPS;
            if (step == 0 && o == 0)
                OK(dadapt_optimizer_add_tensor(opt[0], 0, "first", DADAPT_DTYPE_F32, LEN,
                                               &id[0][0]));
            if (step == 0 && o == 1)
                OK(dadapt_optimizer_add_tensor_with_state_of_caller(
                    opt[1], 0, "first", DADAPT_DTYPE_F32, LEN, &id[1][0]));
            if (step == 2) {
                dadapt_group group = 0;
                OK(dadapt_optimizer_add_group(opt[o], &group));
                CHECK(group == 1);
                OK(dadapt_optimizer_set_f64(opt[o], 1, DADAPT_KEY_LAYER_SCALE, 0.5));
                if (o == 0)
                    OK(dadapt_optimizer_add_tensor(opt[0], 1, NULL, DADAPT_DTYPE_F32, LEN - 1,
                                                   &id[0][1]));
                else
                    OK(dadapt_optimizer_add_tensor_with_state_of_caller(
                        opt[1], 1, NULL, DADAPT_DTYPE_F32, LEN - 1, &id[1][1]));
            }
            if (step == 3)
                OK(dadapt_optimizer_set_f64(opt[o], all, DADAPT_KEY_WEIGHT_DECAY, 0.01));
            if (step == 4 && algorithm == DADAPT_ALGORITHM_ADAM)
                OK(dadapt_optimizer_set_f64_by_name(opt[o], all, "beta1", 0.8));
            if (step == 5)
                OK(dadapt_optimizer_set_lr(opt[o], all, 0.5));
        }
        size_t n = step < 2 ? 1 : 2;
        dadapt_report report[2] = {new_report(), new_report()};

        dadapt_tensor t[2];
        for (size_t i = 0; i < n; i++) {
            gradient(LEN - i, p[0][i], g[i]);
            t[i] = tensor_of(id[0][i], LEN - i, p[0][i], g[i]);
        }
        OK(dadapt_optimizer_step(opt[0], t, n, &report[0]));

        float *const moved = allocate(2 * LEN * sizeof *moved);
        char *const unaligned = allocate(1 + 2 * sizeof(dadapt_tensor));
        const int from = step % 2, to = 1 - from;
        void *slots[2][STATES];
        memcpy(state[to], state[from], sizeof state[to]);
        memset(state[from], 0x7f, sizeof state[from]);
        for (size_t i = 0; i < n; i++) {
            memcpy(moved + i * LEN, p[1][i], sizeof p[1][i]);
            for (size_t slot = 0; slot < states; slot++)
                slots[i][slot] = state[to][i][slot];
            dadapt_tensor one = tensor_of(id[1][i], LEN - i, moved + i * LEN, g[i]);
            one.state = slots[i];
            one.state_count = states;
            memcpy(unaligned + 1 + (n - 1 - i) * sizeof one, &one, sizeof one);
        }
        const void *const descriptors = unaligned + 1;
        OK(dadapt_optimizer_step(opt[1], descriptors, n, &report[1]));
        for (size_t i = 0; i < n; i++)
            memcpy(p[1][i], moved + i * LEN, sizeof p[1][i]);
        free(moved);
        free(unaligned);

        CHECK(!memcmp(&report[0], &report[1], sizeof report[0]));
        CHECK(!memcmp(p[0], p[1], sizeof p[0]));
        for (size_t i = 0; i < n; i++)
            for (size_t slot = 0; slot < states; slot++) {
                void *own = NULL;
                size_t len = 0, bytes = 0;
                OK(dadapt_optimizer_state(opt[0], id[0][i], slot, &own, &len, NULL));
                OK(dadapt_optimizer_state_bytes(opt[1], id[1][i], slot, &bytes));
                CHECK(bytes == len * sizeof(float) && (len == LEN - i || len == 0));
                CHECK(len == 0 || !memcmp(own, state[to][i][slot], bytes));
            }
        CHECK(report[0].applied == 1 && report[0].k == (uint64_t)step + 1);
        CHECK(report[0].d >= last_d);
        last_d = report[0].d;
    }
    CHECK(last_d > 1e-6);
    dadapt_optimizer_free(opt[0]);
    dadapt_optimizer_free(opt[1]);
}

/* Doubles train as floats do, to other bits. */
static void doubles(void)
{
    dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_ADAM));
    double p[LEN], g[LEN], first = 0.0, last = 0.0;
    uint64_t id;
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F64, LEN, &id));
    for (size_t i = 0; i < LEN; i++)
        p[i] = (double)value_at(i);
    for (int step = 0; step < 150; step++) {
        last = 0.0;
        for (size_t i = 0; i < LEN; i++) {
            g[i] = p[i] - (double)value_at(i + 1000);
            last += g[i] * g[i];
        }
        if (step == 0)
            first = last;
        dadapt_tensor t = tensor_of(id, LEN, p, g);
        OK(dadapt_optimizer_step(opt, &t, 1, NULL));
    }
    CHECK(first > 1.0 && last < 0.1 * first);
    dadapt_optimizer_free(opt);
}

/* Any number of threads, any instruction set: the same bits. */
static void threads_and_instruction_sets(dadapt_algorithm algorithm)
{
    enum { MANY = 140001 };
    const double threads[] = {1, 2, 3, 8, 2};
    float *const p = allocate(MANY * sizeof *p), *const g = allocate(MANY * sizeof *g);
    float *const expected = allocate(MANY * sizeof *expected);
    double expected_d = 0.0;
    for (int run = 0; run < 5; run++) {
        dadapt_config *config = new_config(algorithm);
        const dadapt_group all = DADAPT_ALL_GROUPS;
        OK(dadapt_config_set_f64(config, all, DADAPT_KEY_NUM_THREADS, threads[run]));
        if (run == 4)
            OK(dadapt_config_set_f64(config, all, DADAPT_KEY_ISA, DADAPT_ISA_SCALAR));
        dadapt_optimizer *opt = new_optimizer(config);
        double value = 0.0;
        OK(dadapt_optimizer_get_f64(opt, all, DADAPT_KEY_NUM_THREADS, &value));
        CHECK(value == threads[run]);
        uint64_t id;
        OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, MANY, &id));
        /* None of them 0: of valgrind's fused operations that may have another sign. */
        for (size_t i = 0; i < MANY; i++)
            p[i] = value_at(i) + 1.0f / 128;
        for (int step = 0; step < 3; step++) {
            gradient(MANY, p, g);
            dadapt_tensor t = tensor_of(id, MANY, p, g);
            OK(dadapt_optimizer_step(opt, &t, 1, NULL));
        }
        if (run == 0) {
            memcpy(expected, p, MANY * sizeof *p);
            expected_d = d_of(opt);
        }
        CHECK(!memcmp(expected, p, MANY * sizeof *p));
        CHECK(expected_d == d_of(opt) && expected_d > 1e-6);
        dadapt_optimizer_free(opt);
    }
    free(p);
    free(g);
    free(expected);
}

/* A thousand tensors, some of them empty, are one long one to d. */
static void thousand_tensors(void)
{
    enum { TENSORS = 1000 };
    dadapt_tensor *const t = allocate(TENSORS * sizeof *t);
    float *const p = allocate(37 * TENSORS * sizeof *p);
    float *const g = allocate(37 * TENSORS * sizeof *g);
    dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_SGD));
    fill(37 * TENSORS, p);
    for (size_t i = 0; i < TENSORS; i++) {
        uint64_t id;
        OK(dadapt_optimizer_add_tensor(opt, 0, NULL, DADAPT_DTYPE_F32, i % 37, &id));
        t[i] = tensor_of(id, i % 37, p + 37 * i, g + 37 * i);
        if (i % 37 == 0)
            t[i].p = NULL;
    }
    for (int step = 0; step < 4; step++) {
        dadapt_report report = new_report();
        gradient(37 * TENSORS, p, g);
        OK(dadapt_optimizer_step(opt, t, TENSORS, &report));
        CHECK(report.applied == 1 && report.k == (uint64_t)step + 1);
        CHECK((report.grad_norm > 0.0) == (step == 0));
    }
    CHECK(p[0] == value_at(0) && p[37] != value_at(37) && p[38] == value_at(38));
    dadapt_optimizer_free(opt);
    free(t);
    free(p);
    free(g);
}

/* An older program's structs are shorter, a newer one's are longer: both work. */
static void other_versions_of_structs(void)
{
    struct {
        dadapt_tensor known;
        uint64_t later;
    } longer;
    struct {
        dadapt_report known;
        uint64_t later;
    } long_report;
    enum { VERSIONS = 5 };
    float p[VERSIONS][LEN], g[LEN];
    double d[VERSIONS];
    dadapt_movement movement[VERSIONS];
    for (int version = 0; version < VERSIONS; version++) {
        dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_ADAM));
        uint64_t id;
        OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, LEN, &id));
        fill(LEN, p[version]);
        gradient(LEN, p[version], g);
        dadapt_report report = new_report();
        memset(&longer, 0, sizeof longer);
        longer.known = tensor_of(id, LEN, p[version], g);
        if (version == 1) {
            /* The least there is: up to g. What lies behind is not looked at. */
            longer.known.struct_size = offsetof(dadapt_tensor, state);
            longer.known.state_count = 99;
            report.struct_size = offsetof(dadapt_report, d_hat);
        }
        /* What 0.1.0 had. */
        if (version == 3)
            report.struct_size = offsetof(dadapt_report, sweeps);
        if (version == 4)
            report.struct_size = offsetof(dadapt_report, overflows);
        if (version == 2) {
            longer.known.struct_size = sizeof longer;
            memset(&long_report, 0x5a, sizeof long_report);
            long_report.known.struct_size = sizeof long_report;
            OK(dadapt_optimizer_step(opt, &longer.known, 1, &long_report.known));
            CHECK(long_report.known.struct_size == sizeof long_report);
            CHECK(long_report.later == UINT64_C(0x5a5a5a5a5a5a5a5a));
            report = long_report.known;
        } else {
            OK(dadapt_optimizer_step(opt, &longer.known, 1, &report));
        }
        d[version] = report.d;
        movement[version] = report.movement;
        CHECK(report.k == 1 && report.d == d_of(opt));
        if (version == 1) {
            dadapt_report untouched = new_report();
            CHECK(!memcmp(&report.d_hat, &untouched.d_hat,
                          sizeof report - offsetof(dadapt_report, d_hat)));
        }
        if (version == 3) {
            dadapt_report untouched = new_report();
            CHECK(report.struct_size < sizeof report && movement[3] == movement[0]);
            CHECK(report.sweeps == untouched.sweeps && report.reserved == untouched.reserved);
        } else if (version != 1) {
            CHECK(report.sweeps == DADAPT_SWEEPS_ONE && report.reserved == 0);
            CHECK(report.overflows == (version == 4 ? UINT64_C(0x5a5a5a5a5a5a5a5a) : 0));
        }
        dadapt_optimizer_free(opt);
    }
    for (int version = 1; version < VERSIONS; version++)
        CHECK(!memcmp(p[0], p[version], sizeof p[0]) && d[0] == d[version]);
}

typedef struct {
    dadapt_optimizer *opt;
    int lines;
    double d;
} log_reader;

static void read_line(void *context, const char *line)
{
    log_reader *reader = context;
    CHECK(!strncmp(line, "adam step ", 10) && strstr(line, "d_hat"));
    CHECK(atoi(line + 10) == 2 * reader->lines);
    reader->lines++;
    reader->d = d_of(reader->opt);
    OK(dadapt_optimizer_set_f64(reader->opt, DADAPT_ALL_GROUPS, DADAPT_KEY_EPS, 1e-7));
}

static void log_lines(void)
{
    log_reader reader = {new_optimizer(new_config(DADAPT_ALGORITHM_ADAM)), 0, 0.0};
    float p[LEN], g[LEN];
    uint64_t id;
    OK(dadapt_optimizer_add_tensor(reader.opt, 0, "w", DADAPT_DTYPE_F32, LEN, &id));
    OK(dadapt_optimizer_set_log(reader.opt, read_line, &reader));
    fill(LEN, p);
    for (int step = 0; step < 5; step++) {
        gradient(LEN, p, g);
        dadapt_tensor t = tensor_of(id, LEN, p, g);
        if (step == 0) {
            t.g = NULL;
            OK(dadapt_optimizer_step(reader.opt, &t, 1, NULL));
            CHECK(reader.lines == 0);
            OK(dadapt_optimizer_set_f64(reader.opt, DADAPT_ALL_GROUPS, DADAPT_KEY_LOG_EVERY, 2));
            t.g = g;
        }
        OK(dadapt_optimizer_step(reader.opt, &t, 1, NULL));
    }
    CHECK(reader.lines == 3 && reader.d == d_of(reader.opt));
    OK(dadapt_optimizer_set_log(reader.opt, NULL, NULL));
    dadapt_tensor t = tensor_of(id, LEN, p, g);
    OK(dadapt_optimizer_step(reader.opt, &t, 1, NULL));
    OK(dadapt_optimizer_step(reader.opt, &t, 1, NULL));
    CHECK(reader.lines == 3);
    dadapt_optimizer_free(reader.opt);
}

int main(void)
{
    for (dadapt_algorithm algorithm = 1; dadapt_algorithm_name(algorithm); algorithm++)
        changes_between_steps(algorithm);
    doubles();
    threads_and_instruction_sets(DADAPT_ALGORITHM_ADAM);
    threads_and_instruction_sets(DADAPT_ALGORITHM_SGD);
    thousand_tensors();
    other_versions_of_structs();
    log_lines();
    return EXIT_SUCCESS;
}
