//! RMSNorm over rows, with or without a residual addition before it. In: [T, width]; out: [T, width]. Knows nothing of
//! layers. The row is normalised from what the sum is kept as (rounded to its dtype), in float32, and rounded once. The
//! `wide` kernels read a float32 row; `add_normed_wide` adds the norm to another float32 row instead of storing it.
//!
//! grid (T), block (round_up(width / 8, 32)), no dynamic shared memory; width a multiple of 8, at most 8192.
//! rms_norm_heads_bf16, for many short rows: grid (ceil(T * lanes / 256)), lanes = next_power_of_two(width / 8), block
//! (256); width a multiple of 8, at most 256.
#include "common.cuh"

namespace {

__device__ __forceinline__ Floats8 normalised(const Floats8& v, const Floats8& weight, float scale, float offset) {
    Floats8 out;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) out.at[i] = v.at[i] * scale * (weight.at[i] + offset);
    return out;
}

struct Norm {
    int width;
    float eps;
    int weight_plus_one; // Gemma
};

// One vector of eight per thread: the row stays in registers between its two uses. R: what the sum is kept as.
template <typename R, typename T>
__device__ __forceinline__ void norm_row(const R* before, const T* delta, R* sum, const T* weight, T* out,
                                         const Norm& norm) {
    const int column = threadIdx.x * VECTOR;
    const bool inside = column < norm.width;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * norm.width + column;
    Floats8 row = {};
    Floats8 scales = {};
    if (inside) {
        row = load8(before + at);
        scales = load8(weight + column);
        if (delta != nullptr) {
            const Floats8 added = load8(delta + at);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) row.at[i] = rounded(row.at[i] + added.at[i], R());
            store8(sum + at, row);
        }
    }
    const float mean_square = block_sum(sum_of_squares(row)) / static_cast<float>(norm.width);
    const float offset = norm.weight_plus_one ? 1.0f : 0.0f;
    if (inside) store8(out + at, normalised(row, scales, rsqrtf(mean_square + norm.eps), offset));
}

template <typename T>
__device__ __forceinline__ void add_normed(const float* x, const T* weight, float* total, const Norm& norm) {
    const int column = threadIdx.x * VECTOR;
    const bool inside = column < norm.width;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * norm.width + column;
    Floats8 row = {};
    if (inside) row = load8(x + at);
    const float mean_square = block_sum(sum_of_squares(row)) / static_cast<float>(norm.width);
    if (!inside) return;
    const Floats8 added = normalised(row, load8(weight + column), rsqrtf(mean_square + norm.eps), 0.0f);
    Floats8 sum = load8(total + at);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) sum.at[i] += added.at[i];
    store8(total + at, sum);
}

} // namespace

// sum = before + delta; out = rmsnorm(sum) * weight, or * (1 + weight) where `weight_plus_one`. `sum` may be `before`,
// `out` may be `delta`.
#define ADD_RMS_NORM(NAME, R, T)                                                                                       \
    extern "C" __global__ void __launch_bounds__(1024) NAME(const R* before, const T* delta, R* sum, const T* weight,  \
                                                            T* out, int width, float eps, int weight_plus_one) {       \
        norm_row<R, T>(before, delta, sum, weight, out, {width, eps, weight_plus_one});                                \
    }
ADD_RMS_NORM(add_rms_norm_bf16, bf16, bf16)
ADD_RMS_NORM(add_rms_norm_f32, float, float)

// out = rmsnorm(x) * weight, or * (1 + weight). `out` may be `x` where both have one dtype.
#define RMS_NORM(NAME, R, T)                                                                                           \
    extern "C" __global__ void __launch_bounds__(1024)                                                                 \
        NAME(const R* x, const T* weight, T* out, int width, float eps, int weight_plus_one) {                         \
        norm_row<R, T>(x, nullptr, nullptr, weight, out, {width, eps, weight_plus_one});                               \
    }
RMS_NORM(rms_norm_bf16, bf16, bf16)
RMS_NORM(rms_norm_f32, float, float)
RMS_NORM(rms_norm_wide_bf16, float, bf16)
RMS_NORM(rms_norm_wide_f16, float, f16)

// total += rmsnorm(x) * weight (Gemma's norm behind a layer).
#define ADD_NORMED(NAME, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024)                                                                 \
        NAME(const float* x, const T* weight, float* total, int width, float eps) {                                    \
        add_normed<T>(x, weight, total, {width, eps, 0});                                                              \
    }
ADD_NORMED(add_normed_wide_bf16, bf16)
ADD_NORMED(add_normed_wide_f16, f16)

// A row is normalised by `lanes` neighbouring threads of a warp.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm_heads_bf16(const bf16* x, const bf16* weight, bf16* out, int rows, int width, float eps, int lanes) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / lanes) + threadIdx.x / lanes;
    const int column = threadIdx.x % lanes * VECTOR;
    const bool inside = row < rows && column < width;
    Floats8 v = {};
    if (inside) v = load8(x + row * width + column);
    const float mean_square = group_sum(sum_of_squares(v), lanes) / static_cast<float>(width);
    if (inside) store8(out + row * width + column, normalised(v, load8(weight + column), rsqrtf(mean_square + eps), 0));
}
