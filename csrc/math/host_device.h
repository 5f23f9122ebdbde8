// Marks what compiles for the host and, under nvcc, for the device as well.
#pragma once

#ifdef __CUDACC__
#define DEEPSHAP_HOST_DEVICE __host__ __device__ inline
#define DEEPSHAP_UNROLL _Pragma("unroll")
#else
#define DEEPSHAP_HOST_DEVICE inline
#define DEEPSHAP_UNROLL _Pragma("GCC unroll 32")
#endif
