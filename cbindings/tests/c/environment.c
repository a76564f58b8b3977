/* The caller's floating-point environment: it does not reach the bits, its traps do not go off, and
 * every call puts it back. */
#define _GNU_SOURCE
#include "check.h"

#include <fenv.h>
#include <math.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum { LEN = 70, STEPS = 4 };

typedef struct {
    float p[LEN];
    double d, bound;
} result;

/* Made before any environment is changed: no arithmetic of this file happens in one. */
static float start[LEN], gradients[STEPS][LEN];

static unsigned control(void)
{
#if defined(__x86_64__)
    return _mm_getcsr();
#else
    return (unsigned)fegetround();
#endif
}

/* What state is kept in. */
static double state;

static result train(void)
{
    const unsigned before = control();
    result r;
    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAM);
    dadapt_optimizer *opt = NULL;
    uint64_t id;
    memcpy(r.p, start, sizeof r.p);
    OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_WEIGHT_DECAY, 0.1));
    OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_STATE, state));
    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "NaN",
          dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_LR, (double)NAN));
    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "5e-324",
          dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_EPS, 4.94e-324));
    OK(dadapt_key_bounds(DADAPT_KEY_LR, NULL, &r.bound, NULL));
    CHECK(control() == before);
    OK(dadapt_optimizer_new(config, &opt));
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, LEN, &id));
    CHECK(control() == before);
    for (int step = 0; step < STEPS; step++) {
        dadapt_tensor t = tensor_of(id, LEN, r.p, gradients[step]);
        OK(dadapt_optimizer_step(opt, &t, 1, NULL));
        CHECK(control() == before);
    }
    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "NaN",
          dadapt_optimizer_set_lr(opt, DADAPT_ALL_GROUPS, (double)NAN));
    OK(dadapt_optimizer_d(opt, &r.d));
    dadapt_optimizer_free(opt);
    dadapt_config_free(config);
    CHECK(control() == before);
    return r;
}

static void in_every_environment(void)
{
    const result expected = train();
    CHECK(expected.d > 1e-6);

    const int roundings[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    for (int i = 0; i < 3; i++) {
        CHECK(fesetround(roundings[i]) == 0);
        const result r = train();
        CHECK(fegetround() == roundings[i] && fesetround(FE_TONEAREST) == 0);
        CHECK(!memcmp(&r, &expected, sizeof r));
    }
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* flush to zero, denormals are zero */
    const result flushed = train();
    CHECK((_mm_getcsr() & 0x8040) == 0x8040);
    _mm_setcsr(_mm_getcsr() & ~0x8040u);
    CHECK(!memcmp(&flushed, &expected, sizeof flushed));
#endif
#if defined(__GLIBC__)
    feclearexcept(FE_ALL_EXCEPT);
    if (feenableexcept(FE_ALL_EXCEPT) != -1) {
        const result trapping = train();
        CHECK(fegetexcept() == FE_ALL_EXCEPT);
        fedisableexcept(FE_ALL_EXCEPT);
        CHECK(!memcmp(&trapping, &expected, sizeof trapping));
    }
#endif
}

int main(void)
{
    for (size_t i = 0; i < LEN; i++) {
        start[i] = value_at(i);
        for (size_t step = 0; step < STEPS; step++) /* some of them subnormal */
            gradients[step][i] = i % 7 ? value_at(i + 100) : ldexpf(value_at(i + step), -130);
    }
    for (state = DADAPT_STATE_FULL; state <= DADAPT_STATE_Q8; state++)
        in_every_environment();
    return EXIT_SUCCESS;
}
