/* What a step is measured against in cache: each algorithm as one would write it by hand in C.
 *
 * The same streams, the fewest roots and divisions, sums in f32. No care for the order of sums, for
 * subnormal state, for other instruction sets or for input that is wrong. Compiled with gcc -O3
 * -march=native; the coefficients that the bench passes leave the values in range. */
#include "kernels.h"
#include <math.h>

#define UNUSED(x) ((void)(x))

static float sign(float x) { return (float)((x > 0) - (x < 0)); }

KERNEL(adam) {
    float *restrict m = state[0], *restrict v = state[1], *restrict s = state[2];
    float beta1 = c[0], m_g = c[1], beta2 = c[2], v_g = c[3], sqrt_beta2 = c[4], s_g = c[5], eps = c[6];
    float numerator = 0, s_l1 = 0;
#pragma omp simd reduction(+ : numerator, s_l1)
    for (size_t i = 0; i < n; i++) {
        float old = sqrtf(v[i]) + eps;
        m[i] = beta1 * m[i] + m_g * g[i];
        v[i] = beta2 * v[i] + v_g * g[i] * g[i];
        float next = sqrtf(v[i]) + eps;
        float inverse = 1 / (old * next);
        numerator += g[i] * (s[i] * (inverse * next));
        s[i] = sqrt_beta2 * s[i] + s_g * g[i];
        s_l1 += fabsf(s[i]);
        p[i] -= m[i] * (inverse * old);
    }
    sums[0] = numerator, sums[1] = s_l1;
}

/* The same with two divisions, as the reference has it. */
KERNEL(adam_two_divisions) {
    float *restrict m = state[0], *restrict v = state[1], *restrict s = state[2];
    float beta1 = c[0], m_g = c[1], beta2 = c[2], v_g = c[3], sqrt_beta2 = c[4], s_g = c[5], eps = c[6];
    float numerator = 0, s_l1 = 0;
#pragma omp simd reduction(+ : numerator, s_l1)
    for (size_t i = 0; i < n; i++) {
        numerator += g[i] * (s[i] / (sqrtf(v[i]) + eps));
        m[i] = beta1 * m[i] + m_g * g[i];
        v[i] = beta2 * v[i] + v_g * g[i] * g[i];
        s[i] = sqrt_beta2 * s[i] + s_g * g[i];
        s_l1 += fabsf(s[i]);
        p[i] -= m[i] / (sqrtf(v[i]) + eps);
    }
    sums[0] = numerator, sums[1] = s_l1;
}

KERNEL(sgd) {
    float *restrict s = state[0];
    const float *restrict x0 = state[1];
    float gamma = c[1], momentum = c[0], minus_r = c[3], unit = c[4];
    float numerator = 0, s_sq = 0;
#pragma omp simd reduction(+ : numerator, s_sq)
    for (size_t i = 0; i < n; i++) {
        numerator += g[i] * (unit * s[i]);
        s[i] += gamma * g[i];
        p[i] = momentum * p[i] + (1 - momentum) * (x0[i] + minus_r * s[i]);
        s_sq += (unit * s[i]) * (unit * s[i]);
    }
    sums[0] = numerator, sums[1] = s_sq;
}

KERNEL(adagrad) {
    float *restrict a = state[0], *restrict s = state[1];
    const float *restrict x0 = state[2];
    float gamma = c[1], momentum = c[0], minus_r = c[3], unit = c[4], eps = c[6];
    float s_sq = 0, s_l1 = 0, g_sq = 0;
#pragma omp simd reduction(+ : s_sq, s_l1, g_sq)
    for (size_t i = 0; i < n; i++) {
        float old = sqrtf(a[i]) + eps;
        a[i] += g[i] * g[i];
        float next = sqrtf(a[i]) + eps;
        float inverse = 1 / (old * next);
        float was = s[i], by_next = inverse * old;
        s[i] += gamma * g[i];
        s_sq += (unit * s[i]) * ((unit * s[i]) * by_next) - (unit * was) * ((unit * was) * (inverse * next));
        s_l1 += fabsf(s[i]) - fabsf(was);
        g_sq += g[i] * (g[i] * by_next);
        p[i] = momentum * p[i] + (1 - momentum) * (x0[i] + minus_r * (s[i] * by_next));
    }
    sums[0] = s_sq, sums[1] = s_l1, sums[2] = g_sq;
}

KERNEL(lion) {
    float *restrict m = state[0], *restrict s = state[1];
    float beta1 = c[0], m_g = c[1], beta2 = c[2], u_g = c[3], sqrt_beta2 = c[4], s_u = c[5], decay_p = c[7];
    float numerator = 0, s_l1 = 0;
#pragma omp simd reduction(+ : numerator, s_l1)
    for (size_t i = 0; i < n; i++) {
        float u = sign(beta1 * m[i] + u_g * g[i]);
        m[i] = beta2 * m[i] + m_g * g[i];
        p[i] = p[i] + decay_p * p[i] - s_u * u;
        numerator += u * s[i];
        s[i] = sqrt_beta2 * s[i] + s_u * u;
        s_l1 += fabsf(s[i]);
    }
    sums[0] = numerator, sums[1] = s_l1;
}

KERNEL(adan) {
    float *restrict m = state[0], *restrict v = state[1], *restrict e = state[2], *restrict h = state[3],
          *restrict s = state[4];
    float beta1 = c[0], m_g = c[1], beta2 = c[2], v_u = c[3], beta3 = c[4], s_g = c[5], eps = c[6],
          decay_p = c[7];
    float g_sq = 0, s_sq = 0, s_l1 = 0;
#pragma omp simd reduction(+ : g_sq, s_sq, s_l1)
    for (size_t i = 0; i < n; i++) {
        float difference = g[i] - h[i];
        float u = g[i] + beta2 * difference;
        m[i] = beta1 * m[i] + m_g * g[i];
        e[i] = beta2 * e[i] + s_g * difference;
        v[i] = beta3 * v[i] + v_u * u * u;
        h[i] = g[i];
        float inverse = 1 / (sqrtf(v[i]) + eps);
        p[i] = p[i] + decay_p * p[i] - m_g * ((m[i] + beta2 * e[i]) * inverse);
        s[i] = beta3 * s[i] + s_g * g[i];
        g_sq += g[i] * (g[i] * inverse);
        s_sq += s[i] * (s[i] * inverse);
        s_l1 += fabsf(s[i]);
    }
    sums[0] = g_sq, sums[1] = s_sq, sums[2] = s_l1;
}

KERNEL(prodigy) {
    float *restrict m = state[0], *restrict v = state[1], *restrict s = state[2];
    const float *restrict p0 = state[3];
    float beta1 = c[0], m_g = c[1], beta2 = c[2], v_g = c[3], beta3 = c[4], s_g = c[5], eps = c[6];
    float numerator = 0, s_l1 = 0;
#pragma omp simd reduction(+ : numerator, s_l1)
    for (size_t i = 0; i < n; i++) {
        m[i] = beta1 * m[i] + m_g * g[i];
        v[i] = beta2 * v[i] + v_g * g[i] * g[i];
        numerator += g[i] * (p0[i] - p[i]);
        s[i] = beta3 * s[i] + s_g * g[i];
        s_l1 += fabsf(s[i]);
        p[i] -= m_g * (m[i] / (sqrtf(v[i]) + eps));
    }
    sums[0] = numerator, sums[1] = s_l1;
}

KERNEL(plain_sgd) {
    UNUSED(sums);
    float *restrict b = state[0];
    float momentum = c[0], rate = c[1];
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        b[i] = momentum * b[i] + g[i];
        p[i] -= rate * b[i];
    }
}

KERNEL(plain_adam) {
    UNUSED(sums);
    float *restrict m = state[0], *restrict v = state[1];
    float beta1 = c[0], m_g = c[1], beta2 = c[2], v_g = c[3], root_scale = c[4], eps = c[6];
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        m[i] = beta1 * m[i] + m_g * g[i];
        v[i] = beta2 * v[i] + v_g * g[i] * g[i];
        p[i] -= m_g * (m[i] / (sqrtf(v[i]) * root_scale + eps));
    }
}

KERNEL(plain_adagrad) {
    UNUSED(sums);
    float *restrict a = state[0];
    float rate = c[1], eps = c[6];
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        a[i] += g[i] * g[i];
        p[i] -= rate * (g[i] / (sqrtf(a[i]) + eps));
    }
}

KERNEL(plain_lion) {
    UNUSED(sums);
    float *restrict m = state[0];
    float beta1 = c[0], m_g = c[1], beta2 = c[2], u_g = c[3], rate = c[5], decay_p = c[7];
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float u = sign(beta1 * m[i] + u_g * g[i]);
        m[i] = beta2 * m[i] + m_g * g[i];
        p[i] = p[i] + decay_p * p[i] - rate * u;
    }
}

KERNEL(plain_adan) {
    UNUSED(sums);
    float *restrict m = state[0], *restrict v = state[1], *restrict e = state[2], *restrict h = state[3];
    float beta1 = c[0], m_g = c[1], beta2 = c[2], v_u = c[3], beta3 = c[4], p_e = c[5], eps = c[6],
          decay_p = c[7];
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float difference = g[i] - h[i];
        float u = g[i] + beta2 * difference;
        m[i] = beta1 * m[i] + m_g * g[i];
        e[i] = beta2 * e[i] + p_e * difference;
        v[i] = beta3 * v[i] + v_u * u * u;
        h[i] = g[i];
        p[i] = p[i] + decay_p * p[i] - (m_g * m[i] + p_e * e[i]) / (sqrtf(v[i]) * beta1 + eps);
    }
}
