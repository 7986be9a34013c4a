//! Rows of logits in chunks, and log-sum-exp that can be put together from parts.
#pragma once

#include "common.cuh"

constexpr int CHUNK = 4096; // logits of a row that one block reads
constexpr int LOGIT_THREADS = 256;
constexpr int LOGITS = 4; // that a thread reads at a time

// log(sum of exp) as the highest term and the sum relative to it; a NaN among the terms makes the sum NaN.
struct LogSumExp {
    float top, sum;

    __device__ __forceinline__ static LogSumExp empty() { return {negative_infinity(), 0.0f}; }
    __device__ __forceinline__ float value() const { return top == negative_infinity() ? top + sum : top + logf(sum); }

    __device__ __forceinline__ void add(const float (&terms)[LOGITS]) {
        const float highest = fmaxf(fmaxf(fmaxf(terms[0], terms[1]), fmaxf(terms[2], terms[3])), top);
        // While every term is -infinity (masked, or past the row's end) there is nothing to subtract from.
        const float base = highest == negative_infinity() ? 0.0f : highest;
        sum *= __expf(top - base);
#pragma unroll
        for (int i = 0; i < LOGITS; ++i) sum += __expf(terms[i] - base);
        top = highest;
    }

    __device__ __forceinline__ LogSumExp merged(const LogSumExp& other) const {
        const float highest = fmaxf(top, other.top);
        const float base = highest == negative_infinity() ? 0.0f : highest;
        return {highest, sum * __expf(top - base) + other.sum * __expf(other.top - base)};
    }

    // Over the warp's lanes; all of them get the result.
    __device__ __forceinline__ LogSumExp over_warp() const {
        LogSumExp all = *this;
        for (int step = WARP / 2; step > 0; step /= 2) {
            const float other_top = __shfl_xor_sync(ALL_LANES, all.top, step);
            const float other_sum = __shfl_xor_sync(ALL_LANES, all.sum, step);
            all = all.merged({other_top, other_sum});
        }
        return all;
    }
};

// Logits first..first + 4 of a row, as -infinity past its end. `first` is a multiple of 4; where `whole` (the row's
// length is a multiple of 4, so that every row is aligned) in one access.
__device__ __forceinline__ void load_logits(float (&out)[LOGITS], const float* row, int first, int length, bool whole) {
    if (whole && first < length) {
        const float4 v = *reinterpret_cast<const float4*>(row + first);
        out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < LOGITS; ++i) out[i] = first + i < length ? row[first + i] : negative_infinity();
}

__device__ __forceinline__ void load_logits(float (&out)[LOGITS], const bf16* row, int first, int length, bool whole) {
    if (whole && first < length) {
        const uint2 v = *reinterpret_cast<const uint2*>(row + first);
        out[0] = __uint_as_float(v.x << 16), out[1] = __uint_as_float(v.x & 0xffff0000u);
        out[2] = __uint_as_float(v.y << 16), out[3] = __uint_as_float(v.y & 0xffff0000u);
        return;
    }
#pragma unroll
    for (int i = 0; i < LOGITS; ++i) out[i] = first + i < length ? to_float(row[first + i]) : negative_infinity();
}
