/* Addresses of objects' arrays, with objects and lists of our own in a framework's place. */
#include "check.h"

/* DLPack's DLTensor. */
typedef struct {
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    const int64_t *shape, *strides;
    uint64_t byte_offset;
} dl_tensor;

/* What a list has: an object that is described, or a dictionary of one. */
typedef struct {
    dl_tensor tensor;
    int fails;
    const char *key;
} object;

typedef struct {
    size_t len;
    object **objects;
} list;

static int from_object(void *given, void *tensor)
{
    const object *of = given;
    if (of->fails)
        return -1;
    memcpy(tensor, &of->tensor, sizeof of->tensor);
    return 0;
}

static void *item(void *given, ptrdiff_t index)
{
    const list *of = given;
    return (size_t)index < of->len ? of->objects[index] : NULL;
}

static void *value(void *given, void *key)
{
    object *of = given;
    return of->key && !strcmp(of->key, key) ? of : NULL;
}

static float memory[64];
static void *const untouched = &memory[63];
static const int64_t of_2_3[] = {2, 3}, rows[] = {3, 1}, columns_first[] = {1, 2}, of_5[] = {5},
                     one[] = {1}, two[] = {2}, of_0_7[] = {0, 7}, odd[] = {99, 98},
                     of_1_6_1[] = {1, 6, 1}, loose[] = {77, 1, 55}, of_huge[] = {INT64_MAX, 2},
                     negative[] = {-6}, of_minus_2_minus_3[] = {-2, -3};

static object new_object(int32_t ndim, const int64_t *shape, const int64_t *strides)
{
    object made;
    memset(&made, 0, sizeof made);
    made.tensor.data = memory;
    made.tensor.device_type = 1;
    made.tensor.ndim = ndim;
    made.tensor.code = 2;
    made.tensor.bits = 32;
    made.tensor.lanes = 1;
    made.tensor.shape = shape;
    made.tensor.strides = strides;
    return made;
}

/* Whether the object is such an array; if not, its place is left alone. */
static int found(object *of, size_t len, dadapt_dtype dtype)
{
    list objects = {1, &of};
    void *lists[] = {&objects}, *keys[] = {NULL}, *data = untouched;
    dadapt_dlpack_array array = {len, dtype, 0, &data};
    size_t count = 99;
    OK(dadapt_dlpack_data(from_object, item, NULL, lists, keys, 1, 1, &array, &count));
    CHECK(count <= 1);
    if (count == 0)
        CHECK(data == untouched);
    else
        CHECK(data == (char *)of->tensor.data + of->tensor.byte_offset);
    return count == 1;
}

static void arrays_that_fit(void)
{
    object of = new_object(2, of_2_3, rows);
    CHECK(found(&of, 6, DADAPT_DTYPE_F32));
    of.tensor.byte_offset = 12;
    CHECK(found(&of, 6, DADAPT_DTYPE_F32));
    of = new_object(2, of_2_3, NULL);
    CHECK(found(&of, 6, DADAPT_DTYPE_F32));
    of = new_object(0, NULL, NULL);
    CHECK(found(&of, 1, DADAPT_DTYPE_F32));
    of = new_object(3, of_1_6_1, loose);
    CHECK(found(&of, 6, DADAPT_DTYPE_F32));
    of = new_object(2, of_0_7, odd);
    of.tensor.data = NULL;
    CHECK(found(&of, 0, DADAPT_DTYPE_F32));
}

static void types_that_fit(void)
{
    const struct {
        dadapt_dtype dtype;
        uint8_t code, bits;
    } kinds[] = {{DADAPT_DTYPE_F32, 2, 32},
                 {DADAPT_DTYPE_F64, 2, 64},
                 {DADAPT_DTYPE_BF16, 4, 16},
                 {DADAPT_DTYPE_F16, 2, 16},
                 {DADAPT_DTYPE_Q8, 1, 8}};
    for (size_t i = 0; i < 5; i++) {
        for (size_t j = 0; j < 5; j++) {
            object of = new_object(1, of_5, one);
            of.tensor.code = kinds[i].code;
            of.tensor.bits = kinds[i].bits;
            CHECK(found(&of, 5, kinds[j].dtype) == (i == j));
        }
    }
}

static void arrays_that_do_not(void)
{
    object of = new_object(2, of_2_3, columns_first);
    CHECK(!found(&of, 6, DADAPT_DTYPE_F32));
    of = new_object(1, of_5, two);
    CHECK(!found(&of, 5, DADAPT_DTYPE_F32));
    of = new_object(1, of_5, one);
    CHECK(!found(&of, 4, DADAPT_DTYPE_F32) && !found(&of, 6, DADAPT_DTYPE_F32));
    CHECK(!found(&of, 0, DADAPT_DTYPE_F32));
    of.tensor.device_type = 2;
    CHECK(!found(&of, 5, DADAPT_DTYPE_F32));
    of = new_object(1, of_5, one);
    of.tensor.lanes = 2;
    CHECK(!found(&of, 5, DADAPT_DTYPE_F32));
    of = new_object(1, of_5, one);
    of.fails = 1;
    CHECK(!found(&of, 5, DADAPT_DTYPE_F32));
    of = new_object(2, of_huge, NULL);
    CHECK(!found(&of, (size_t)-2, DADAPT_DTYPE_F32));
    of = new_object(1, negative, NULL);
    CHECK(!found(&of, (size_t)-6, DADAPT_DTYPE_F32));
    of = new_object(2, of_minus_2_minus_3, NULL);
    CHECK(!found(&of, 6, DADAPT_DTYPE_F32));
    of = new_object(1, of_5, one);
    of.tensor.data = NULL;
    CHECK(!found(&of, 5, DADAPT_DTYPE_F32));
    of = new_object(-1, of_5, one);
    CHECK(!found(&of, 5, DADAPT_DTYPE_F32));
}

/* Two columns: objects, and values of objects; then what breaks off at the fourth of six. */
static void columns_are_read_in_order(void)
{
    object objects[6], *first[3], *second[3];
    void *data[6];
    dadapt_dlpack_array arrays[6];
    for (size_t i = 0; i < 6; i++) {
        objects[i] = new_object(1, of_5, one);
        objects[i].tensor.data = memory + i;
        objects[i].key = "s";
        data[i] = untouched;
        arrays[i] = (dadapt_dlpack_array){5, DADAPT_DTYPE_F32, 0, &data[5 - i]};
        *(i < 3 ? &first[i] : &second[i - 3]) = &objects[i];
    }
    list lists[] = {{3, first}, {3, second}};
    char key[] = "s";
    void *at[] = {&lists[0], &lists[1]}, *keys[] = {NULL, key};
    size_t count = 99;
    OK(dadapt_dlpack_data(from_object, item, value, at, keys, 2, 3, arrays, &count));
    CHECK(count == 6);
    for (size_t i = 0; i < 6; i++) {
        CHECK(data[5 - i] == memory + i);
        data[5 - i] = untouched;
    }
    objects[3].key = NULL;
    OK(dadapt_dlpack_data(from_object, item, value, at, keys, 2, 3, arrays, &count));
    CHECK(count == 3);
    for (size_t i = 0; i < 6; i++)
        CHECK(data[5 - i] == (i < 3 ? (void *)(memory + i) : untouched));
    lists[0].len = 2; /* item returns NULL for the third */
    OK(dadapt_dlpack_data(from_object, item, value, at, keys, 2, 3, arrays, &count));
    CHECK(count == 2);
    OK(dadapt_dlpack_data(from_object, item, value, at, keys, 1, 2, arrays, &count));
    CHECK(count == 2);
    OK(dadapt_dlpack_data(from_object, item, NULL, NULL, NULL, 0, 3, NULL, &count));
    CHECK(count == 0);
    OK(dadapt_dlpack_data(from_object, item, NULL, at, keys + 1, 0, 0, NULL, &count));
    CHECK(count == 0);
}

static void refusals_write_nothing(void)
{
    object of = new_object(1, of_5, one), *both[] = {&of, &of};
    list objects = {2, both};
    char key[] = "s";
    void *lists[] = {&objects}, *none[] = {NULL}, *keys[] = {key}, *data = untouched;
    dadapt_dlpack_array arrays[] = {{5, DADAPT_DTYPE_F32, 0, &data}, {5, DADAPT_DTYPE_F32, 0, &data}};
    size_t count = 99;
    const dadapt_status null = DADAPT_ERROR_NULL_POINTER;
    FAILS(null, "from_object", dadapt_dlpack_data(NULL, item, NULL, lists, none, 1, 2, arrays, &count));
    FAILS(null, "item", dadapt_dlpack_data(from_object, NULL, NULL, lists, none, 1, 2, arrays, &count));
    FAILS(null, "value", dadapt_dlpack_data(from_object, item, NULL, lists, keys, 1, 2, arrays, &count));
    FAILS(null, "lists", dadapt_dlpack_data(from_object, item, value, NULL, none, 1, 2, arrays, &count));
    FAILS(null, "keys", dadapt_dlpack_data(from_object, item, value, lists, NULL, 1, 2, arrays, &count));
    FAILS(null, "arrays", dadapt_dlpack_data(from_object, item, NULL, lists, none, 1, 2, NULL, &count));
    FAILS(null, "found", dadapt_dlpack_data(from_object, item, NULL, lists, none, 1, 2, arrays, NULL));
    arrays[1].data = NULL;
    FAILS(null, "arrays[1].data",
          dadapt_dlpack_data(from_object, item, NULL, lists, none, 1, 2, arrays, &count));
    arrays[1].data = &data;
    arrays[1].reserved = 1;
    FAILS(DADAPT_ERROR_RESERVED, "arrays[1]",
          dadapt_dlpack_data(from_object, item, NULL, lists, none, 1, 2, arrays, &count));
    arrays[1].reserved = 0;
    arrays[1].dtype = 77;
    FAILS(DADAPT_ERROR_UNKNOWN_DTYPE, "77",
          dadapt_dlpack_data(from_object, item, NULL, lists, none, 1, 2, arrays, &count));
    FAILS(DADAPT_ERROR_TOO_LONG, "columns",
          dadapt_dlpack_data(from_object, item, NULL, lists, none, 3, SIZE_MAX / 2, arrays, &count));
    CHECK(count == 99 && data == untouched);
}

int main(void)
{
    arrays_that_fit();
    types_that_fit();
    arrays_that_do_not();
    columns_are_read_in_order();
    refusals_write_nothing();
    return 0;
}
