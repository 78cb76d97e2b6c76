// CUDA's runtime headers include this file of the compiler's, which the wheels do not bring: the
// words that it defines, for a plain C++ compiler.
#pragma once
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __cudart_builtin__
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __align__(n) __attribute__((aligned(n)))
#define __host__
#define __device__
#define __global__
#define __shared__
#define __forceinline__ inline
#define CUDARTAPI
#define CUDARTAPI_CDECL
