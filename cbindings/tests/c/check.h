/* What the test programs share: checks that name their line, and tensors to step with. */
#ifndef CHECK_H
#define CHECK_H

#include <dadapt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);  \
            exit(EXIT_FAILURE);                                                      \
        }                                                                            \
    } while (0)

/* A call that works. */
#define OK(call) check_status(__FILE__, __LINE__, #call, (call), DADAPT_OK, "")

/* A call that fails with `status`, and whose text, as the thread keeps it, contains `words`. */
#define FAILS(status, words, call) check_status(__FILE__, __LINE__, #call, (call), status, words)

static inline void check_status(const char *file, int line, const char *call, dadapt_status given,
                                dadapt_status expected, const char *words)
{
    if (given != expected) {
        fprintf(stderr, "%s:%d: %s is %s (%s), not %s\n", file, line, call,
                dadapt_status_name(given), dadapt_last_error(), dadapt_status_name(expected));
        exit(EXIT_FAILURE);
    }
    if (expected != DADAPT_OK && !strstr(dadapt_last_error(), words)) {
        fprintf(stderr, "%s:%d: %s says \"%s\" without \"%s\"\n", file, line, call,
                dadapt_last_error(), words);
        exit(EXIT_FAILURE);
    }
}

static inline dadapt_config *new_config(dadapt_algorithm algorithm)
{
    dadapt_config *config = NULL;
    OK(dadapt_config_new(algorithm, &config));
    CHECK(config != NULL);
    return config;
}

/* Frees the configuration. */
static inline dadapt_optimizer *new_optimizer(dadapt_config *config)
{
    dadapt_optimizer *optimizer = NULL;
    OK(dadapt_optimizer_new(config, &optimizer));
    CHECK(optimizer != NULL);
    dadapt_config_free(config);
    return optimizer;
}

static inline dadapt_tensor tensor_of(uint64_t id, size_t len, void *p, const void *g)
{
    dadapt_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    tensor.struct_size = sizeof tensor;
    tensor.id = id;
    tensor.len = len;
    tensor.p = p;
    tensor.g = g;
    return tensor;
}

static inline dadapt_report new_report(void)
{
    dadapt_report report;
    memset(&report, 0x5a, sizeof report);
    report.struct_size = sizeof report;
    return report;
}

/* Values that look random, the same on every machine: multiples of 1/64 from -2 to 2. */
static inline float value_at(size_t i)
{
    uint32_t x = (uint32_t)i * 2654435761u + 12345u;
    x ^= x >> 15;
    return (float)((int)(x % 257u) - 128) / 64.0f;
}

static inline float of_bf16(uint16_t code)
{
    const uint32_t bits = (uint32_t)code << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* To nearest, ties to even, of what is not a NaN. */
static inline uint16_t bf16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline double d_of(const dadapt_optimizer *optimizer)
{
    double d = -1.0;
    OK(dadapt_optimizer_d(optimizer, &d));
    return d;
}

static inline uint64_t k_of(const dadapt_optimizer *optimizer)
{
    uint64_t k = 0;
    OK(dadapt_optimizer_k(optimizer, &k));
    return k;
}

#endif
