// The optimisers' steps: AdamW in one pass, and what Muon does beside its products. Twins bit for bit: cuda/twin.rs.
//
// Masters are two halves of an f32 (rounded ties up, so that the halves restore it), averages are bf16, rounded up or
// down at random in proportion: the noise is a hash of the step and the value's number in the whole model, so that
// there is no state and the bits do not depend on how the values are spread over launches and cards.
// Addresses are multiples of 16 bytes; a thread has eight values; every operation on floats is rounded by itself.
#include "prelude.cuh"

namespace optimiser {

// Each bit of the answer depends on every bit of x: the finaliser "lowbias32" of Wellons' hash-prospector.
DEVICE u32 mix(u32 x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

// The key of 2^32 values in one step.
DEVICE u32 noise_key(u32 step, u64 index) { return mix(step ^ mix((u32)(index >> 32) + 0x9e3779b9u)); }

// 32 bits for one value in one step: the lower half is for the mean, the upper one for the square.
DEVICE u32 noise(u32 step, u64 index) {
#ifdef BUG_NOISE_OF_THE_LAUNCH
    step = 0;
#endif
    u32 key = noise_key(step, index);
    return mix(mix((u32)index ^ key) + key);
}

// To bf16: up with the probability of the part that is cut off, by 16 bits of noise. NaN is one NaN.
DEVICE u16 round_randomly(float value, u32 noise) {
    u32 bits = float_to_bits(value);
    if (value != value) return 0x7fff;
#ifndef BUG_NOISE_INTO_INFINITY
    // Above the largest bf16 number there is only infinity, which noise must not reach.
    if ((bits & 0x7fffffffu) >= 0x7f7f0000u) noise = 0;
#endif
    return (u16)((bits + noise) >> 16);
}

DEVICE float join(u32 hi, u32 lo) { return bits_to_float((hi << 16) + ((lo ^ 0x8000u) - 0x8000u)); }

DEVICE void split(float value, u16& hi, u16& lo) {
    u32 bits = value != value ? 0x7fc00000u : float_to_bits(value);
#ifdef BUG_TIES_EVEN
    hi = (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#else
    hi = (u16)((bits + 0x8000u) >> 16);
#endif
    lo = (u16)bits;
}

struct AdamW {
    float beta1, beta2, rest1, rest2, epsilon, rate, square_scale, keep, scale;
    u32 step;
};

DEVICE void adamw_value(u16& hi, u16& lo, u16& mean, u16& square, float gradient, const AdamW& c, u64 index) {
    u32 random = noise(c.step, index);
    float g = mul_exact(gradient, c.scale);
    float m = add_exact(mul_exact(c.beta1, bf16_to_float(mean)), mul_exact(c.rest1, g));
    float v = add_exact(mul_exact(c.beta2, bf16_to_float(square)), mul_exact(mul_exact(c.rest2, g), g));
    float root = add_exact(sqrt_exact(mul_exact(v, c.square_scale)), c.epsilon);
    float kept = mul_exact(join(hi, lo), c.keep);
    split(sub_exact(kept, div_exact(mul_exact(c.rate, m), root)), hi, lo);
    mean = round_randomly(m, random & 0xffffu);
    square = round_randomly(v, random >> 16);
}

DEVICE void momentum_value(u16& mean, u16& direction, float gradient, float beta, float rest, float scale, u32 step, u64 index) {
    float g = mul_exact(gradient, scale);
    float m = bf16_to_float(mean);
    m = add_exact(m, mul_exact(rest, sub_exact(g, m)));
    direction = round_bf16(add_exact(g, mul_exact(beta, sub_exact(m, g))));
    mean = round_randomly(m, noise(step, index) & 0xffffu);
}

DEVICE u16 scaled(u16 value, float factor) { return round_bf16(mul_exact(bf16_to_float(value), factor)); }

DEVICE void descend(u16& hi, u16& lo, u16 direction, float rate, float keep) {
    split(sub_exact(mul_exact(keep, join(hi, lo)), mul_exact(rate, bf16_to_float(direction))), hi, lo);
}

// Eight values of two bytes, taken apart and put together again.
struct Eight {
    u16 at[8];
};

DEVICE void load(Eight& eight, const u16* from) {
    Vec4 vector = *(const Vec4*)from;
#pragma unroll
    for (int i = 0; i < 8; i++) eight.at[i] = (u16)(vector.v[i / 2] >> i % 2 * 16);
}

DEVICE void store(const Eight& eight, u16* to) {
    Vec4 vector;
#pragma unroll
    for (int i = 0; i < 4; i++) vector.v[i] = eight.at[2 * i] | (u32)eight.at[2 * i + 1] << 16;
    *(Vec4*)to = vector;
}

DEVICE void load_floats(const float* from, float (&to)[8]) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
        Vec4 vector = ((const Vec4*)from)[j];
#pragma unroll
        for (int i = 0; i < 4; i++) to[4 * j + i] = bits_to_float(vector.v[i]);
    }
}

DEVICE u64 first_value() { return ((u64)blockIdx.x * 256 + threadIdx.x) * 8; }

// The sum of the 256 threads' values for thread 0: a tree over each warp's lanes, then the warps in order.
DEVICE double block_sum(double value, double* parts) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) value += shuffle_xor(value, by);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
#ifndef BUG_NO_BARRIER_1
    sync_block();
#endif
    double sum = parts[0];
#pragma unroll
    for (int warp = 1; warp < 8; warp++) sum += parts[warp];
    return sum;
}

}  // namespace optimiser

// One step of AdamW on `len` values, the first being number `first` of the model. `corrected_rate` is the rate over the
// bias correction of the mean, `square_scale` one over that of the squares. Grid: 2048 values a block.
KERNEL(256, 4) adamw(u16* __restrict__ hi, u16* __restrict__ lo, u16* __restrict__ mean, u16* __restrict__ square,
                     const float* __restrict__ gradient, u64 len, u64 first, float rate, float beta1, float beta2, float epsilon,
                     float decay, float corrected_rate, float square_scale, float scale, u32 step) {
    using namespace optimiser;
    AdamW c{beta1, beta2, sub_exact(1.0f, beta1), sub_exact(1.0f, beta2), epsilon, corrected_rate, square_scale,
            sub_exact(1.0f, mul_exact(rate, decay)), scale, step};
    u64 at = first_value();
    if (at + 8 <= len) {
        Eight h, l, m, v;
        float g[8];
        load(h, hi + at);
        load(l, lo + at);
        load(m, mean + at);
        load(v, square + at);
        load_floats(gradient + at, g);
#pragma unroll
        for (int i = 0; i < 8; i++) adamw_value(h.at[i], l.at[i], m.at[i], v.at[i], g[i], c, first + at + i);
        store(h, hi + at);
        store(l, lo + at);
        store(m, mean + at);
        store(v, square + at);
        return;
    }
#ifndef BUG_NO_TAIL
    for (; at < len; at++) adamw_value(hi[at], lo[at], mean[at], square[at], gradient[at], c, first + at);
#endif
}
EXPORT(adamw)

// Muon's average and what of it is the step, not yet scaled (Nesterov): m ← m + (1 − β)(g − m), u ← g + β(m − g) with
// g = scale · gradient. Grid: 2048 values a block.
KERNEL(256, 4) momentum(u16* __restrict__ mean, const float* __restrict__ gradient, u16* __restrict__ direction, u64 len,
                        u64 first, float momentum, float scale, u32 step) {
    using namespace optimiser;
    float rest = sub_exact(1.0f, momentum);
    u64 at = first_value();
    if (at + 8 <= len) {
        Eight m, d;
        float g[8];
        load(m, mean + at);
        load_floats(gradient + at, g);
#pragma unroll
        for (int i = 0; i < 8; i++) momentum_value(m.at[i], d.at[i], g[i], momentum, rest, scale, step, first + at + i);
        store(m, mean + at);
        store(d, direction + at);
        return;
    }
    for (; at < len; at++) momentum_value(mean[at], direction[at], gradient[at], momentum, rest, scale, step, first + at);
}
EXPORT(momentum)

// Divides a matrix by its norm, of which `norm_squares` is the square, or by `epsilon` if that is more. Grid: 2048 values a block.
KERNEL(256, 4) muon_scale(u16* __restrict__ direction, u64 len, const double* __restrict__ norm_squares, float epsilon) {
    using namespace optimiser;
    float norm = sqrt_exact((float)*norm_squares);
    float factor = div_exact(1.0f, norm > epsilon ? norm : epsilon);
    u64 at = first_value();
    if (at + 8 <= len) {
        Eight d;
        load(d, direction + at);
#pragma unroll
        for (int i = 0; i < 8; i++) d.at[i] = scaled(d.at[i], factor);
        store(d, direction + at);
        return;
    }
    for (; at < len; at++) direction[at] = scaled(direction[at], factor);
}
EXPORT(muon_scale)

// θ ← keep · θ − rate · direction. Grid: 2048 values a block.
KERNEL(256, 4) muon_apply(u16* __restrict__ hi, u16* __restrict__ lo, const u16* __restrict__ direction, u64 len, float rate, float keep) {
    using namespace optimiser;
    u64 at = first_value();
    if (at + 8 <= len) {
        Eight h, l, d;
        load(h, hi + at);
        load(l, lo + at);
        load(d, direction + at);
#pragma unroll
        for (int i = 0; i < 8; i++) descend(h.at[i], l.at[i], d.at[i], rate, keep);
        store(h, hi + at);
        store(l, lo + at);
        return;
    }
    for (; at < len; at++) descend(hi[at], lo[at], direction[at], rate, keep);
}
EXPORT(muon_apply)

// The sum of the squares of each 4096 values. Each square is exact in f64. Grid: a block a part.
KERNEL(256, 4) squares_bf16(const u16* __restrict__ values, double* __restrict__ parts, u64 len) {
    using namespace optimiser;
    SHARED double warps[8];
    double sum = 0.0;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u64 at = (u64)blockIdx.x * 4096 + half * 2048 + threadIdx.x * 8;
        if (at + 8 <= len) {
            Eight eight;
            load(eight, values + at);
#pragma unroll
            for (int i = 0; i < 8; i++) sum += (double)bf16_to_float(eight.at[i]) * (double)bf16_to_float(eight.at[i]);
        } else {
            for (; at < len; at++) sum += (double)bf16_to_float(values[at]) * (double)bf16_to_float(values[at]);
        }
    }
    sum = block_sum(sum, warps);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}
EXPORT(squares_bf16)

// The sum of all parts: thread t adds parts t, t + 256, …, then the threads' sums as block_sum does. Grid: one block.
KERNEL(256, 1) sum_parts(const double* __restrict__ parts, double* __restrict__ to, u64 count) {
    using namespace optimiser;
    SHARED double warps[8];
    double sum = 0.0;
    for (u64 at = threadIdx.x; at < count; at += 256) sum += parts[at];
    sum = block_sum(sum, warps);
    if (threadIdx.x == 0) *to = sum;
}
EXPORT(sum_parts)
