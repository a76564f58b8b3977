/* Times the loop of adam.c on this machine in its first cache: prints cycles a row. A cycle is a third
 * of a multiplication's latency, which needs no counter. Best times of many. -DWIDTH= is the number of
 * floats in a register. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LEN = 1024, SWEEPS = 500, TIMES = 200, CONSTANTS = 13 };

struct streams {
    float *p, *m, *v, *s;
    const float *g;
};
void sweep(struct streams a, size_t len, const void *coeffs, void *sums);

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static double cycle(void) {
    enum { LOOPS = 20000 };
    unsigned long x = 1;
    double start = now();
    for (int i = 0; i < LOOPS; i++)
        __asm__ volatile("imul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0" : "+r"(x));
    return (now() - start) / (12.0 * LOOPS);
}

int main(void) {
    static float a[5][LEN] __attribute__((aligned(64)));
    static float coeffs[CONSTANTS * WIDTH] __attribute__((aligned(64)));
    static float sums[4 * WIDTH] __attribute__((aligned(64)));
    /* State stands still: what is timed has the values that it starts with. */
    const float values[CONSTANTS] = {1, 0, 1, 0, 1, 0, 1e-8f, 0x1.8p-102f, 1, 1.5f, 1.5f, 0, 0};
    const unsigned bits[2] = {0x5f3759df, 0x7fffffff};
    for (int i = 0; i < CONSTANTS * WIDTH; i++) {
        const int which = i / WIDTH;
        const void *value = which < 11 ? (const void *)&values[which] : &bits[which - 11];
        memcpy(&coeffs[i], value, sizeof(float));
    }
    for (int stream = 0; stream < 5; stream++)
        for (int i = 0; i < LEN; i++)
            a[stream][i] = 1e-3f * (1 + (float)rand() / (float)RAND_MAX);
    double clock = 1e9, best = 1e9;
    for (int time = 0; time < TIMES; time++) {
        double once = cycle(), start = now();
        for (int i = 0; i < SWEEPS; i++)
            sweep((struct streams){a[0], a[1], a[2], a[3], a[4]}, LEN, coeffs, sums);
        double taken = now() - start;
        clock = once < clock ? once : clock;
        best = taken < best ? taken : best;
    }
    printf("%.0f\n", best / (SWEEPS * (LEN / 16.0)) / clock);
    return 0;
}
