// The header from C++11: linkage, handles in unique_ptr, a step, a callback without captures.
#include <dadapt.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

static_assert(std::is_same<dadapt_status, std::int32_t>::value, "statuses are int32_t");
static_assert(std::is_standard_layout<dadapt_tensor>::value, "plain struct");
static_assert(offsetof(dadapt_tensor, struct_size) == 0, "its size comes first");
static_assert(offsetof(dadapt_report, struct_size) == 0, "its size comes first");
static_assert(offsetof(dadapt_tensor, g_dtype) == offsetof(dadapt_tensor, dtype) + 4 &&
                  offsetof(dadapt_tensor, p) == offsetof(dadapt_tensor, dtype) + 8,
              "the gradient's type is where 0 was");
static_assert(offsetof(dadapt_report, overflows) == offsetof(dadapt_report, reserved) + 4,
              "at the end of what was");
static_assert(DADAPT_VERSION_NUMBER >= 100, "a number to compare in the preprocessor");

namespace {

struct Free {
    void operator()(dadapt_config *config) const { dadapt_config_free(config); }
    void operator()(dadapt_optimizer *optimizer) const { dadapt_optimizer_free(optimizer); }
};

void check(dadapt_status status)
{
    if (status != DADAPT_OK)
        throw std::runtime_error(std::string(dadapt_status_name(status)) + ": " +
                                 dadapt_last_error());
}

void require(bool condition, const char *what)
{
    if (!condition)
        throw std::logic_error(what);
}

void run()
{
    dadapt_config *new_config = nullptr;
    check(dadapt_config_new(DADAPT_ALGORITHM_ADAM, &new_config));
    std::unique_ptr<dadapt_config, Free> config(new_config);
    check(dadapt_config_set_f64(config.get(), DADAPT_ALL_GROUPS, DADAPT_KEY_LOG_EVERY, 1));
    dadapt_optimizer *new_optimizer = nullptr;
    check(dadapt_optimizer_new(config.get(), &new_optimizer));
    std::unique_ptr<dadapt_optimizer, Free> optimizer(new_optimizer);

    std::vector<float> p(100, 1.0f), g(p.size());
    std::vector<std::string> lines;
    check(dadapt_optimizer_set_log(
        optimizer.get(),
        [](void *context, const char *line) {
            static_cast<std::vector<std::string> *>(context)->emplace_back(line);
        },
        &lines));
    dadapt_tensor tensor = {};
    tensor.struct_size = sizeof tensor;
    tensor.len = p.size();
    check(dadapt_optimizer_add_tensor(optimizer.get(), 0, "p", DADAPT_DTYPE_F32, p.size(),
                                      &tensor.id));
    for (int step = 0; step < 5; step++) {
        g = p;
        tensor.p = p.data();
        tensor.g = g.data();
        dadapt_report report = {};
        report.struct_size = sizeof report;
        check(dadapt_optimizer_step(optimizer.get(), &tensor, 1, &report));
        require(report.k == static_cast<std::uint64_t>(step) + 1, "steps are counted");
    }
    require(lines.size() == 5, "a line a step");
    require(p[0] < 1.0f && p[99] == p[0], "it trains");

    std::string what;
    try {
        check(dadapt_optimizer_set_lr(optimizer.get(), 0, -1.0));
    } catch (const std::runtime_error &error) {
        what = error.what();
    }
    require(what.find("DADAPT_ERROR_OUT_OF_BOUNDS: lr = -1") == 0, "errors have their words");
}

} // namespace

int main()
{
    try {
        run();
    } catch (const std::exception &error) {
        std::cerr << "cplusplus: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
