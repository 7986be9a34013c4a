//! Rows of the embedding table. In: ids [T] and table [V, width]; out [T, width] = table[ids] * scale. `scale` is 1 but
//! for Gemma, where the caller gives sqrt(width) rounded as the model rounds it. An id outside 0..V gives a row of NaN,
//! which no later check can take for a score.
//!
//! grid (T), block (min(256, round_up(width / 8, 32))), no dynamic shared memory; width a multiple of 8.
#include "common.cuh"

namespace {

template <typename T>
__device__ __forceinline__ void embed(const int* ids, const T* table, T* out, int vocabulary, int width, float scale) {
    const int64_t token = blockIdx.x;
    const int64_t id = ids[token];
    const bool known = id >= 0 && id < vocabulary;
    for (int column = threadIdx.x * VECTOR; column < width; column += blockDim.x * VECTOR) {
        Floats8 row = {};
        if (known) row = load8(table + id * width + column);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) row.at[i] = known ? row.at[i] * scale : not_a_number();
        store8(out + token * width + column, row);
    }
}

} // namespace

#define EMBED_ROWS(NAME, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        NAME(const int* ids, const T* table, T* out, int vocabulary, int width, float scale) {                         \
        embed<T>(ids, table, out, vocabulary, width, scale);                                                           \
    }
EMBED_ROWS(embed_rows_bf16, bf16)
EMBED_ROWS(embed_rows_f32, float)
