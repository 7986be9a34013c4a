//! One token per row of logits, drawn from softmax(logits / temperature) over the allowed tokens by Gumbel-max, with
//! its log-probabilities. In: logits [B, V]. Knows neither text nor grammar. Two passes: chunks of a row, then the row.
//!
//! Randomness: Philox4x32-10 (Salmon et al., SC 2011) with the row's seed as key (low word first) and counter
//! (token / 4, step, 0, 0), word token % 4. From the word x: v = min((x + 1/2) / 2^32, 1 - 2^-24) and the noise is
//! -ln(-ln(1 - v)). A draw depends on (seed, step, logits) alone, never on the batch. Equal scores: the lower token.
//!
//! sample_chunks_*: grid (chunks, B), chunks = ceil(V / 4096), block (256); partial float32 [B, chunks, 8].
//! sample_finish: grid (B), block (32). No dynamic shared memory; V below 2^31.
#include "logsumexp.cuh"

namespace {

constexpr int PARTS = 8; // float32 words of a Part

struct Best {
    float score, logit;
    int token; // -1: no token can be taken

    __device__ __forceinline__ void offer(const Best& other) {
        const bool better = other.score > score || (other.score == score && other.token < token);
        if (other.token >= 0 && (token < 0 || better)) *this = other;
    }
};

// What is known of some of a row's tokens.
struct Part {
    Best best;
    LogSumExp plain;    // of all logits
    LogSumExp tempered; // of logits / temperature, allowed tokens only

    __device__ __forceinline__ static Part empty() {
        return {{negative_infinity(), negative_infinity(), -1}, LogSumExp::empty(), LogSumExp::empty()};
    }
    __device__ __forceinline__ void merge(const Part& other) {
        best.offer(other.best);
        plain = plain.merged(other.plain);
        tempered = tempered.merged(other.tempered);
    }
    __device__ __forceinline__ Part over_warp() const {
        Part all = *this;
        for (int step = WARP / 2; step > 0; step /= 2) {
            all.best.offer({__shfl_xor_sync(ALL_LANES, all.best.score, step),
                            __shfl_xor_sync(ALL_LANES, all.best.logit, step),
                            __shfl_xor_sync(ALL_LANES, all.best.token, step)});
        }
        all.plain = plain.over_warp();
        all.tempered = tempered.over_warp();
        return all;
    }
    __device__ __forceinline__ static Part read(const float* from) {
        return {{from[0], from[1], __float_as_int(from[2])}, {from[3], from[4]}, {from[5], from[6]}};
    }
    __device__ __forceinline__ void write(float* to) const {
        to[0] = best.score, to[1] = best.logit, to[2] = __int_as_float(best.token);
        to[3] = plain.top, to[4] = plain.sum, to[5] = tempered.top, to[6] = tempered.sum;
    }
};

__device__ __forceinline__ uint4 philox(uint4 counter, uint32_t key0, uint32_t key1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint32_t high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
        const uint32_t high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
        counter = make_uint4(high1 ^ counter.y ^ key0, low1, high0 ^ counter.w ^ key1, low0);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// v keeps its full precision near 0, where the largest noise comes from; below 1 it cannot make the noise infinite.
__device__ __forceinline__ float gumbel(uint32_t word) {
    const float v = fminf(fmaf(static_cast<float>(word), 0x1p-32f, 0x1p-33f), 1.0f - 0x1p-24f);
    return -logf(-log1pf(-v));
}

struct Row {
    uint64_t seed;
    uint32_t step;
    float temperature; // 0: the highest logit, no noise
    const uint32_t* allowed; // ceil(V / 32) words, bit i of word w is token 32 w + i, 1 = allowed; null: all
};

// Tokens first..first + 4.
__device__ __forceinline__ void consider(Part& part, const Row& row, const float (&logits)[LOGITS], int first) {
    part.plain.add(logits);
    const uint32_t bits = row.allowed == nullptr ? 0xfu : row.allowed[first / 32] >> (first % 32);
    if ((bits & 0xfu) == 0) return;
    const bool greedy = row.temperature <= 0.0f;
    const float inverse = greedy ? 1.0f : 1.0f / row.temperature;
    uint32_t noise[LOGITS] = {};
    if (!greedy) {
        const uint4 words = philox(make_uint4(first / LOGITS, row.step, 0, 0), static_cast<uint32_t>(row.seed),
                                   static_cast<uint32_t>(row.seed >> 32));
        noise[0] = words.x, noise[1] = words.y, noise[2] = words.z, noise[3] = words.w;
    }
    float tempered[LOGITS];
#pragma unroll
    for (int i = 0; i < LOGITS; ++i) {
        const bool allowed = bits >> i & 1u;
        tempered[i] = allowed ? logits[i] * inverse : negative_infinity();
        const float score = greedy ? tempered[i] : tempered[i] + gumbel(noise[i]);
        if (score > part.best.score) part.best = {score, logits[i], first + i};
    }
    part.tempered.add(tempered);
}

template <typename T>
__device__ __forceinline__ void sample_chunk(const T* logits, const Row& row, float* partial, int vocabulary) {
    __shared__ float warps[LOGIT_THREADS / WARP][PARTS];
    const T* from = logits + static_cast<int64_t>(blockIdx.y) * vocabulary;
    const bool whole = vocabulary % LOGITS == 0;
    Part part = Part::empty();
    float values[CHUNK / LOGITS / LOGIT_THREADS][LOGITS];
    const int start = blockIdx.x * CHUNK + threadIdx.x * LOGITS;
#pragma unroll
    for (int i = 0; i < CHUNK / LOGITS / LOGIT_THREADS; ++i) {
        load_logits(values[i], from, start + i * LOGIT_THREADS * LOGITS, vocabulary, whole);
    }
#pragma unroll
    for (int i = 0; i < CHUNK / LOGITS / LOGIT_THREADS; ++i) {
        const int first = start + i * LOGIT_THREADS * LOGITS;
        if (first < vocabulary) consider(part, row, values[i], first);
    }
    part = part.over_warp();
    if (threadIdx.x % WARP == 0) part.write(warps[threadIdx.x / WARP]);
    __syncthreads();
    if (threadIdx.x >= WARP) return;
    part = threadIdx.x < LOGIT_THREADS / WARP ? Part::read(warps[threadIdx.x]) : Part::empty();
    part = part.over_warp();
    if (threadIdx.x == 0) part.write(partial + PARTS * (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x));
}

} // namespace

// `temperatures`, `seeds`, `steps`: per row. `allowed`: [B, ceil(V / 32)], or null.
#define SAMPLE_CHUNKS(NAME, T)                                                                                         \
    extern "C" __global__ void __launch_bounds__(LOGIT_THREADS)                                                        \
        NAME(const T* logits, const float* temperatures, const uint64_t* seeds, const uint32_t* steps,                 \
             const uint32_t* allowed, float* partial, int vocabulary) {                                                \
        const int b = blockIdx.y;                                                                                      \
        const int64_t words = (vocabulary + 31) / 32;                                                                  \
        const Row row = {seeds[b], steps[b], temperatures[b], allowed == nullptr ? nullptr : allowed + b * words};     \
        sample_chunk<T>(logits, row, partial, vocabulary);                                                             \
    }
SAMPLE_CHUNKS(sample_chunks_bf16, bf16)
SAMPLE_CHUNKS(sample_chunks_f32, float)

// tokens [B]: the draw, or -1 with NaN log-probabilities where none can be taken (all forbidden, -infinity or NaN).
// logprobs [B]: under temperature 1, over all tokens: what the model gives it. sampled_logprobs [B]: under the
// distribution that it was drawn from (tempered, allowed tokens only); 0 where temperature = 0. lse [B]: of all logits.
extern "C" __global__ void __launch_bounds__(WARP)
    sample_finish(const float* partial, const float* temperatures, int* tokens, float* logprobs,
                  float* sampled_logprobs, float* lse, int chunks) {
    const int b = blockIdx.x;
    Part part = Part::empty();
    for (int i = threadIdx.x; i < chunks; i += WARP) {
        part.merge(Part::read(partial + PARTS * (static_cast<int64_t>(b) * chunks + i)));
    }
    part = part.over_warp();
    if (threadIdx.x != 0) return;
    const float all = part.plain.value(), temperature = temperatures[b];
    const bool none = part.best.token < 0;
    tokens[b] = part.best.token;
    lse[b] = all;
    logprobs[b] = none ? not_a_number() : part.best.logit - all;
    const float sampled = temperature <= 0.0f ? 0.0f : part.best.logit * (1.0f / temperature) - part.tempered.value();
    sampled_logprobs[b] = none ? not_a_number() : sampled;
}
