// What the prelude has, used once each, and mistakes for the emulator to find. Only the tests compile it.
#include "prelude.cuh"

namespace probe {
constexpr u32 THREADS = 128;
// A warp's lane in a block of 128.
DEVICE u32 lane_of_warp() { return threadIdx.x % 32; }
}  // namespace probe

// One block; of each lane 24 words.
KERNEL(128, 1) words(const u32* __restrict__ in, u32* __restrict__ out, u64 wide, float scalar) {
    using namespace probe;
    u32 lane = lane_of_warp(), value = in[threadIdx.x];
    u32* to = out + threadIdx.x * 24;
    float x = bits_to_float(value);
    to[0] = shuffle_xor(value, 5);
    to[1] = shuffle_up(value, 3);
    to[2] = shuffle_down(value, 3);
    to[3] = shuffle(value, (lane * 7 + 1) % 32);
    to[4] = float_to_bits(shuffle_xor(x, 16));
    to[5] = (u32)shuffle_xor((i32)value, 1);
    double d = shuffle_xor((double)value * 1e10, 2);
    to[6] = (u32)(d / 1e10 + 0.5);
    to[7] = ballot(value % 3 == 0);
    to[8] = popcount(value);
    to[9] = clz(value);
    to[10] = find_first(value);
    to[11] = pack_bf16(x, -x);
    to[12] = (u32)round_bf16(x) | (u32)round_bf16_up(x) << 16;
    to[13] = float_to_bits(bf16_to_float((u16)value));
    to[14] = float_to_bits(low_bf16(value));
    to[15] = float_to_bits(high_bf16(value));
    float y = bf16_to_float((u16)(0x3f80 + threadIdx.x));
    to[16] = float_to_bits(mul_exact(y, scalar));
    to[17] = float_to_bits(add_exact(mul_exact(y, scalar), sub_exact(y, scalar)));
    to[18] = float_to_bits(div_exact(y, scalar));
    to[19] = float_to_bits(sqrt_exact(y));
    to[20] = float_to_bits(rsqrt_exact(y));
    to[21] = (u32)(wide >> 32) + smaller(value, 7) + larger(value, 9);
    to[22] = float_to_bits((float)f64_add(f64_mul((double)y, 3.0), 1.0));
    to[23] = float_to_bits(log2_fast(exp2_fast((float)lane)));
    sync_warp();
}
EXPORT(words)

// out[block] = the sum of the block's 128 values, exactly; histogram: how many of all have each remainder of 8.
KERNEL(128, 1) sums(const u32* __restrict__ in, u32* __restrict__ out, u32* __restrict__ histogram, u32 length) {
    using namespace probe;
    SHARED u32 parts[4];
    SHARED u32 counts[8];
    u32 at = blockIdx.x * THREADS + threadIdx.x;
#ifdef BUG_END
    u32 value = at <= length ? in[at] : 0;
#else
    u32 value = at < length ? in[at] : 0;
#endif
    if (threadIdx.x < 8) counts[threadIdx.x] = 0;
    u32 sum = value;
#pragma unroll
    for (u32 by = 16; by > 0; by /= 2) sum += shuffle_xor(sum, by);
#ifndef BUG_ALL_WRITE
    if (lane_of_warp() == 0)
#endif
        parts[threadIdx.x / 32] = sum;
#ifdef BUG_DIVERGENT_SHUFFLE
    if (lane_of_warp() < 30) sum += shuffle_xor(sum, 1);
#endif
#ifdef BUG_DIVERGENT_BARRIER
    if (at < length)
#endif
#ifndef BUG_NO_BARRIER
        sync_block();
#endif
#ifdef BUG_TWO_BARRIERS
    if (threadIdx.x < 64)
        sync_block();
    else
        sync_block();
#endif
#ifdef BUG_EARLY_END
    if (at >= length) return;
#endif
    if (at < length) atomic_add_shared(&counts[value % 8], 1);
    sync_block();
    if (threadIdx.x == 0) out[blockIdx.x] = parts[0] + parts[1] + parts[2] + parts[3];
#ifdef BUG_BLOCKS_MEET
    if (threadIdx.x < 8) histogram[threadIdx.x] += counts[threadIdx.x];
#else
    if (threadIdx.x < 8) histogram[blockIdx.x * 8 + threadIdx.x] = counts[threadIdx.x];
#endif
#ifdef BUG_BLOCKS_WRITE_ONE_WORD
    if (threadIdx.x == 0) histogram[gridDim.x * 8] = 5;
#endif
#ifdef BUG_OUTSIDE
    if (threadIdx.x == 0) out[gridDim.x] = 1;
#endif
#ifdef BUG_OUTSIDE_SHARED
    if (threadIdx.x == 0) out[blockIdx.x] += parts[3 + length / 200] * 0;
#endif
}
EXPORT(sums)

namespace probe {
// A tile of 64 rows of 64 values: 8 chunks of 16 bytes a row, each row's turned by its number.
DEVICE u32 place(u32 row, u32 chunk) {
#ifdef BUG_NO_SWIZZLE
    return (row * 8 + chunk) * 16;
#else
    return (row * 8 + (chunk ^ (row & 7))) * 16;
#endif
}
DEVICE void load_tile(u8* tile, const u16* from, u32 rows) {
    for (u32 i = threadIdx.x; i < 64 * 8; i += THREADS) {
        u32 row = i / 8, chunk = i % 8;
        bool valid = row < rows;
        copy_async(tile + place(row, chunk), from + (valid ? row : 0) * 64 + chunk * 8, valid);
    }
}
}  // namespace probe

// out (64, 64) = sum over tiles i of a_i (64, 64) · b_i (64, 64)ᵀ; rows in all are `rows`, and those after them 0.
// 4 warps, 16 rows of a each; two tiles in flight. Dynamic shared memory: 4 tiles of 8 KiB.
KERNEL(128, 1) products(const u16* __restrict__ a, const u16* __restrict__ b, float* __restrict__ out, u32 rows) {
    using namespace probe;
    DYNAMIC_SHARED(shared);
    constexpr u32 TILE = 64 * 64 * 2;
    u32 lane = lane_of_warp(), warp = threadIdx.x / 32, tiles = (rows + 63) / 64;
    float d[8][4];
#pragma unroll
    for (int n = 0; n < 8; n++)
        for (int i = 0; i < 4; i++) d[n][i] = 0.0f;
    load_tile(shared, a, rows);
    load_tile(shared + TILE, b, rows);
    copy_commit();
    for (u32 tile = 0; tile < tiles; tile++) {
        u8 *here = shared + tile % 2 * 2 * TILE, *next = shared + (tile + 1) % 2 * 2 * TILE;
        if (tile + 1 < tiles) {
            u32 first = (tile + 1) * 64;
            load_tile(next, a + first * 64, rows - first);
            load_tile(next + TILE, b + first * 64, rows - first);
        }
        copy_commit();
#ifndef BUG_NO_WAIT
        copy_wait<1>();
#endif
#ifndef BUG_NO_BARRIER_BEFORE
        sync_block();
#endif
#pragma unroll
        for (int k = 0; k < 4; k++) {
            u32 x[4];
            load_matrix_x4(x, here + place(warp * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
            for (int n = 0; n < 4; n++) {
                u32 y[4];
                load_matrix_x4(y, here + TILE + place(n * 16 + lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
                mma_16x8x16(d[2 * n], x, y[0], y[1]);
                mma_16x8x16(d[2 * n + 1], x, y[2], y[3]);
            }
        }
#ifndef BUG_NO_BARRIER_AFTER
        sync_block();
#endif
    }
    float* to = out + (warp * 16 + lane / 4) * 64 + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < 8; n++)
        for (int i = 0; i < 4; i++) to[i / 2 * 8 * 64 + n * 8 + i % 2] = d[n][i];
}
EXPORT(products)

// out[i] = in[i ^ 1], by way of shared memory.
KERNEL(128, 1) neighbours(const u32* __restrict__ in, u32* __restrict__ out) {
    SHARED u32 kept[128];
    u32 value = in[threadIdx.x];
    kept[threadIdx.x] = value;
#ifdef BUG_SHUFFLE_AS_BARRIER
    value = shuffle_xor(value, 0);
#else
    sync_warp();
#endif
    out[threadIdx.x] = kept[threadIdx.x ^ 1];
}
EXPORT(neighbours)

// A kernel's shared memory that it has not written: out[lane] = whether it is NaN, of both kinds.
KERNEL(32, 1) unwritten(u32* __restrict__ out) {
    SHARED float parts[32];
    DYNAMIC_SHARED(shared);
    float dynamic = ((float*)shared)[threadIdx.x];
    out[blockIdx.x * 32 + threadIdx.x] = (parts[threadIdx.x] != parts[threadIdx.x]) + 2 * (dynamic != dynamic);
    parts[threadIdx.x] = 1.0f;
    ((float*)shared)[threadIdx.x] = 1.0f;
}
EXPORT(unwritten)

// What must not be asked for: by `which`.
KERNEL(32, 1) wrong(const u8* __restrict__ in, u32* __restrict__ out, u32 which) {
    DYNAMIC_SHARED(shared);
    u32 r[4] = {0, 0, 0, 0};
    if (which == 0) load_matrix_x4(r, shared + threadIdx.x * 16 + 8);
    if (which == 1) copy_async(shared + 8, in, true);
    if (which == 2) copy_async(shared, in + 4, true);
    if (which == 3) copy_async(out, in, true);
    if (which == 4) load_matrix_x4(r, in);
    if (which == 5) r[0] = shuffle(threadIdx.x, threadIdx.x + 1);
    if (which == 6) r[0] = shuffle_xor(threadIdx.x, 32);
    if (which == 7 && threadIdx.x < 31) sync_warp();
    if (which == 8) {
        if (threadIdx.x < 16)
            sync_warp();
        else
            r[0] = ballot(true);
    }
    if (which == 9) load_matrix_x4(r, shared + 512);
    out[threadIdx.x] = r[0];
}
EXPORT(wrong)

// One warp: fragments as they come, d = a · b + d, and what ldmatrix makes of 32 rows of 8 values, both ways.
KERNEL(32, 1) fragments(const u32* __restrict__ a, const u32* __restrict__ b, float* __restrict__ d, const u32* __restrict__ rows,
                        u32* __restrict__ plain, u32* __restrict__ transposed) {
    SHARED Vec4 tile[32];
    u32 lane = threadIdx.x;
    u32 x[4];
    float sum[4];
    for (int i = 0; i < 4; i++) {
        x[i] = a[lane * 4 + i];
        sum[i] = d[lane * 4 + i];
        tile[lane].v[i] = rows[lane * 4 + i];
    }
    mma_16x8x16(sum, x, b[lane * 2], b[lane * 2 + 1]);
    sync_block();
    u32 p[4], t[4];
    load_matrix_x4(p, &tile[lane]);
    load_matrix_x4_transposed(t, &tile[lane]);
    for (int i = 0; i < 4; i++) {
        d[lane * 4 + i] = sum[i];
        plain[lane * 4 + i] = p[i];
        transposed[lane * 4 + i] = t[i];
    }
}
EXPORT(fragments)
