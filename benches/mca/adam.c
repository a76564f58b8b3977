/* Adam's inner loop, a row of 16 f32 a turn as src/kernel/sweep.rs has it, with the forms that its
 * quotients can take. `run` compiles each form for each instruction set and gives the loop to
 * llvm-mca; none of it is linked to anything. -DFORM=
 *   1  two roots and two divisions, as the recurrence is written
 *   2  two roots and one division for both quotients
 *   3  the statistic's root by integer operations and two of Newton's steps; one root, one division
 *   4  one root, one division, none in the statistic: a floor, and another recurrence
 * -ffp-contract=fast fuses what the kernels fuse. */
#include <stddef.h>
#include <stdint.h>

#if defined __AVX512F__
#include <immintrin.h>
#define LEN 16
#define SQRT(x) ((v)_mm512_sqrt_ps((__m512)(x)))
#elif defined __AVX2__
#include <immintrin.h>
#define LEN 8
#define SQRT(x) ((v)_mm256_sqrt_ps((__m256)(x)))
#else
#include <arm_neon.h>
#define LEN 4
#define SQRT(x) ((v)vsqrtq_f32((float32x4_t)(x)))
#endif
#define ROW 16
#define REGISTERS (ROW / LEN)

typedef float v __attribute__((vector_size(4 * LEN)));
typedef uint32_t u __attribute__((vector_size(4 * LEN)));
typedef float unaligned __attribute__((vector_size(4 * LEN), aligned(4), may_alias));

struct coeffs {
    v beta1, m_g, beta2, v_g, sqrt_beta2, s_g, eps, flush, one, c1, c2;
    u magic, positive;
};

struct streams {
    float *p, *m, *v, *s;
    const float *g;
};

/* beta*x + a*g as `Lanes::decay` has it. */
static inline v decay(v beta, v x, v a, v g, v flush) { return (beta * x + (a * g + flush)) - flush; }

/* The old denominator, which the statistic divides by. */
static inline v old_denom(v x, const struct coeffs *c) {
#if FORM == 3
    v y = (v)(c->magic - ((u)x >> 1));
    v t = x * y;
    y = y * (c->c1 - t * y);
    t = x * y;
    return t * (c->c2 - t * y) + c->eps;
#else
    return SQRT(x) + c->eps;
#endif
}

static inline __attribute__((always_inline)) void
lane(const struct streams *a, size_t at, const struct coeffs *c, v *numerator, v *s_l1) {
#define AT(stream) (*(unaligned *)((stream) + at))
    v p = AT(a->p), g = AT(a->g), m = AT(a->m), v0 = AT(a->v), s = AT(a->s);
    v next_m = decay(c->beta1, m, c->m_g, g, c->flush);
    v next_v = decay(c->beta2, v0, c->v_g * g, g, c->flush);
    v next_s = decay(c->sqrt_beta2, s, c->s_g, g, c->flush);
    v next_denom = SQRT(next_v) + c->eps;
#if FORM == 1
    *numerator += g * (s / old_denom(v0, c));
    AT(a->p) = p - next_m / next_denom;
#elif FORM == 2 || FORM == 3
    v denom = old_denom(v0, c), q = c->one / (denom * next_denom);
    *numerator += g * (s * (q * next_denom));
    AT(a->p) = p - next_m * (q * denom);
#else
    *numerator += g * s;
    AT(a->p) = p - next_m / next_denom;
#endif
    *s_l1 += (v)((u)next_s & c->positive);
    AT(a->m) = next_m, AT(a->v) = next_v, AT(a->s) = next_s;
}

void sweep(struct streams a, size_t len, const struct coeffs *coeffs, v sums[2 * REGISTERS]) {
    v n0 = sums[0], l0 = sums[1];
#if REGISTERS > 1
    v n1 = sums[2], l1 = sums[3];
#endif
#if REGISTERS > 2
    v n2 = sums[4], l2 = sums[5], n3 = sums[6], l3 = sums[7];
#endif
    /* 16 registers hold no coefficients, which stay in memory; 32 do. */
#if defined __AVX2__ && !defined __AVX512F__
    const struct coeffs *c = coeffs;
#else
    const struct coeffs copy = *coeffs, *c = &copy;
#endif
    for (size_t i = 0; i < len; i += ROW) {
        __asm__ volatile("# LOOP");
        lane(&a, i, c, &n0, &l0);
#if REGISTERS > 1
        lane(&a, i + LEN, c, &n1, &l1);
#endif
#if REGISTERS > 2
        lane(&a, i + 2 * LEN, c, &n2, &l2);
        lane(&a, i + 3 * LEN, c, &n3, &l3);
#endif
    }
    sums[0] = n0, sums[1] = l0;
#if REGISTERS > 1
    sums[2] = n1, sums[3] = l1;
#endif
#if REGISTERS > 2
    sums[4] = n2, sums[5] = l2, sums[6] = n3, sums[7] = l3;
#endif
}
