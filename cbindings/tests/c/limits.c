/* No room for threads: the step is refused with nothing changed, and works once there is room. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <sys/resource.h>
#include <unistd.h>

enum { LEN = 140001, HEADROOM = 1 << 20 };

/* Bytes of address space in use, of Linux. */
static size_t address_space(void)
{
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%zu", &pages) == 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

int main(void)
{
    static float p[LEN], g[LEN], p_before[LEN], state_before[LEN];
    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAM);
    OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_NUM_THREADS, 64));
    dadapt_optimizer *opt = new_optimizer(config);
    uint64_t id;
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, LEN, &id));
    for (size_t i = 0; i < LEN; i++) {
        p[i] = p_before[i] = value_at(i);
        g[i] = value_at(i + 100);
    }
    void *state = NULL;
    OK(dadapt_optimizer_state(opt, id, 2, &state, NULL, NULL));
    const dadapt_tensor t = tensor_of(id, LEN, p, g);

    struct rlimit before, tight;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    tight = before;
    tight.rlim_cur = address_space() + HEADROOM;
    CHECK(setrlimit(RLIMIT_AS, &tight) == 0);
    const dadapt_status status = dadapt_optimizer_step(opt, &t, 1, NULL);
    uint64_t other = 77;
    const dadapt_status no_memory =
        dadapt_optimizer_add_tensor(opt, 0, "large", DADAPT_DTYPE_F64, 1 << 20, &other);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);

    CHECK(status == DADAPT_ERROR_THREADS);
    CHECK(no_memory == DADAPT_ERROR_OUT_OF_MEMORY && other == 77);
    CHECK(strstr(dadapt_optimizer_last_error(opt), "for the state of tensor \"large\""));
    CHECK(!memcmp(p, p_before, sizeof p) && !memcmp(state, state_before, sizeof state_before));
    CHECK(d_of(opt) == 1e-6 && k_of(opt) == 0);

    OK(dadapt_optimizer_step(opt, &t, 1, NULL));
    CHECK(memcmp(p, p_before, sizeof p) && k_of(opt) == 1);
    OK(dadapt_optimizer_add_tensor(opt, 0, "large", DADAPT_DTYPE_F64, 1 << 20, &other));
    dadapt_optimizer_free(opt);
    return EXIT_SUCCESS;
}
