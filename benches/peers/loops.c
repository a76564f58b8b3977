/* What anybody can write in C: AdamW, and loops over the streams of a step with the least arithmetic,
 * which are the memory's ceiling. Built twice by build.py: for one thread, and with OpenMP. */
#include <math.h>
#include <stddef.h>
#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct {
    size_t len;
    float *p;
    const float *g;
    float *state[4];
} tensor;

/* `n` elements of one tensor. */
typedef void loop(size_t n, float *restrict p, const float *restrict g, float *restrict m,
                  float *restrict v, float *restrict s, const float *restrict p0, const float *c);

static void elements(loop *body, const tensor *t, size_t first, size_t last, const float *c) {
    float *state[4];
    for (int i = 0; i < 4; i++) state[i] = t->state[i] ? t->state[i] + first : NULL;
    body(last - first, t->p + first, t->g + first, state[0], state[1], state[2], state[3], c);
}

#define LOOP(name)                                                                                \
    static void name(size_t n, float *restrict p, const float *restrict g, float *restrict m,     \
                     float *restrict v, float *restrict s, const float *restrict p0, const float *c)

/* Threads get equal shares of all elements, in whole cache lines where tensors allow it. */
static void each(loop *body, const tensor *tensors, size_t n, const float *c) {
#ifdef _OPENMP
    size_t total = 0;
    for (size_t i = 0; i < n; i++) total += tensors[i].len;
#pragma omp parallel if (total > 20000)
    {
        const size_t threads = (size_t)omp_get_num_threads(), me = (size_t)omp_get_thread_num();
        const size_t share = (total / threads + 15) / 16 * 16;
        const size_t first = me * share, last = me + 1 == threads ? total : first + share;
        for (size_t i = 0, at = 0; i < n && at < last; at += tensors[i++].len) {
            const size_t end = at + tensors[i].len;
            if (end > first)
                elements(body, &tensors[i], first > at ? first - at : 0, (last < end ? last : end) - at, c);
        }
    }
#else
    for (size_t i = 0; i < n; i++) elements(body, &tensors[i], 0, tensors[i].len, c);
#endif
}

LOOP(adamw_loop) {
    (void)s, (void)p0;
    const float beta1 = c[0], beta2 = c[1], decay = c[2], rate = c[3], root = c[4], eps = c[5];
    for (size_t i = 0; i < n; i++) {
        m[i] = beta1 * m[i] + (1 - beta1) * g[i];
        v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
        p[i] = decay * p[i] - rate * m[i] / (root * sqrtf(v[i]) + eps);
    }
}

/* AdamW with weight decay 0.01, in its step `k`, which counts from 1. */
void adamw(const tensor *tensors, size_t n, double k, double lr) {
    const double beta1 = 0.9, beta2 = 0.999;
    const float c[] = {(float)beta1, (float)beta2, (float)(1 - lr * 0.01), (float)(lr / (1 - pow(beta1, k))),
                       (float)(1 / sqrt(1 - pow(beta2, k))), 1e-8f};
    each(adamw_loop, tensors, n, c);
}

#define CEILING(name, body)                                                                       \
    LOOP(name##_loop) {                                                                           \
        (void)s, (void)p0;                                                                        \
        const float z = c[0];                                                                     \
        for (size_t i = 0; i < n; i++) body                                                       \
    }                                                                                             \
    void name(const tensor *tensors, size_t n, double small, double unused) {                     \
        (void)unused;                                                                             \
        const float c[] = {(float)small};                                                         \
        each(name##_loop, tensors, n, c);                                                         \
    }

CEILING(ceiling_adamw, {
    p[i] += z * (m[i] + v[i]);
    m[i] += z * g[i];
    v[i] += z * g[i];
})

CEILING(ceiling_dadapt_adam, {
    p[i] += z * (m[i] + v[i] + s[i]);
    m[i] += z * g[i];
    v[i] += z * g[i];
    s[i] += z * g[i];
})

CEILING(ceiling_prodigy, {
    p[i] += z * (m[i] + v[i] + s[i] + p0[i]);
    m[i] += z * g[i];
    v[i] += z * g[i];
    s[i] += z * g[i];
})
