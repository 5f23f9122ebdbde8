// Marks what compiles for the host and, under nvcc, for the device as well.
#pragma once

#ifdef __CUDACC__
#define DEEPSHAP_HOST_DEVICE __host__ __device__ inline
#define DEEPSHAP_UNROLL _Pragma("unroll")
#else
// A formula that stays a call keeps the loop over it from being vectorised, and g++ leaves some calls even in a
// `flatten` function.
#define DEEPSHAP_HOST_DEVICE [[gnu::always_inline]] inline
#define DEEPSHAP_UNROLL _Pragma("GCC unroll 32")
#endif
