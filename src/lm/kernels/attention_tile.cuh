//! What the kernels over tiles of query rows share (prefill attention and the gradient of the queries): a block's share
//! of the work, its rows in and out of shared memory, and the products of fragments.
//!
//! The rows of a tile are the (query, head) pairs of one kv head, query by query: a short sequence fills tiles just as a
//! long one does, and a tile spans few positions, so little of it is masked.
#pragma once

#include "attention.cuh"

// M: blocks of 16 rows per warp; KEYS: keys per step. Two buffers: one tile is loaded while another is used.
template <int D, int M, int KEYS, typename E = bf16> struct Tile {
    using Element = E;
    using Loader = KeyLoader<D, KEYS, ATTENTION_THREADS, E>;
    static constexpr int ROWS = ATTENTION_WARPS * 16 * M;
    static constexpr int STRIDE = D + 8;
    static constexpr int CHUNKS = D / VECTOR;
    static constexpr int QUERY_BYTES = BYTES * ROWS * STRIDE;
    static constexpr int BUFFER_BYTES = 2 * Loader::TILE_BYTES;
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

// Starts copying the job's rows of `rows` [T, Hq, D] into a tile [ROWS, D + 8].
template <typename T>
__device__ __forceinline__ void load_rows(Shared shared, const typename T::Element* rows, const Job& job, int query_heads) {
#pragma unroll 4
    for (int i = threadIdx.x; i < T::ROWS * T::CHUNKS; i += ATTENTION_THREADS) {
        const int row = i / T::CHUNKS, chunk = i % T::CHUNKS;
        // Rows past the last repeat it; they are never stored.
        const int64_t from = job.head_row(min(job.row0 + row, job.rows - 1), query_heads);
        const Shared to = shared + BYTES * (row * T::STRIDE + chunk * VECTOR);
        copy_async(to, rows + (from * T::CHUNKS + chunk) * VECTOR);
    }
}

// The job's rows of `out` [T, Hq, D] = values, each row by its factor: through the warp's own rows of `shared`, a tile
// that no other warp reads any more, so that stores are 16 bytes wide.
template <int D, int M, typename T>
__device__ __forceinline__ void store_rows(const float (&values)[M][D / 8][4], const float (&factors)[M][2],
                                           typename T::Element* shared, typename T::Element* out, const Job& job,
                                           int query_heads) {
    const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16 * M;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = warp_row + 16 * m + 8 * half + lane / 4;
#pragma unroll
            for (int d = 0; d < D / 8; ++d) {
                *reinterpret_cast<uint32_t*>(shared + row * T::STRIDE + 8 * d + lane % 4 * 2) =
                    pack<typename T::Element>(values[m][d][2 * half] * factors[m][half],
                                              values[m][d][2 * half + 1] * factors[m][half]);
            }
        }
    }
    __syncwarp();
    for (int i = lane; i < 16 * M * T::CHUNKS; i += WARP) {
        const int row = warp_row + i / T::CHUNKS, chunk = i % T::CHUNKS;
        if (job.row0 + row >= job.rows) continue;
        const int64_t to = job.head_row(job.row0 + row, query_heads) * T::CHUNKS + chunk;
        reinterpret_cast<uint4*>(out)[to] = *reinterpret_cast<const uint4*>(shared + row * T::STRIDE + chunk * VECTOR);
    }
}

// scores = queries * keys; both addresses are the lane's own.
template <int D, int M, int N, int STRIDE, typename E = bf16>
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
                multiply_add<E>(scores[m][2 * n], a[m], b[0], b[1]);
                multiply_add<E>(scores[m][2 * n + 1], a[m], b[2], b[3]);
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
