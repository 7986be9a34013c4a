//! Varlen causal flash attention over a flat batch whose sequences may share prefixes. In: queries [T, Hq, D], the
//! layer's pools K and V [slots, Hk, D], sequences [S, 6] (see Sequence). Out: [T, Hq, D] and, if asked for, the
//! natural log-sum-exp of each row's scores [T, Hq]. Every query sees its whole prefix and its own keys up to itself.
//!
//! The rows of a tile are the (query, head) pairs of one kv head, query by query: a short suffix fills tiles just as a
//! long prompt does, and a tile spans few positions, so little of it is masked.
//!
//! Work: the caller lists (sequence, row block) pairs, int32 [items, 2], row blocks 0..ceil(q_len * Hq / Hk / ROWS),
//! longest key range first. ROWS is 128 for D = 64, 96, 128 and 64 for D = 256.
//! grid (items * Hk), block (128), dynamic shared memory: D = 64: 55296, D = 96: 79872, D = 128: 104448, D = 256:
//! 101376 bytes (above 48 KiB, so the function's limit is raised first). Two blocks fit one multiprocessor.
#include "attention.cuh"

namespace {

// M: blocks of 16 rows per warp; KEYS: keys per step. Two buffers: one tile is loaded while another is used.
template <int D, int M, int KEYS> struct Tile {
    using Loader = KeyLoader<D, KEYS, ATTENTION_THREADS>;
    static constexpr int ROWS = ATTENTION_WARPS * 16 * M;
    static constexpr int STRIDE = D + 8;
    static constexpr int CHUNKS = D / VECTOR;
    static constexpr int QUERY_BYTES = BYTES * ROWS * STRIDE;
    static constexpr int BUFFER_BYTES = 2 * Loader::TILE_BYTES;
};

struct Prefill {
    const bf16* queries;
    const bf16* k_pool;
    const bf16* v_pool;
    bf16* output;
    float* lse; // null: not asked for
    Heads heads;
};

// One block's share: rows row0..rows of the sequence's q_len * group rows of a kv head, over keys begin..end.
struct Job {
    Sequence sequence;
    int kv_head, group, row0, rows;
    int first_position; // of the sequence's first query
    int begin, end;

    __device__ __forceinline__ int position(int row) const { return first_position + min(row, rows - 1) / group; }
    __device__ __forceinline__ int64_t head_row(int row, int query_heads) const {
        return static_cast<int64_t>(sequence.q_start + row / group) * query_heads + kv_head * group + row % group;
    }
};

__device__ __forceinline__ Job take_job(const Heads& heads, const int* sequences, const int* work, int tile_rows) {
    const int64_t item = blockIdx.x / heads.kv_heads;
    Job job;
    job.sequence = Sequence::read(sequences, work[2 * item]);
    job.kv_head = blockIdx.x % heads.kv_heads;
    job.group = heads.group();
    job.row0 = work[2 * item + 1] * tile_rows;
    job.rows = job.sequence.q_len * job.group;
    job.first_position = job.sequence.keys() - job.sequence.q_len;
    job.end = job.position(job.row0 + tile_rows - 1) + 1;
    job.begin = heads.window > 0 ? max(0, job.position(job.row0) - heads.window + 1) : 0;
    return job;
}

template <typename T> __device__ __forceinline__ void load_queries(Shared shared, const Prefill& a, const Job& job) {
#pragma unroll 4
    for (int i = threadIdx.x; i < T::ROWS * T::CHUNKS; i += ATTENTION_THREADS) {
        const int row = i / T::CHUNKS, chunk = i % T::CHUNKS;
        // Rows past the last repeat it; they are never stored.
        const int64_t from = job.head_row(min(job.row0 + row, job.rows - 1), a.heads.query_heads);
        const Shared to = shared + BYTES * (row * T::STRIDE + chunk * VECTOR);
        copy_async(to, a.queries + (from * T::CHUNKS + chunk) * VECTOR);
    }
}

// scores = queries * keys; both addresses are the lane's own.
template <int D, int M, int N, int STRIDE>
__device__ __forceinline__ void multiply_keys(float (&scores)[M][N][4], Shared queries, Shared keys) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) scores[m][n][i] = 0.0f;
        }
    }
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m) load_matrices(a[m], queries + BYTES * (16 * m * STRIDE + 16 * d));
#pragma unroll
        for (int n = 0; n < N / 2; ++n) {
            uint32_t b[4];
            load_matrices(b, keys + BYTES * (16 * n * STRIDE + 16 * d));
#pragma unroll
            for (int m = 0; m < M; ++m) {
                multiply_add(scores[m][2 * n], a[m], b[0], b[1]);
                multiply_add(scores[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// `row` and `key`: the lane's first row and column of the tile.
template <int M, int N>
__device__ __forceinline__ void mask(float (&scores)[M][N][4], const Job& job, int window, int row, int key) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int last = job.position(row + 16 * m + 8 * half);
            const int first = window > 0 ? last - window + 1 : 0;
#pragma unroll
            for (int n = 0; n < N; ++n) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int at = key + 8 * n + i;
                    if (at > last || at < first) scores[m][n][2 * half + i] = negative_infinity();
                }
            }
        }
    }
}

// Through the warp's own rows of the queries' buffer, which no other warp reads, so that stores are 16 bytes wide.
template <int D, int M, typename T>
__device__ __forceinline__ void store(OnlineSoftmax<D, M>& state, bf16* shared, const Prefill& a, const Job& job) {
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16 * M;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = warp_row + 16 * m + 8 * half + lane / 4;
            const float sum = state.row_sum(m, half);
            const float inverse = 1.0f / sum; // every row sees at least its own key
#pragma unroll
            for (int d = 0; d < D / 8; ++d) {
                *reinterpret_cast<uint32_t*>(shared + row * T::STRIDE + 8 * d + lane % 4 * 2) =
                    pack_bf16(state.output[m][d][2 * half] * inverse, state.output[m][d][2 * half + 1] * inverse);
            }
            if (a.lse != nullptr && lane % 4 == 0 && job.row0 + row < job.rows) {
                const float log2_sum = fmaf(state.top[m][half], a.heads.log2_scale(), log2f(sum));
                a.lse[job.head_row(job.row0 + row, a.heads.query_heads)] = log2_sum * LN_2;
            }
        }
    }
    __syncwarp();
    for (int i = lane; i < 16 * M * T::CHUNKS; i += WARP) {
        const int row = warp_row + i / T::CHUNKS, chunk = i % T::CHUNKS;
        if (job.row0 + row >= job.rows) continue;
        const int64_t to = job.head_row(job.row0 + row, a.heads.query_heads) * T::CHUNKS + chunk;
        reinterpret_cast<uint4*>(a.output)[to] =
            *reinterpret_cast<const uint4*>(shared + row * T::STRIDE + chunk * VECTOR);
    }
}

template <int D, int M, int KEYS>
__device__ __forceinline__ void prefill(const Prefill& a, const int* sequences, const int* work) {
    using T = Tile<D, M, KEYS>;
    constexpr int N = KEYS / 8;
    extern __shared__ __align__(16) bf16 shared[];
    const Shared start = shared_address(shared), buffers = start + T::QUERY_BYTES;

    const Job job = take_job(a.heads, sequences, work, T::ROWS);
    if (job.row0 >= job.rows) return;
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16 * M;
    const Shared queries = start + BYTES * warp_row * T::STRIDE + row_major_lane<T::STRIDE>(lane);
    const int row = job.row0 + warp_row + lane / 4;
    // The positions of the block's first and last query: every row sees the keys up to `lowest`.
    const int lowest = job.position(job.row0), highest = job.end - 1;

    OnlineSoftmax<D, M> state;
    state.clear();
    load_queries<T>(start, a, job);
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
        multiply_keys<D, M, N, T::STRIDE>(scores, queries, keys + key_lane<T::STRIDE>(lane));
        if (a.heads.softcap > 0.0f) cap(scores, a.heads);
        const bool cut = a.heads.window > 0 && first <= highest - a.heads.window;
        if (next - 1 > lowest || cut) mask(scores, job, a.heads.window, row, first + lane % 4 * 2);
        state.template weigh<N>(scores, a.heads.log2_scale());
        state.template add_values<N, T::STRIDE>(scores, values + row_major_lane<T::STRIDE>(lane));
    }
    store<D, M, T>(state, shared, a, job);
}

} // namespace

#define ATTENTION_PREFILL(NAME, D, M, KEYS)                                                                            \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)                                                 \
        NAME(const bf16* queries, const bf16* k_pool, const bf16* v_pool, bf16* output, float* lse,                    \
             const int* sequences, const int* work, int query_heads, int kv_heads, float scale, float softcap,         \
             int window) {                                                                                             \
        prefill<D, M, KEYS>({queries, k_pool, v_pool, output, lse, {query_heads, kv_heads, scale, softcap, window}},   \
                            sequences, work);                                                                          \
    }
ATTENTION_PREFILL(attention_prefill_d64, 64, 2, 64)
ATTENTION_PREFILL(attention_prefill_d96, 96, 2, 64)
ATTENTION_PREFILL(attention_prefill_d128, 128, 2, 64)
ATTENTION_PREFILL(attention_prefill_d256, 256, 1, 32)
