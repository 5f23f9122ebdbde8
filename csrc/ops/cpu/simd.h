// One build for any machine: a kernel is a struct with a static, inlined `run` over raw pointers, compiled once for the
// baseline instruction set and once for AVX2, and the better one that this machine has is called.
#pragma once

#include <cstdint>

namespace deepshap::ops {

#if defined(__x86_64__) && defined(__GNUC__)
#define DEEPSHAP_AVX2 1
#endif

#define DEEPSHAP_INLINE [[gnu::always_inline]] static inline

#ifdef DEEPSHAP_AVX2
inline bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  return has;
}

// `flatten` pulls every callee into the function, so that the callees too are compiled for its instruction set.
template <class Kernel, class... Arguments>
[[gnu::target("avx2,f16c"), gnu::flatten, gnu::noinline]] void run_avx2(Arguments... arguments) {
  Kernel::run(arguments...);
}
#endif

template <class Kernel, class... Arguments>
[[gnu::flatten, gnu::noinline]] void run_baseline(Arguments... arguments) {
  Kernel::run(arguments...);
}

template <class Kernel, class... Arguments>
inline void simd(Arguments... arguments) {
#ifdef DEEPSHAP_AVX2
  if (has_avx2()) return run_avx2<Kernel>(arguments...);
#endif
  run_baseline<Kernel>(arguments...);
}

}  // namespace deepshap::ops
