#pragma once

#ifdef __CUDACC__
#define DEEPSHAP_HOST_DEVICE __host__ __device__ inline
#else
#define DEEPSHAP_HOST_DEVICE inline
#endif
