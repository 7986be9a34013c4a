//! Log-sum-exp of rows of logits, and log-probabilities of given tokens from it. In: logits [B, V]; out: natural
//! logarithms, float32. A NaN or a +infinity among a row's logits makes its log-sum-exp NaN: the caller's error.
//!
//! logsumexp_rows_*: grid (chunks, B), chunks = ceil(V / 4096), block (256); writes partial float32 [B, chunks, 2].
//! logsumexp_finish: grid (B), block (32); partial to [B].
//! gather_logprob_*: grid (ceil(B * K / 256)), block (256); ids int32 [B, K], out [B, K]. No dynamic shared memory.
#include "logsumexp.cuh"

namespace {

template <typename T> __device__ __forceinline__ void chunk_logsumexp(const T* logits, float* partial, int vocabulary) {
    __shared__ LogSumExp warps[LOGIT_THREADS / WARP];
    const T* row = logits + static_cast<int64_t>(blockIdx.y) * vocabulary;
    const bool whole = vocabulary % LOGITS == 0;
    float terms[CHUNK / LOGITS / LOGIT_THREADS][LOGITS];
#pragma unroll
    for (int i = 0; i < CHUNK / LOGITS / LOGIT_THREADS; ++i) {
        const int first = blockIdx.x * CHUNK + (i * LOGIT_THREADS + threadIdx.x) * LOGITS;
        load_logits(terms[i], row, first, vocabulary, whole);
    }
    LogSumExp all = LogSumExp::empty();
#pragma unroll
    for (int i = 0; i < CHUNK / LOGITS / LOGIT_THREADS; ++i) all.add(terms[i]);
    all = all.over_warp();
    if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = all;
    __syncthreads();
    if (threadIdx.x >= WARP) return;
    all = threadIdx.x < LOGIT_THREADS / WARP ? warps[threadIdx.x] : LogSumExp::empty();
    all = all.over_warp();
    if (threadIdx.x == 0) {
        float* to = partial + 2 * (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x);
        to[0] = all.top;
        to[1] = all.sum;
    }
}

template <typename T>
__device__ __forceinline__ void gather(const T* logits, const float* lse, const int* ids, float* out, int rows,
                                       int ids_per_row, int vocabulary) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= static_cast<int64_t>(rows) * ids_per_row) return;
    const int64_t row = i / ids_per_row;
    const int id = ids[i];
    const bool known = id >= 0 && id < vocabulary;
    out[i] = known ? to_float(logits[row * vocabulary + id]) - lse[row] : not_a_number();
}

} // namespace

#define LOGSUMEXP_ROWS(NAME, T)                                                                                        \
    extern "C" __global__ void __launch_bounds__(LOGIT_THREADS) NAME(const T* logits, float* partial, int vocabulary) {\
        chunk_logsumexp<T>(logits, partial, vocabulary);                                                               \
    }
LOGSUMEXP_ROWS(logsumexp_rows_bf16, bf16)
LOGSUMEXP_ROWS(logsumexp_rows_f32, float)

extern "C" __global__ void __launch_bounds__(WARP) logsumexp_finish(const float* partial, float* lse, int chunks) {
    const float* row = partial + 2 * static_cast<int64_t>(blockIdx.x) * chunks;
    LogSumExp all = LogSumExp::empty();
    for (int i = threadIdx.x; i < chunks; i += WARP) all = all.merged({row[2 * i], row[2 * i + 1]});
    all = all.over_warp();
    if (threadIdx.x == 0) lse[blockIdx.x] = all.value();
}

// out[b, k] = logits[b, ids[b, k]] - lse[b]; an id outside 0..V gives NaN.
#define GATHER_LOGPROB(NAME, T)                                                                                        \
    extern "C" __global__ void __launch_bounds__(256) NAME(const T* logits, const float* lse, const int* ids,          \
                                                           float* out, int rows, int ids_per_row, int vocabulary) {    \
        gather<T>(logits, lse, ids, out, rows, ids_per_row, vocabulary);                                               \
    }
GATHER_LOGPROB(gather_logprob_bf16, bf16)
GATHER_LOGPROB(gather_logprob_f32, float)
