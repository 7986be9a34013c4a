//! The gated activation of the feed-forward block on a packed projection. In: [T, 2 * I], gate first; out: [T, I] =
//! act(gate) * up, float32 inside. `swiglu`: x * sigmoid(x) (Llama, Qwen, Mistral); `geglu`: GELU by tanh (Gemma).
//! `swiglu_backward`: in: the packed projection and d_y [T, I]; out: the projection's gradient [T, 2 * I].
//!
//! All: grid (T, ceil(I / 8 / 256)), block (256), no dynamic shared memory; I a multiple of 8.
#include "common.cuh"

namespace {

struct Silu {
    __device__ static __forceinline__ float apply(float x) { return x / (1.0f + __expf(-x)); }
};

// 0.5 x (1 + tanh(u)) = x * sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
struct GeluTanh {
    __device__ static __forceinline__ float apply(float x) {
        const float u = 0.7978845608028654f * fmaf(0.044715f * x * x, x, x);
        return x / (1.0f + __expf(-2.0f * u));
    }
};

template <typename T, typename Activation>
__device__ __forceinline__ void gated(const T* packed, T* out, int inner) {
    const int column = (blockIdx.y * blockDim.x + threadIdx.x) * VECTOR;
    if (column >= inner) return;
    const int64_t row = blockIdx.x;
    const Floats8 gate = load8(packed + row * 2 * inner + column);
    Floats8 up = load8(packed + row * 2 * inner + inner + column);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) up.at[i] *= Activation::apply(gate.at[i]);
    store8(out + row * inner + column, up);
}

} // namespace

#define GATED(NAME, T, ACTIVATION)                                                                                     \
    extern "C" __global__ void __launch_bounds__(256) NAME(const T* packed, T* out, int inner) {                       \
        gated<T, ACTIVATION>(packed, out, inner);                                                                      \
    }
GATED(swiglu_bf16, bf16, Silu)
GATED(swiglu_f16, f16, Silu)
GATED(swiglu_f32, float, Silu)
GATED(geglu_bf16, bf16, GeluTanh)
GATED(geglu_f16, f16, GeluTanh)
GATED(geglu_f32, float, GeluTanh)

// With s = sigmoid(gate): d_up = d_y gate s, d_gate = d_y up s (1 + gate (1 - s)).
extern "C" __global__ void __launch_bounds__(256)
    swiglu_backward_bf16(const bf16* packed, const bf16* d_y, bf16* d_packed, int inner) {
    const int column = (blockIdx.y * blockDim.x + threadIdx.x) * VECTOR;
    if (column >= inner) return;
    const int64_t row = blockIdx.x, at = row * 2 * inner + column;
    Floats8 gate = load8(packed + at), up = load8(packed + at + inner);
    const Floats8 gradient = load8(d_y + row * inner + column);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
        const float sigmoid = 1.0f / (1.0f + __expf(-gate.at[i]));
        const float d_activated = gradient.at[i] * up.at[i];
        up.at[i] = gradient.at[i] * gate.at[i] * sigmoid;
        gate.at[i] = d_activated * sigmoid * fmaf(gate.at[i], 1.0f - sigmoid, 1.0f);
    }
    store8(d_packed + at, gate);
    store8(d_packed + at + inner, up);
}
