//! What the kernels share: eight-wide loads and stores, and sums over a warp and a block. Statistics and sums are
//! always float32. Vector accesses are 16 bytes wide: pointers must be 16-byte aligned and widths multiples of 8.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

using bf16 = __nv_bfloat16;
using f16 = __half;

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int WARP = 32;
constexpr int VECTOR = 8; // elements that a thread moves at a time

struct Floats8 {
    float at[VECTOR];
};

__device__ __forceinline__ float negative_infinity() { return __int_as_float(0xff800000); }
__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fffffff); }

__device__ __forceinline__ float to_float(bf16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float to_float(f16 value) { return __half2float(value); }
__device__ __forceinline__ float to_float(float value) { return value; }

// Rounds to the precision in which T is kept in memory.
__device__ __forceinline__ float rounded(float value, bf16) { return __bfloat162float(__float2bfloat16_rn(value)); }
__device__ __forceinline__ float rounded(float value, float) { return value; }

// Two float32 as one register of two bf16, `low` in the low half (the lower address).
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

// The same as two f16. What f16 cannot hold is held at its largest, 65504; NaN stays.
__device__ __forceinline__ uint32_t pack_f16(float low, float high) {
    const __half2 most = __float2half2_rn(65504.0f);
    const __half2 pair = __hmin2_nan(__hmax2_nan(__floats2half2_rn(low, high), __hneg2(most)), most);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high);
template <> __device__ __forceinline__ uint32_t pack<bf16>(float low, float high) { return pack_bf16(low, high); }
template <> __device__ __forceinline__ uint32_t pack<f16>(float low, float high) { return pack_f16(low, high); }

__device__ __forceinline__ void store_one(bf16* to, float value) { *to = __float2bfloat16_rn(value); }
__device__ __forceinline__ void store_one(f16* to, float value) {
    *to = __ushort_as_half(static_cast<unsigned short>(pack_f16(value, 0.0f)));
}

__device__ __forceinline__ Floats8 load8(const bf16* from) {
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    Floats8 out;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out.at[2 * i] = __uint_as_float(words[i] << 16);
        out.at[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
    return out;
}

__device__ __forceinline__ Floats8 load8(const f16* from) {
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    Floats8 out;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
        out.at[2 * i] = pair.x;
        out.at[2 * i + 1] = pair.y;
    }
    return out;
}

__device__ __forceinline__ Floats8 load8(const float* from) {
    const float4 low = reinterpret_cast<const float4*>(from)[0];
    const float4 high = reinterpret_cast<const float4*>(from)[1];
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}

__device__ __forceinline__ void store8(bf16* to, const Floats8& v) {
    *reinterpret_cast<uint4*>(to) = make_uint4(pack_bf16(v.at[0], v.at[1]), pack_bf16(v.at[2], v.at[3]),
                                               pack_bf16(v.at[4], v.at[5]), pack_bf16(v.at[6], v.at[7]));
}

__device__ __forceinline__ void store8(f16* to, const Floats8& v) {
    *reinterpret_cast<uint4*>(to) = make_uint4(pack_f16(v.at[0], v.at[1]), pack_f16(v.at[2], v.at[3]),
                                               pack_f16(v.at[4], v.at[5]), pack_f16(v.at[6], v.at[7]));
}

__device__ __forceinline__ void store8(float* to, const Floats8& v) {
    reinterpret_cast<float4*>(to)[0] = make_float4(v.at[0], v.at[1], v.at[2], v.at[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(v.at[4], v.at[5], v.at[6], v.at[7]);
}

__device__ __forceinline__ float sum_of_squares(const Floats8& v) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) sum = fmaf(v.at[i], v.at[i], sum);
    return sum;
}

// Sum over aligned groups of `lanes` lanes (a power of two); every lane of the warp must call.
__device__ __forceinline__ float group_sum(float value, int lanes) {
    for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

// Sum over a block of whole warps; every thread must call, once per kernel, and gets the sum.
__device__ __forceinline__ float block_sum(float value) {
    __shared__ float partial[WARP];
    const int lane = threadIdx.x % WARP;
    value = group_sum(value, WARP);
    if (lane == 0) partial[threadIdx.x / WARP] = value;
    __syncthreads();
    return group_sum(lane < static_cast<int>(blockDim.x) / WARP ? partial[lane] : 0.0f, WARP);
}
