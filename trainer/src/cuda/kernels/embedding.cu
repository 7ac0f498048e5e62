// The embedding: a row of the table for each token, and the table's gradient without atomics.
#include "prelude.cuh"

// out (tokens, width) ← the row of table (vocab, width) of each token. Grid (tokens).
KERNEL(128, 8) embed(const u32* __restrict__ tokens, const Vec4* __restrict__ table, Vec4* __restrict__ out, u32 width) {
    u32 vectors = width / 8;
    const Vec4* from = table + (u64)tokens[blockIdx.x] * vectors;
    Vec4* to = out + (u64)blockIdx.x * vectors;
    for (u32 i = threadIdx.x; i < vectors; i += 128) to[i] = from[i];
}
EXPORT(embed)

// gradient (vocab, width), f32 ← + the rows of d_out (tokens, width) of each distinct token. The rows of ids[k] are
// order[firsts[k] .. firsts[k + 1]]: they are summed in that order, and the sum is added once, so that the bits depend
// neither on the card nor on what the gradient was. Grid (distinct, ⌈width / 1024⌉): eight columns a thread.
KERNEL(128, 8) embed_gradient(const u32* __restrict__ order, const u32* __restrict__ firsts, const u32* __restrict__ ids,
                              const Vec4* __restrict__ d_out, float* __restrict__ gradient, u32 width) {
    u32 vectors = width / 8, column = blockIdx.y * 128 + threadIdx.x;
#ifndef BUG_EMBED_RAGGED
    if (column >= vectors) return;
#endif
    u32 end = firsts[blockIdx.x + 1];
    Floats8 sum = {};
#pragma unroll 4
    for (u32 i = firsts[blockIdx.x]; i < end; i++) {
        Floats8 row = unpack_bf16(d_out[(u64)order[i] * vectors + column]);
#pragma unroll
        for (int j = 0; j < 8; j++) sum.v[j] += row.v[j];
    }
    float* to = gradient + ((u64)ids[blockIdx.x] * vectors + column) * 8;
    Floats8 was = load_floats(to);
#pragma unroll
    for (int j = 0; j < 8; j++) was.v[j] += sum.v[j];
    store_floats(to, was);
}
EXPORT(embed_gradient)
