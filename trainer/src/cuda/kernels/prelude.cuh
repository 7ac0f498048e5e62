// What kernels use of a GPU beyond plain C++, once as PTX for NVRTC (no CUDA header is needed) and once, in the
// emulator's emulate.h, for a CPU. Kernels include this alone.
//
// A warp is 32 lanes. Every function of a warp must be reached by all of them, at one place of the source; the same
// holds for sync_block and the block. Only sync_block and sync_warp order memory: a shuffle does not.
#pragma once
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)

#define DEVICE __device__ __forceinline__
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define SHARED __shared__
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) u8 name[]
#define EXPORT(name)
#define FULL 0xffffffffu
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

DEVICE float bits_to_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 float_to_bits(float value) { return __float_as_uint(value); }
// Two values as bf16, the first in the low half; ties to even, every NaN is 0x7fff.
DEVICE u32 pack_bf16(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// Approximate: a few units in the last place, other bits than on a CPU. Subnormal numbers are zero.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float log2_fast(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Rounded to nearest and never fused, whatever the compiler's flags: the same bits as on a CPU.
DEVICE float add_exact(float a, float b) { return __fadd_rn(a, b); }
DEVICE float sub_exact(float a, float b) { return __fsub_rn(a, b); }
DEVICE float mul_exact(float a, float b) { return __fmul_rn(a, b); }
DEVICE float div_exact(float a, float b) { return __fdiv_rn(a, b); }
DEVICE float sqrt_exact(float a) { return __fsqrt_rn(a); }
DEVICE float rsqrt_exact(float a) { return __frcp_rn(__fsqrt_rn(a)); }
DEVICE double f64_add(double a, double b) { return __dadd_rn(a, b); }
DEVICE double f64_mul(double a, double b) { return __dmul_rn(a, b); }

// Bits.
DEVICE u32 popcount(u32 bits) { return (u32)__popc((int)bits); }
// Zeros above the highest bit that is set; 32 of 0.
DEVICE u32 clz(u32 bits) { return (u32)__clz((int)bits); }
// Number of the lowest bit that is set; 2^32 - 1 of 0.
DEVICE u32 find_first(u32 bits) { return (u32)(__ffs((int)bits) - 1); }

// Values of other lanes of the warp. shuffle_up: of the lane `by` below, shuffle_down: above; at the end a lane's own.
#define SHUFFLES(T) \
    DEVICE T shuffle_xor(T value, u32 by) { return __shfl_xor_sync(FULL, value, (int)by); } \
    DEVICE T shuffle_up(T value, u32 by) { return __shfl_up_sync(FULL, value, by); } \
    DEVICE T shuffle_down(T value, u32 by) { return __shfl_down_sync(FULL, value, by); } \
    DEVICE T shuffle(T value, u32 lane) { return __shfl_sync(FULL, value, (int)lane); }
SHUFFLES(float)
SHUFFLES(u32)
SHUFFLES(i32)
SHUFFLES(double)
#undef SHUFFLES
// Bit i is set if lane i says so.
DEVICE u32 ballot(bool yes) { return __ballot_sync(FULL, yes); }
DEVICE void sync_warp() { __syncwarp(FULL); }
DEVICE void sync_block() { __syncthreads(); }
// Adds to an integer in shared memory. What was there before depends on the order of lanes, so it is not told.
DEVICE void atomic_add_shared(u32* to, u32 value) { atomicAdd(to, value); }

DEVICE u32 shared_address(const void* at) { return (u32)__cvta_generic_to_shared(at); }
// 16 bytes from global to shared memory, zeros where !valid; both on 16 bytes. The lane sees them after
// copy_wait, others after a barrier that follows it.
DEVICE void copy_async(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
// Ends a group of this lane's copies.
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N of this lane's groups are under way.
template <int N> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four matrices of 8 x 8 16-bit values from shared memory: lane i names row i % 8 of matrix i / 8 and gets of each
// matrix the values 2 (i % 4) and the next of row i / 4.
DEVICE void load_matrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// The same of each matrix transposed.
DEVICE void load_matrix_x4_transposed(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// d (16, 8) += a (16, 16) · b (16, 8): bf16 pairs, f32 sums in the tensor core's own order.
DEVICE void mma_16x8x16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else
#include "emulate.h"
#endif

// What is loaded and stored at once.
struct alignas(16) Vec4 {
    u32 v[4];
};
DEVICE u32 smaller(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u32 larger(u32 a, u32 b) { return a > b ? a : b; }
DEVICE float low_bf16(u32 pair) { return bits_to_float(pair << 16); }
DEVICE float high_bf16(u32 pair) { return bits_to_float(pair & 0xffff0000u); }
DEVICE float bf16_to_float(u16 value) { return bits_to_float((u32)value << 16); }
// Ties to even.
DEVICE u16 round_bf16(float value) { return (u16)pack_bf16(value, 0.0f); }
// Ties away from zero in the bits: the upper half of a master, which its lower half as a signed number restores.
DEVICE u16 round_bf16_up(float value) { return (u16)((float_to_bits(value) + 0x8000u) >> 16); }

// Eight values, as many of bf16 as are loaded and stored at once.
struct Floats8 {
    float v[8];
};
DEVICE Floats8 unpack_bf16(const Vec4& bits) {
    Floats8 values;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        values.v[2 * j] = low_bf16(bits.v[j]);
        values.v[2 * j + 1] = high_bf16(bits.v[j]);
    }
    return values;
}
// Each rounded to even.
DEVICE Vec4 pack_bf16(const Floats8& values) {
    Vec4 bits;
#pragma unroll
    for (int j = 0; j < 4; j++) bits.v[j] = pack_bf16(values.v[2 * j], values.v[2 * j + 1]);
    return bits;
}
DEVICE Floats8 load_floats(const float* from) {
    Vec4 first = ((const Vec4*)from)[0], second = ((const Vec4*)from)[1];
    Floats8 values;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        values.v[j] = bits_to_float(first.v[j]);
        values.v[4 + j] = bits_to_float(second.v[j]);
    }
    return values;
}
DEVICE void store_floats(float* to, const Floats8& values) {
    Vec4 first, second;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        first.v[j] = float_to_bits(values.v[j]);
        second.v[j] = float_to_bits(values.v[4 + j]);
    }
    ((Vec4*)to)[0] = first;
    ((Vec4*)to)[1] = second;
}
