// RMSNorm with the residual's sum before it, and its gradients. x, y, w and all rows are bf16, everything inside is
// f32. For a row x: normed = x · inverse · w with inverse = 1 / √(mean(x²) + ε).
#include "prelude.cuh"

namespace rms {
// Rows whose weight gradient is one part, and rows that a block takes at once, a warp each.
constexpr u32 ROWS = 64, GROUP = 8;

// The warp's sum, in every lane.
DEVICE float warp_sum(float value) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) value += shuffle_xor(value, by);
    return value;
}

DEVICE Vec4 scaled(const Vec4& x, const Vec4& w, float inverse) {
    Floats8 values = unpack_bf16(x), weights = unpack_bf16(w);
#pragma unroll
    for (int j = 0; j < 8; j++) values.v[j] = values.v[j] * inverse * weights.v[j];
    return pack_bf16(values);
}
}

// sum ← x + y, rounded, and normed ← the norm of that; where y is null, the norm of x, and sum is not touched.
// x, y, sum, normed: (tokens, width); inverse: (tokens). sum may be x. Grid (tokens).
KERNEL(128, 8) add_norm(const Vec4* x, const Vec4* __restrict__ y, Vec4* sum, const Vec4* __restrict__ w,
                        Vec4* __restrict__ normed, float* __restrict__ inverse, u32 width, float epsilon) {
    using namespace rms;
    SHARED float parts[4];
    u32 vectors = width / 8;
    u64 first = (u64)blockIdx.x * vectors;
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < vectors; i += 128) {
        Vec4 row = x[first + i];
        Floats8 values = unpack_bf16(row);
        if (y) {
            Floats8 other = unpack_bf16(y[first + i]);
#pragma unroll
            for (int j = 0; j < 8; j++) values.v[j] += other.v[j];
            row = pack_bf16(values);
            sum[first + i] = row;
#ifndef BUG_NORM_UNROUNDED
            values = unpack_bf16(row);
#endif
        }
#pragma unroll
        for (int j = 0; j < 8; j++) squares += values.v[j] * values.v[j];
    }
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = squares;
#ifndef BUG_NORM_NO_BARRIER
    sync_block();
#endif
    float scale = rsqrt_exact((parts[0] + parts[1] + parts[2] + parts[3]) / (float)width + epsilon);
    if (threadIdx.x == 0) inverse[blockIdx.x] = scale;
    // Each thread reads again what it has just read or written: from the cache, not from memory.
    const Vec4* row = y ? sum : x;
    for (u32 i = threadIdx.x; i < vectors; i += 128) normed[first + i] = scaled(row[first + i], w[i], scale);
}
EXPORT(add_norm)

// normed ← x · inverse · w: the norm again from what add_norm kept. Grid (tokens).
KERNEL(128, 8) norm_again(const Vec4* __restrict__ x, const Vec4* __restrict__ w, const float* __restrict__ inverse,
                          Vec4* __restrict__ normed, u32 width) {
    u32 vectors = width / 8;
    u64 first = (u64)blockIdx.x * vectors;
    float scale = inverse[blockIdx.x];
    for (u32 i = threadIdx.x; i < vectors; i += 128) normed[first + i] = rms::scaled(x[first + i], w[i], scale);
}
EXPORT(norm_again)

// d_x ← (d_x if add) + the gradient through the norm, and parts (⌈tokens / 64⌉, width) ← each 64 rows' part of the
// weight's gradient, summed in the order of the rows. With s = inverse and dy = d_normed:
// dx = s · w · dy − x · s³ / width · Σ(dy · w · x), dw = Σ over rows of dy · x · s. Grid (⌈tokens / 64⌉).
//
// Eight rows at a time: first a warp sums each row's dot product, then each thread takes its columns through the
// eight rows, which come from the cache. So there is one barrier for eight rows and no sum is kept in registers for
// longer than that, whatever the width; two sets of dots, since a warp may be in the next eight rows already.
KERNEL(256, 2) norm_backward(const Vec4* __restrict__ d_normed, const Vec4* __restrict__ x, const Vec4* __restrict__ w,
                             const float* __restrict__ inverse, Vec4* __restrict__ d_x, float* __restrict__ parts,
                             u32 tokens, u32 width, u32 add) {
    using namespace rms;
    SHARED float dots[2][GROUP];
    u32 vectors = width / 8, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 block_first = blockIdx.x * ROWS;
    u32 rows = smaller(ROWS, tokens - block_first), part = blockIdx.x;
#ifdef BUG_BACKWARD_RAGGED
    rows = ROWS;
#endif
#ifdef BUG_BACKWARD_PARTS
    part = gridDim.x - 1 - part;
#endif
    parts += (u64)part * width;
    for (u32 group = 0; group < rows; group += GROUP) {
        u32 first = block_first + group, here = smaller(GROUP, rows - group);
        float* dot = dots[group / GROUP % 2];
#ifdef BUG_BACKWARD_ONE_SET
        dot = dots[0];
#endif
        if (warp < here) {
            u64 row = (u64)(first + warp) * vectors;
            float sum = 0.0f;
#pragma unroll 4
            for (u32 i = lane; i < vectors; i += 32) {
                Floats8 dy = unpack_bf16(d_normed[row + i]), values = unpack_bf16(x[row + i]), weights = unpack_bf16(w[i]);
#pragma unroll
                for (int j = 0; j < 8; j++) sum += dy.v[j] * weights.v[j] * values.v[j];
            }
            sum = warp_sum(sum);
            if (lane == 0) dot[warp] = sum;
        }
#ifndef BUG_BACKWARD_NO_BARRIER
        sync_block();
#endif
        for (u32 i = threadIdx.x; i < vectors; i += 256) {
            Floats8 weights = unpack_bf16(w[i]), sums = {};
            if (group > 0) sums = load_floats(parts + i * 8);
#pragma unroll 4
            for (u32 r = 0; r < here; r++) {
                u64 at = (u64)(first + r) * vectors + i;
                float scale = inverse[first + r], along = dot[r] * scale * scale * scale / (float)width;
                Floats8 dy = unpack_bf16(d_normed[at]), values = unpack_bf16(x[at]), dx = {};
                if (add) dx = unpack_bf16(d_x[at]);
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    dx.v[j] += scale * weights.v[j] * dy.v[j] - values.v[j] * along;
                    sums.v[j] += dy.v[j] * values.v[j] * scale;
                }
                d_x[at] = pack_bf16(dx);
            }
            store_floats(parts + i * 8, sums);
        }
    }
}
EXPORT(norm_backward)

// gradient (width) ← + the parts (blocks, width), summed in order before. Grid (⌈width / 128⌉): a column a thread.
KERNEL(128, 8) norm_weight_gradient(const float* __restrict__ parts, float* __restrict__ gradient, u32 blocks, u32 width) {
    u32 column = blockIdx.x * 128 + threadIdx.x;
    if (column >= width) return;
    float sum = 0.0f;
#pragma unroll 8
    for (u32 block = 0; block < blocks; block++) sum += parts[(u64)block * width + column];
    gradient[column] += sum;
}
EXPORT(norm_weight_gradient)
