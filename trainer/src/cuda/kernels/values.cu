// What is done to values one by one, whatever tensor they are of; lengths are any, addresses are multiples of 16
// bytes. Nothing here rounds differently on another card: sums and conversions are exact or rounded once.
#include "prelude.cuh"

namespace values {
// Values that a thread takes at once.
constexpr u32 AT_ONCE = 8;

// The first of this thread's values.
DEVICE u64 first() { return ((u64)blockIdx.x * 128 + threadIdx.x) * AT_ONCE; }

// Whether all of this thread's values are there; the last thread may have fewer.
DEVICE bool whole(u64 at, u64 len) {
#ifdef BUG_VALUES_RAGGED
    return at < len;
#endif
    return at + AT_ONCE <= len;
}

// f32 values from `at` on, 0 where there are none.
DEVICE Floats8 load(const float* from, u64 at, u64 len) {
    if (whole(at, len)) return load_floats(from + at);
    Floats8 values = {};
#pragma unroll
    for (int j = 0; j < 8; j++)
        if (at + j < len) values.v[j] = from[at + j];
    return values;
}

DEVICE void store(float* to, u64 at, u64 len, const Floats8& values) {
    if (whole(at, len)) return store_floats(to + at, values);
#pragma unroll
    for (int j = 0; j < 8; j++)
        if (at + j < len) to[at + j] = values.v[j];
}

// Halves of 16 bits, two a word, 0 where there are none.
DEVICE Vec4 load_halves(const u16* from, u64 at, u64 len) {
    if (whole(at, len)) return *(const Vec4*)(from + at);
    Vec4 halves = {};
#pragma unroll
    for (int j = 0; j < 8; j++)
        if (at + j < len) halves.v[j / 2] |= (u32)from[at + j] << (j % 2 * 16);
    return halves;
}

DEVICE void store_halves(u16* to, u64 at, u64 len, const Vec4& halves) {
    if (whole(at, len)) {
        *(Vec4*)(to + at) = halves;
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        if (at + j < len) to[at + j] = (u16)(halves.v[j / 2] >> (j % 2 * 16));
}

DEVICE u32 half(const Vec4& halves, int j) { return halves.v[j / 2] >> (j % 2 * 16) & 0xffff; }
}

// parts (⌈len / 4096⌉), f64 ← Σ value² of each 4096 values. A square is exact in f64, so that it does not matter
// whether it is fused with the sum. The order is fixed: each thread's values by 512s, fours in order; the threads of
// a warp by halving; the four warps in order. Grid (⌈len / 4096⌉).
KERNEL(128, 8) squares(const float* __restrict__ values, double* __restrict__ parts, u64 len) {
    SHARED double sums[4];
    double sum = 0.0;
#pragma unroll
    for (u32 step = 0; step < 8; step++) {
        u64 at = (u64)blockIdx.x * 4096 + step * 512 + threadIdx.x * 4;
        float four[4] = {};
        if (at + 4 <= len) {
            Vec4 bits = *(const Vec4*)(values + at);
#pragma unroll
            for (int j = 0; j < 4; j++) four[j] = bits_to_float(bits.v[j]);
        } else {
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (at + j < len) four[j] = values[at + j];
        }
#pragma unroll
        for (int j = 0; j < 4; j++) sum += (double)four[j] * (double)four[j];
    }
#pragma unroll
    for (int by = 16; by > 0; by /= 2) sum += shuffle_xor(sum, by);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
#ifndef BUG_SQUARES_NO_BARRIER
    sync_block();
#endif
    if (threadIdx.x == 0) parts[blockIdx.x] = sums[0] + sums[1] + sums[2] + sums[3];
}
EXPORT(squares)

// hi, lo ← the f32 values as their nearest bf16, ties away from zero, and what it takes to get the value back: as
// bits, value = hi · 2^16 + lo with lo from −2^15 to 2^15 − 1. Ties to even would not do: a tie that is rounded down
// needs lo = 2^15. A value beyond the largest bf16 has an infinite hi and still comes back.
// Grid (⌈len / 1024⌉), as for all below.
KERNEL(128, 8) split(const float* __restrict__ from, u16* __restrict__ hi, u16* __restrict__ lo, u64 len) {
    u64 at = values::first();
    if (at >= len) return;
    Floats8 floats = values::load(from, at, len);
    Vec4 high = {}, low = {};
#pragma unroll
    for (int j = 0; j < 8; j++) {
        u32 shift = j % 2 * 16;
        u16 nearest = round_bf16_up(floats.v[j]);
#ifdef BUG_SPLIT_EVEN
        nearest = round_bf16(floats.v[j]);
#endif
        high.v[j / 2] |= (u32)nearest << shift;
        low.v[j / 2] |= (float_to_bits(floats.v[j]) & 0xffff) << shift;
    }
    values::store_halves(hi, at, len, high);
    values::store_halves(lo, at, len, low);
}
EXPORT(split)

// to ← the f32 values of which split made hi and lo, all bits of them.
KERNEL(128, 8) join(const u16* __restrict__ hi, const u16* __restrict__ lo, float* __restrict__ to, u64 len) {
    u64 at = values::first();
    if (at >= len) return;
    Vec4 high = values::load_halves(hi, at, len), low = values::load_halves(lo, at, len);
    Floats8 floats;
#pragma unroll
    for (int j = 0; j < 8; j++) {
        u32 below = values::half(low, j);
        u32 borrow = below >> 15;
        floats.v[j] = bits_to_float(((values::half(high, j) - borrow) << 16) + below);
    }
    values::store(to, at, len, floats);
}
EXPORT(join)

// to ← to + from.
KERNEL(128, 8) add_f32(float* __restrict__ to, const float* __restrict__ from, u64 len) {
    u64 at = values::first();
    if (at >= len) return;
    Floats8 sum = values::load(to, at, len), other = values::load(from, at, len);
#pragma unroll
    for (int j = 0; j < 8; j++) sum.v[j] = add_exact(sum.v[j], other.v[j]);
    values::store(to, at, len, sum);
}
EXPORT(add_f32)

// to, f32 ← bf16 values, exactly.
KERNEL(128, 8) widen(const u16* __restrict__ from, float* __restrict__ to, u64 len) {
    u64 at = values::first();
    if (at >= len) return;
    values::store(to, at, len, unpack_bf16(values::load_halves(from, at, len)));
}
EXPORT(widen)

// to ← the nearest bf16 to each f32 value, ties to even.
KERNEL(128, 8) narrow(const float* __restrict__ from, u16* __restrict__ to, u64 len) {
    u64 at = values::first();
    if (at >= len) return;
    values::store_halves(to, at, len, pack_bf16(values::load(from, at, len)));
}
EXPORT(narrow)
