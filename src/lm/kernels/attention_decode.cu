//! Attention of one query per sequence over its pooled keys. In: queries [T, Hq, D], pools K and V [slots, Hk, D],
//! sequences [S, 6] (see Sequence; q_len is taken as 1). Out: [T, Hq, D]. The bytes of K and V are the bound: all query
//! heads of a kv head (up to 16) share one reading of it, as the rows of a tensor-core tile.
//!
//! A sequence's visible keys are cut into splits of `split_keys` (a multiple of 64), one block each; a split's four
//! warps take its 16-key tiles in turn, each with its own buffers, and meet at the end. Where a sequence has one split
//! its block writes the output; else each writes a normalised partial sum, float32 [S, Hq, splits, D], and its
//! log2-sum-exp, float32 [S, Hq, splits], for `attention_decode_reduce`, left out by the caller when splits = 1.
//!
//! attention_decode_d*: grid (splits, Hk, S) with splits = ceil(most visible keys / split_keys), block (128), dynamic
//! shared memory: D = 64: 55296, D = 96: 79872, D = 128: 104448, D = 256: 135168 bytes.
//! attention_decode_reduce: grid (Hq, S), block (D), no dynamic shared memory.
#include "attention.cuh"

namespace {

constexpr int KEYS = 16; // of a warp's step

// A warp's buffers: STAGES tiles of keys, each with its tile of values.
template <int D, int STAGES, typename E> struct Ring {
    using Loader = KeyLoader<D, KEYS, WARP, E>;
    static constexpr int BUFFER_BYTES = 2 * Loader::TILE_BYTES;
    static constexpr int WARP_BYTES = STAGES * BUFFER_BYTES;
};

template <typename E> struct Decode {
    const E* queries;
    const E* k_pool;
    const E* v_pool;
    E* output;
    float* partial;     // [S, Hq, splits, D]
    float* partial_lse; // [S, Hq, splits], base 2
    Heads heads;
    int split_keys;
};

// The visible keys of a sequence, and how many splits they make.
struct Visible {
    int begin, end, splits;
};

__device__ __forceinline__ Visible visible_keys(const Sequence& sequence, int window, int split_keys) {
    const int end = sequence.keys();
    const int begin = window > 0 ? max(0, end - window) : 0;
    return {begin, end, (end - begin + split_keys - 1) / split_keys};
}

// Sixteen rows of queries, one per head and zero past the last, as A fragments straight from memory.
template <int D, typename E>
__device__ __forceinline__ void load_queries(uint32_t (&out)[D / 16][4], const E* queries, int group, int lane) {
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i % 2 * 8;
            const E* from = queries + row * D + 16 * d + i / 2 * 8 + lane % 4 * 2;
            out[d][i] = row < group ? *reinterpret_cast<const uint32_t*>(from) : 0u;
        }
    }
}

template <int D, typename E>
__device__ __forceinline__ void multiply_keys(float (&scores)[1][2][4], const uint32_t (&a)[D / 16][4], Shared keys) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[0][0][i] = scores[0][1][i] = 0.0f;
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
        uint32_t b[4];
        load_matrices(b, keys + BYTES * 16 * d);
        multiply_add<E>(scores[0][0], a[d], b[0], b[1]);
        multiply_add<E>(scores[0][1], a[d], b[2], b[3]);
    }
}

__device__ __forceinline__ void mask(float (&scores)[1][2][4], int first, int end, int lane) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (first + 8 * n + lane % 4 * 2 + i % 2 >= end) scores[0][n][i] = negative_infinity();
        }
    }
}

// The warp's tiles of keys first.., one every ATTENTION_WARPS, through its own ring of buffers.
template <int D, int STAGES, typename E>
__device__ __forceinline__ void scan_keys(OnlineSoftmax<D, 1, E>& state, Shared ring, const Decode<E>& a,
                                          const Sequence& sequence, int first, int end) {
    using R = Ring<D, STAGES, E>;
    constexpr int STRIDE = R::Loader::STRIDE;
    constexpr int STEP = ATTENTION_WARPS * KEYS;
    const int lane = threadIdx.x % WARP, group = a.heads.group();
    const int kv_head = blockIdx.y;
    const int64_t head = static_cast<int64_t>(sequence.q_start) * a.heads.query_heads + kv_head * group;
    uint32_t queries[D / 16][4];
    load_queries<D, E>(queries, a.queries + head * D, group, lane);
    const typename R::Loader keys_of = {a.k_pool, a.v_pool, sequence, kv_head, a.heads.kv_heads, end};
    state.clear();
#pragma unroll
    for (int i = 0; i < STAGES - 1; ++i) {
        if (first + i * STEP < end) keys_of.load(ring + i * R::BUFFER_BYTES, first + i * STEP, lane);
        copy_commit();
    }
    for (int stage = 0; first < end; first += STEP, stage = (stage + 1) % STAGES) {
        copy_wait<STAGES - 2>();
        __syncwarp(); // this tile is there for all lanes, and none uses the one before any more
        const int ahead = first + (STAGES - 1) * STEP;
        const int free_stage = (stage + STAGES - 1) % STAGES;
        if (ahead < end) keys_of.load(ring + free_stage * R::BUFFER_BYTES, ahead, lane);
        copy_commit();
        const Shared keys = ring + stage * R::BUFFER_BYTES, values = keys + R::Loader::TILE_BYTES;
        float scores[1][2][4];
        multiply_keys<D, E>(scores, queries, keys + key_lane<STRIDE>(lane));
        if (a.heads.softcap > 0.0f) cap(scores, a.heads);
        if (first + KEYS > end) mask(scores, first, end, lane);
        state.template weigh<2>(scores, a.heads.log2_scale());
        state.template add_values<2, STRIDE>(scores, values + row_major_lane<STRIDE>(lane));
    }
    copy_wait<0>();
    __syncwarp();
}

// What each warp found for each row: the highest score and the sum of weights.
struct Tops {
    float top[ATTENTION_WARPS][16];
    float sum[ATTENTION_WARPS][16];
};

// `sums`: the warp's own buffers, taken as float32 [16, D].
template <int D, typename E>
__device__ __forceinline__ void publish(const OnlineSoftmax<D, 1, E>& state, Tops& tops, float* sums) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = lane / 4 + 8 * half;
        const float sum = state.row_sum(0, half);
        if (lane % 4 == 0) {
            tops.top[warp][row] = state.top[0][half];
            tops.sum[warp][row] = sum;
        }
#pragma unroll
        for (int d = 0; d < D / 8; ++d) {
            *reinterpret_cast<float2*>(sums + row * D + 8 * d + lane % 4 * 2) =
                make_float2(state.output[0][d][2 * half], state.output[0][d][2 * half + 1]);
        }
    }
}

template <int D, int STAGES, typename E>
__device__ __forceinline__ void decode(const Decode<E>& a, const int* sequences) {
    using R = Ring<D, STAGES, E>;
    extern __shared__ __align__(16) unsigned char shared[];
    __shared__ Tops tops;
    const Sequence sequence = Sequence::read(sequences, blockIdx.z);
    const Visible visible = visible_keys(sequence, a.heads.window, a.split_keys);
    const int split = blockIdx.x, splits = gridDim.x, group = a.heads.group();
    if (split >= visible.splits) return;
    const int warp = threadIdx.x / WARP;
    const int begin = visible.begin + split * a.split_keys;
    unsigned char* const ring = shared + warp * R::WARP_BYTES;

    OnlineSoftmax<D, 1, E> state;
    scan_keys<D, STAGES, E>(state, shared_address(ring), a, sequence, begin + warp * KEYS,
                         min(begin + a.split_keys, visible.end));
    publish<D, E>(state, tops, reinterpret_cast<float*>(ring));
    __syncthreads();
    const float scale = a.heads.log2_scale();
    for (int i = threadIdx.x; i < group * D; i += ATTENTION_THREADS) {
        const int row = i / D, column = i % D;
        float top = negative_infinity(), sum = 0.0f, output = 0.0f;
        for (int w = 0; w < ATTENTION_WARPS; ++w) top = fmaxf(top, tops.top[w][row]);
        for (int w = 0; w < ATTENTION_WARPS; ++w) {
            const float weight = exp2_fast((tops.top[w][row] - top) * scale); // 0 for a warp without keys
            sum = fmaf(tops.sum[w][row], weight, sum);
            output = fmaf(reinterpret_cast<float*>(shared + w * R::WARP_BYTES)[i], weight, output);
        }
        const int head = blockIdx.y * group + row;
        const int64_t part = (static_cast<int64_t>(blockIdx.z) * a.heads.query_heads + head) * splits + split;
        if (visible.splits == 1) {
            const int64_t to = static_cast<int64_t>(sequence.q_start) * a.heads.query_heads + head;
            store_one(a.output + to * D + column, output / sum);
        } else {
            a.partial[part * D + column] = output / sum;
            if (column == 0) a.partial_lse[part] = fmaf(top, scale, log2f(sum));
        }
    }
}

struct Splits {
    int count, window, keys;
};

template <typename E>
__device__ __forceinline__ void reduce(const float* partial, const float* partial_lse, E* output, const int* sequences,
                                       const Splits& splits) {
    const Sequence sequence = Sequence::read(sequences, blockIdx.y);
    const int used = visible_keys(sequence, splits.window, splits.keys).splits;
    if (used == 1) return;
    const int head = blockIdx.x, query_heads = gridDim.x, head_dim = blockDim.x;
    const int64_t first = (static_cast<int64_t>(blockIdx.y) * query_heads + head) * splits.count;
    float top = negative_infinity();
    for (int i = 0; i < used; ++i) top = fmaxf(top, partial_lse[first + i]);
    float weights = 0.0f, sum = 0.0f;
    for (int i = 0; i < used; ++i) {
        const float weight = exp2_fast(partial_lse[first + i] - top);
        weights += weight;
        sum = fmaf(partial[(first + i) * head_dim + threadIdx.x], weight, sum);
    }
    const int64_t to = static_cast<int64_t>(sequence.q_start) * query_heads + head;
    store_one(output + to * head_dim + threadIdx.x, sum / weights);
}

} // namespace

#define ATTENTION_DECODE(NAME, E, D, STAGES)                                                                           \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)                                                    \
        NAME(const E* queries, const E* k_pool, const E* v_pool, E* output, float* partial, float* partial_lse,        \
             const int* sequences, int query_heads, int kv_heads, float scale, float softcap, int window,              \
             int split_keys) {                                                                                         \
        decode<D, STAGES, E>({queries, k_pool, v_pool, output, partial, partial_lse,                                   \
                              {query_heads, kv_heads, scale, softcap, window}, split_keys}, sequences);                \
    }
ATTENTION_DECODE(attention_decode_d64, bf16, 64, 3)
ATTENTION_DECODE(attention_decode_d96, bf16, 96, 3)
ATTENTION_DECODE(attention_decode_d128, bf16, 128, 3)
ATTENTION_DECODE(attention_decode_d256, bf16, 256, 2)
ATTENTION_DECODE(attention_decode_d64_f16, f16, 64, 3)
ATTENTION_DECODE(attention_decode_d96_f16, f16, 96, 3)
ATTENTION_DECODE(attention_decode_d128_f16, f16, 128, 3)
ATTENTION_DECODE(attention_decode_d256_f16, f16, 256, 2)

// output = the splits' partial sums, each by its share of the whole. A sequence of one split is already there.
#define ATTENTION_DECODE_REDUCE(NAME, E)                                                                               \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        NAME(const float* partial, const float* partial_lse, E* output, const int* sequences, int splits, int window,  \
             int split_keys) {                                                                                         \
        reduce(partial, partial_lse, output, sequences, {splits, window, split_keys});                                 \
    }
ATTENTION_DECODE_REDUCE(attention_decode_reduce, bf16)
ATTENTION_DECODE_REDUCE(attention_decode_reduce_f16, f16)
