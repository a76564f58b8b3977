/* The memory's speed: the streams of a step with next to no arithmetic. */
#include "kernels.h"

#define STREAMS(count, written)                                                                    \
    case (count) << 8 | (written):                                                                 \
        part(n, p, g, state, count, written, zero);                                                \
        break;

/* Inlined with constants, so that each pattern is a loop of its own. */
static inline __attribute__((always_inline)) void part(size_t n, float *restrict p, const float *restrict g,
                                                       float *const *state, size_t states,
                                                       unsigned written, float zero) {
    float *restrict a = state[0], *restrict b = state[1], *restrict c = state[2], *restrict d = state[3],
                    *restrict e = state[4];
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float x = zero * g[i], sum = p[i] + x;
        if (states > 0) { sum += zero * a[i]; if (written & 1) a[i] += x; }
        if (states > 1) { sum += zero * b[i]; if (written & 2) b[i] += x; }
        if (states > 2) { sum += zero * c[i]; if (written & 4) c[i] += x; }
        if (states > 3) { sum += zero * d[i]; if (written & 8) d[i] += x; }
        if (states > 4) { sum += zero * e[i]; if (written & 16) e[i] += x; }
        p[i] = sum;
    }
}

static void one(size_t n, float *p, const float *g, float *const *state, size_t states, unsigned written,
                float zero) {
    switch (states << 8 | written) {
        STREAMS(1, 1)  /* plain SGD, AdaGrad, Lion */
        STREAMS(2, 1)  /* SGD: x0 is read */
        STREAMS(2, 3)  /* Lion, plain Adam */
        STREAMS(3, 3)  /* AdaGrad: x0 is read */
        STREAMS(3, 7)  /* Adam */
        STREAMS(4, 7)  /* Prodigy: p0 is read */
        STREAMS(4, 15) /* plain Adan */
        STREAMS(5, 31) /* Adan */
    default:
        __builtin_trap();
    }
}

void ceiling(size_t n, float *restrict p, const float *restrict g, float *const *state, size_t states,
             unsigned written, float zero, int threads) {
    if (threads == 1) {
        one(n, p, g, state, states, written, zero);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        size_t from = n / (size_t)threads * (size_t)t & ~(size_t)15;
        size_t to = t + 1 == threads ? n : (n / (size_t)threads * ((size_t)t + 1) & ~(size_t)15);
        float *moved[MAX_STATE] = {0};
        for (size_t i = 0; i < states; i++)
            moved[i] = state[i] + from;
        one(to - from, p + from, g + from, moved, states, written, zero);
    }
}

void read_gradient(size_t n, const float *restrict g, int threads) {
    const unsigned *bits = (const unsigned *)g;
    unsigned all = 0;
#pragma omp parallel for simd reduction(| : all) num_threads(threads) schedule(static)
    for (size_t i = 0; i < n; i++)
        all |= bits[i];
    __asm__ volatile("" : : "r"(all));
}
