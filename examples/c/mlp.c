#include "mlp.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng_next(rng *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Uniform in [-limit, limit). The top 24 bits fit a float, so only the last product rounds. */
static float rng_symmetric(rng *r, float limit)
{
    float unit = (float)(rng_next(r) >> 40) / 16777216.0f;
    return (2.0f * unit - 1.0f) * limit;
}

/* Fisher and Yates. */
void rng_shuffle(rng *r, size_t *items, size_t n)
{
    for (size_t last = n; last-- > 1;) {
        size_t other = (size_t)(rng_next(r) % (last + 1));
        size_t item = items[last];
        items[last] = items[other];
        items[other] = item;
    }
}

/* Reads an integer in 0..max that `end` follows, and moves `at` past both. -1 if there is none. */
static int number(char **at, long max, char end)
{
    char *stop;
    long value = strtol(*at, &stop, 10);
    if (stop == *at || value < 0 || value > max || *stop != end)
        return -1;
    *at = stop + 1;
    return (int)value;
}

/* One line: 64 pixels in 0..16, then the digit. Sixteenths are exact in float. */
static int parse(char *line, float *image, int *digit)
{
    line[strcspn(line, "\r\n")] = '\0';
    for (int i = 0; i < PIXELS; i++) {
        int pixel = number(&line, 16, ',');
        if (pixel < 0)
            return -1;
        image[i] = (float)pixel / 16.0f;
    }
    *digit = number(&line, CLASSES - 1, '\0');
    return *digit < 0 ? -1 : 0;
}

static int read_all(FILE *file, const char *path, set *all)
{
    char line[512];
    for (all->len = 0; all->len < LINES && fgets(line, sizeof line, file); all->len++) {
        if (parse(line, all->pixels[all->len], &all->digits[all->len])) {
            fprintf(stderr, "%s:%zu: 64 pixels and a digit expected\n", path, all->len + 1);
            return -1;
        }
    }
    if (all->len < LINES || fgets(line, sizeof line, file)) {
        fprintf(stderr, "%s: %d lines expected\n", path, LINES);
        return -1;
    }
    return 0;
}

int data_load(const char *path, rng *r, set *train, set *test)
{
    static set all;
    static size_t order[LINES];
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    int bad = read_all(file, path, &all);
    fclose(file);
    if (bad)
        return -1;

    for (size_t i = 0; i < all.len; i++)
        order[i] = i;
    rng_shuffle(r, order, all.len);
    train->len = test->len = 0;
    for (size_t place = 0; place < all.len; place++) {
        set *to = place < TRAIN ? train : test;
        memcpy(to->pixels[to->len], all.pixels[order[place]], sizeof all.pixels[0]);
        to->digits[to->len++] = all.digits[order[place]];
    }
    return 0;
}

/* Weights uniform with the variance 2 / inputs (He et al., 2015), biases zero. */
void mlp_initial(rng *r, tensors *net)
{
    memset(net, 0, sizeof *net);
    float limit = sqrtf(6.0f / PIXELS);
    for (int i = 0; i < PIXELS; i++)
        for (int j = 0; j < HIDDEN; j++)
            net->w1[i][j] = rng_symmetric(r, limit);
    limit = sqrtf(6.0f / HIDDEN);
    for (int i = 0; i < HIDDEN; i++)
        for (int j = 0; j < CLASSES; j++)
            net->w2[i][j] = rng_symmetric(r, limit);
}

/* What the forward pass leaves behind for one image. */
typedef struct {
    float hidden[HIDDEN];
    float exps[CLASSES]; /* exp(logit - largest logit) */
    float sum;           /* of exps */
    float loss;
    int guess;
} pass;

/* y <- y + a*x, rounded twice: the Makefile forbids the compiler to fuse the two. */
static void add_scaled(float a, const float *restrict x, float *restrict y, int n)
{
    for (int i = 0; i < n; i++)
        y[i] += a * x[i];
}

static void forward(const tensors *net, const float *image, int digit, pass *out)
{
    memcpy(out->hidden, net->b1, sizeof out->hidden);
    for (int i = 0; i < PIXELS; i++)
        add_scaled(image[i], net->w1[i], out->hidden, HIDDEN);
    for (int i = 0; i < HIDDEN; i++)
        out->hidden[i] = out->hidden[i] > 0.0f ? out->hidden[i] : 0.0f;
    float logits[CLASSES];
    memcpy(logits, net->b2, sizeof logits);
    for (int i = 0; i < HIDDEN; i++)
        add_scaled(out->hidden[i], net->w2[i], logits, CLASSES);

    out->guess = 0;
    for (int k = 1; k < CLASSES; k++)
        if (logits[k] > logits[out->guess])
            out->guess = k;
    /* Without the largest logit taken off, exp could overflow. */
    float largest = logits[out->guess];
    out->sum = 0.0f;
    for (int k = 0; k < CLASSES; k++) {
        out->exps[k] = expf(logits[k] - largest);
        out->sum += out->exps[k];
    }
    out->loss = logf(out->sum) - (logits[digit] - largest);
}

float mlp_loss_and_gradient(const tensors *net, const set *data, const size_t *batch, size_t n,
                            tensors *grads)
{
    memset(grads, 0, sizeof *grads);
    float count = (float)n;
    float total = 0.0f;
    for (size_t b = 0; b < n; b++) {
        const float *image = data->pixels[batch[b]];
        int digit = data->digits[batch[b]];
        pass at;
        forward(net, image, digit, &at);
        total += at.loss;

        float dlogits[CLASSES];
        for (int k = 0; k < CLASSES; k++)
            dlogits[k] = (at.exps[k] / at.sum - (k == digit ? 1.0f : 0.0f)) / count;
        float dhidden[HIDDEN] = {0.0f};
        for (int i = 0; i < HIDDEN; i++) {
            add_scaled(at.hidden[i], dlogits, grads->w2[i], CLASSES);
            if (at.hidden[i] > 0.0f)
                for (int k = 0; k < CLASSES; k++)
                    dhidden[i] += net->w2[i][k] * dlogits[k];
        }
        for (int i = 0; i < PIXELS; i++)
            add_scaled(image[i], dhidden, grads->w1[i], HIDDEN);
        add_scaled(1.0f, dhidden, grads->b1, HIDDEN);
        add_scaled(1.0f, dlogits, grads->b2, CLASSES);
    }
    return total / count;
}

void mlp_evaluate(const tensors *net, const set *data, double *loss, double *accuracy)
{
    double total = 0.0;
    size_t right = 0;
    for (size_t i = 0; i < data->len; i++) {
        pass at;
        forward(net, data->pixels[i], data->digits[i], &at);
        total += at.loss;
        right += at.guess == data->digits[i];
    }
    *loss = total / (double)data->len;
    *accuracy = (double)right / (double)data->len;
}
