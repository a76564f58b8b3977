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

#define DADAPT_VERSION_MAJOR 0
#define DADAPT_VERSION_MINOR 1
#define DADAPT_VERSION_PATCH 0
/** The header's version as one number that grows from release to release. */
#define DADAPT_VERSION_NUMBER \
    (DADAPT_VERSION_MAJOR * 10000 + DADAPT_VERSION_MINOR * 100 + DADAPT_VERSION_PATCH)

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Versions ---- */

/**
 * Version of the binary interface, and of the soname. Programs built against another number must
 * not be run with this library.
 */
#define DADAPT_ABI_VERSION 0

/** The library's version, "major.minor.patch". Never freed. Any thread. */
const char *dadapt_version(void);

/** The library's version as DADAPT_VERSION_NUMBER has the header's. Any thread. */
uint32_t dadapt_version_number(void);

/** The library's DADAPT_ABI_VERSION, to be compared with the header's. Any thread. */
int dadapt_abi_version(void);

/* ---- Statuses and errors ---- */

/**
 * What came of a call. The numbers are pinned: none is changed or used again.
 *
 * Unless a status says otherwise, a call that fails has changed nothing and written nothing.
 */
typedef int32_t dadapt_status;

/** Success. */
#define DADAPT_OK 0
/** A pointer is NULL that must not be: a handle, a place for a result, an array with elements. */
#define DADAPT_ERROR_NULL_POINTER 1
/** A struct_size is not that of any version of the struct, or not that of the array's first. */
#define DADAPT_ERROR_STRUCT_SIZE 2
/** A reserved field, or a field that this version of the library does not know, is not 0. */
#define DADAPT_ERROR_RESERVED 3
/** A string is not UTF-8. */
#define DADAPT_ERROR_INVALID_UTF8 4
/** No algorithm has that code or name. */
#define DADAPT_ERROR_UNKNOWN_ALGORITHM 5
/** No option has that key or name. */
#define DADAPT_ERROR_UNKNOWN_KEY 6
/** The algorithm lacks that option. */
#define DADAPT_ERROR_KEY_NOT_FOR_ALGORITHM 7
/** The value is outside the option's bounds, or NaN. The text names key, value and bounds. */
#define DADAPT_ERROR_OUT_OF_BOUNDS 8
/** The option is one value for all groups: set it with DADAPT_ALL_GROUPS. */
#define DADAPT_ERROR_NOT_PER_GROUP 9
/** The option can no longer be set. */
#define DADAPT_ERROR_FIXED 10
/** No group has that index. */
#define DADAPT_ERROR_UNKNOWN_GROUP 11
/** No tensor has that id or name. */
#define DADAPT_ERROR_UNKNOWN_TENSOR 12
/** The algorithm keeps no state of that index or name. */
#define DADAPT_ERROR_UNKNOWN_STATE 13
/** No element type has that code. */
#define DADAPT_ERROR_UNKNOWN_DTYPE 14
/** A tensor of that name is registered already. */
#define DADAPT_ERROR_DUPLICATE_NAME 15
/** A tensor is given twice in one step. */
#define DADAPT_ERROR_TENSOR_TWICE 16
/** A length is not the registered one, or there are not so many elements. */
#define DADAPT_ERROR_LENGTH 17
/** A tensor is longer than memory can be. */
#define DADAPT_ERROR_TOO_LONG 18
/** An element type is not the registered one. */
#define DADAPT_ERROR_DTYPE 19
/** An array is not aligned to its elements. */
#define DADAPT_ERROR_MISALIGNED 20
/** Arrays share memory, and the step would write it. */
#define DADAPT_ERROR_OVERLAP 21
/** State arrays are missing, or given where the library owns the state. */
#define DADAPT_ERROR_STATE_COUNT 22
/** The state asked for is kept by the caller. */
#define DADAPT_ERROR_STATE_OF_CALLER 23

/**
 * Groups have different rates, neither of them 0: give them one and set layer_scale, or have
 * d_per_group.
 */
#define DADAPT_ERROR_MIXED_LR 24
/** The options together leave the range of the parameters' type. */
#define DADAPT_ERROR_COEFFICIENT 25
/** A gradient holds a NaN or an infinity, and the policy is to reject such a step. */
#define DADAPT_ERROR_NON_FINITE_GRADIENT 26
/** No instruction set has that name. */
#define DADAPT_ERROR_UNKNOWN_ISA 27
/** This machine lacks the instruction set that is forced. */
#define DADAPT_ERROR_ISA_UNAVAILABLE 28
/** An environment variable cannot be understood. */
#define DADAPT_ERROR_ENVIRONMENT 29
/** Memory for state cannot be had. */
#define DADAPT_ERROR_OUT_OF_MEMORY 30
/** Threads cannot be started. */
#define DADAPT_ERROR_THREADS 31
/** An earlier call on the handle ended in DADAPT_ERROR_INTERNAL. */
#define DADAPT_ERROR_POISONED 32

/**
 * A defect of the library. A step may have stopped half-way: parameters and state are then valid
 * numbers, but of no particular step. The handle can only be read and freed.
 */
#define DADAPT_ERROR_INTERNAL 33
/** A step in parts has begun: end or abort it first. */
#define DADAPT_ERROR_STEP_OPEN 34
/** No step in parts has begun. */
#define DADAPT_ERROR_NO_STEP_OPEN 35
/** The algorithm, or the policy for gradients that are not finite, needs all tensors at once. */
#define DADAPT_ERROR_NOT_IN_PARTS 36
/** The algorithm has no restart. */
#define DADAPT_ERROR_NO_RESTART 37
/** An algorithm that takes no gradients of single rows: all but adagrad. */
#define DADAPT_ERROR_NO_ROWS 38
/** A gradient of single rows for a dense tensor, or a dense one for a table. */
#define DADAPT_ERROR_GRADIENT_KIND 39
/** A row that the table does not have. */
#define DADAPT_ERROR_ROW_OUT_OF_RANGE 40
/** weight_decay or momentum, for a table: they have no meaning for gradients of single rows. */
#define DADAPT_ERROR_NOT_FOR_ROWS 41

/**
 * An element type that such a tensor cannot have: q8, which is of state alone; one of 16 bits, for
 * a table of rows.
 */
#define DADAPT_ERROR_DTYPE_NOT_FOR 42
/** An element type of a gradient that does not go with its parameter's. */
#define DADAPT_ERROR_GRADIENT_DTYPE 43
/** A gradient that the state which keeps a copy of it would round: Adan's pre_grad. */
#define DADAPT_ERROR_GRADIENT_KEPT_IN 44
/** An element type that such state cannot be kept in. The text says why. */
#define DADAPT_ERROR_STATE_DTYPE 45
/** DADAPT_KEY_STATE, for an algorithm of whose state nothing may be rounded: sgd, adagrad. */
#define DADAPT_ERROR_NOTHING_TO_ROUND 46

/**
 * The name of a status as this header has it, "DADAPT_ERROR_LENGTH". Never NULL, never freed. Any
 * thread.
 */
const char *dadapt_status_name(dadapt_status status);

/**
 * What the last call that failed on this thread had to say, whatever handle it was on; "" where
 * none has. Never NULL. Good until the next call that fails on this thread.
 */
const char *dadapt_last_error(void);

/* ---- Algorithms and element types ---- */

/** An algorithm. */
typedef int32_t dadapt_algorithm;

/**
 * The type of the elements of parameters, gradients and state. F32, BF16 and F16 go with one
 * another in any mix; all are computed on as float. F64 goes with itself.
 */
typedef int32_t dadapt_dtype;

/** D-Adaptation for Adam: three state arrays a tensor, exp_avg, exp_avg_sq and s. */
#define DADAPT_ALGORITHM_ADAM 1
/** D-Adaptation for SGD with momentum: two state arrays a tensor, s and x0. */
#define DADAPT_ALGORITHM_SGD 2

/**
 * D-Adaptation for AdaGrad: alphak, sk and x0. It takes gradients of single rows too
 * (dadapt_optimizer_add_rows).
 */
#define DADAPT_ALGORITHM_ADAGRAD 3
/** D-Adaptation for Lion: exp_avg and s. */
#define DADAPT_ALGORITHM_LION 4

/**
 * D-Adaptation for Adan: exp_avg, exp_avg_sq, exp_avg_diff, pre_grad and s. It can be restarted.
 */
#define DADAPT_ALGORITHM_ADAN 5
/** Prodigy: exp_avg, exp_avg_sq, s and p0. It does not step in parts. */
#define DADAPT_ALGORITHM_PRODIGY 6

/**
 * D-Adaptation for Adam as in the first versions of its preprint: state as with Adam.
 * Experimental.
 */
#define DADAPT_ALGORITHM_EXPERIMENTAL_ADAM_PREPRINT 7
/** D-Adaptation for Adan by inner products: state and restart as with Adan. Experimental. */
#define DADAPT_ALGORITHM_EXPERIMENTAL_ADAN_IP 8
/** SGD with momentum, at a rate set by hand, as all plain ones: momentum_buffer. */
#define DADAPT_ALGORITHM_PLAIN_SGD 9
/** Adam and AdamW at a rate set by hand: exp_avg and exp_avg_sq. */
#define DADAPT_ALGORITHM_PLAIN_ADAM 10
/** AdaGrad at a rate set by hand: sum. */
#define DADAPT_ALGORITHM_PLAIN_ADAGRAD 11
/** Lion at a rate set by hand: exp_avg. */
#define DADAPT_ALGORITHM_PLAIN_LION 12
/** Adan at a rate set by hand: exp_avg, exp_avg_sq, exp_avg_diff and pre_grad. */
#define DADAPT_ALGORITHM_PLAIN_ADAN 13
/** float. */
#define DADAPT_DTYPE_F32 1
/** double. */
#define DADAPT_DTYPE_F64 2
/** The upper half of a float, as a uint16_t: 8 bits of exponent, 7 of fraction. */
#define DADAPT_DTYPE_BF16 3
/** IEEE 754's binary16, as a uint16_t: 5 bits of exponent, 10 of fraction; up to 65504. */
#define DADAPT_DTYPE_F16 4

/**
 * Of state alone: a byte an element, floating point, then the exponents that 256 of them share, a
 * byte each. dadapt_optimizer_state_values reads it.
 */
#define DADAPT_DTYPE_Q8 5

/**
 * "adam", "plain_sgd"; NULL for other codes. They count from 1 without gaps. Never freed. Any
 * thread.
 */
const char *dadapt_algorithm_name(dadapt_algorithm algorithm);

/**
 * The algorithm of that name.
 *
 * algorithm: out; NULL to learn only whether there is one.
 * Errors: DADAPT_ERROR_UNKNOWN_ALGORITHM; of the string. Any thread.
 */
dadapt_status dadapt_algorithm_from_name(const char *name, dadapt_algorithm *algorithm);

/**
 * How many state arrays the algorithm keeps a tensor, master copies aside; 0 for other codes. Any
 * thread.
 */
size_t dadapt_algorithm_state_count(dadapt_algorithm algorithm);

/**
 * The name of one of its state arrays, "exp_avg"; NULL where there is none. Never freed. Any
 * thread.
 */
const char *dadapt_algorithm_state_name(dadapt_algorithm algorithm, size_t slot);

/** "f32", "bf16"; NULL for other codes. Never freed. Any thread. */
const char *dadapt_dtype_name(dadapt_dtype dtype);

/* ---- Options ---- */

/** An option. Values are doubles: switches are 0 or 1, counts whole numbers, choices codes. */
typedef int32_t dadapt_key;

/** Flags of dadapt_key_bounds. */
typedef uint32_t dadapt_bounds;

/** A value of DADAPT_KEY_ISA. */
typedef int32_t dadapt_isa_code;

/** A value of DADAPT_KEY_STATE. */
typedef int32_t dadapt_state_kind;

/** A value of DADAPT_KEY_NON_FINITE. */
typedef int32_t dadapt_non_finite;

/**
 * Learning rate, a factor on d: 1 unless there is a schedule. Groups that share a d are equal or 0
 * (frozen). Per group; default 1. Of plain algorithms the step size itself, any per group: default
 * 1e-3, of plain_adagrad 1e-2, of plain_lion 1e-4.
 */
#define DADAPT_KEY_LR 1

/**
 * Decay of the running mean of gradients. Default 0.9, of Adan 0.98. Prodigy keeps no exp_avg
 * where it is 0.
 */
#define DADAPT_KEY_BETA1 2

/**
 * Decay of the running mean of squared gradients. Default 0.999. Lion: of the running mean that it
 * keeps; default 0.99. Adan: of the mean of differences of gradients; default 0.92.
 */
#define DADAPT_KEY_BETA2 3

/**
 * Added to the root of the second moment. Per group; default 1e-8, of AdaGrad 1e-6, of
 * plain_adagrad 1e-10.
 */
#define DADAPT_KEY_EPS 4
/** Weight decay. Per group; default 0, of Adan 0.02 and of plain_adan 0. */
#define DADAPT_KEY_WEIGHT_DECAY 5

/**
 * 1: weight decay shrinks the parameter, as AdamW does. 0: it is added to the gradient. Per group;
 * default 0, of Prodigy 1.
 */
#define DADAPT_KEY_DECOUPLE 6
/** 1: Adam's bias correction. Default 0. */
#define DADAPT_KEY_USE_BIAS_CORRECTION 7

/**
 * The most that d may grow by in a step, as a factor. Default infinity, which is no limit; 1.02
 * acts as a warm-up.
 */
#define DADAPT_KEY_GROWTH_RATE 8
/** The group's rate relative to that of the others. Per group; default 1. */
#define DADAPT_KEY_LAYER_SCALE 9

/**
 * Momentum of SGD and of AdaGrad. Per group; default 0, where plain_sgd keeps no momentum_buffer.
 */
#define DADAPT_KEY_MOMENTUM 10
/** The first d; it can be set until a step has made progress. Default 1e-6. */
#define DADAPT_KEY_D0 11
/** The log callback gets a line every so many steps. Default 0, which is never. */
#define DADAPT_KEY_LOG_EVERY 12
/** What a NaN or an infinity in a gradient does: DADAPT_NON_FINITE_REJECT, _SKIP or _PROPAGATE. */
#define DADAPT_KEY_NON_FINITE 13

/**
 * Threads of a large step, the calling thread included. Default 0: as many as the environment
 * variable DADAPT_NUM_THREADS says, else as many as there are processors. Of configurations only.
 */
#define DADAPT_KEY_NUM_THREADS 14

/**
 * Forces an instruction set, by DADAPT_ISA_SCALAR and so on. Default 0: the one that the
 * environment variable DADAPT_ISA names, else the widest there is. Of configurations only.
 */
#define DADAPT_KEY_ISA 15

/**
 * Adan: decay of the second moment and of s; default 0.99. Prodigy: decay of s and of the
 * numerator; default 0, which stands for the root of beta2.
 */
#define DADAPT_KEY_BETA3 16

/**
 * 1: Adan's weight decay shrinks the parameter before the step, as AdamW does. 0: after it, by a
 * division. Per group; default 0.
 */
#define DADAPT_KEY_NO_PROX 17
/** A factor on Prodigy's d_hat: 0.5 for a more cautious estimate, 2 for a bolder one. Default 1. */
#define DADAPT_KEY_D_COEF 18

/**
 * 1: Prodigy's s is weighted without lr and bias correction, so that a warm-up of lr does not let
 * d grow too large. Per group; default 0.
 */
#define DADAPT_KEY_SAFEGUARD_WARMUP 19

/**
 * Statistics (s, Prodigy's p0) follow only every so many elements of a tensor, which saves their
 * memory. Before the group has tensors. Per group; default 1.
 */
#define DADAPT_KEY_SLICE_P 20
/** What d does not grow beyond. Default infinity, which is no limit. */
#define DADAPT_KEY_D_CAP 21
/** How much less than the whole gradient joins the momentum of plain_sgd. Per group; default 0. */
#define DADAPT_KEY_DAMPENING 22

/**
 * 1: every group estimates a d of its own, and rates may differ. Default 0. Of configurations
 * only.
 */
#define DADAPT_KEY_D_PER_GROUP 23

/**
 * What state is kept in: DADAPT_STATE_FULL, _COMPACT, _BF16 or _Q8; of single slots
 * dadapt_config_set_state_dtype says it. Before the group has tensors. Groups with F64 tensors, and
 * sgd and adagrad, have DADAPT_STATE_FULL alone. Per group; default DADAPT_STATE_FULL, which is 0.
 */
#define DADAPT_KEY_STATE 24

/**
 * 1: parameters of BF16 and F16 have a master copy of F32, the last of their state arrays, which
 * steps work on; the parameter is that, rounded to nearest. Elements that the caller has changed
 * since, the copy takes over. 0: there is none, and parameters are rounded stochastically. Before
 * the group has tensors. Per group; default 1.
 */
#define DADAPT_KEY_MASTER 25

/**
 * Of the noise of stochastic rounding: the same seed gives the same bits, on any number of threads.
 * A whole number up to 2^53; default 0.
 */
#define DADAPT_KEY_SEED 26

/**
 * 1: slice_p counts runs of 16 elements, which are cache lines of floats, and not single elements:
 * less time for the same memory. Before the group has tensors. Per group; default 0.
 */
#define DADAPT_KEY_SLICE_BY_LINE 27
/** What the recurrence computes in: F32, or F64 of F64 tensors. The default. */
#define DADAPT_STATE_FULL 0
/** s, which drives d and nothing else, in Q8; all else that may be rounded in BF16. */
#define DADAPT_STATE_COMPACT 1
/** All that may be rounded in BF16. */
#define DADAPT_STATE_BF16 2
/** All that may be rounded in Q8: the least memory. */
#define DADAPT_STATE_Q8 3
/** The step is an error and changes nothing. The default. */
#define DADAPT_NON_FINITE_REJECT 0
/** The step succeeds, changes nothing and reports so. */
#define DADAPT_NON_FINITE_SKIP 1

/**
 * Not looked for, which saves reading the gradients twice. Such a value spreads over the
 * parameters; d alone is protected from it.
 */
#define DADAPT_NON_FINITE_PROPAGATE 2
/** Plain code. */
#define DADAPT_ISA_SCALAR 1
/** x86-64 AVX2 and FMA. */
#define DADAPT_ISA_AVX2 2
/** x86-64 AVX-512 F, BW, CD, DQ, VL. */
#define DADAPT_ISA_AVX512 3
/** AArch64 NEON. */
#define DADAPT_ISA_NEON 4
/** min itself is not allowed. */
#define DADAPT_BOUNDS_OPEN_MIN 1
/** max itself is not allowed. */
#define DADAPT_BOUNDS_OPEN_MAX 2
/** Whole numbers only. */
#define DADAPT_BOUNDS_INTEGER 4
/** Each group has its own value. */
#define DADAPT_BOUNDS_PER_GROUP 8

/**
 * The option's name in lower case, "weight_decay"; NULL for other codes. Never freed. Any thread.
 */
const char *dadapt_key_name(dadapt_key key);

/**
 * The option of that name.
 *
 * key: out; NULL to learn only whether there is one.
 * Errors: DADAPT_ERROR_UNKNOWN_KEY; of the string. Any thread.
 */
dadapt_status dadapt_key_from_name(const char *name, dadapt_key *key);

/**
 * The values that an option takes: from min to max, but for what the flags take away. NaN never.
 *
 * min, max, flags: out, each NULL where it is not wanted; flags are DADAPT_BOUNDS_....
 * Errors: DADAPT_ERROR_UNKNOWN_KEY. Any thread.
 */
dadapt_status dadapt_key_bounds(dadapt_key key, double *min, double *max, dadapt_bounds *flags);

/**
 * The instruction set that an optimizer gets by default: the one that the environment variable
 * DADAPT_ISA names, else the widest that this machine has. The bits are the same with each.
 *
 * name: out, "scalar", "avx2", "avx512" or "neon"; never freed.
 * Errors: DADAPT_ERROR_UNKNOWN_ISA and DADAPT_ERROR_ISA_UNAVAILABLE, of DADAPT_ISA;
 * DADAPT_ERROR_NULL_POINTER. Any thread.
 */
dadapt_status dadapt_isa(const char **name);

/**
 * "scalar", "avx2", "avx512", "neon" for DADAPT_ISA_SCALAR and so on; NULL for other codes. Never
 * freed. Any thread.
 */
const char *dadapt_isa_name(dadapt_isa_code isa);

/* ---- Configuration ---- */

/**
 * What an optimizer is made from: algorithm, groups, options. Its functions may run on any thread,
 * on one at a time; those that take it as const may run at once.
 */
typedef struct dadapt_config dadapt_config;

/** The number of a group. Groups count from 0. */
typedef uint32_t dadapt_group;

/**
 * In the place of a group: the options that are one value for all groups, or an option of all
 * groups, those to come included.
 */
#define DADAPT_ALL_GROUPS UINT32_MAX

/**
 * A configuration with the algorithm's defaults and one group, 0. The defaults are those of the
 * Python package dadaptation.
 *
 * config: out, to be freed with dadapt_config_free.
 * Errors: DADAPT_ERROR_UNKNOWN_ALGORITHM, DADAPT_ERROR_NULL_POINTER. Any thread.
 */
dadapt_status dadapt_config_new(dadapt_algorithm algorithm, struct dadapt_config **config);

/** Frees a configuration. Optimizers made from it stay. NULL is fine. */
void dadapt_config_free(struct dadapt_config *config);

/**
 * Adds a group, with the options that were set for all groups.
 *
 * group: out, its number; groups count from 0. NULL where it is not wanted.
 * Errors: DADAPT_ERROR_NULL_POINTER.
 */
dadapt_status dadapt_config_add_group(struct dadapt_config *config, dadapt_group *group);

/**
 * Sets an option of a group, or with DADAPT_ALL_GROUPS one of the optimizer or of all groups.
 *
 * Errors: DADAPT_ERROR_UNKNOWN_KEY, _KEY_NOT_FOR_ALGORITHM, _OUT_OF_BOUNDS (which a NaN always
 * is), _UNKNOWN_GROUP, _NOT_PER_GROUP, _NULL_POINTER.
 */
dadapt_status dadapt_config_set_f64(struct dadapt_config *config,
                                    dadapt_group group,
                                    dadapt_key key,
                                    double value);

/** As dadapt_config_set_f64, with the option's name: "weight_decay". */
dadapt_status dadapt_config_set_f64_by_name(struct dadapt_config *config,
                                            dadapt_group group,
                                            const char *key,
                                            double value);

/**
 * An option of a group, or with DADAPT_ALL_GROUPS one of the optimizer or of groups to come.
 *
 * value: out.
 * Errors: DADAPT_ERROR_UNKNOWN_KEY, _KEY_NOT_FOR_ALGORITHM, _UNKNOWN_GROUP, _NULL_POINTER.
 */
dadapt_status dadapt_config_get_f64(const struct dadapt_config *config,
                                    dadapt_group group,
                                    dadapt_key key,
                                    double *value);

/** As dadapt_config_get_f64, with the option's name. */
dadapt_status dadapt_config_get_f64_by_name(const struct dadapt_config *config,
                                            dadapt_group group,
                                            const char *key,
                                            double *value);

/**
 * Sets what a state slot is kept in, of a group or with DADAPT_ALL_GROUPS of all.
 *
 * Slots that are rounded (exp_avg, exp_avg_sq, exp_avg_diff, momentum_buffer, sum, and s but for
 * sgd's) take DADAPT_DTYPE_BF16 and _Q8, stochastically rounded: the first to go is s, which drives
 * d alone. x0 and p0 are kept in the type of the parameter or of its master copy; pre_grad in
 * DADAPT_DTYPE_F32, or in the 16-bit type that all gradients then have to be of. What parameters or
 * totals are computed from (s of sgd; alphak and sk of adagrad) is not rounded. Tensors of
 * DADAPT_DTYPE_F64 have state of that.
 *
 * slot: its name, "exp_avg". dtype: 0 leaves the slot to DADAPT_KEY_STATE.
 * Errors: DADAPT_ERROR_UNKNOWN_STATE, _UNKNOWN_DTYPE, _STATE_DTYPE, _UNKNOWN_GROUP, _INVALID_UTF8,
 * _NULL_POINTER. Whether the type goes with that of a tensor is found when the tensor is added.
 */
dadapt_status dadapt_config_set_state_dtype(struct dadapt_config *config,
                                            dadapt_group group,
                                            const char *slot,
                                            dadapt_dtype dtype);

/**
 * What dadapt_config_set_state_dtype has set for a slot, of a group or with DADAPT_ALL_GROUPS of
 * groups to come.
 *
 * dtype: out; 0 where the slot is left to DADAPT_KEY_STATE.
 * Errors: DADAPT_ERROR_UNKNOWN_STATE, _UNKNOWN_GROUP, _INVALID_UTF8, _NULL_POINTER.
 */
dadapt_status dadapt_config_get_state_dtype(const struct dadapt_config *config,
                                            dadapt_group group,
                                            const char *slot,
                                            dadapt_dtype *dtype);

/**
 * What the last call that failed on the configuration had to say; "" where none has or config is
 * NULL. Never NULL. Good until the next call that fails on the configuration.
 */
const char *dadapt_config_last_error(const struct dadapt_config *config);

/* ---- Optimizer ---- */

/**
 * An optimizer: its tensors, their state, the estimate d. Its functions may run on any thread, on
 * one at a time; those that take it as const may run at once, and so may
 * dadapt_optimizer_step_tensor. Different optimizers are independent.
 */
typedef struct dadapt_optimizer dadapt_optimizer;

/**
 * Called with the line that DADAPT_KEY_LOG_EVERY asks for. It must return: no longjmp, no C++
 * exception.
 */
typedef void (*dadapt_log_callback)(void *context, const char *line);

/**
 * An optimizer with the configuration's algorithm, groups and options, and no tensors yet. The
 * configuration is copied: it can be changed, used again and freed. Threads are started by the
 * first step that is large enough.
 *
 * optimizer: out, to be freed with dadapt_optimizer_free.
 * Errors, kept by the configuration: DADAPT_ERROR_UNKNOWN_ISA, _ISA_UNAVAILABLE, _ENVIRONMENT,
 * _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_new(const dadapt_config *config,
                                   struct dadapt_optimizer **optimizer);

/** Frees an optimizer and the state that it owns. NULL is fine. */
void dadapt_optimizer_free(struct dadapt_optimizer *optimizer);

/**
 * Adds a group, as dadapt_config_add_group does. Allowed between steps.
 *
 * Errors: DADAPT_ERROR_STEP_OPEN, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_add_group(struct dadapt_optimizer *optimizer, dadapt_group *group);

/**
 * Sets an option, as dadapt_config_set_f64 does. It holds from the next step on.
 *
 * Errors: as there; DADAPT_ERROR_STEP_OPEN; DADAPT_ERROR_FIXED for DADAPT_KEY_ISA, _NUM_THREADS
 * and _D_PER_GROUP; for DADAPT_KEY_D0 once a step has made progress; and, where tensors have state
 * that would change, for DADAPT_KEY_STATE, _MASTER, _SLICE_P, _SLICE_BY_LINE and, from or to 0,
 * Prodigy's _BETA1 and plain_sgd's _MOMENTUM.
 */
dadapt_status dadapt_optimizer_set_f64(struct dadapt_optimizer *optimizer,
                                       dadapt_group group,
                                       dadapt_key key,
                                       double value);

/** As dadapt_optimizer_set_f64, with the option's name. */
dadapt_status dadapt_optimizer_set_f64_by_name(struct dadapt_optimizer *optimizer,
                                               dadapt_group group,
                                               const char *key,
                                               double value);

/**
 * Sets a group's lr, or with DADAPT_ALL_GROUPS everybody's: a schedule's factor, or 0 to freeze.
 * Groups that share a d and whose lr is not 0 must agree when a step is made.
 */
dadapt_status dadapt_optimizer_set_lr(struct dadapt_optimizer *optimizer,
                                      dadapt_group group,
                                      double lr);

/** An option, as dadapt_config_get_f64 has it. */
dadapt_status dadapt_optimizer_get_f64(const struct dadapt_optimizer *optimizer,
                                       dadapt_group group,
                                       dadapt_key key,
                                       double *value);

/** As dadapt_optimizer_get_f64, with the option's name. */
dadapt_status dadapt_optimizer_get_f64_by_name(const struct dadapt_optimizer *optimizer,
                                               dadapt_group group,
                                               const char *key,
                                               double *value);

/**
 * Sets what a state slot of tensors to come is kept in, as dadapt_config_set_state_dtype does.
 *
 * Errors: as there; DADAPT_ERROR_FIXED where there are tensors whose state would change;
 * DADAPT_ERROR_STEP_OPEN.
 */
dadapt_status dadapt_optimizer_set_state_dtype(struct dadapt_optimizer *optimizer,
                                               dadapt_group group,
                                               const char *slot,
                                               dadapt_dtype dtype);

/**
 * What is set for a state slot, as dadapt_config_get_state_dtype has it. What a tensor's state is
 * kept in says dadapt_optimizer_state_info.
 */
dadapt_status dadapt_optimizer_get_state_dtype(const struct dadapt_optimizer *optimizer,
                                               dadapt_group group,
                                               const char *slot,
                                               dadapt_dtype *dtype);

/**
 * What the last call that failed on the optimizer had to say; "" where none has or optimizer is
 * NULL. Never NULL. Good until the next call that fails on the optimizer.
 */
const char *dadapt_optimizer_last_error(const struct dadapt_optimizer *optimizer);

/**
 * The estimate as of the last step: d0 before the first. With d_per_group, the first group's.
 *
 * d: out. Errors: DADAPT_ERROR_NULL_POINTER.
 */
dadapt_status dadapt_optimizer_d(const struct dadapt_optimizer *optimizer, double *d);

/**
 * How many steps have made progress. With d_per_group, of the first group.
 *
 * k: out. Errors: DADAPT_ERROR_NULL_POINTER.
 */
dadapt_status dadapt_optimizer_k(const struct dadapt_optimizer *optimizer, uint64_t *k);

/**
 * The optimizer's algorithm.
 *
 * algorithm: out. Errors: DADAPT_ERROR_NULL_POINTER.
 */
dadapt_status dadapt_optimizer_algorithm(const struct dadapt_optimizer *optimizer,
                                         dadapt_algorithm *algorithm);

/**
 * The instruction set that the optimizer's steps run on.
 *
 * name: out, as dadapt_isa has it. Errors: DADAPT_ERROR_NULL_POINTER.
 */
dadapt_status dadapt_optimizer_isa(const struct dadapt_optimizer *optimizer, const char **name);

/**
 * Sets what gets a line on d every DADAPT_KEY_LOG_EVERY steps.
 *
 * It is called at the end of dadapt_optimizer_step or dadapt_optimizer_step_end and on its thread.
 * The line is good during the call; the callback may use the optimizer.
 *
 * callback: NULL for none. context: what it is called with.
 */
dadapt_status dadapt_optimizer_set_log(struct dadapt_optimizer *optimizer,
                                       dadapt_log_callback callback,
                                       void *context);

/**
 * Stops estimating, for good: d stays what it is, and what only estimates need is freed.
 *
 * That is s, and Prodigy's p0; SGD and AdaGrad compute parameters from theirs, and keep them.
 * State of the caller's that is no longer needed has dadapt_optimizer_state_bytes 0 from then on.
 *
 * Errors: DADAPT_ERROR_STEP_OPEN, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_freeze(struct dadapt_optimizer *optimizer);

/**
 * Whether dadapt_optimizer_freeze was called.
 *
 * frozen: out, 1 or 0. Errors: DADAPT_ERROR_NULL_POINTER.
 */
dadapt_status dadapt_optimizer_is_frozen(const struct dadapt_optimizer *optimizer, int32_t *frozen);

/**
 * Adan's restart: forgets all state and starts it anew with the next gradient; d and k stay.
 *
 * The arrays themselves are left until then.
 *
 * Errors: DADAPT_ERROR_NO_RESTART for other algorithms than adan and experimental_adan_ip;
 * DADAPT_ERROR_STEP_OPEN, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_restart(struct dadapt_optimizer *optimizer);

/* ---- Tensors ---- */

/**
 * Registers a tensor of len elements and allocates its state. Allowed between steps.
 *
 * group: its number, not DADAPT_ALL_GROUPS.
 * name: what messages call the tensor; must be new. NULL names it by its id. Copied.
 * dtype: of its parameters: DADAPT_DTYPE_F32, _F64, _BF16 or _F16. Gradients may be of another, as
 *     each step says. State is of what DADAPT_KEY_STATE and dadapt_config_set_state_dtype say.
 * id: out; ids count from 0.
 * Errors: DADAPT_ERROR_UNKNOWN_GROUP, _DUPLICATE_NAME, _UNKNOWN_DTYPE, _DTYPE_NOT_FOR, _STATE_DTYPE,
 * _TOO_LONG, _OUT_OF_MEMORY, _INVALID_UTF8, _STEP_OPEN, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_add_tensor(dadapt_optimizer *optimizer,
                                          dadapt_group group,
                                          const char *name,
                                          dadapt_dtype dtype,
                                          size_t len,
                                          uint64_t *id);

/**
 * Registers a tensor whose state the caller keeps and gives to each step: the field state of
 * dadapt_tensor. Arguments and errors are those of dadapt_optimizer_add_tensor.
 *
 * There are dadapt_optimizer_state_count arrays, as large as dadapt_optimizer_state_bytes says, and
 * aligned to elements of what dadapt_optimizer_state_info says. They may hold anything before the
 * tensor's first gradient and are left alone between steps; they may be moved.
 */
dadapt_status dadapt_optimizer_add_tensor_with_state_of_caller(dadapt_optimizer *optimizer,
                                                               dadapt_group group,
                                                               const char *name,
                                                               dadapt_dtype dtype,
                                                               size_t len,
                                                               uint64_t *id);

/**
 * Registers a table of rows whose gradients are of single rows, as an embedding gives them: the
 * fields rows, row_count and row_type of dadapt_tensor. DADAPT_ALGORITHM_ADAGRAD only.
 *
 * rows, width: its rows, and the elements of each. len of dadapt_tensor is rows*width.
 * state_of_caller: 0, or 1 where the caller keeps the state: alphak, sk, x0 and weighted_sk, each
 *     as large as the table, and all 0 before the table's first gradient.
 * dtype: DADAPT_DTYPE_F32 or DADAPT_DTYPE_F64, also of gradients and state.
 * Other arguments: as dadapt_optimizer_add_tensor.
 *
 * A step reads and writes the rows it is given and no others. Tables and other tensors may share an
 * optimizer; eps stands under the root here, as in the Python package.
 *
 * Errors: DADAPT_ERROR_NO_ROWS for other algorithms, _OUT_OF_BOUNDS for another state_of_caller;
 * else as dadapt_optimizer_add_tensor.
 */
dadapt_status dadapt_optimizer_add_rows(dadapt_optimizer *optimizer,
                                        dadapt_group group,
                                        const char *name,
                                        dadapt_dtype dtype,
                                        size_t rows,
                                        size_t width,
                                        int32_t state_of_caller,
                                        uint64_t *id);

/**
 * The id of the tensor of that name.
 *
 * id: out; NULL to learn only whether there is one.
 * Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _INVALID_UTF8, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_tensor_id(const dadapt_optimizer *optimizer,
                                         const char *name,
                                         uint64_t *id);

/* ---- Step ---- */

/** The type of the numbers of rows. */
typedef int32_t dadapt_index;

/**
 * One tensor of a step. Fill it with zeros first (memset, or = {0}): zero means default, and what
 * later versions add is then as it should be.
 */
typedef struct dadapt_tensor {
    /** sizeof(dadapt_tensor), the same in all elements of an array. */
    size_t struct_size;
    /** The tensor, by the id that it was registered with. */
    uint64_t id;
    /** Its elements, as many as registered. */
    size_t len;
    /** Its element type as registered; 0 where that need not be checked. */
    dadapt_dtype dtype;
    /**
     * The element type of g, where it is not the tensor's: F32, BF16 and F16 go with one another.
     * Else 0.
     */
    dadapt_dtype g_dtype;
    /** Parameters, in and out. May be NULL if len is 0. */
    void *p;
    /** Gradient, only read. NULL: absent, and the tensor is left as it is. */
    const void *g;
    /**
     * Where the caller keeps the state: state_count arrays, in and out, of the types that
     * dadapt_optimizer_state_info says and as large as dadapt_optimizer_state_bytes says; one of
     * 0 bytes may be NULL. Else NULL.
     */
    void *const *state;
    /** How many: dadapt_optimizer_state_count. 0 where the library keeps the state. */
    size_t state_count;
    /**
     * Of a table: the numbers of the rows that g has gradients of, side by side in their order, of
     * type row_type. A row may come several times; its gradients are then summed first, in that
     * order. Else NULL.
     */
    const void *rows;
    /** How many; g has as many rows. */
    size_t row_count;
    /** DADAPT_INDEX_U32 or DADAPT_INDEX_I64 of a table, also where row_count is 0; else 0. */
    dadapt_index row_type;
    /** 0. */
    int32_t reserved;
} dadapt_tensor;

/** What became of d in a step. */
typedef int32_t dadapt_movement;

/**
 * In what order a step went over the memory. Prodigy alone has a choice, since its parameters move
 * by the new d; all orders agree to within roundings.
 */
typedef int32_t dadapt_sweeps;

/** What a step did. Set struct_size before the step; the rest is written by it. */
typedef struct dadapt_report {
    /** sizeof(dadapt_report). */
    size_t struct_size;
    /** Steps that made progress, this one included. */
    uint64_t k;
    /** The estimate after the step. */
    double d;
    /** The estimate that this step alone argues for; d where the step has none. */
    double d_hat;
    /**
     * What the step was scaled by: d*lr of before the step, with Adam's bias correction or divided
     * by the norm of SGD's first gradients.
     */
    double dlr;
    /** Numerator of d_hat; 0 where the step has none. */
    double numerator;
    /** Denominator of d_hat; 0 where the step has none. */
    double denominator;
    /** Norm of all gradients where the step needed it, which is SGD's first; else NaN. */
    double grad_norm;
    /** 1 where parameters and state were updated, else 0. */
    int32_t applied;
    /** What became of d: DADAPT_MOVEMENT_.... */
    dadapt_movement movement;
    /** In what order the step went over the memory: DADAPT_SWEEPS_.... */
    dadapt_sweeps sweeps;
    /** 0. */
    int32_t reserved;
    /**
     * Parameters of BF16 or F16 that were finite as computed and became infinite as rounded. (A
     * master copy keeps the finite value.)
     */
    uint64_t overflows;
} dadapt_report;

/** d grew to d_hat. */
#define DADAPT_MOVEMENT_GREW 1
/** d grew by growth_rate, and d_hat is above that. */
#define DADAPT_MOVEMENT_GROWTH_LIMITED 2
/** d_hat is not above d, which never falls. */
#define DADAPT_MOVEMENT_NOT_ABOVE 3

/**
 * No gradient with a value other than 0, or none at all: nothing changed. (Where the sum that
 * divides became 0 by underflow or cancellation, the parameters did take their step.)
 */
#define DADAPT_MOVEMENT_NO_PROGRESS 4
/** Every group's lr is 0: nothing changed. */
#define DADAPT_MOVEMENT_LR_ZERO 5

/**
 * A gradient was not finite and such steps are skipped, or a sum was not finite, which leaves d as
 * it was.
 */
#define DADAPT_MOVEMENT_NON_FINITE 6
/** d_hat is above d_cap: d grew to the cap, or stays above one that was set lower since. */
#define DADAPT_MOVEMENT_CAPPED 7
/** Nothing is estimated: the algorithm is a plain one, or the optimizer is frozen. */
#define DADAPT_MOVEMENT_FIXED 8
/** None: nothing was updated. */
#define DADAPT_SWEEPS_NONE 0
/** One sweep did all. */
#define DADAPT_SWEEPS_ONE 1
/** One sweep with the old d, and a second to mend the parameters, since d changed. */
#define DADAPT_SWEEPS_MENDED 2

/**
 * One sweep for sums and state, and a second that moves the parameters: while d is d0, after a
 * step that changed d, and always where Prodigy's beta1 is 0.
 */
#define DADAPT_SWEEPS_TWO 3
/** uint32_t. */
#define DADAPT_INDEX_U32 1
/** int64_t. Negative numbers are an error. */
#define DADAPT_INDEX_I64 2

/**
 * One step: updates parameters and state in one pass over memory, then the estimate d.
 *
 * Prodigy may take two passes: the report's sweeps.
 *
 * tensors: n of them, each tensor once at most, in any order. Those left out, those whose gradient
 *     is NULL and those of a group with lr 0 stay as they are. The arrays may lie elsewhere in
 *     each step. They hold len initialised elements of their types, and no other thread uses them
 *     during the call. Gradients may share memory with one another; otherwise no two arrays may.
 * report: what the step did, as far as its struct_size goes; NULL where it is not wanted. With
 *     d_per_group it is the first group's; dadapt_optimizer_group_report has the others'.
 *
 * Everything is checked before anything is written: on an error but DADAPT_ERROR_INTERNAL all
 * arrays, d, k and the report are as they were.
 * Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _TENSOR_TWICE, _UNKNOWN_DTYPE, _DTYPE, _GRADIENT_DTYPE,
 * _GRADIENT_KEPT_IN, _LENGTH, _STATE_COUNT, _NULL_POINTER, _MISALIGNED, _OVERLAP, _GRADIENT_KIND,
 * _ROW_OUT_OF_RANGE: of the arrays. _STRUCT_SIZE, _RESERVED: of the structs. _MIXED_LR,
 * _COEFFICIENT, _NOT_FOR_ROWS: of the options. _NON_FINITE_GRADIENT: of the gradients. _THREADS: of
 * the system. _STEP_OPEN: a step in parts has not ended. _POISONED: after an earlier _INTERNAL.
 *
 * After the first step of the same tensors nothing is allocated, but where a line is
 * logged and what handing out a large step to threads takes.
 */
dadapt_status dadapt_optimizer_step(dadapt_optimizer *optimizer,
                                    const struct dadapt_tensor *tensors,
                                    size_t n,
                                    struct dadapt_report *report);

/**
 * What the last step did to a group and its d.
 *
 * With d_per_group it is about the group's own d, else the report of the step. Before the first
 * step: d0, and no progress.
 *
 * report: out, as far as its struct_size goes.
 * Errors: DADAPT_ERROR_UNKNOWN_GROUP, _STRUCT_SIZE, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_group_report(const dadapt_optimizer *optimizer,
                                            dadapt_group group,
                                            struct dadapt_report *report);

/**
 * Words for a movement of a report, "limited by growth_rate"; NULL for other codes. Never freed.
 * Any thread.
 */
const char *dadapt_movement_name(dadapt_movement movement);

/* ---- Step in parts ---- */

/**
 * Begins a step that is given tensors one at a time, so that each gradient can be freed at once.
 *
 * dadapt_optimizer_step_tensor follows for each, then dadapt_optimizer_step_end. The bits are
 * those of dadapt_optimizer_step with all of them.
 *
 * Until the step has ended or is aborted, whatever else would change the optimizer is
 * DADAPT_ERROR_STEP_OPEN; freeing it is fine.
 *
 * Errors: DADAPT_ERROR_NOT_IN_PARTS for Prodigy, unless it is frozen, and under
 * DADAPT_NON_FINITE_SKIP. DADAPT_ERROR_MIXED_LR, _THREADS, _STEP_OPEN, _POISONED, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_step_begin(dadapt_optimizer *optimizer);

/**
 * Updates one tensor in the step that has begun.
 *
 * tensor: as in dadapt_optimizer_step. Its gradient may be freed or written again afterwards.
 *     Parameters and state must stay where they are, and be used by nobody, until the step has
 *     ended: all of SGD's first step is left until then, and so are tensors that have had no
 *     gradient other than 0 while nothing else has made progress.
 *
 * Several threads may call this at once for different tensors. Meanwhile no other function may use
 * the optimizer but those that take it as const: who begins and ends the step waits for the
 * threads. With several, ask dadapt_last_error what was wrong, and not
 * dadapt_optimizer_last_error.
 *
 * Errors: as dadapt_optimizer_step, of this tensor: it is then as it was and may be given again.
 * Those given before are updated already. DADAPT_ERROR_OVERLAP is of this tensor's arrays alone:
 * that those of different tensors share no memory is not checked here.
 * DADAPT_ERROR_NO_STEP_OPEN: none has begun.
 */
dadapt_status dadapt_optimizer_step_tensor(dadapt_optimizer *optimizer,
                                           const dadapt_tensor *tensor);

/**
 * Ends the step: updates what was left until now, then the estimate d.
 *
 * report: as in dadapt_optimizer_step.
 * Errors: DADAPT_ERROR_COEFFICIENT in SGD's first step, which is over then and has changed nothing
 * but s, which counts for nothing yet; with d_per_group, in those groups whose first step it is,
 * while the others have taken theirs. DADAPT_ERROR_STRUCT_SIZE of the report: the step is still
 * open. DADAPT_ERROR_NO_STEP_OPEN, _POISONED, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_step_end(dadapt_optimizer *optimizer, dadapt_report *report);

/**
 * Ends the step without an estimate: d and k are as they were. (AdaGrad's totals take in what has
 * been updated, since they go with its state.)
 *
 * Tensors that have been updated stay so; the others are as they were. (SGD's first step has kept
 * gradients in s, which counts for nothing yet.) Where no step is open nothing is done, and count
 * is 0.
 *
 * ids: out, the tensors that have been updated, the first capacity of them; NULL where capacity is
 * 0.
 * count: out, how many have been updated, be it more than capacity; NULL where it is not wanted.
 * Errors: DADAPT_ERROR_NULL_POINTER, and the step is still open; DADAPT_ERROR_POISONED.
 */
dadapt_status dadapt_optimizer_step_abort(dadapt_optimizer *optimizer,
                                          uint64_t *ids,
                                          size_t capacity,
                                          size_t *count);

/* ---- State ---- */

/**
 * How many state arrays a tensor has, whoever owns them: dadapt_algorithm_state_count, and one more
 * where there is a master copy (DADAPT_KEY_MASTER); of a table of rows, 4.
 *
 * count: out. Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_state_count(const dadapt_optimizer *optimizer,
                                           uint64_t id,
                                           size_t *count);

/**
 * What a tensor's state array of that number is, whoever owns it.
 *
 * name: out, as dadapt_algorithm_state_name has it; "master" of a master copy; those of a table of
 * rows are alphak, sk, x0 and weighted_sk. Never freed.
 * dtype: out, what it is kept in, which it is also aligned to.
 * len: out, its elements: those of the tensor, or of its slice, or 0 where the options or
 * dadapt_optimizer_freeze leave the array out. Prodigy drops the p0 of a tensor that is all 0 at its
 * first gradient, where it is the library's. Each is NULL where it is not wanted.
 * Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _UNKNOWN_STATE, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_state_info(const dadapt_optimizer *optimizer,
                                          uint64_t id,
                                          size_t slot,
                                          const char **name,
                                          dadapt_dtype *dtype,
                                          size_t *len);

/**
 * A tensor's state array of that number, where the library owns it: to look at and to change
 * between steps.
 *
 * state: out, len elements of dtype, aligned to them, in as many bytes as
 * dadapt_optimizer_state_bytes says; NULL where len is 0. It stays where it is until the optimizer
 * is freed or frozen; p0 of Prodigy only until the tensor's first gradient.
 * len, dtype: out, as dadapt_optimizer_state_info has them. Each is NULL where it is not wanted.
 * Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _UNKNOWN_STATE, _STATE_OF_CALLER, _NULL_POINTER.
 * The optimizer must not be in use by another thread.
 */
dadapt_status dadapt_optimizer_state(dadapt_optimizer *optimizer,
                                     uint64_t id,
                                     size_t slot,
                                     void **state,
                                     size_t *len,
                                     dadapt_dtype *dtype);

/**
 * The size of a tensor's state array of that number, whoever owns it: of as many elements of its
 * own type as dadapt_optimizer_state_info says and, of DADAPT_DTYPE_Q8, of the exponents that they
 * share: one for each 256 elements and one for what is left over, by slices counted within each
 * 4,096 elements of the parameter.
 *
 * bytes: out. Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _UNKNOWN_STATE, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_state_bytes(const dadapt_optimizer *optimizer,
                                           uint64_t id,
                                           size_t slot,
                                           size_t *bytes);

/**
 * The values of a tensor's state array of that number as doubles, exactly, whatever it is kept in.
 * Nothing is allocated.
 *
 * state: NULL where the library owns it; else the caller's array, only read.
 * first, n: which elements, of the len that dadapt_optimizer_state_info says.
 * values: out, n of them. NULL where n is 0.
 * Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _UNKNOWN_STATE; _STATE_OF_CALLER, where state is NULL and
 * must not be; _STATE_COUNT, where it is not and must be; _LENGTH, where there are not so many
 * elements; _MISALIGNED, _NULL_POINTER.
 * The optimizer must not be in use by another thread.
 */
dadapt_status dadapt_optimizer_state_values(dadapt_optimizer *optimizer,
                                            uint64_t id,
                                            size_t slot,
                                            const void *state,
                                            size_t first,
                                            size_t n,
                                            double *values);

/* ---- Going on from an earlier run ---- */

/**
 * What an estimate carries from step to step. With it, the dadapt_progress of each tensor, the
 * state arrays and the options, an optimizer goes on as another would have done, to the bit.
 */
typedef struct dadapt_estimate {
    /** sizeof(dadapt_estimate). */
    size_t struct_size;
    /** Steps that made progress. */
    uint64_t k;
    /** The estimate. */
    double d;
    /**
     * Running totals by the names of the Python packages, the rest 0: numerator_weighted of adam,
     * sgd, lion and experimental_adan_ip; gsq_weighted of adan and experimental_adam_preprint;
     * d_numerator, d_max of prodigy; sksq_weighted, gsq_weighted, skl1 of adagrad.
     */
    double totals[3];
    /** Norm of the first gradients of sgd; of other algorithms 0. */
    double g0_norm;
    /** 1 where the last step changed d, on which the order of Prodigy's sweeps depends; else 0. */
    int32_t d_moved;
    /** 0. */
    int32_t reserved;
} dadapt_estimate;

/** What is known of a tensor beside its state arrays. */
typedef struct dadapt_progress {
    /** sizeof(dadapt_progress). */
    size_t struct_size;
    /**
     * Updates since its state was set up. With 0 the next gradient sets the state up, whatever it
     * holds.
     */
    uint64_t steps;
    /** 1 where some gradient of its was not 0, else 0. */
    int32_t moved;
    /**
     * 1 where it was 0 all over at its first gradient, so that Prodigy's p0 is 0 and, of the
     * library's own, takes no memory; else 0.
     */
    int32_t started_at_zero;
    /**
     * 1 where its master copy, if it has one, holds the parameter: from its first update on, whatever
     * steps is after dadapt_optimizer_restart. With 0 the next gradient makes the copy anew.
     */
    int32_t master_is_set;
    /** 0. */
    int32_t reserved;
} dadapt_progress;

/**
 * What a group's estimate carries on, to be saved. Without d_per_group, every group's is the same.
 *
 * estimate: out, as far as its struct_size goes.
 * Errors: DADAPT_ERROR_UNKNOWN_GROUP, _STRUCT_SIZE, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_estimate(const dadapt_optimizer *optimizer,
                                        dadapt_group group,
                                        struct dadapt_estimate *estimate);

/**
 * Puts back what a group's estimate had come to, in this library or, by the names above, in the
 * Python packages. The report is then that of an optimizer that has not stepped.
 *
 * Set DADAPT_KEY_D0 first, which is fixed while k is above 0. Allowed between steps.
 *
 * Errors: DADAPT_ERROR_OUT_OF_BOUNDS: d is not within the bounds of d0, a total is not finite,
 * g0_norm is not a norm, k is above 2^53. DADAPT_ERROR_UNKNOWN_GROUP, _STEP_OPEN, _STRUCT_SIZE,
 * _RESERVED, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_set_estimate(dadapt_optimizer *optimizer,
                                            dadapt_group group,
                                            const struct dadapt_estimate *estimate);

/**
 * What is known of a tensor beside its state arrays, to be saved.
 *
 * progress: out, as far as its struct_size goes.
 * Errors: DADAPT_ERROR_UNKNOWN_TENSOR, _STRUCT_SIZE, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_tensor_progress(const dadapt_optimizer *optimizer,
                                               uint64_t id,
                                               struct dadapt_progress *progress);

/**
 * Puts back what was known of a tensor. Where steps is above 0, the state arrays hold what those
 * steps left there: fill them by dadapt_optimizer_state, or give them to the next step. A p0 of the
 * caller's is 0 all over with started_at_zero.
 *
 * Allowed between steps.
 * Errors: DADAPT_ERROR_OUT_OF_BOUNDS: steps is above 2^53. DADAPT_ERROR_UNKNOWN_TENSOR, _STEP_OPEN,
 * _STRUCT_SIZE, _RESERVED, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_set_tensor_progress(dadapt_optimizer *optimizer,
                                                   uint64_t id,
                                                   const struct dadapt_progress *progress);

/* ---- Threads ---- */

/** What a dadapt_executor calls: one share of the work, whose number is index. */
typedef void (*dadapt_work)(void *work, size_t index);

/**
 * Calls call(work, index) once for each index below n, as many at once as it can, and returns when all
 * have returned: "#pragma omp parallel for schedule(static, 1)" over index, or what another pool has
 * for that. The calling thread should take part.
 *
 * Only time depends on which calls are made, and where; those that are not are done for. An index that
 * is on the same thread in every step finds in its caches what it had there before.
 */
typedef void (*dadapt_executor)(void *context, size_t n, dadapt_work call, void *work);

/**
 * Of an OpenMP runtime, GOMP_parallel: calls call(work) on so many threads, this one among them.
 */
typedef void (*dadapt_openmp_parallel)(void (*call)(void *work),
                                       void *work,
                                       unsigned int threads,
                                       unsigned int flags);

/** Of an OpenMP runtime, omp_get_thread_num. */
typedef int (*dadapt_openmp_thread_num)(void);

/**
 * Runs large steps on threads that the program has already, in place of a pool of the library's.
 *
 * A pool whose threads spin between their tasks, as those of OpenMP do for some milliseconds, leaves no
 * processor to another: a step that comes right after its work is faster on that pool. num_threads
 * says into how many shares the work is cut, where it is not 1. Bits do not depend on it.
 *
 * run: NULL goes back to threads of the library's. context: what it is called with. It is called in
 *     the default floating-point environment, by any thread that steps, at once where several do.
 *     A forked child does not call its parent's.
 * Errors: DADAPT_ERROR_STEP_OPEN, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_set_executor(dadapt_optimizer *optimizer,
                                            dadapt_executor run,
                                            void *context);

/**
 * Runs large steps on the threads of an OpenMP runtime, as dadapt_optimizer_set_executor does: for
 * bindings, which have its functions and no compiler for its pragmas. (GCC's libgomp has them, and so
 * have LLVM's and Intel's runtimes.)
 *
 * parallel, thread_num: the runtime's GOMP_parallel and omp_get_thread_num.
 * Errors: DADAPT_ERROR_STEP_OPEN, _NULL_POINTER.
 */
dadapt_status dadapt_optimizer_set_openmp(dadapt_optimizer *optimizer,
                                          dadapt_openmp_parallel parallel,
                                          dadapt_openmp_thread_num thread_num);

/* ---- DLPack ---- */

/**
 * DLPack's dltensor_from_py_object_no_sync: describes the array of an object in a DLTensor that
 * borrows from it, and returns 0; anything else where it cannot.
 */
typedef int (*dadapt_dlpack_from_object)(void *object, void *tensor);

/**
 * The object at an index of a list, borrowed: Python's PyList_GetItem. NULL where there is none.
 */
typedef void *(*dadapt_dlpack_item)(void *list, ptrdiff_t index);

/**
 * The object that a key has in an item of the list, borrowed: Python's PyDict_GetItemWithError.
 * NULL where there is none.
 */
typedef void *(*dadapt_dlpack_value)(void *item, void *key);

/** What an array must be, and where its address goes. */
typedef struct dadapt_dlpack_array {
    /** Its elements. */
    size_t len;
    /**
     * Their type. DADAPT_DTYPE_Q8 stands for bytes, of which 8-bit state is made; len is then
     * what dadapt_optimizer_state_bytes says.
     */
    dadapt_dtype dtype;
    /** 0. */
    int32_t reserved;
    /** Out: where it starts; NULL, it may be, where it has no elements. */
    void **data;
} dadapt_dlpack_array;

/**
 * Finds where the arrays of objects lie, for bindings of languages whose frameworks share arrays by
 * DLPack's C exchange API, as PyTorch does from 2.10 on: one call for all parameters, gradients and
 * state of a step, into the descriptors.
 *
 * from_object, item, value: the framework's and the language's functions. Where one of them fails it
 *     may have left an exception, which is the caller's to look at: in Python, hold the GIL.
 * lists, keys: columns of them. The objects are the first n items of each list or, where its key is
 *     not NULL, what that key has in them. value may be NULL if all keys are.
 * arrays: n of the first list, n of the second, and so on. The places in data may be anywhere else,
 *     each its own.
 * found: out; columns*n, or how many came before the first object whose array could not be had, or is
 *     not as arrays says, contiguous, on the CPU and with memory. The addresses of those are
 *     written, others not.
 *
 * Any thread that the functions may run on.
 * Errors: DADAPT_ERROR_UNKNOWN_DTYPE, _RESERVED, _TOO_LONG, _NULL_POINTER.
 */
dadapt_status dadapt_dlpack_data(dadapt_dlpack_from_object from_object,
                                 dadapt_dlpack_item item,
                                 dadapt_dlpack_value value,
                                 void *const *lists,
                                 void *const *keys,
                                 size_t columns,
                                 size_t n,
                                 const struct dadapt_dlpack_array *arrays,
                                 size_t *found);

#ifdef __cplusplus
}
#endif

#endif
