//! RMSNorm over rows, with or without the residual addition before it. In: [T, width]; out: [T, width]. Knows nothing
//! of layers. The row is normalised from what `residual` keeps (rounded to its dtype), in float32, and rounded once.
//!
//! Both: grid (T), block (round_up(width / 8, 32)), no dynamic shared memory; width a multiple of 8, at most 8192.
#include "common.cuh"

namespace {

__device__ __forceinline__ Floats8 normalised(const Floats8& v, const Floats8& weight, float scale, float offset) {
    Floats8 out;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) out.at[i] = v.at[i] * scale * (weight.at[i] + offset);
    return out;
}

// One vector of eight per thread: the row stays in registers between its two uses.
template <typename T>
__device__ __forceinline__ void norm_row(T* residual, const T* x, const T* weight, T* out, int width, float eps,
                                         int weight_plus_one) {
    const int column = threadIdx.x * VECTOR;
    const bool inside = column < width;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * width + column;
    Floats8 row = {};
    Floats8 scales = {};
    if (inside) {
        row = load8(x + at);
        scales = load8(weight + column);
        if (residual != nullptr) {
            const Floats8 before = load8(residual + at);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) row.at[i] = rounded(before.at[i] + row.at[i], T());
            store8(residual + at, row);
        }
    }
    const float mean_square = block_sum(sum_of_squares(row)) / static_cast<float>(width);
    if (inside) store8(out + at, normalised(row, scales, rsqrtf(mean_square + eps), weight_plus_one ? 1.0f : 0.0f));
}

} // namespace

// residual += x; out = rmsnorm(residual) * weight, or * (1 + weight) where `weight_plus_one` (Gemma). `out` may be `x`.
#define ADD_RMS_NORM(NAME, T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(1024)                                                                 \
        NAME(T* residual, const T* x, const T* weight, T* out, int width, float eps, int weight_plus_one) {            \
        norm_row<T>(residual, x, weight, out, width, eps, weight_plus_one);                                            \
    }
ADD_RMS_NORM(add_rms_norm_bf16, bf16)
ADD_RMS_NORM(add_rms_norm_f32, float)

// out = rmsnorm(x) * weight, or * (1 + weight). `out` may be `x`.
#define RMS_NORM(NAME, T)                                                                                              \
    extern "C" __global__ void __launch_bounds__(1024)                                                                 \
        NAME(const T* x, const T* weight, T* out, int width, float eps, int weight_plus_one) {                         \
        norm_row<T>(nullptr, x, weight, out, width, eps, weight_plus_one);                                             \
    }
RMS_NORM(rms_norm_bf16, bf16)
RMS_NORM(rms_norm_f32, float)
