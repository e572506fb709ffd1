/* Shared by all kernels: exported names, the choice of the instruction set, and the parallel loop.

   The library does not depend on Python or torch. It gets addresses, sizes and a number of threads. The caller (the
   Python files of `retinanet.ops`) has checked them. Only the chosen instruction set and the team outlive a call. */
#ifndef RN_COMMON_H
#define RN_COMMON_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Raise this number with every change of an exported function, here and in native_library.py, so that an old build is
   refused. */
#define RN_ABI 3

#if defined(_WIN32)
#define RN_EXPORT __declspec(dllexport)
#else
#define RN_EXPORT __attribute__((visibility("default")))
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define RN_X86 1
#else
#define RN_X86 0
#endif

enum { RN_BASELINE = 0, RN_AVX2 = 1, RN_AVX512 = 2 };

/* The instruction set that the kernels run with. */
int rn_isa(void);

/* One block of work. `worker` is below the number of threads: it may choose a scratch buffer. */
typedef void (*rn_task)(void *context, int64_t block, int worker);

/* GOMP_parallel of an OpenMP library: calls the function with the argument on so many threads at once. With the library
   that torch computes with, both share their threads. Otherwise its threads, which wait for the next work by turning in
   a loop for some milliseconds, keep ours from the cores. Not to be used in a forked child. */
typedef void (*rn_team)(void (*)(void *), void *, unsigned, unsigned);

/* Run the blocks 0 .. blocks - 1, each once, on at most `threads` threads, the calling one among them.

   They are the team's if there is one, else they are made for this call and end with it. Several Python threads may
   call at once. Which thread gets which block differs from run to run: a sum must be kept for each block and added up in
   their order afterwards. Works with fewer threads where the system gives no more. */
void rn_parallel(int64_t blocks, int threads, rn_task task, void *context);

#define RN_JOIN2(a, b) a##b
#define RN_JOIN(a, b) RN_JOIN2(a, b)

/* In an entry point: call name_avx512, name_avx2 or name_baseline. */
#if RN_X86
#define RN_DISPATCH(name, ...)                                                                                         \
    (rn_isa() == RN_AVX512 ? RN_JOIN(name, _avx512)(__VA_ARGS__)                                                       \
     : rn_isa() == RN_AVX2 ? RN_JOIN(name, _avx2)(__VA_ARGS__)                                                         \
                           : RN_JOIN(name, _baseline)(__VA_ARGS__))
#else
#define RN_DISPATCH(name, ...) RN_JOIN(name, _baseline)(__VA_ARGS__)
#endif

#endif
