//! From the packed QKV projection to attention's inputs in one pass: bias (Qwen2), RMSNorm of each q and k head
//! (Qwen3), rotary embedding (half-split pairs i and i + D/2), q to a dense tensor, k and v into the layer's pool.
//!
//! In: qkv [T, (Hq + 2 Hk) * D], q heads, then k heads, then v heads. Out: q [T, Hq, D]; k and v in pools [slots, Hk,
//! D]. All arithmetic is float32 with one rounding at the end. Knows nothing of sequences: a token has a position and a
//! slot.
//!
//! A group of `lanes` = next_power_of_two(D / 16) threads does one head, each thread eight pairs.
//! grid (ceil(T * (Hq + 2 Hk) * lanes / 256)), block (256), no dynamic shared memory; D a multiple of 16, at
//! most 512; T * (Hq + 2 Hk) below 2^31.
#include "common.cuh"

namespace {

template <typename T> struct RopeStore {
    const T* qkv;          // [T, (Hq + 2 Hk) * D]
    const T* bias;         // [(Hq + 2 Hk) * D], or null
    const T* q_weight;     // [D], or null: q heads are not normalised
    const T* k_weight;     // [D], or null
    const float* cos;      // [max_position, D / 2]
    const float* sin;      // [max_position, D / 2]
    const int* positions;  // [T], in 0..max_position
    const int* slots;      // [T]; a negative slot keeps nothing
    T* q_out;              // [T, Hq, D]
    T* k_pool;             // [slots, Hk, D]
    T* v_pool;             // [slots, Hk, D]
    int tokens, query_heads, kv_heads, head_dim;
    float eps;
};

// The two halves of a head that a thread works on: elements i..i+8 and D/2+i..D/2+i+8.
struct Halves {
    Floats8 low, high;
};

template <typename T> __device__ __forceinline__ Halves load_halves(const T* head, int i, int half) {
    return {load8(head + i), load8(head + half + i)};
}

__device__ __forceinline__ void add(Halves& v, const Halves& other) {
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
        v.low.at[i] += other.low.at[i];
        v.high.at[i] += other.high.at[i];
    }
}

__device__ __forceinline__ void scale(Halves& v, const Halves& weight, float by) {
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
        v.low.at[i] *= by * weight.low.at[i];
        v.high.at[i] *= by * weight.high.at[i];
    }
}

__device__ __forceinline__ void rotate(Halves& v, const Floats8& cos, const Floats8& sin) {
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
        const float low = v.low.at[i], high = v.high.at[i];
        v.low.at[i] = low * cos.at[i] - high * sin.at[i];
        v.high.at[i] = high * cos.at[i] + low * sin.at[i];
    }
}

// Where a head of a token goes; null when the token has no slot.
template <typename T> __device__ __forceinline__ T* destination(const RopeStore<T>& a, int64_t token, int head) {
    if (head < a.query_heads) return a.q_out + (token * a.query_heads + head) * a.head_dim;
    const int64_t slot = a.slots[token];
    if (slot < 0) return nullptr;
    const int kv_head = (head - a.query_heads) % a.kv_heads;
    T* pool = head < a.query_heads + a.kv_heads ? a.k_pool : a.v_pool;
    return pool + (slot * a.kv_heads + kv_head) * a.head_dim;
}

template <typename T> __device__ __forceinline__ void rope_store(const RopeStore<T>& a) {
    const int half = a.head_dim / 2;
    int lanes = 1;
    while (lanes * VECTOR < half) lanes *= 2;
    // One unit is one head of one token; their number fits 32 bits, whose division is much the cheaper.
    const unsigned heads = a.query_heads + 2 * a.kv_heads;
    const unsigned unit = blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    const int64_t token = unit / heads;
    const int head = static_cast<int>(unit % heads);
    const int i = (threadIdx.x % lanes) * VECTOR;
    const bool inside = token < a.tokens && i < half;
    const bool rotated = head < a.query_heads + a.kv_heads;
    const T* weight = head < a.query_heads ? a.q_weight : a.k_weight;

    Halves v = {};
    if (inside) {
        v = load_halves(a.qkv + static_cast<int64_t>(unit) * a.head_dim, i, half);
        if (a.bias != nullptr) add(v, load_halves(a.bias + static_cast<int64_t>(head) * a.head_dim, i, half));
    }
    const float squares = group_sum(sum_of_squares(v.low) + sum_of_squares(v.high), lanes);
    if (!inside) return;
    if (rotated && weight != nullptr) {
        scale(v, load_halves(weight, i, half), rsqrtf(squares / static_cast<float>(a.head_dim) + a.eps));
    }
    if (rotated) {
        const int64_t row = static_cast<int64_t>(a.positions[token]) * half + i;
        rotate(v, load8(a.cos + row), load8(a.sin + row));
    }
    T* to = destination(a, token, head);
    if (to == nullptr) return;
    store8(to + i, v.low);
    store8(to + half + i, v.high);
}

} // namespace

#define QK_NORM_ROPE_STORE(NAME, T)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        NAME(const T* qkv, const T* bias, const T* q_weight, const T* k_weight, const float* cos, const float* sin,    \
             const int* positions, const int* slots, T* q_out, T* k_pool, T* v_pool, int tokens, int query_heads,      \
             int kv_heads, int head_dim, float eps) {                                                                  \
        rope_store<T>({qkv, bias, q_weight, k_weight, cos, sin, positions, slots, q_out, k_pool, v_pool, tokens,       \
                       query_heads, kv_heads, head_dim, eps});                                                         \
    }
QK_NORM_ROPE_STORE(qk_norm_rope_store_bf16, bf16)
QK_NORM_ROPE_STORE(qk_norm_rope_store_f16, f16)
QK_NORM_ROPE_STORE(qk_norm_rope_store_f32, float)
