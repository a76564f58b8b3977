/* The digits and the network of digits.c: what examples/digits/{rng,data,mlp}.rs do, operation by
 * operation, so that both programs compute the same bits. C99 and the maths library only. */
#ifndef MLP_H
#define MLP_H

#include <stddef.h>
#include <stdint.h>

enum {
    PIXELS = 64,
    HIDDEN = 32,
    CLASSES = 10,
    TENSORS = 4,
    LINES = 1797,
    TRAIN = 1437,
    BATCH = 32
};

/* SplitMix64. A copy continues with the same numbers. */
typedef struct {
    uint64_t state;
} rng;

void rng_shuffle(rng *r, size_t *items, size_t n);

/* Images and their digits; pixels in 0..1. */
typedef struct {
    size_t len;
    float pixels[LINES][PIXELS];
    int digits[LINES];
} set;

/* Reads the file and deals its lines, in random order, to the two sets. Returns 0, or -1 with the
 * reason printed. */
int data_load(const char *path, rng *r, set *train, set *test);

/* The parameter tensors, or their gradients. Weights are stored a row per input. */
typedef struct {
    float w1[PIXELS][HIDDEN];
    float b1[HIDDEN];
    float w2[HIDDEN][CLASSES];
    float b2[CLASSES];
} tensors;

void mlp_initial(rng *r, tensors *net);

/* Mean loss over the n images of `batch`; its gradient goes to `grads`. */
float mlp_loss_and_gradient(const tensors *net, const set *data, const size_t *batch, size_t n,
                            tensors *grads);

/* Mean loss over a whole set, and the share of images whose digit is recognised. */
void mlp_evaluate(const tensors *net, const set *data, double *loss, double *accuracy);

#endif
