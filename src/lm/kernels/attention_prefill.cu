//! Varlen causal flash attention over a flat batch whose sequences may share prefixes. In: queries [T, Hq, D], the
//! layer's pools K and V [slots, Hk, D], sequences [S, 6] (see Sequence). Out: [T, Hq, D] and, if asked for, the
//! natural log-sum-exp of each row's scores [T, Hq]. Every query sees its whole prefix and its own keys up to itself.
//!
//! Work: the caller lists (sequence, row block) pairs, int32 [items, 2], row blocks 0..ceil(q_len * Hq / Hk / ROWS),
//! longest key range first. ROWS is 128 for D = 64, 96, 128 and 64 for D = 256.
//! grid (items * Hk), block (128), dynamic shared memory: D = 64: 55296, D = 96: 79872, D = 128: 104448, D = 256:
//! 101376 bytes (above 48 KiB, so the function's limit is raised first). Two blocks fit one multiprocessor.
#include "attention_tile.cuh"

namespace {

template <typename E> struct Prefill {
    const E* queries;
    const E* k_pool;
    const E* v_pool;
    E* output;
    float* lse; // null: not asked for
    Heads heads;
};

template <int D, int M, typename T, typename E>
__device__ __forceinline__ void store(const OnlineSoftmax<D, M, E>& state, E* shared, const Prefill<E>& a,
                                      const Job& job) {
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16 * M;
    float inverse[M][2];
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float sum = state.row_sum(m, half);
            inverse[m][half] = 1.0f / sum; // every row sees at least its own key
            const int row = job.row0 + warp_row + 16 * m + 8 * half + lane / 4;
            if (a.lse != nullptr && lane % 4 == 0 && row < job.rows) {
                const float log2_sum = fmaf(state.top[m][half], a.heads.log2_scale(), log2f(sum));
                a.lse[job.head_row(row, a.heads.query_heads)] = log2_sum * LN_2;
            }
        }
    }
    store_rows<D, M, T>(state.output, inverse, shared, a.output, job, a.heads.query_heads);
}

template <int D, int M, int KEYS, typename E>
__device__ __forceinline__ void prefill(const Prefill<E>& a, const int* sequences, const int* work) {
    using T = Tile<D, M, KEYS, E>;
    constexpr int N = KEYS / 8;
    extern __shared__ __align__(16) unsigned char shared[];
    const Shared start = shared_address(shared), buffers = start + T::QUERY_BYTES;

    const Job job = take_job(a.heads, sequences, work, T::ROWS);
    if (job.row0 >= job.rows) return;
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16 * M;
    const Shared queries = start + BYTES * warp_row * T::STRIDE + row_major_lane<T::STRIDE>(lane);
    const int row = job.row0 + warp_row + lane / 4;
    // The positions of the block's first and last query: every row sees the keys up to `lowest`.
    const int lowest = job.position(job.row0), highest = job.end - 1;

    OnlineSoftmax<D, M, E> state;
    state.clear();
    load_rows<T>(start, a.queries, job, a.heads.query_heads);
    const typename T::Loader keys_of = {a.k_pool, a.v_pool, job.sequence, job.kv_head, a.heads.kv_heads, job.end};
    keys_of.load(buffers, job.begin, threadIdx.x);
    copy_commit();
    int stage = 0;
    for (int first = job.begin; first < job.end; first += KEYS, stage ^= 1) {
        copy_wait<0>();
        __syncthreads(); // this tile is there for all, and nobody uses the other buffer any more
        const int next = first + KEYS;
        if (next < job.end) keys_of.load(buffers + (stage ^ 1) * T::BUFFER_BYTES, next, threadIdx.x);
        copy_commit();
        const Shared keys = buffers + stage * T::BUFFER_BYTES, values = keys + T::Loader::TILE_BYTES;
        float scores[M][N][4];
        multiply_keys<D, M, N, T::STRIDE, E>(scores, queries, keys + key_lane<T::STRIDE>(lane));
        if (a.heads.softcap > 0.0f) cap(scores, a.heads);
        const bool cut = a.heads.window > 0 && first <= highest - a.heads.window;
        if (next - 1 > lowest || cut) mask(scores, job, a.heads.window, row, first + lane % 4 * 2);
        state.template weigh<N>(scores, a.heads.log2_scale());
        state.template add_values<N, T::STRIDE>(scores, values + row_major_lane<T::STRIDE>(lane));
    }
    store<D, M, T, E>(state, reinterpret_cast<E*>(shared), a, job);
}

} // namespace

#define ATTENTION_PREFILL(NAME, E, D, M, KEYS)                                                                         \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)                                                 \
        NAME(const E* queries, const E* k_pool, const E* v_pool, E* output, float* lse, const int* sequences,          \
             const int* work, int query_heads, int kv_heads, float scale, float softcap, int window) {                 \
        prefill<D, M, KEYS, E>({queries, k_pool, v_pool, output, lse,                                                  \
                                {query_heads, kv_heads, scale, softcap, window}}, sequences, work);                    \
    }
ATTENTION_PREFILL(attention_prefill_d64, bf16, 64, 2, 64)
ATTENTION_PREFILL(attention_prefill_d96, bf16, 96, 2, 64)
ATTENTION_PREFILL(attention_prefill_d128, bf16, 128, 2, 64)
ATTENTION_PREFILL(attention_prefill_d256, bf16, 256, 1, 32)
ATTENTION_PREFILL(attention_prefill_d64_f16, f16, 64, 2, 64)
ATTENTION_PREFILL(attention_prefill_d96_f16, f16, 96, 2, 64)
ATTENTION_PREFILL(attention_prefill_d128_f16, f16, 128, 2, 64)
ATTENTION_PREFILL(attention_prefill_d256_f16, f16, 256, 1, 32)
