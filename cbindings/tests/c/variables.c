/* The environment variables, which the options come before. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

/* An optimizer is refused, and the place for it left alone. */
static void refused(dadapt_config *config, dadapt_status status, const char *words)
{
    dadapt_optimizer *opt = (dadapt_optimizer *)&opt;
    FAILS(status, words, dadapt_optimizer_new(config, &opt));
    CHECK(opt == (dadapt_optimizer *)&opt);
    CHECK(strstr(dadapt_config_last_error(config), words));
}

static double threads_of(const dadapt_config *config)
{
    dadapt_optimizer *opt = NULL;
    double threads = -1.0;
    OK(dadapt_optimizer_new(config, &opt));
    OK(dadapt_optimizer_get_f64(opt, DADAPT_ALL_GROUPS, DADAPT_KEY_NUM_THREADS, &threads));
    dadapt_optimizer_free(opt);
    return threads;
}

static void instruction_sets(void)
{
    dadapt_config *config = new_config(DADAPT_ALGORITHM_ADAM);
    const dadapt_group all = DADAPT_ALL_GROUPS;
    const char *name = "untouched";
    setenv("DADAPT_ISA", "avx9", 1);
    FAILS(DADAPT_ERROR_UNKNOWN_ISA, "\"avx9\"; there are scalar, avx2, avx512, neon",
          dadapt_isa(&name));
    refused(config, DADAPT_ERROR_UNKNOWN_ISA, "\"avx9\"");
    CHECK(!strcmp(name, "untouched"));

    /* No machine has both AVX2 and NEON. */
    int absent = 0;
    for (int isa = DADAPT_ISA_SCALAR; isa <= DADAPT_ISA_NEON; isa++) {
        dadapt_optimizer *opt = NULL;
        setenv("DADAPT_ISA", dadapt_isa_name(isa), 1);
        dadapt_status status = dadapt_isa(&name);
        CHECK(dadapt_optimizer_new(config, &opt) == status);
        if (status == DADAPT_OK) {
            const char *of_optimizer = NULL;
            OK(dadapt_optimizer_isa(opt, &of_optimizer));
            CHECK(!strcmp(name, dadapt_isa_name(isa)) && !strcmp(of_optimizer, name));
            dadapt_optimizer_free(opt);
            continue;
        }
        absent = isa;
        CHECK(opt == NULL);
        FAILS(DADAPT_ERROR_ISA_UNAVAILABLE, dadapt_isa_name(isa), dadapt_isa(&name));
        refused(config, DADAPT_ERROR_ISA_UNAVAILABLE, "its widest instruction set is");
    }
    CHECK(absent != 0);

    /* The option comes first: it hides an absent one, and is refused where absent itself. */
    setenv("DADAPT_ISA", dadapt_isa_name(absent), 1);
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_ISA, DADAPT_ISA_SCALAR));
    dadapt_optimizer *opt = NULL;
    OK(dadapt_optimizer_new(config, &opt));
    OK(dadapt_optimizer_isa(opt, &name));
    CHECK(!strcmp(name, "scalar"));
    dadapt_optimizer_free(opt);
    setenv("DADAPT_ISA", "scalar", 1);
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_ISA, absent));
    refused(config, DADAPT_ERROR_ISA_UNAVAILABLE, dadapt_isa_name(absent));
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_ISA, 0));
    setenv("DADAPT_ISA", "", 1);
    OK(dadapt_isa(&name));
    unsetenv("DADAPT_ISA");
    dadapt_config_free(config);
}

static void thread_counts(void)
{
    dadapt_config *config = new_config(DADAPT_ALGORITHM_SGD);
    const dadapt_group all = DADAPT_ALL_GROUPS;
    const char *const bad[] = {"three", "-1", "1.5", "4097", "NaN", " "};
    const double by_default = threads_of(config);
    CHECK(by_default >= 1.0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char words[64];
        snprintf(words, sizeof words, "DADAPT_NUM_THREADS=\"%s\"", bad[i]);
        setenv("DADAPT_NUM_THREADS", bad[i], 1);
        refused(config, DADAPT_ERROR_ENVIRONMENT, words);
    }
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_NUM_THREADS, 3));
    CHECK(threads_of(config) == 3.0);
    OK(dadapt_config_set_f64(config, all, DADAPT_KEY_NUM_THREADS, 0));
    setenv("DADAPT_NUM_THREADS", "", 1);
    CHECK(threads_of(config) == by_default);
    setenv("DADAPT_NUM_THREADS", "0", 1);
    CHECK(threads_of(config) == by_default);
    setenv("DADAPT_NUM_THREADS", "5", 1);
    CHECK(threads_of(config) == 5.0);
    unsetenv("DADAPT_NUM_THREADS");
    dadapt_config_free(config);
}

int main(void)
{
    unsetenv("DADAPT_ISA");
    unsetenv("DADAPT_NUM_THREADS");
    instruction_sets();
    thread_counts();
    return EXIT_SUCCESS;
}
