// Cross entropy of rows of logits, and its gradient in their place.
#include "prelude.cuh"

namespace loss {
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;
// Less than any logit, yet finite: so that what has seen no logit joins as nothing, without a NaN.
constexpr float LOWEST = -3.40282347e38f;

// The largest logit so far, and the sum of e^(logit − largest). A NaN is never the largest, but makes the sum NaN.
struct Sum {
    float largest, sum;
};

DEVICE float exponential(float x) { return exp2_fast(x * LOG2_E); }

DEVICE Sum join(const Sum& a, const Sum& b) {
    float largest = a.largest > b.largest ? a.largest : b.largest;
    return {largest, a.sum * exponential(a.largest - largest) + b.sum * exponential(b.largest - largest)};
}
}

// losses (rows) ← log Σ e^logit − logit[target], in nats, over logits (rows, vocab); where `write` is not 0, logits ←
// (softmax − one at the target) · scale. A target that is no column makes its loss NaN, and nothing outside the row is
// read. One pass finds maximum and sum, a second one writes. Grid (rows).
KERNEL(256, 4) cross_entropy(Vec4* __restrict__ logits, const u32* __restrict__ targets, float* __restrict__ losses,
                             u32 vocab, float scale, u32 write) {
    using namespace loss;
    SHARED Sum parts[8];
    u32 vectors = vocab / 8, target = targets[blockIdx.x];
    logits += (u64)blockIdx.x * vectors;
    Sum sum = {LOWEST, 0.0f};
    u32 end = vectors;
#ifdef BUG_LOSS_RAGGED
    end--;
#endif
#pragma unroll 4
    for (u32 i = threadIdx.x; i < end; i += 256) {
        Floats8 values = unpack_bf16(logits[i]);
        float largest = sum.largest;
#pragma unroll
        for (int j = 0; j < 8; j++) largest = values.v[j] > largest ? values.v[j] : largest;
        sum.sum *= exponential(sum.largest - largest);
        sum.largest = largest;
#pragma unroll
        for (int j = 0; j < 8; j++) sum.sum += exponential(values.v[j] - largest);
    }
#pragma unroll
    for (int by = 16; by > 0; by /= 2) sum = join(sum, {shuffle_xor(sum.largest, by), shuffle_xor(sum.sum, by)});
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    // Before the barrier: behind it the row is overwritten.
    float at_target = bits_to_float(0x7fffffff);
    if (threadIdx.x == 0 && target < vocab) at_target = bf16_to_float(((const u16*)logits)[target]);
#ifndef BUG_LOSS_NO_BARRIER
    sync_block();
#endif
    sum = parts[0];
#pragma unroll
    for (int warp = 1; warp < 8; warp++) sum = join(sum, parts[warp]);
#ifdef BUG_LOSS_TARGET_LATE
    if (threadIdx.x == 0 && target < vocab) at_target = bf16_to_float(((const u16*)logits)[target]);
#endif
    if (threadIdx.x == 0) losses[blockIdx.x] = sum.largest - at_target + log2_fast(sum.sum) * LN_2;
    if (!write) return;
    float factor = scale / sum.sum;
    for (u32 i = threadIdx.x; i < vectors; i += 256) {
        Floats8 values = unpack_bf16(logits[i]);
#pragma unroll
        for (u32 j = 0; j < 8; j++)
            values.v[j] = exponential(values.v[j] - sum.largest) * factor - (i * 8 + j == target ? scale : 0.0f);
        logits[i] = pack_bf16(values);
    }
}
EXPORT(cross_entropy)
