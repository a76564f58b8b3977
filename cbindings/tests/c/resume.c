/* An optimizer goes on from what another had come to; what is wrong is refused and changes nothing. */
#include "check.h"

enum { LEN = 70, STATES = 6 };

static void gradient(const float *x, float *g)
{
    for (size_t i = 0; i < LEN; i++)
        g[i] = x[i] - value_at(i + 1000);
}

static dadapt_optimizer *new_one(dadapt_algorithm algorithm, uint64_t *id)
{
    dadapt_optimizer *opt = new_optimizer(new_config(algorithm));
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, LEN, id));
    return opt;
}

static void step(dadapt_optimizer *opt, uint64_t id, float *p)
{
    float g[LEN];
    gradient(p, g);
    dadapt_tensor t = tensor_of(id, LEN, p, g);
    OK(dadapt_optimizer_step(opt, &t, 1, NULL));
}

static void goes_on(dadapt_algorithm algorithm)
{
    uint64_t id[2];
    dadapt_optimizer *opt[2] = {new_one(algorithm, &id[0]), new_one(algorithm, &id[1])};
    float p[2][LEN];
    for (size_t i = 0; i < LEN; i++)
        p[0][i] = value_at(i);
    for (int i = 0; i < 4; i++)
        step(opt[0], id[0], p[0]);
    memcpy(p[1], p[0], sizeof p[0]);
    for (size_t slot = 0; slot < dadapt_algorithm_state_count(algorithm); slot++) {
        void *from = NULL, *to = NULL;
        size_t len = 0;
        OK(dadapt_optimizer_state(opt[0], id[0], slot, &from, &len, NULL));
        OK(dadapt_optimizer_state(opt[1], id[1], slot, &to, NULL, NULL));
        if (len > 0)
            memcpy(to, from, len * sizeof(float));
    }
    dadapt_estimate estimate;
    dadapt_progress progress;
    memset(&estimate, 0x5a, sizeof estimate);
    memset(&progress, 0x5a, sizeof progress);
    estimate.struct_size = sizeof estimate;
    progress.struct_size = sizeof progress;
    OK(dadapt_optimizer_estimate(opt[0], 0, &estimate));
    OK(dadapt_optimizer_tensor_progress(opt[0], id[0], &progress));
    CHECK(estimate.k == 4 && estimate.d == d_of(opt[0]) && estimate.reserved == 0);
    CHECK(progress.steps == 4 && progress.moved == 1 && progress.started_at_zero == 0);
    CHECK(progress.master_is_set == 1 && progress.reserved == 0);
    OK(dadapt_optimizer_set_estimate(opt[1], 0, &estimate));
    OK(dadapt_optimizer_set_tensor_progress(opt[1], id[1], &progress));
    for (int i = 0; i < 4; i++) {
        step(opt[0], id[0], p[0]);
        step(opt[1], id[1], p[1]);
        CHECK(!memcmp(p[0], p[1], sizeof p[0]));
        CHECK(d_of(opt[0]) == d_of(opt[1]) && k_of(opt[0]) == k_of(opt[1]));
    }
    dadapt_optimizer_free(opt[0]);
    dadapt_optimizer_free(opt[1]);
}

static void refusals(void)
{
    uint64_t id;
    dadapt_optimizer *opt = new_one(DADAPT_ALGORITHM_SGD, &id);
    float p[LEN];
    for (size_t i = 0; i < LEN; i++)
        p[i] = value_at(i);
    step(opt, id, p);
    dadapt_estimate good, bad;
    good.struct_size = sizeof good;
    OK(dadapt_optimizer_estimate(opt, 0, &good));

#define REFUSED(status, words, field, value)                                 \
    do {                                                                     \
        bad = good;                                                          \
        bad.field = value;                                                   \
        FAILS(status, words, dadapt_optimizer_set_estimate(opt, 0, &bad));   \
        CHECK(d_of(opt) == good.d && k_of(opt) == good.k);                   \
    } while (0)
    REFUSED(DADAPT_ERROR_OUT_OF_BOUNDS, "d0", d, -1.0);
    REFUSED(DADAPT_ERROR_OUT_OF_BOUNDS, "g0_norm", g0_norm, 0.0);
    REFUSED(DADAPT_ERROR_OUT_OF_BOUNDS, "total", totals[2], 1e308 * 10);
    REFUSED(DADAPT_ERROR_STRUCT_SIZE, "estimate", struct_size, 8);
    REFUSED(DADAPT_ERROR_RESERVED, "reserved", reserved, 1);
    REFUSED(DADAPT_ERROR_RESERVED, "d_moved", d_moved, 2);
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "1", dadapt_optimizer_set_estimate(opt, 1, &good));
    FAILS(DADAPT_ERROR_UNKNOWN_GROUP, "1", dadapt_optimizer_estimate(opt, 1, &bad));
    FAILS(DADAPT_ERROR_NULL_POINTER, "estimate", dadapt_optimizer_set_estimate(opt, 0, NULL));
    FAILS(DADAPT_ERROR_NULL_POINTER, "estimate", dadapt_optimizer_estimate(opt, 0, NULL));
    FAILS(DADAPT_ERROR_NULL_POINTER, "optimizer", dadapt_optimizer_estimate(NULL, 0, &bad));

    /* A later version's struct, whose new fields are 0, is taken; other values are not. */
    struct {
        dadapt_estimate known;
        double later;
    } larger = {good, 0.0};
    larger.known.struct_size = sizeof larger;
    OK(dadapt_optimizer_set_estimate(opt, 0, &larger.known));
    larger.later = 1.0;
    FAILS(DADAPT_ERROR_RESERVED, "later", dadapt_optimizer_set_estimate(opt, 0, &larger.known));
    /* An earlier version's is written as far as it goes. */
    bad = good;
    bad.struct_size = offsetof(dadapt_estimate, d);
    bad.k = 0;
    bad.d = -3.0;
    OK(dadapt_optimizer_estimate(opt, 0, &bad));
    CHECK(bad.k == good.k && bad.d == -3.0);

    dadapt_progress progress = {sizeof progress, 1, 1, 0, 0, 0};
    OK(dadapt_optimizer_set_tensor_progress(opt, id, &progress));
    progress.moved = 7;
    FAILS(DADAPT_ERROR_RESERVED, "moved", dadapt_optimizer_set_tensor_progress(opt, id, &progress));
    progress.moved = 1;
    progress.master_is_set = 2;
    FAILS(DADAPT_ERROR_RESERVED, "master_is_set",
          dadapt_optimizer_set_tensor_progress(opt, id, &progress));
    progress.master_is_set = 0;
    progress.reserved = 3;
    FAILS(DADAPT_ERROR_RESERVED, "reserved", dadapt_optimizer_set_tensor_progress(opt, id, &progress));
    progress.reserved = 0;
    progress.steps = UINT64_MAX;
    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "steps",
          dadapt_optimizer_set_tensor_progress(opt, id, &progress));
    progress.steps = 1;
    FAILS(DADAPT_ERROR_UNKNOWN_TENSOR, "9", dadapt_optimizer_set_tensor_progress(opt, 9, &progress));
    FAILS(DADAPT_ERROR_UNKNOWN_TENSOR, "9", dadapt_optimizer_tensor_progress(opt, 9, &progress));
    OK(dadapt_optimizer_step_begin(opt));
    FAILS(DADAPT_ERROR_STEP_OPEN, "step", dadapt_optimizer_set_estimate(opt, 0, &good));
    FAILS(DADAPT_ERROR_STEP_OPEN, "step", dadapt_optimizer_set_tensor_progress(opt, id, &progress));
    dadapt_optimizer_free(opt);
}

int main(void)
{
    for (dadapt_algorithm a = 1; dadapt_algorithm_name(a) != NULL; a++)
        goes_on(a);
    refusals();
    return 0;
}
