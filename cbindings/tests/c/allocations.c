/* Small steps allocate nothing after the first, nor does reading. Not for valgrind, which has an
 * allocator of its own. */
#include "check.h"

#include <errno.h>

/* glibc's own, under the names that it keeps for those who replace malloc. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t align, size_t size);

static size_t allocations;

void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    allocations++;
    return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    allocations++;
    return __libc_realloc(old, size);
}

int posix_memalign(void **to, size_t align, size_t size)
{
    allocations++;
    *to = __libc_memalign(align, size);
    return *to ? 0 : ENOMEM;
}

void *aligned_alloc(size_t align, size_t size)
{
    allocations++;
    return __libc_memalign(align, size);
}

int main(void)
{
    enum { TENSORS = 12, LEN = 600 };
    static float p[TENSORS][LEN], g[TENSORS][LEN];
    dadapt_tensor t[TENSORS];
    size_t before = allocations;
    dadapt_optimizer *opt = new_optimizer(new_config(DADAPT_ALGORITHM_ADAM));
    for (size_t i = 0; i < TENSORS; i++) {
        uint64_t id;
        OK(dadapt_optimizer_add_tensor(opt, 0, NULL, DADAPT_DTYPE_F32, LEN, &id));
        t[i] = tensor_of(id, LEN, p[i], g[i]);
        for (size_t j = 0; j < LEN; j++)
            g[i][j] = value_at(i + j);
    }
    CHECK(allocations > before); /* they are counted */
    dadapt_report report = new_report();
    OK(dadapt_optimizer_step(opt, t, TENSORS, &report));
    before = allocations;
    for (int step = 0; step < 20; step++) {
        OK(dadapt_optimizer_set_lr(opt, DADAPT_ALL_GROUPS, 1.0 / (1.0 + step)));
        OK(dadapt_optimizer_step(opt, t, TENSORS, &report));
        CHECK(report.d == d_of(opt) && report.k == k_of(opt));
    }
    CHECK(allocations == before);
    dadapt_optimizer_free(opt);
    return EXIT_SUCCESS;
}
