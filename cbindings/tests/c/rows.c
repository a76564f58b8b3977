/* Gradients of single rows: what is touched moves, nothing else does, and bad rows change nothing. */
#include "check.h"

#include <stdint.h>

enum { ROWS = 50, WIDTH = 4, LEN = ROWS * WIDTH };

static dadapt_optimizer *adagrad(void)
{
    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAGRAD);
    OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_D0, 1e-2));
    OK(dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_NUM_THREADS, 1));
    return new_optimizer(config);
}

static dadapt_tensor table_of(uint64_t id, float *p, const float *g, const void *rows, size_t count,
                              dadapt_index type)
{
    dadapt_tensor table = tensor_of(id, LEN, p, g);
    table.rows = rows;
    table.row_count = count;
    table.row_type = type;
    return table;
}

static void start(float *p)
{
    for (int i = 0; i < LEN; i++)
        p[i] = 1.0f + (float)i / LEN;
}

/* Duplicates summed first, either type of number, the caller's state and steps in parts: all the
 * same bits. */
static void ways_agree(void)
{
    static const uint32_t given[4] = {7, 3, 7, 49};
    static const int64_t sorted[3] = {3, 7, 49};
    static const float g[4 * WIDTH] = {1, 2, 3, 4, 5, 6, 7, 8, 0.5f, 0.5f, 0.5f, 0.5f, -1, -2, -3, -4};
    static const float summed[3 * WIDTH] = {5, 6, 7, 8, 1.5f, 2.5f, 3.5f, 4.5f, -1, -2, -3, -4};
    static float p[4][LEN];
    static float kept[4][LEN]; /* zeros */
    void *state[4] = {kept[0], kept[1], kept[2], kept[3]};
    double d[4];
    for (int way = 0; way < 4; way++) {
        dadapt_optimizer *optimizer = adagrad();
        uint64_t id = 9;
        OK(dadapt_optimizer_add_rows(optimizer, 0, "table", DADAPT_DTYPE_F32, ROWS, WIDTH, way == 2, &id));
        start(p[way]);
        for (int step = 0; step < 12; step++) {
            dadapt_tensor table =
                way == 1 ? table_of(id, p[way], summed, sorted, 3, DADAPT_INDEX_I64)
                         : table_of(id, p[way], g, given, 4, DADAPT_INDEX_U32);
            if (way == 2) {
                table.state = state;
                table.state_count = 4;
            }
            if (way == 3) {
                OK(dadapt_optimizer_step_begin(optimizer));
                OK(dadapt_optimizer_step_tensor(optimizer, &table));
                OK(dadapt_optimizer_step_end(optimizer, NULL));
            } else {
                OK(dadapt_optimizer_step(optimizer, &table, 1, NULL));
            }
        }
        OK(dadapt_optimizer_d(optimizer, &d[way]));
        CHECK(d[way] == d[0] && !memcmp(p[way], p[0], sizeof p[0]));
        if (way == 0) {
            CHECK(d[0] > 1e-2);
            void *alphak = NULL;
            size_t len = 0;
            OK(dadapt_optimizer_state(optimizer, id, 0, &alphak, &len, NULL));
            CHECK(len == LEN && ((float *)alphak)[7 * WIDTH] > 1e-6f && ((float *)alphak)[0] == 0);
            OK(dadapt_optimizer_state(optimizer, id, 3, NULL, &len, NULL));
            FAILS(DADAPT_ERROR_UNKNOWN_STATE, "4",
                  dadapt_optimizer_state(optimizer, id, 4, NULL, &len, NULL));
        }
        dadapt_optimizer_free(optimizer);
    }
    static float untouched[LEN];
    start(untouched);
    for (int i = 0; i < LEN; i++) {
        int touched = i / WIDTH == 3 || i / WIDTH == 7 || i / WIDTH == 49;
        CHECK((p[0][i] != untouched[i]) == touched);
    }
}

static void bad_rows_change_nothing(void)
{
    dadapt_optimizer *optimizer = adagrad();
    uint64_t id = 0, dense = 0, none = 77;
    static float p[LEN], before[LEN];
    static const float g[2 * WIDTH] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const int64_t negative[2] = {0, -1}, beyond[2] = {ROWS, 1};
    static const uint32_t rows[2] = {1, 2};
    start(p);
    start(before);
    OK(dadapt_optimizer_add_rows(optimizer, 0, "table", DADAPT_DTYPE_F32, ROWS, WIDTH, 0, &id));
    OK(dadapt_optimizer_add_tensor(optimizer, 0, "dense", DADAPT_DTYPE_F32, LEN, &dense));

    dadapt_tensor t = table_of(id, p, g, negative, 2, DADAPT_INDEX_I64);
    FAILS(DADAPT_ERROR_ROW_OUT_OF_RANGE, "row -1", dadapt_optimizer_step(optimizer, &t, 1, NULL));
    t = table_of(id, p, g, beyond, 2, DADAPT_INDEX_I64);
    FAILS(DADAPT_ERROR_ROW_OUT_OF_RANGE, "row 50", dadapt_optimizer_step(optimizer, &t, 1, NULL));
    t = table_of(id, p, g, NULL, 2, DADAPT_INDEX_U32);
    FAILS(DADAPT_ERROR_NULL_POINTER, "the rows", dadapt_optimizer_step(optimizer, &t, 1, NULL));
    t = table_of(id, p, g, (const char *)negative + 2, 1, DADAPT_INDEX_U32);
    FAILS(DADAPT_ERROR_MISALIGNED, "the rows", dadapt_optimizer_step(optimizer, &t, 1, NULL));
    t = table_of(id, p, g, rows, 2, 3);
    FAILS(DADAPT_ERROR_UNKNOWN_DTYPE, "row_type is 3", dadapt_optimizer_step(optimizer, &t, 1, NULL));
    t = table_of(id, p, g, rows, 2, DADAPT_INDEX_U32);
    t.reserved = 1;
    FAILS(DADAPT_ERROR_RESERVED, "reserved is 1", dadapt_optimizer_step(optimizer, &t, 1, NULL));
    t = table_of(dense, p, g, rows, 2, DADAPT_INDEX_U32);
    FAILS(DADAPT_ERROR_GRADIENT_KIND, "dense", dadapt_optimizer_step(optimizer, &t, 1, NULL));
    t = tensor_of(id, LEN, p, before);
    FAILS(DADAPT_ERROR_GRADIENT_KIND, "rows", dadapt_optimizer_step(optimizer, &t, 1, NULL));
    dadapt_tensor two[2] = {table_of(id, p, g, rows, 2, DADAPT_INDEX_U32), tensor_of(dense, LEN, NULL, before)};
    FAILS(DADAPT_ERROR_NULL_POINTER, "the parameter", dadapt_optimizer_step(optimizer, two, 2, NULL));
    two[1].struct_size++;
    FAILS(DADAPT_ERROR_STRUCT_SIZE, "tensors[1]", dadapt_optimizer_step(optimizer, two, 2, NULL));
    OK(dadapt_optimizer_set_f64(optimizer, DADAPT_ALL_GROUPS, DADAPT_KEY_WEIGHT_DECAY, 0.1));
    t = table_of(id, p, g, rows, 2, DADAPT_INDEX_U32);
    FAILS(DADAPT_ERROR_NOT_FOR_ROWS, "weight_decay", dadapt_optimizer_step(optimizer, &t, 1, NULL));
    CHECK(!memcmp(p, before, sizeof p));

    /* A batch that touches no row. */
    OK(dadapt_optimizer_set_f64(optimizer, DADAPT_ALL_GROUPS, DADAPT_KEY_WEIGHT_DECAY, 0.0));
    t = table_of(id, p, g, NULL, 0, DADAPT_INDEX_U32);
    OK(dadapt_optimizer_step(optimizer, &t, 1, NULL));
    CHECK(!memcmp(p, before, sizeof p));

    /* A struct from before there were rows still works, of a dense tensor. */
    t = tensor_of(dense, LEN, p, before);
    t.struct_size = offsetof(dadapt_tensor, rows);
    OK(dadapt_optimizer_step(optimizer, &t, 1, NULL));
    CHECK(memcmp(p, before, sizeof p));

    FAILS(DADAPT_ERROR_OUT_OF_BOUNDS, "state_of_caller is 2",
          dadapt_optimizer_add_rows(optimizer, 0, "x", DADAPT_DTYPE_F32, 2, 2, 2, &none));
    FAILS(DADAPT_ERROR_TOO_LONG, "x",
          dadapt_optimizer_add_rows(optimizer, 0, "x", DADAPT_DTYPE_F32, SIZE_MAX, 2, 0, &none));
    FAILS(DADAPT_ERROR_NULL_POINTER, "optimizer",
          dadapt_optimizer_add_rows(NULL, 0, "x", DADAPT_DTYPE_F32, 2, 2, 0, &none));
    dadapt_optimizer *adam = new_optimizer(new_config(DADAPT_ALGORITHM_ADAM));
    FAILS(DADAPT_ERROR_NO_ROWS, "adagrad does",
          dadapt_optimizer_add_rows(adam, 0, "x", DADAPT_DTYPE_F32, 2, 2, 0, &none));
    CHECK(none == 77);
    dadapt_optimizer_free(adam);
    dadapt_optimizer_free(optimizer);
}

int main(void)
{
    ways_agree();
    bad_rows_change_nothing();
    return 0;
}
