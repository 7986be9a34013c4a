//! The instructions behind the attention kernels, one function each: asynchronous copies to shared memory, 8 x 8 matrix
//! loads, the tensor-core product of bf16 or of f16, and base-2 exponentials. sm_80 and later.
//!
//! Fragments of a 16 x 8 x 16 product, lane = 4 * g + t: A holds rows g and g + 8, columns 2t, 2t + 1 and 8 more; B
//! holds column g, rows 2t, 2t + 1 and 8 more; C holds rows g (first two values) and g + 8 (last two), columns 2t and
//! 2t + 1.
#pragma once

#include "common.cuh"

// A byte address in shared memory: 32 bits where a generic pointer takes 64, in kernels short of registers.
using Shared = uint32_t;

__device__ __forceinline__ Shared shared_address(const void* pointer) {
    return static_cast<Shared>(__cvta_generic_to_shared(pointer));
}

// Starts copying 16 bytes, past L1. Both addresses are 16-byte aligned.
__device__ __forceinline__ void copy_async(Shared to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// The same for 8 bytes, 8-byte aligned.
template <typename T> __device__ __forceinline__ void copy_async_8(Shared to, const T* from) {
    static_assert(sizeof(T) == 8, "one element is copied");
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from) : "memory");
}

// Closes the group of copies that this thread started since the last call.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of this thread's newest groups are under way.
template <int PENDING> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four 8 x 8 matrices; lanes 8i..8i+8 give the row addresses of matrix i.
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], Shared from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(from)
                 : "memory");
}

// The same, each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], Shared from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(from)
                 : "memory");
}

// c += a * b with a 16 x 16, b 16 x 8 (two registers), c 16 x 8; E: what a and b are made of.
template <typename E>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ __forceinline__ void multiply_add<f16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void multiply_add<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2^x to about 2 ulp; 0 for -infinity.
__device__ __forceinline__ float exp2_fast(float x) {
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
