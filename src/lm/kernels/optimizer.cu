//! The optimiser's passes over a parameter: one reading and one writing of what it keeps.
//!
//! adamw: the parameter in float32, m and v [n] float32 in place from gradient [n] float32 times `gradient_scale`. The
//! parameter lies in two halves: weight [n] bf16 is it rounded, half away from zero, and low [n] its lowest 16 bits, which
//! say together what was rounded off: float32 for the memory of one.
//! Decoupled decay (Loshchilov and Hutter 2019): master -= rate (decay master + m' / (sqrt(v') + eps)), with m' and v'
//! corrected by `correction1` = 1 / (1 - beta1^t) and `correction2` = 1 / (1 - beta2^t).
//! grid (ceil(n / 4 / 256)), block (256).
//!
//! sum_of_squares: in: x [n] float32; out: partial [grid] float64, whose sum is that of x^2; the same for the same grid.
//! grid (any), block (256).
//!
//! Vectors are 16 bytes: pointers must be 16-byte aligned; n is any.
#include "common.cuh"

namespace {

constexpr int LANES = 4; // elements that a thread moves at a time

struct Adamw {
    float rate, beta1, beta2, eps, decay, correction1, correction2, gradient_scale;

    __device__ __forceinline__ void step(float& master, float& m, float& v, float gradient) const {
        gradient *= gradient_scale;
        m = fmaf(beta1, m, (1.0f - beta1) * gradient);
        v = fmaf(beta2, v, (1.0f - beta2) * gradient * gradient);
        const float update = m * correction1 / (sqrtf(v * correction2) + eps);
        master -= rate * fmaf(decay, master, update);
    }
};

/// A float32 of its two halves. Rounding went up where the lowest bits are at least half of what they can be.
__device__ __forceinline__ float join(uint32_t weight, uint32_t low) {
    return __uint_as_float((weight - (low >> 15)) << 16 | low);
}

/// The halves of two float32, each pair packed as memory has it.
__device__ __forceinline__ void split(float a, float b, uint32_t& weights, uint32_t& lows) {
    const uint32_t x = __float_as_uint(a), y = __float_as_uint(b);
    weights = (x + 0x8000u) >> 16 | ((y + 0x8000u) & 0xffff0000u);
    lows = (x & 0xffffu) | y << 16;
}

__device__ __forceinline__ float4 load4(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ __forceinline__ void store4(float* to, const float4& v) { *reinterpret_cast<float4*>(to) = v; }

} // namespace

extern "C" __global__ void __launch_bounds__(256)
    adamw(uint16_t* low, float* m, float* v, const float* gradient, uint16_t* weight, int64_t n, float rate, float beta1,
          float beta2, float eps, float decay, float correction1, float correction2, float gradient_scale) {
    const Adamw adamw = {rate, beta1, beta2, eps, decay, correction1, correction2, gradient_scale};
    const int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * LANES;
    if (first + LANES <= n) {
        uint2* const weights = reinterpret_cast<uint2*>(weight + first);
        uint2* const lows = reinterpret_cast<uint2*>(low + first);
        uint2 w = *weights, l = *lows;
        float4 a = make_float4(join(w.x & 0xffffu, l.x & 0xffffu), join(w.x >> 16, l.x >> 16),
                               join(w.y & 0xffffu, l.y & 0xffffu), join(w.y >> 16, l.y >> 16));
        float4 b = load4(m + first), c = load4(v + first);
        const float4 g = load4(gradient + first);
        adamw.step(a.x, b.x, c.x, g.x);
        adamw.step(a.y, b.y, c.y, g.y);
        adamw.step(a.z, b.z, c.z, g.z);
        adamw.step(a.w, b.w, c.w, g.w);
        store4(m + first, b);
        store4(v + first, c);
        split(a.x, a.y, w.x, l.x);
        split(a.z, a.w, w.y, l.y);
        *weights = w;
        *lows = l;
        return;
    }
    for (int64_t i = first; i < n; ++i) {
        float master = join(weight[i], low[i]);
        adamw.step(master, m[i], v[i], gradient[i]);
        const uint32_t bits = __float_as_uint(master);
        weight[i] = static_cast<uint16_t>((bits + 0x8000u) >> 16);
        low[i] = static_cast<uint16_t>(bits);
    }
}

extern "C" __global__ void __launch_bounds__(256) sum_of_squares(const float* x, double* partial, int64_t n) {
    __shared__ double warps[256 / WARP];
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * LANES;
    int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * LANES;
    double sum = 0.0;
#pragma unroll 4
    for (; i + LANES <= n; i += step) {
        const float4 v = load4(x + i);
        sum += static_cast<double>(fmaf(v.x, v.x, v.y * v.y) + fmaf(v.z, v.z, v.w * v.w));
    }
    for (; i < n; ++i) sum += static_cast<double>(x[i]) * x[i]; // the last few, of one thread
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
    if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < 256 / WARP; ++i) sum += warps[i];
    partial[blockIdx.x] = sum;
}
