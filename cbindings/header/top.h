/* dadapt: learning-rate-free optimizers for CPUs, and the plain ones: D-Adaptation for Adam, SGD,
 * AdaGrad, Lion and Adan; Prodigy.
 *
 * This file is generated from the sources of the library.
 *
 * A program makes a configuration, an optimizer from it, registers its tensors, and calls a step
 * with parameters and gradients. There is no learning rate to find: lr is 1, and the step size is
 * the estimate d, which the optimizer finds while it trains.
 *
 *     dadapt_config *config = NULL;
 *     dadapt_optimizer *opt = NULL;
 *     uint64_t id = 0;
 *     dadapt_config_new(DADAPT_ALGORITHM_ADAM, &config);
 *     dadapt_config_set_f64(config, DADAPT_ALL_GROUPS, DADAPT_KEY_WEIGHT_DECAY, 0.01);
 *     dadapt_optimizer_new(config, &opt);
 *     dadapt_config_free(config);
 *     dadapt_optimizer_add_tensor(opt, 0, "w", DADAPT_DTYPE_F32, len, &id);
 *
 *     dadapt_tensor tensor;
 *     memset(&tensor, 0, sizeof tensor);
 *     tensor.struct_size = sizeof tensor;
 *     tensor.id = id;
 *     tensor.len = len;
 *     tensor.p = w;
 *     tensor.g = gradient_of_w;
 *     for (...) {
 *         ...
 *         if (dadapt_optimizer_step(opt, &tensor, 1, NULL) != DADAPT_OK)
 *             fprintf(stderr, "%s\n", dadapt_optimizer_last_error(opt));
 *     }
 *     dadapt_optimizer_free(opt);
 *
 * Errors. A call that can fail returns a dadapt_status. A failed call has changed nothing: no
 * array, no option, neither d nor k, and no place for a result is written. (DADAPT_ERROR_INTERNAL,
 * which is a defect of the library, is the exception: after it the handle takes only calls that
 * read it, and free; others return DADAPT_ERROR_POISONED.) What was wrong, in words: from
 * dadapt_config_last_error and dadapt_optimizer_last_error, and from dadapt_last_error for any call
 * of this thread. The words may change from version to version; the statuses do not.
 *
 * Ownership. Handles come from _new and go to _free, which takes NULL. What is passed in (strings,
 * arrays, structs) stays the caller's and is not kept after the call. Strings that come out are
 * the library's: names for ever, error texts as long as their functions say. State belongs to the
 * library, or to the caller where a tensor was registered so.
 *
 * Pointers. A handle is NULL, which is an error, or from its _new and not yet freed. Strings end
 * with a 0 and are UTF-8. A place for a result can be written, and no other thread uses it.
 *
 * Threads. A handle is used by one thread at a time, whichever; calls that take it as const may
 * run at once with one another, and with dadapt_optimizer_step_tensor, which several threads may
 * call at once. Different handles are independent. Calls without a handle may run on any thread.
 * Large steps use threads of the library's own, num_threads of them, or those that
 * dadapt_optimizer_set_executor gives.
 *
 * Aliasing. In a step, parameters and state are written, and gradients only read. No array that is
 * written may overlap another; this is checked (in a step in parts, of each tensor by itself).
 *
 * Types. Parameters and gradients are of float, bf16 and f16 in any mix, or both of double. State is
 * of float (of double for double), or of what DADAPT_KEY_STATE says: in bf16 and 8 bits it is
 * rounded stochastically, which keeps its mean. Parameters of 16 bits have a master copy of float
 * among their state unless DADAPT_KEY_MASTER is 0. All is computed in float, or in double.
 *
 * Floating point. The same inputs give the same bits for any number of threads, any instruction
 * set and any order of tensors. Every call sets the default floating-point environment for itself
 * (rounding to nearest, subnormals kept, traps masked) and puts the caller's back, flags included.
 *
 * Growing. The numbers of statuses, keys and choices are pinned. Structs start with struct_size,
 * so that later versions can add fields at their end; a program built with an older header works
 * with a newer library of the same DADAPT_ABI_VERSION. A function's "NULL where it is not wanted"
 * is said where it holds; elsewhere NULL is DADAPT_ERROR_NULL_POINTER.
 */
#ifndef DADAPT_H
#define DADAPT_H

#include <stddef.h>
#include <stdint.h>

#define DADAPT_VERSION_MAJOR @MAJOR@
#define DADAPT_VERSION_MINOR @MINOR@
#define DADAPT_VERSION_PATCH @PATCH@
/** The header's version as one number that grows from release to release. */
#define DADAPT_VERSION_NUMBER \
    (DADAPT_VERSION_MAJOR * 10000 + DADAPT_VERSION_MINOR * 100 + DADAPT_VERSION_PATCH)

#ifdef __cplusplus
extern "C" {
#endif
