/* A forked child has none of its parent's threads: it steps to the same bits with its own, and can
 * free what it inherited; with short types and the noise of their rounding too. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LEN = 140001 };

static float p[LEN], g[LEN];
static uint16_t halves[LEN]; /* the parameters of the optimizer that has them in bf16 */

static dadapt_optimizer *opt;
static dadapt_dtype dtype;

static void step(uint64_t id)
{
    for (size_t i = 0; i < LEN; i++) {
        if (dtype == DADAPT_DTYPE_BF16) {
            const uint32_t bits = (uint32_t)halves[i] << 16;
            memcpy(&p[i], &bits, sizeof bits);
        }
        g[i] = p[i] - value_at(i + 1000);
    }
    void *const parameters = dtype == DADAPT_DTYPE_BF16 ? (void *)halves : p;
    dadapt_tensor t = tensor_of(id, LEN, parameters, g);
    t.dtype = dtype;
    t.g_dtype = DADAPT_DTYPE_F32;
    OK(dadapt_optimizer_step(opt, &t, 1, NULL));
}

/* Of the parameters: FNV-1a. */
static uint64_t hash(void)
{
    unsigned char bytes[sizeof(float)];
    uint64_t h = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < LEN; i++) {
        memcpy(bytes, &p[i], sizeof bytes);
        for (size_t b = 0; b < sizeof bytes; b++)
            h = (h ^ bytes[b]) * UINT64_C(1099511628211);
        h = (h ^ halves[i]) * UINT64_C(1099511628211);
    }
    return h;
}

static void fork_with(dadapt_dtype type, double state)
{
    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAM);
    const dadapt_group all = DADAPT_ALL_GROUPS;
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_NUM_THREADS, 3));
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_STATE, state));
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_MASTER, 0));
    dtype = type;
    opt = new_optimizer(config);
    uint64_t id;
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", dtype, LEN, &id));
    memset(halves, 0, sizeof halves);
    for (size_t i = 0; i < LEN; i++)
        p[i] = value_at(i);
    step(id);

    for (int steps = 0; steps < 2; steps++) { /* of the child: none, then one */
        int ends[2];
        CHECK(pipe(ends) == 0);
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20); /* a child that waits for threads it lacks would wait for ever */
            for (int i = 0; i < steps; i++)
                step(id);
            const uint64_t h = hash();
            dadapt_optimizer_free(opt);
            _exit(write(ends[1], &h, sizeof h) == (ssize_t)sizeof h ? 0 : 1);
        }
        close(ends[1]); /* so that a child that dies ends the read */
        if (steps == 1)
            step(id);
        uint64_t h = 0;
        int status = -1;
        CHECK(read(ends[0], &h, sizeof h) == (ssize_t)sizeof h);
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        CHECK(h == hash());
        close(ends[0]);
    }
    dadapt_optimizer_free(opt);
}

int main(void)
{
    fork_with(DADAPT_DTYPE_F32, DADAPT_STATE_FULL);
    fork_with(DADAPT_DTYPE_BF16, DADAPT_STATE_Q8);
    return EXIT_SUCCESS;
}
