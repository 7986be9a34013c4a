//! What prefill and decode attention share: where a sequence's keys lie, and one step of the online softmax over a tile
//! of keys held in fragments. Rows of a tile are (query, head) pairs of one kv head; scores and sums are float32. E: what
//! queries, keys, values and weights are made of, bf16 or f16.
#pragma once

#include "mma.cuh"

constexpr int ATTENTION_WARPS = 4;
constexpr int ATTENTION_THREADS = ATTENTION_WARPS * WARP;
constexpr int BYTES = sizeof(bf16);
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

// One sequence, as six int32 in memory. Its keys are `prefix_len` slots from `prefix_start` (shared, 0 = none), then
// `own_len` slots from `own_start`; its queries are rows q_start..q_start + q_len and stand at its last q_len keys.
struct Sequence {
    int q_start, q_len, own_start, own_len, prefix_start, prefix_len;

    __device__ __forceinline__ static Sequence read(const int* table, int index) {
        const int* row = table + 6 * static_cast<int64_t>(index);
        return {row[0], row[1], row[2], row[3], row[4], row[5]};
    }
    __device__ __forceinline__ int keys() const { return prefix_len + own_len; }
    __device__ __forceinline__ int slot(int key) const {
        return key < prefix_len ? prefix_start + key : own_start + (key - prefix_len);
    }
};

// The model's side of a call: what attention is, whatever the batch.
struct Heads {
    int query_heads, kv_heads;
    float scale;   // of q k, before the cap
    float softcap; // scores become softcap * tanh(score / softcap); 0 = off
    int window;    // a query sees this many keys, itself included; 0 = all before it

    __device__ __forceinline__ int group() const { return query_heads / kv_heads; }
    // What turns the scores that the softmax sees into powers of two.
    __device__ __forceinline__ float log2_scale() const { return softcap > 0.0f ? LOG2_E : scale * LOG2_E; }
};

// sums += weights * values: the weights are 16 * M rows in fragments, `values` this lane's address in a tile of 8 * N rows
// of D columns (see row_major_lane).
template <int D, int M, int N, int STRIDE, typename E = bf16>
__device__ __forceinline__ void multiply_values(float (&sums)[M][D / 8][4], const float (&weights)[M][N][4],
                                                Shared values) {
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const float(&low)[4] = weights[m][2 * k];
            const float(&high)[4] = weights[m][2 * k + 1];
            a[m][0] = pack<E>(low[0], low[1]);
            a[m][1] = pack<E>(low[2], low[3]);
            a[m][2] = pack<E>(high[0], high[1]);
            a[m][3] = pack<E>(high[2], high[3]);
        }
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
            uint32_t b[4];
            load_matrices_transposed(b, values + BYTES * (16 * k * STRIDE + 16 * d));
#pragma unroll
            for (int m = 0; m < M; ++m) {
                multiply_add<E>(sums[m][2 * d], a[m], b[0], b[1]);
                multiply_add<E>(sums[m][2 * d + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// Running softmax of 16 * M rows over keys in tiles of 8 * N: a thread has rows g and g + 8 of each of M blocks.
template <int D, int M, typename E = bf16> struct OnlineSoftmax {
    float output[M][D / 8][4];
    float top[M][2]; // highest score so far, -infinity before the first; the same in the row's four lanes
    float sum[M][2]; // this lane's part of the sum of exponentials

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                top[m][half] = negative_infinity();
                sum[m][half] = 0.0f;
            }
#pragma unroll
            for (int d = 0; d < D / 8; ++d) {
#pragma unroll
                for (int i = 0; i < 4; ++i) output[m][d][i] = 0.0f;
            }
        }
    }

    // Scores become weights 2^(scale * (score - top)); what was summed so far is brought to the new top.
    template <int N> __device__ __forceinline__ void weigh(float (&scores)[M][N][4], float scale) {
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float before = top[m][half];
                float highest = before;
#pragma unroll
                for (int n = 0; n < N; ++n) {
                    highest = fmaxf(highest, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
                }
                highest = fmaxf(highest, __shfl_xor_sync(ALL_LANES, highest, 1));
                highest = fmaxf(highest, __shfl_xor_sync(ALL_LANES, highest, 2));
                // A row that has seen only masked keys keeps weights of 0, not NaN.
                const float base = highest == negative_infinity() ? 0.0f : highest * scale;
                const float shrink = exp2_fast(fmaf(before, scale, -base));
                float total = 0.0f;
#pragma unroll
                for (int n = 0; n < N; ++n) {
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; ++i) {
                        scores[m][n][i] = exp2_fast(fmaf(scores[m][n][i], scale, -base));
                        total += scores[m][n][i];
                    }
                }
                top[m][half] = highest;
                sum[m][half] = fmaf(sum[m][half], shrink, total);
#pragma unroll
                for (int d = 0; d < D / 8; ++d) {
                    output[m][d][2 * half] *= shrink;
                    output[m][d][2 * half + 1] *= shrink;
                }
            }
        }
    }

    // output += weights * values, `values` being this lane's address in a tile of 8 * N rows (see row_major_lane).
    template <int N, int STRIDE>
    __device__ __forceinline__ void add_values(const float (&weights)[M][N][4], Shared values) {
        multiply_values<D, M, N, STRIDE, E>(output, weights, values);
    }

    // The row's whole sum, in all of its four lanes.
    __device__ __forceinline__ float row_sum(int m, int half) const { return group_sum(sum[m][half], 4); }
};

// The lane's offset in bytes for load_matrices, in a tile of rows STRIDE elements apart. STRIDE is 8 past a multiple of
// 16, so that the eight rows of a matrix fall into different banks.
// Queries (A) and values (transposed B): matrices 1 and 3 lie eight rows down, 2 and 3 eight columns on.
template <int STRIDE> __device__ __forceinline__ int row_major_lane(int lane) {
    return BYTES * (lane % 16 * STRIDE + lane / 16 * 8);
}
// Keys (B): matrices 1 and 3 lie eight columns on, 2 and 3 eight rows down.
template <int STRIDE> __device__ __forceinline__ int key_lane(int lane) {
    return BYTES * ((lane % 8 + lane / 16 * 8) * STRIDE + lane / 8 % 2 * 8);
}

// softcap * tanh(x) as softcap - 2 softcap / (1 + e^2x): an absolute error near 1e-7 of the cap, where tanh.approx has
// 5e-4.
template <int M, int N>
__device__ __forceinline__ void cap(float (&scores)[M][N][4], const Heads& heads) {
    const float to_exponent = 2.0f * LOG2_E * heads.scale / heads.softcap;
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float power = exp2_fast(scores[m][n][i] * to_exponent);
                scores[m][n][i] = fmaf(__fdividef(1.0f, 1.0f + power), -2.0f * heads.softcap, heads.softcap);
            }
        }
    }
}

// Starts copying rows of keys and of values into two neighbouring tiles [KEYS, D + 8] with THREADS threads, `thread`
// being one of them. Keys first..first + KEYS of a kv head; from `end` on the last key is repeated, to be masked.
template <int D, int KEYS, int THREADS, typename E = bf16> struct KeyLoader {
    static constexpr int STRIDE = D + 8;
    static constexpr int TILE_BYTES = BYTES * KEYS * STRIDE;
    // LANES neighbouring threads share a row, each COPIES times: the most that divide D / 8 evenly.
    static constexpr int LANES = D % 256 == 0 ? 32 : D % 128 == 0 ? 16 : D % 64 == 0 ? 8 : 4;
    static constexpr int COPIES = D / VECTOR / LANES;
    static constexpr int ROWS = THREADS / LANES;
    static_assert(D % (VECTOR * LANES) == 0 && KEYS % ROWS == 0, "every thread copies as much as any other");

    const E* k_pool;
    const E* v_pool;
    const Sequence& sequence;
    int kv_head, kv_heads, end;

    __device__ __forceinline__ void load(Shared to, int first, unsigned thread) const {
        const unsigned row = thread / LANES, column = thread % LANES * VECTOR;
        to += BYTES * (row * STRIDE + column);
#pragma unroll
        for (int pass = 0; pass < KEYS / ROWS; ++pass) {
            const int key = min(first + static_cast<int>(row) + pass * ROWS, end - 1);
            const int64_t from = static_cast<int64_t>(sequence.slot(key)) * (kv_heads * D) + (kv_head * D + column);
#pragma unroll
            for (int copy = 0; copy < COPIES; ++copy) {
                const Shared at = to + BYTES * (pass * ROWS * STRIDE + copy * LANES * VECTOR);
                copy_async(at, k_pool + from + copy * LANES * VECTOR);
                copy_async(at + TILE_BYTES, v_pool + from + copy * LANES * VECTOR);
            }
        }
    }
};
