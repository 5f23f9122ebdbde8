// One build for any machine: a kernel is a struct with a static, inlined `run` over raw pointers. It is compiled for
// the baseline instruction set and, on x86-64, for AVX2 and AVX-512; the best that this machine has is called.
#pragma once

#include <cstdint>

namespace deepshap::ops {

#define DEEPSHAP_INLINE [[gnu::always_inline]] static inline
// Has a lambda inlined; it stands behind the lambda's parameters.
#define DEEPSHAP_INLINED __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__)
#define DEEPSHAP_X86 1
#define DEEPSHAP_AVX2 "avx2,fma,f16c"
#ifdef __clang__
#define DEEPSHAP_AVX512 "avx512f,avx512vl,avx512dq,avx512bw,fma,f16c"
#else
#define DEEPSHAP_AVX512 "avx512f,avx512vl,avx512dq,avx512bw,fma,f16c,prefer-vector-width=512"
#endif

enum class Instructions { baseline, avx2, avx512 };

inline Instructions instructions() {
  static const Instructions best = [] {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
      return Instructions::baseline;
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    return avx512 ? Instructions::avx512 : Instructions::avx2;
  }();
  return best;
}

// `flatten` pulls every callee into the function, so that the callees too are compiled for its instruction set.
template <class Kernel, class... Arguments>
[[gnu::target(DEEPSHAP_AVX512), gnu::flatten, gnu::noinline]] void run_avx512(Arguments... arguments) {
  Kernel::run(arguments...);
}

template <class Kernel, class... Arguments>
[[gnu::target(DEEPSHAP_AVX2), gnu::flatten, gnu::noinline]] void run_avx2(Arguments... arguments) {
  Kernel::run(arguments...);
}
#endif

template <class Kernel, class... Arguments>
[[gnu::flatten, gnu::noinline]] void run_baseline(Arguments... arguments) {
  Kernel::run(arguments...);
}

template <class Kernel, class... Arguments>
inline void simd(Arguments... arguments) {
#ifdef DEEPSHAP_X86
  if (instructions() == Instructions::avx512) return run_avx512<Kernel>(arguments...);
  if (instructions() == Instructions::avx2) return run_avx2<Kernel>(arguments...);
#endif
  run_baseline<Kernel>(arguments...);
}

}  // namespace deepshap::ops
