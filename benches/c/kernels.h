/* The loops that a step is measured against. */
#ifndef KERNELS_H
#define KERNELS_H

#include <stddef.h>

enum { MAX_STATE = 5, COEFFICIENTS = 8, SUMS = 3 };

/* state: the arrays in the library's order. c: coefficients. sums: out. */
#define KERNEL(name)                                                                               \
    void name(size_t n, float *restrict p, const float *restrict g, float *const *state,           \
              const float *restrict c, float *restrict sums)
typedef KERNEL((*kernel));

KERNEL(adam);
KERNEL(adam_two_divisions);
KERNEL(sgd);
KERNEL(adagrad);
KERNEL(lion);
KERNEL(adan);
KERNEL(prodigy);
KERNEL(plain_sgd);
KERNEL(plain_adam);
KERNEL(plain_adagrad);
KERNEL(plain_lion);
KERNEL(plain_adan);

/* The streams of a step with next to no arithmetic: p and the state of the mask `written` read and
 * written, g and the rest of the state read. */
void ceiling(size_t n, float *restrict p, const float *restrict g, float *const *state, size_t states,
             unsigned written, float zero, int threads);

/* One read of the gradient: what a check of it must cost. */
void read_gradient(size_t n, const float *restrict g, int threads);

#endif
