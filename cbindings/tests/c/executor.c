/* Steps on threads of the program's own: by an executor, and by functions in OpenMP's place. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <pthread.h>

enum { LEN = 300001, STEPS = 3, THREADS = 3 };

typedef struct {
    dadapt_work call;
    void (*region)(void *work);
    void *work;
    size_t index;
} share;

static __thread int number; /* as GCC and Clang have it in C99 too */
static unsigned runs, threads_of_last;

static void *do_share(void *given)
{
    const share *of = given;
    number = (int)of->index;
    if (of->call)
        of->call(of->work, of->index);
    else
        of->region(of->work);
    return NULL;
}

static void on_threads(size_t n, share first)
{
    pthread_t threads[16];
    share shares[16];
    CHECK(n <= 16);
    runs++;
    threads_of_last = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        shares[i] = first;
        shares[i].index = i;
        CHECK(!pthread_create(&threads[i], NULL, do_share, &shares[i]));
    }
    for (size_t i = 0; i < n; i++)
        CHECK(!pthread_join(threads[i], NULL));
}

static void executor(void *context, size_t n, dadapt_work call, void *work)
{
    CHECK(context == &runs);
    const share first = {call, NULL, work, 0};
    on_threads(n, first);
}

/* An executor may leave all of it to the caller. */
static void idle(void *context, size_t n, dadapt_work call, void *work)
{
    (void)n, (void)call, (void)work;
    ++*(unsigned *)context;
}

static void gomp_parallel(void (*region)(void *), void *work, unsigned threads, unsigned flags)
{
    CHECK(flags == 0);
    const share first = {NULL, region, work, 0};
    on_threads(threads, first);
}

static int thread_num(void)
{
    return number;
}

static float p[LEN], g[LEN], expected[LEN];

static dadapt_optimizer *new_one(unsigned threads, uint64_t *id)
{
    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAM);
    OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_NUM_THREADS, threads));
    OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_D0, 1e-3));
    dadapt_optimizer *opt = new_optimizer(config);
    OK(dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, LEN, id));
    return opt;
}

static void train(dadapt_optimizer *opt, uint64_t id)
{
    for (size_t i = 0; i < LEN; i++)
        p[i] = value_at(i);
    for (size_t step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < LEN; i++)
            g[i] = value_at(i + 7 * step);
        const dadapt_tensor t = tensor_of(id, LEN, p, g);
        OK(dadapt_optimizer_step(opt, &t, 1, NULL));
    }
}

int main(void)
{
    uint64_t id = 0;
    dadapt_optimizer *opt = new_one(1, &id);
    train(opt, id);
    memcpy(expected, p, sizeof p);
    dadapt_optimizer_free(opt);

    opt = new_one(THREADS, &id);
    OK(dadapt_optimizer_set_executor(opt, executor, &runs));
    train(opt, id);
    CHECK(!memcmp(p, expected, sizeof p));
    CHECK(runs >= STEPS && threads_of_last == THREADS);
    unsigned before = runs;
    OK(dadapt_optimizer_set_executor(opt, NULL, NULL));
    train(opt, id);
    CHECK(runs == before);
    dadapt_optimizer_free(opt);

    opt = new_one(THREADS, &id);
    unsigned idled = 0;
    OK(dadapt_optimizer_set_executor(opt, idle, &idled));
    train(opt, id);
    CHECK(!memcmp(p, expected, sizeof p) && idled >= STEPS);
    dadapt_optimizer_free(opt);

    opt = new_one(THREADS, &id);
    FAILS(DADAPT_ERROR_NULL_POINTER, "parallel", dadapt_optimizer_set_openmp(opt, NULL, thread_num));
    FAILS(DADAPT_ERROR_NULL_POINTER, "thread_num",
          dadapt_optimizer_set_openmp(opt, gomp_parallel, NULL));
    OK(dadapt_optimizer_set_openmp(opt, gomp_parallel, thread_num));
    before = runs;
    train(opt, id);
    CHECK(!memcmp(p, expected, sizeof p) && runs >= before + STEPS && threads_of_last == THREADS);

    OK(dadapt_optimizer_step_begin(opt));
    FAILS(DADAPT_ERROR_STEP_OPEN, "", dadapt_optimizer_set_executor(opt, NULL, NULL));
    FAILS(DADAPT_ERROR_STEP_OPEN, "", dadapt_optimizer_set_openmp(opt, gomp_parallel, thread_num));
    dadapt_optimizer_free(opt);
    FAILS(DADAPT_ERROR_NULL_POINTER, "optimizer", dadapt_optimizer_set_executor(NULL, executor, NULL));
    return 0;
}
