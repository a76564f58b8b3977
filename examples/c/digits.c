/* Handwritten digits without a learning rate, in C: D-Adaptation trains a small
 * network.
 *
 * The training loop is that of examples/digits (Rust), operation by operation: with the same libm,
 * both programs write the same losses, bit for bit (`--losses`). The Makefile says how to build. */
#include <dadapt.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mlp.h"

static const char USAGE[] =
    "usage: digits [--epochs N] [--seed N] [--data FILE] [--losses FILE] [--help]\n"
    "  --epochs N     passes over the training set (40)\n"
    "  --seed N       seed of the split, the initial weights and the batches (1)\n"
    "  --data FILE    the digits (" DIGITS_CSV ")\n"
    "  --losses FILE  also write every step: method, step, bits of the loss (float)\n"
    "                 and of d (double) in hexadecimal\n";

typedef struct {
    unsigned long epochs;
    uint64_t seed;
    const char *data;
    const char *losses;
} options;

/* The training and the test set, and what every run starts from. */
typedef struct {
    set train, test;
    tensors initial;
    rng order;
} task;

/* Where a call fails: what the library says about it, then on to the clean-up at `done`. */
#define CHECK(call, detail)                                                  \
    do {                                                                     \
        dadapt_status status_ = (call);                                      \
        if (status_ != DADAPT_OK) {                                          \
            const char *detail_ = (detail);                                  \
            fprintf(stderr, "digits: %s: %s\n", dadapt_status_name(status_), \
                    detail_ ? detail_ : #call);                              \
            goto done;                                                       \
        }                                                                    \
    } while (0)

static void write_bits(FILE *file, const char *method, size_t step, float loss, double d)
{
    uint32_t loss_bits;
    uint64_t d_bits;
    memcpy(&loss_bits, &loss, sizeof loss_bits);
    memcpy(&d_bits, &d, sizeof d_bits);
    fprintf(file, "%s %zu %08" PRIx32 " %016" PRIx64 "\n", method, step, loss_bits, d_bits);
}

/* An optimizer for `algorithm`, with the network's tensors in it; NULL with the reason printed. */
static dadapt_optimizer *optimizer_for(dadapt_algorithm algorithm, uint64_t ids[TENSORS],
                                       const size_t lens[TENSORS])
{
    static const char *const names[TENSORS] = {"w1", "b1", "w2", "b2"};
    dadapt_config *config = NULL;
    dadapt_optimizer *opt = NULL, *ready = NULL;

    CHECK(dadapt_config_new(algorithm, &config), dadapt_last_error());
    /* The learning rate stays at 1, for every problem. d may grow by 2 % a step at most, which acts
     * as a warm-up. */
    CHECK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_LR, 1.0),
          dadapt_config_last_error(config));
    CHECK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_GROWTH_RATE, 1.02),
          dadapt_config_last_error(config));
    if (algorithm == DADAPT_ALGORITHM_SGD)
        CHECK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_MOMENTUM, 0.9),
              dadapt_config_last_error(config));
    CHECK(dadapt_optimizer_new(config, &opt), dadapt_config_last_error(config));
    for (int i = 0; i < TENSORS; i++)
        CHECK(dadapt_optimizer_add_tensor(opt, 0, names[i], DADAPT_DTYPE_F32, lens[i], &ids[i]),
              dadapt_optimizer_last_error(opt));
    ready = opt;
    opt = NULL;
done:
    dadapt_optimizer_free(opt);
    dadapt_config_free(config);
    return ready;
}

/* One training run and its row of the table. Returns 0, or -1 with the reason printed. */
static int train(const task *t, const options *o, dadapt_algorithm algorithm, const char *title,
                 const char *method, FILE *losses)
{
    static tensors net, grads;
    static size_t order[TRAIN];
    clock_t start = clock();
    net = t->initial;

    float *const params[TENSORS] = {net.w1[0], net.b1, net.w2[0], net.b2};
    const float *const gradients[TENSORS] = {grads.w1[0], grads.b1, grads.w2[0], grads.b2};
    const size_t lens[TENSORS] = {PIXELS * HIDDEN, HIDDEN, HIDDEN * CLASSES, CLASSES};
    uint64_t ids[TENSORS];
    int failed = -1;
    dadapt_optimizer *opt = optimizer_for(algorithm, ids, lens);
    if (!opt)
        return failed;
    dadapt_tensor tensor[TENSORS];
    memset(tensor, 0, sizeof tensor);
    for (int i = 0; i < TENSORS; i++) {
        tensor[i].struct_size = sizeof tensor[i];
        tensor[i].id = ids[i];
        tensor[i].len = lens[i];
        tensor[i].p = params[i];
        tensor[i].g = gradients[i];
    }
    dadapt_report report;
    memset(&report, 0, sizeof report);
    report.struct_size = sizeof report;

    for (size_t i = 0; i < TRAIN; i++)
        order[i] = i;
    rng batches = t->order;
    size_t step = 0;
    for (unsigned long epoch = 0; epoch < o->epochs; epoch++) {
        rng_shuffle(&batches, order, TRAIN);
        for (size_t at = 0; at < TRAIN; at += BATCH, step++) {
            size_t n = TRAIN - at < BATCH ? TRAIN - at : BATCH;
            float loss = mlp_loss_and_gradient(&net, &t->train, order + at, n, &grads);
            CHECK(dadapt_optimizer_step(opt, tensor, TENSORS, &report),
                  dadapt_optimizer_last_error(opt));
            if (losses)
                write_bits(losses, method, step, loss, report.d);
        }
    }
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;

    double train_loss, test_loss, accuracy;
    mlp_evaluate(&net, &t->train, &train_loss, &accuracy);
    mlp_evaluate(&net, &t->test, &test_loss, &accuracy);
    printf("%-16s %10.3g %13.2f%% %9.3g %10.3g %8.2f\n", title, train_loss, 100.0 * accuracy,
           report.d, report.dlr, seconds);
    failed = 0;
done:
    dadapt_optimizer_free(opt);
    return failed;
}

/* A whole number that fills `text`; -1 otherwise. */
static int whole(const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return *text < '0' || *text > '9' || *end || errno ? -1 : 0;
}

/* Returns 0 to go on, 1 to stop in peace, 2 for a wrong command line. */
static int parse(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        uint64_t n = 0;
        if (!strcmp(option, "--help")) {
            fputs(USAGE, stdout);
            return 1;
        }
        int counts = !strcmp(option, "--epochs") || !strcmp(option, "--seed");
        if (!counts && strcmp(option, "--data") && strcmp(option, "--losses")) {
            fprintf(stderr, "digits: unknown option '%s' (--help lists the options)\n", option);
            return 2;
        }
        if (!value || (counts && whole(value, &n))) {
            fprintf(stderr, "digits: %s needs a %s\n", option,
                    counts ? "whole number" : "file name");
            return 2;
        }
        i++;
        if (!strcmp(option, "--epochs"))
            o->epochs = (unsigned long)n;
        else if (!strcmp(option, "--seed"))
            o->seed = n;
        else if (!strcmp(option, "--data"))
            o->data = value;
        else
            o->losses = value;
    }
    if (o->epochs == 0) {
        fputs("digits: --epochs must be at least 1\n", stderr);
        return 2;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static task t;
    options o = {40, 1, DIGITS_CSV, NULL};
    int stop = parse(argc, argv, &o);
    if (stop)
        return stop == 1 ? EXIT_SUCCESS : stop;

    t.order.state = o.seed;
    if (data_load(o.data, &t.order, &t.train, &t.test))
        return EXIT_FAILURE;
    mlp_initial(&t.order, &t.initial);
    FILE *losses = NULL;
    if (o.losses && !(losses = fopen(o.losses, "w"))) {
        fprintf(stderr, "digits: %s: %s\n", o.losses, strerror(errno));
        return EXIT_FAILURE;
    }

    printf("%-16s %10s %14s %9s %10s %8s\n", "method", "train loss", "test accuracy", "d",
           "rate found", "seconds");
    static const struct {
        dadapt_algorithm algorithm;
        const char *title, *method;
    } methods[] = {
        {DADAPT_ALGORITHM_ADAM, "D-Adapt Adam", "d-adapt-adam"},
        {DADAPT_ALGORITHM_SGD, "D-Adapt SGD", "d-adapt-sgd"},
        {DADAPT_ALGORITHM_ADAGRAD, "D-Adapt AdaGrad", "d-adapt-adagrad"},
        {DADAPT_ALGORITHM_ADAN, "D-Adapt Adan", "d-adapt-adan"},
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof methods / sizeof methods[0] && !failed; i++)
        failed = train(&t, &o, methods[i].algorithm, methods[i].title, methods[i].method, losses);
    if (losses && (ferror(losses) | fclose(losses))) {
        fprintf(stderr, "digits: %s: %s\n", o.losses, strerror(errno));
        failed = 1;
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
