// SparseLoCo: updates as the protocol has them, byte for byte (protocol/src/update.rs has the format, docs/PROTOCOL.md
// the rules). A block of 256 threads takes a chunk of 4096 values of a tensor; a tensor's last chunk may be shorter.
// Every operation on floats is rounded by itself, in the protocol's order. Addresses are multiples of 16 bytes.
#include "prelude.cuh"

namespace sparse {

constexpr u32 THREADS = 256, WARPS = THREADS / 32;
constexpr u32 CHUNK = 4096;
// A thread has four values each in four rows of 1024.
constexpr u32 ROWS = 4, ROW = CHUNK / ROWS;
constexpr u32 BITMAP_WORDS = CHUNK / 32;
// The longest chunk's 1538 bytes, and a word to read beyond.
constexpr u32 CODE_WORDS = 387;
// The protocol's quantiser and scales: update/quantise.rs, update/form.rs.
constexpr float LEVEL_HIGH = 1.5f, MIDDLE = 1.25f, START = 0.9375f, FIT_MAX = 73786976294838206464.0f;
constexpr u32 SCALE_MIN = 0x1f80, SCALE_MAX = 0x5f80;
constexpr u32 INFINITE = 0x7f800000u;
// In place of a magnitude beyond the chunk's end; no magnitude has this bit.
constexpr u32 MISSING = 0x80000000u;
// Up to here the threads' largest magnitudes narrow the search.
constexpr u32 NARROW_MAX = THREADS * 3 / 4;

// Values kept of `len` where a full chunk keeps `keep`.
DEVICE u32 kept_of(u32 len, u32 keep) { return (len * keep + CHUNK - 1) / CHUNK; }

// Low bits of a gap that are written as they are.
DEVICE u32 rice_parameter(u32 len, u32 kept) {
    u32 skipped = (len - kept) * 13, bound = kept * 27, parameter = 0;
    for (; skipped >= bound && parameter < 16; parameter++) bound *= 2;
    return parameter;
}

DEVICE float bf16_scale(u32 bits) { return bits_to_float(bits << 16); }

// What a code stands for: bit 0 the larger magnitude, bit 1 the sign.
DEVICE float code_value(u32 scale, u32 code) {
    float value = bf16_scale(scale);
    if (code & 1) value = mul_exact(value, LEVEL_HIGH);
    return bits_to_float(float_to_bits(value) | (code & 2) << 30);
}

// Parameters: f32, or the two halves of f32 where `whole` is null.
struct Values {
    float* whole;
    u16 *hi, *lo;
};

DEVICE float join(u32 hi, u32 lo) { return bits_to_float((hi << 16) + ((lo ^ 0x8000u) - 0x8000u)); }

DEVICE float load(const Values& values, u64 at) {
    return values.whole ? values.whole[at] : join(values.hi[at], values.lo[at]);
}

DEVICE void store(const Values& values, u64 at, float value) {
    if (values.whole) {
        values.whole[at] = value;
    } else {
        u32 bits = float_to_bits(value);
        values.hi[at] = (u16)((bits + 0x8000u) >> 16);
        values.lo[at] = (u16)bits;
    }
}

// Four values of which `count` exist; the others are 0.
DEVICE void load_four(const Values& values, u64 at, u32 count, float (&to)[4]) {
    if (count == 4 && values.whole) {
        Vec4 vector = *(const Vec4*)(values.whole + at);
#pragma unroll
        for (int i = 0; i < 4; i++) to[i] = bits_to_float(vector.v[i]);
    } else if (count == 4) {
        u64 hi = *(const u64*)(values.hi + at), lo = *(const u64*)(values.lo + at);
#pragma unroll
        for (int i = 0; i < 4; i++) to[i] = join((u32)(hi >> 16 * i) & 0xffffu, (u32)(lo >> 16 * i) & 0xffffu);
    } else {
#pragma unroll
        for (u32 i = 0; i < 4; i++) to[i] = i < count ? load(values, at + i) : 0.0f;
    }
}

DEVICE void store_four(const Values& values, u64 at, u32 count, const float (&from)[4]) {
    if (count == 4 && values.whole) {
        Vec4 vector;
#pragma unroll
        for (int i = 0; i < 4; i++) vector.v[i] = float_to_bits(from[i]);
        *(Vec4*)(values.whole + at) = vector;
    } else if (count == 4) {
        u64 hi = 0, lo = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u32 bits = float_to_bits(from[i]);
            hi |= (u64)((bits + 0x8000u) >> 16) << 16 * i;
            lo |= (u64)(bits & 0xffffu) << 16 * i;
        }
        *(u64*)(values.hi + at) = hi;
        *(u64*)(values.lo + at) = lo;
    } else {
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (i < count) store(values, at + i, from[i]);
    }
}

// Of the four values from `position` on, how many are before `len`.
DEVICE u32 four_before(u32 position, u32 len) { return position >= len ? 0 : smaller(len - position, 4); }

// The sum of the values of the threads before this one; `total` is that of all. One barrier inside, and one is needed
// before `totals` is used again.
DEVICE u32 scan(u32 value, u32* totals, u32& total) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, sum = value;
#pragma unroll
    for (u32 by = 1; by < 32; by *= 2) {
        u32 before = shuffle_up(sum, by);
        if (lane >= by) sum += before;
    }
    if (lane == 31) totals[warp] = sum;
#ifndef BUG_NO_BARRIER_1
    sync_block();
#endif
    u32 before = 0;
    total = 0;
#pragma unroll
    for (u32 i = 0; i < WARPS; i++) {
        if (i < warp) before += totals[i];
        total += totals[i];
    }
    return before + sum - value;
}

// What the threads that encode a chunk share.
struct Encoding {
    // The kept values and their positions, ascending.
    float selected[CHUNK];
    u16 positions[CHUNK];
    // The chunk's bytes.
    u32 code[CODE_WORDS];
    u32 histogram[256];
    // Bits of the values that are above the smallest magnitude kept, later of those kept; and equal to it.
    u32 chosen[BITMAP_WORDS], equal[BITMAP_WORDS];
    // Values kept before each word's.
    u32 ranks[BITMAP_WORDS];
    u32 totals[WARPS];
    u32 found, left, broken, scale;
};

// The `count`-th largest of the magnitudes that are at least `bound`, eight bits at a time from the highest. `count`
// becomes how many that are equal to it belong to the `count` largest. The histogram is zero before and after.
template <u32 N> DEVICE u32 select(const u32 (&magnitudes)[N], u32 bound, u32& count, Encoding& s) {
    u32 prefix = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
#pragma unroll
        for (u32 i = 0; i < N; i++) {
            u32 m = magnitudes[i];
            if (m >= bound && m < MISSING && m >> shift >> 8 == prefix) atomic_add_shared(&s.histogram[m >> shift & 255], 1);
        }
        sync_block();
        // Thread 0 has the highest bin.
        u32 bin = 255 - threadIdx.x, here = s.histogram[bin], total;
        s.histogram[bin] = 0;
        u32 above = scan(here, s.totals, total);
        if (above < count && count <= above + here) {
            s.found = bin;
            s.left = count - above;
        }
#ifndef BUG_NO_BARRIER_2
        sync_block();
#endif
        prefix = prefix << 8 | s.found;
        count = s.left;
    }
    return prefix;
}

// The sum of the magnitudes above `bound`, and their number: value i into lane i mod 8, the lanes added in order. For a
// whole warp, of which four times eight lanes do the same.
DEVICE void sums_above(const float* values, u32 count, float bound, float& sum, float& number) {
    u32 lane = threadIdx.x % 8;
    float lane_sum = 0.0f, lane_number = 0.0f;
    for (u32 i = lane; i < count; i += 8) {
        float magnitude = bits_to_float(float_to_bits(values[i]) & 0x7fffffffu);
        magnitude = magnitude < FIT_MAX ? magnitude : FIT_MAX;
        bool above = magnitude > bound;
        lane_sum = add_exact(lane_sum, above ? magnitude : 0.0f);
        lane_number = add_exact(lane_number, above ? 1.0f : 0.0f);
    }
    sum = number = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) {
#ifdef BUG_LANES_BACKWARDS
        sum = add_exact(sum, shuffle(lane_sum, 7 - i));
#else
        sum = add_exact(sum, shuffle(lane_sum, i));
#endif
        number = add_exact(number, shuffle(lane_number, i));
    }
}

// The scale of a chunk's kept values, as bf16 bits: quantise of update/quantise.rs. For a whole warp.
DEVICE u32 fit_scale(const float* values, u32 count) {
    float sum, number;
    sums_above(values, count, -1.0f, sum, number);
    float all = (float)count, scale = mul_exact(div_exact(sum, all), START);
    for (int round = 0; round < 3; round++) {
        float sum_high, number_high;
        sums_above(values, count, mul_exact(scale, MIDDLE), sum_high, number_high);
        float sum_low = sub_exact(sum, sum_high), number_low = sub_exact(all, number_high);
        float weight = add_exact(number_low, mul_exact(LEVEL_HIGH * LEVEL_HIGH, number_high));
        if (weight > 0.0f) scale = div_exact(add_exact(sum_low, mul_exact(LEVEL_HIGH, sum_high)), weight);
    }
    u32 bits = float_to_bits(scale);
    bits = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return bits < SCALE_MIN ? 0 : smaller(bits, SCALE_MAX);
}

// The code of a value whose magnitude is large from `middle` on.
DEVICE u32 code_of(float value, float middle) {
    u32 bits = float_to_bits(value);
    return (bits_to_float(bits & 0x7fffffffu) > middle ? 1 : 0) | bits >> 31 << 1;
}

// Puts `width` bits at bit `at`, which are zero so far: to add is then to set, in whatever order.
DEVICE void put(u32* words, u32 at, u32 value, u32 width) {
    if (value == 0) return;
    u32 word = at / 32, shift = at % 32;
    atomic_add_shared(&words[word], value << shift);
#ifndef BUG_NO_STRADDLE
    if (shift + width > 32) atomic_add_shared(&words[word + 1], value >> (32 - shift));
#endif
}

// The 32 bits from bit `at` on.
DEVICE u32 get(const u32* words, u32 at) {
    u32 word = at / 32, shift = at % 32;
    return shift == 0 ? words[word] : words[word] >> shift | words[word + 1] << (32 - shift);
}

// What the threads that decode a chunk share.
struct Decoding {
    u32 code[CODE_WORDS];
    // Where each value's quotient ends.
    u16 places[CHUNK];
    u32 totals[WARPS];
};

// Decodes a chunk of `len` values from its `byte_len` bytes and calls each(rank, position, value) for its values; `scale` is
// what it was. Where it is zero nothing is called unless `with_zeros`. A barrier is needed before the next call. Of bytes that
// are no chunk it makes nonsense within the chunk's 4096 positions.
template <class Each>
DEVICE void decode(const u8* bytes, u32 byte_len, u32 len, u32 keep, bool with_zeros, Decoding& s, Each each) {
    byte_len = smaller(byte_len, (CODE_WORDS - 2) * 4);
    for (u32 word = threadIdx.x; word < (byte_len + 3) / 4 + 1; word += THREADS) {
        u32 value = 0;
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (word * 4 + i < byte_len) value |= (u32)bytes[word * 4 + i] << 8 * i;
        s.code[word] = value;
    }
#ifndef BUG_NO_BARRIER_3
    sync_block();
#endif
    u32 scale = s.code[0] & 0xffffu;
    if (scale == 0 && !with_zeros) return;
    u32 kept = kept_of(len, keep), parameter = rice_parameter(len, kept), mask = (1u << parameter) - 1;
    u32 remainders = 16 + 2 * kept, quotients = remainders + parameter * kept, end = byte_len * 8;
    u32 per = (kept + THREADS - 1) / THREADS, first = smaller(threadIdx.x * per, kept), last = smaller(first + per, kept);

    // This thread's word of the quotients, and its values' remainders.
    u32 bit = quotients + threadIdx.x * 32;
    u32 ones = bit < end ? get(s.code, bit) : 0, sum = 0, total;
    for (u32 rank = first; rank < last; rank++) sum += get(s.code, remainders + rank * parameter) & mask;
    u32 before = scan(popcount(ones) | sum << 16, s.totals, total);
    for (u32 rank = before & 0xffffu; ones != 0; rank++, ones &= ones - 1)
        if (rank < kept) s.places[rank] = (u16)(threadIdx.x * 32 + find_first(ones));
#ifndef BUG_NO_BARRIER_4
    sync_block();
#endif
    u32 skipped = before >> 16;
    for (u32 rank = first; rank < last; rank++) {
        skipped += get(s.code, remainders + rank * parameter) & mask;
        u32 position = ((s.places[rank] - rank) << parameter) + skipped + rank;
        each(rank, position % CHUNK, code_value(scale, get(s.code, 16 + 2 * rank) & 3));
    }
}

// Takes an update off a tensor's parameters, or puts back what was there.
template <bool UNDO>
DEVICE void apply_or_undo(const Values& theta, const u8* bytes, const u32* offsets, u32* saved, u64 len, u32 keep, float rate) {
    SHARED Decoding s;
    u64 first = (u64)blockIdx.x * CHUNK;
    u32 values = len - first < CHUNK ? (u32)(len - first) : CHUNK, begin = offsets[blockIdx.x];
    saved += (u64)blockIdx.x * keep;
    decode(bytes + begin, offsets[blockIdx.x + 1] - begin, values, keep, true, s, [&](u32 rank, u32 position, float value) {
        if (position >= values) return;
        u64 at = first + position;
        if (UNDO) {
            u32 bits = saved[rank];
            if (theta.whole) {
                theta.whole[at] = bits_to_float(bits);
            } else {
                theta.hi[at] = (u16)(bits >> 16);
                theta.lo[at] = (u16)bits;
            }
        } else {
            saved[rank] = theta.whole ? float_to_bits(theta.whole[at]) : (u32)theta.hi[at] << 16 | theta.lo[at];
            store(theta, at, sub_exact(load(theta, at), mul_exact(rate, value)));
        }
    });
}

}  // namespace sparse

// Error feedback, selection, quantiser and bytes of the chunks of a tensor, or of a part of one that starts at a chunk's
// start: feedback ← decay · feedback + (start − local), then less what is sent. A chunk's bytes begin its slot of
// `slot_words` words, and lengths says how many they are: 0 where a value is not finite, whose chunk's feedback stays as
// it was. Grid: a block a chunk.
KERNEL(256, 3) encode_chunks(float* __restrict__ feedback, float* start, u16* start_hi, u16* start_lo, float* local, u16* local_hi,
                             u16* local_lo, u32* __restrict__ slots, u32* __restrict__ lengths, u64 len, u32 slot_words, u32 keep,
                             float decay) {
    using namespace sparse;
    SHARED Encoding s;
    u32 thread = threadIdx.x;
    u64 first = (u64)blockIdx.x * CHUNK;
    u32 values = len - first < CHUNK ? (u32)(len - first) : CHUNK, kept = kept_of(values, keep);
    s.histogram[thread] = 0;
    for (u32 i = thread; i < CODE_WORDS; i += THREADS) s.code[i] = 0;
    if (thread < BITMAP_WORDS) s.chosen[thread] = s.equal[thread] = 0;
    if (thread == 0) s.broken = 0;

    float u[ROWS][4];
    u32 magnitudes[ROWS * 4], most[1] = {0};
    bool broken = false;
#pragma unroll
    for (u32 row = 0; row < ROWS; row++) {
        u32 position = row * ROW + thread * 4, count = four_before(position, values);
        float old[4], before[4], after[4];
        load_four(Values{feedback, nullptr, nullptr}, first + position, count, old);
        load_four(Values{start, start_hi, start_lo}, first + position, count, before);
        load_four(Values{local, local_hi, local_lo}, first + position, count, after);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u[row][i] = add_exact(mul_exact(decay, old[i]), sub_exact(before[i], after[i]));
            u32 magnitude = float_to_bits(u[row][i]) & 0x7fffffffu;
            bool there = i < count;
            broken |= there && magnitude >= INFINITE;
            magnitudes[row * 4 + i] = there ? magnitude : MISSING;
            if (there) most[0] = larger(most[0], magnitude);
        }
    }
    sync_block();
    if (broken) atomic_add_shared(&s.broken, 1);
    sync_block();
    if (s.broken != 0) {
        if (thread == 0) lengths[blockIdx.x] = 0;
        return;
    }

    // At least `kept` values reach the magnitude that `kept` threads' largest reach: few others need to be looked at.
    u32 bound = 0, left = kept;
    if (values == CHUNK && kept <= NARROW_MAX) bound = select<1>(most, 0, left, s);
    left = kept;
    u32 smallest = select<ROWS * 4>(magnitudes, bound, left, s), total;
#pragma unroll
    for (u32 row = 0; row < ROWS; row++) {
        u32 position = row * ROW + thread * 4, above = 0, equal = 0;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 magnitude = magnitudes[row * 4 + i];
            if (magnitude < MISSING && magnitude > smallest) above |= 1u << i;
            if (magnitude == smallest) equal |= 1u << i;
        }
        put(s.chosen, position, above, 4);
        put(s.equal, position, equal, 4);
    }
    sync_block();
    // Of the equal ones those at the lowest positions.
    u32 above = thread < BITMAP_WORDS ? s.chosen[thread] : 0, equal = thread < BITMAP_WORDS ? s.equal[thread] : 0;
    u32 before = scan(popcount(above) | popcount(equal) << 16, s.totals, total);
    u32 equal_before = before >> 16, above_before = before & 0xffffu;
    if (thread < BITMAP_WORDS) {
        u32 taken = 0;
        for (u32 room = left > equal_before ? left - equal_before : 0; room > 0 && equal != 0; room--) {
#ifdef BUG_TIES_TO_THE_HIGHEST
            u32 highest = 1u << (31 - clz(equal));
            taken |= highest;
            equal ^= highest;
#else
            taken |= equal & (~equal + 1);
            equal &= equal - 1;
#endif
        }
        s.chosen[thread] = above | taken;
        s.ranks[thread] = above_before + smaller(left, equal_before);
    }
    sync_block();
    u32 mine = 0;
#pragma unroll
    for (u32 row = 0; row < ROWS; row++) {
        u32 position = row * ROW + thread * 4, chosen = s.chosen[position / 32], rank = s.ranks[position / 32];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 bit = 1u << (position + i) % 32;
            if ((chosen & bit) == 0) continue;
            mine |= 1u << (row * 4 + i);
            u32 at = rank + popcount(chosen & (bit - 1));
            s.selected[at] = u[row][i];
            s.positions[at] = (u16)(position + i);
        }
    }
    sync_block();
    if (thread < 32) {
        u32 fitted = fit_scale(s.selected, kept);
        if (thread == 0) s.scale = fitted;
    }
    sync_block();
    u32 scale = s.scale;
    float middle = mul_exact(bf16_scale(scale), MIDDLE);
#pragma unroll
    for (u32 row = 0; row < ROWS; row++) {
        u32 position = row * ROW + thread * 4;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float sent = code_value(scale, code_of(u[row][i], middle));
            if (scale != 0 && mine >> (row * 4 + i) & 1) u[row][i] = sub_exact(u[row][i], sent);
        }
        store_four(Values{feedback, nullptr, nullptr}, first + position, four_before(position, values), u[row]);
    }

    // The bytes. A chunk of scale 0 has the first positions and codes 0, of which only the ends of the quotients are bits.
    u32 parameter = rice_parameter(values, kept), mask = (1u << parameter) - 1;
    u32 remainders = 16 + 2 * kept, quotients = remainders + parameter * kept;
    u32 per = (kept + THREADS - 1) / THREADS, from = smaller(thread * per, kept), to = smaller(from + per, kept), sum = 0;
    for (u32 rank = from; rank < to && scale != 0; rank++) {
        u32 next = rank == 0 ? 0 : s.positions[rank - 1] + 1u;
        sum += (s.positions[rank] - next) >> parameter;
    }
    u32 end = quotients + scan(sum, s.totals, total);
    if (thread == 0) put(s.code, 0, scale, 16);
    for (u32 rank = from; rank < to; rank++) {
        if (scale != 0) {
            u32 next = rank == 0 ? 0 : s.positions[rank - 1] + 1u, gap = s.positions[rank] - next;
            put(s.code, 16 + 2 * rank, code_of(s.selected[rank], middle), 2);
            put(s.code, remainders + rank * parameter, gap & mask, parameter);
            end += gap >> parameter;
        }
        put(s.code, end + rank, 1, 1);
    }
#ifndef BUG_NO_BARRIER_5
    sync_block();
#endif
    u32 bytes = (quotients + kept + total + 7) / 8;
    for (u32 word = thread; word < (bytes + 3) / 4; word += THREADS) slots[(u64)blockIdx.x * slot_words + word] = s.code[word];
    if (thread == 0) lengths[blockIdx.x] = bytes;
}
EXPORT(encode_chunks)

// The outer step of the chunks of a tensor, or of a part of one that starts at a chunk's start:
// θ ← θ − rate · (Σ over updates in order of factor · value) / divisor, where the divisor is `divisor`, and with
// `by_senders` the number of updates that send the coordinate if that is more. Chunk c of update r has the bytes from
// offsets[r · (chunks + 1) + c] to the next. Grid: a block a chunk.
KERNEL(256, 4) outer_step(float* theta, u16* theta_hi, u16* theta_lo, const u8* __restrict__ bytes, const u32* __restrict__ offsets,
                          const float* __restrict__ factors, u64 len, u32 updates, u32 keep, float rate, float divisor, u32 by_senders) {
    using namespace sparse;
    SHARED Decoding s;
    SHARED float sums[CHUNK];
    SHARED u16 senders[CHUNK];
    Values parameters{theta, theta_hi, theta_lo};
    u64 first = (u64)blockIdx.x * CHUNK;
    u32 values = len - first < CHUNK ? (u32)(len - first) : CHUNK;
    for (u32 i = threadIdx.x; i < CHUNK; i += THREADS) sums[i] = 0.0f, senders[i] = 0;
    sync_block();
    for (u32 update = 0; update < updates; update++) {
        const u32* at = offsets + (u64)update * (gridDim.x + 1) + blockIdx.x;
        float factor = factors[update];
        decode(bytes + at[0], at[1] - at[0], values, keep, false, s, [&](u32, u32 position, float value) {
            sums[position] = add_exact(sums[position], mul_exact(factor, value));
            senders[position]++;
        });
#ifndef BUG_NO_BARRIER_6
        sync_block();
#endif
    }
#pragma unroll
    for (u32 row = 0; row < ROWS; row++) {
        u32 position = row * ROW + threadIdx.x * 4, count = four_before(position, values);
        float old[4];
        load_four(parameters, first + position, count, old);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float number = (float)senders[position + i];
            float by = by_senders != 0 && number > divisor ? number : divisor;
            old[i] = sub_exact(old[i], mul_exact(rate, div_exact(sums[position + i], by)));
        }
        store_four(parameters, first + position, count, old);
    }
}
EXPORT(outer_step)

// θ ← θ − rate · value on the coordinates that one update has. What was there goes to `saved`, `keep` words a chunk: the
// f32's bits, or the upper half and the lower half. Grid: a block a chunk.
KERNEL(256, 4) apply_update(float* theta, u16* theta_hi, u16* theta_lo, const u8* __restrict__ bytes, const u32* __restrict__ offsets,
                            u32* __restrict__ saved, u64 len, u32 keep, float rate) {
    sparse::apply_or_undo<false>(sparse::Values{theta, theta_hi, theta_lo}, bytes, offsets, saved, len, keep, rate);
}
EXPORT(apply_update)

// Puts back what apply_update saved, of the same update. Grid: a block a chunk.
KERNEL(256, 4) undo_update(float* theta, u16* theta_hi, u16* theta_lo, const u8* __restrict__ bytes, const u32* __restrict__ offsets,
                           u32* __restrict__ saved, u64 len, u32 keep) {
    sparse::apply_or_undo<true>(sparse::Values{theta, theta_hi, theta_lo}, bytes, offsets, saved, len, keep, 0.0f);
}
EXPORT(undo_update)
