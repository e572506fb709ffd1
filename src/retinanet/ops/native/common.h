/* Shared by all kernels: exported names, the choice of the instruction set, and the parallel loop.

   The library does not depend on Python or torch. Its functions take addresses, sizes and a number of threads, which
   the caller (the Python files of `retinanet.ops`) has checked. The only state between calls is the chosen instruction
   set and the team of threads. */
#ifndef RN_COMMON_H
#define RN_COMMON_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Raise this number with every change of an exported function, here and in native_library.py. An old build is then not
   loaded. */
#define RN_ABI 5

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

/* Return the instruction set of the kernels. */
int rn_isa(void);

/* Compute one block. `worker` is below the number of threads and unique among running calls: use it as the index of a
   scratch buffer. */
typedef void (*rn_task)(void *context, int64_t block, int worker);

/* GOMP_parallel of an OpenMP library: call the function with the argument on the given number of threads at once.

   torch and this library share threads if both use one OpenMP library. Otherwise torch's threads compete with ours,
   because OpenMP threads wait for work in a busy loop for some milliseconds. A team must not be used in a forked
   child. */
typedef void (*rn_team)(void (*)(void *), void *, unsigned, unsigned);

/* Run the blocks 0 .. blocks - 1, each once, on at most `threads` threads, including the calling thread.

   The threads are those of the team. Without a team, the function starts threads and ends them before it returns. If
   the system cannot start a thread, the blocks run on fewer threads. Several Python threads may call the function at
   once. The assignment of blocks to threads differs between runs. So a kernel that sums must store one partial sum per
   block and add the partial sums in the order of the blocks. */
void rn_parallel(int64_t blocks, int threads, rn_task task, void *context);

#define RN_JOIN2(a, b) a##b
#define RN_JOIN(a, b) RN_JOIN2(a, b)

/* Call name_avx512, name_avx2 or name_baseline, by the chosen instruction set. For use outside of a body file. */
#if RN_X86
#define RN_DISPATCH(name, ...)                                                                                         \
    (rn_isa() == RN_AVX512 ? RN_JOIN(name, _avx512)(__VA_ARGS__)                                                       \
     : rn_isa() == RN_AVX2 ? RN_JOIN(name, _avx2)(__VA_ARGS__)                                                         \
                           : RN_JOIN(name, _baseline)(__VA_ARGS__))
#else
#define RN_DISPATCH(name, ...) RN_JOIN(name, _baseline)(__VA_ARGS__)
#endif

#endif
