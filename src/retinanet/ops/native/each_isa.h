/* Compile the file named by RN_BODY once for each instruction set:

       #define RN_BODY "focal_body.h"
       #include "each_isa.h"

   In the body, RN_FN(name) expands to name_avx512, name_avx2 and name_baseline. All functions must be static and named
   with RN_FN. RN_LANES is the number of float32 values in a vector register. Write plain loops, or vectors of RN_LANES
   floats with the attribute `vector_size` of GCC and clang. The baseline runs on every processor of an architecture:
   SSE2 on x86-64, NEON on arm64, scalar code elsewhere. The file has no include guard, because a source may include it
   several times. */
#define RN_FN(name) RN_JOIN(name, RN_SUFFIX)

#define RN_SUFFIX _baseline
#define RN_LANES 4
#define RN_THIS_ISA RN_BASELINE
#include RN_BODY
#undef RN_SUFFIX
#undef RN_LANES
#undef RN_THIS_ISA

#if RN_X86

#define RN_SUFFIX _avx2
#define RN_LANES 8
#define RN_THIS_ISA RN_AVX2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt")
#endif
#include RN_BODY
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef RN_SUFFIX
#undef RN_LANES
#undef RN_THIS_ISA

#define RN_SUFFIX _avx512
#define RN_LANES 16
#define RN_THIS_ISA RN_AVX512
#if defined(__clang__)
#pragma clang attribute push(                                                                                          \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt"))),                 \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target(                                                                                                    \
    "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c,bmi,bmi2,popcnt,lzcnt,prefer-vector-width=512")
#endif
#include RN_BODY
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef RN_SUFFIX
#undef RN_LANES
#undef RN_THIS_ISA

#endif

#undef RN_FN
#undef RN_BODY
