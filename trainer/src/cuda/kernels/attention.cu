// Causal attention within documents for one head width (HEAD_DIM: 32, 64 or 128): forward, and backward in two
// kernels, one for keys and values and one for queries, so that nothing is added atomically and every run gives the
// same bits. The method is FlashAttention-2's (Dao 2023): tiles of keys pass by, and the softmax is kept up to date.
//
// qkv and d_qkv: (samples, seq_len, heads + 2 kv_heads, HEAD_DIM); out and d_out: (samples, seq_len, heads, HEAD_DIM);
// log_sums and dots: (samples, heads, seq_len); starts: (samples, seq_len), where the document of each token begins in
// its sample: never after the token itself, never decreasing.
#include "prelude.cuh"
#define UNROLL _Pragma("unroll")

namespace attention {
constexpr u32 WIDTH = HEAD_DIM, CHUNKS = WIDTH / 8, ROW = WIDTH * 2;  // values, 16-byte chunks and bytes of a row
constexpr u32 BLOCKS = WIDTH / 8, TERMS = WIDTH / 16;                 // of 8 columns and of 16 terms in a row
constexpr u32 KEYS = 32;                                              // of a tile in `attend` and the queries' kernel
constexpr u32 OWN_KEYS = 128, QUERIES = 32;                           // of a block, and of a tile, in the keys' kernel
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

// Where a chunk of a row lies in a tile. ldmatrix takes one chunk of eight rows at a time, which must lie in different
// banks, that is at different chunks of 128 bytes: each row of 128 bytes or more turns its chunks by its own number;
// rows of 64 bytes lie in pairs, and each pair turns by its own.
DEVICE u32 place(u32 row, u32 chunk) {
    constexpr u32 ROWS_BESIDE = CHUNKS < 8 ? 8 / CHUNKS : 1, TURNS = CHUNKS < 8 ? CHUNKS : 8;
#ifdef BUG_NO_SWIZZLE
    return (row * CHUNKS + chunk) * 16;
#endif
    return (row * CHUNKS + (chunk ^ (row / ROWS_BESIDE % TURNS))) * 16;
}

// The row that a lane names for ldmatrix: of 16 rows from `row` (a multiple of 16) by 16 values the upper left, lower
// left, upper right and lower right quarter. All products take their operands so, whence the lanes' offsets are shared.
DEVICE const u8* at_lane(const u8* tile, u32 row, u32 column) {
    u32 lane = threadIdx.x % 32;
    return tile + row * ROW + place(lane % 16, column * 2 + lane / 16);
}

// Starts to copy rows `first`.. of a matrix into a tile; rows from `end` on become zeros.
template <u32 ROWS, u32 THREADS> DEVICE void load_rows(u8* tile, const u16* from, u32 stride, u32 first, u32 end) {
    UNROLL for (u32 i = 0; i < ROWS * CHUNKS; i += THREADS) {
        u32 at = i + threadIdx.x, row = at / CHUNKS, chunk = at % CHUNKS;
        if (ROWS * CHUNKS < THREADS && at >= ROWS * CHUNKS) return;
#ifdef BUG_ROW_PAST_THE_END
        bool valid = first + row <= end;
#else
        bool valid = first + row < end;
#endif
        copy_async(tile + place(row, chunk), from + (valid ? (u64)(first + row) * stride + chunk * 8 : 0), valid);
    }
}

// s (M · 16, N) = rows `row`.. of `left` times rows of `right`, transposed.
template <u32 M, u32 N> DEVICE void multiply_rows(float (&s)[M][N / 8][4], const u8* left, u32 row, const u8* right) {
    UNROLL for (u32 m = 0; m < M; m++)
        UNROLL for (u32 n = 0; n < N / 8; n++)
            UNROLL for (u32 i = 0; i < 4; i++) s[m][n][i] = 0.0f;
    UNROLL for (u32 k = 0; k < TERMS; k++) {
        u32 a[M][4];
        UNROLL for (u32 m = 0; m < M; m++) load_matrix_x4(a[m], at_lane(left, row + m * 16, k));
        UNROLL for (u32 n = 0; n < N / 16; n++) {
            u32 b[4];
            load_matrix_x4(b, at_lane(right, n * 16, k));
            UNROLL for (u32 m = 0; m < M; m++) {
                mma_16x8x16(s[m][2 * n], a[m], b[0], b[2]);
                mma_16x8x16(s[m][2 * n + 1], a[m], b[1], b[3]);
            }
        }
    }
}

// A warp's own sixteen rows as left operands, for as long as registers hold them.
DEVICE void take_rows(u32 (&a)[TERMS][4], const u8* left, u32 row) {
    UNROLL for (u32 k = 0; k < TERMS; k++) load_matrix_x4(a[k], at_lane(left, row, k));
}
// As multiply_rows, of rows that were taken.
template <u32 N> DEVICE void multiply_taken(float (&s)[1][N / 8][4], const u32 (&a)[TERMS][4], const u8* right) {
    UNROLL for (u32 n = 0; n < N / 8; n++)
        UNROLL for (u32 i = 0; i < 4; i++) s[0][n][i] = 0.0f;
    UNROLL for (u32 k = 0; k < TERMS; k++)
        UNROLL for (u32 n = 0; n < N / 16; n++) {
            u32 b[4];
            load_matrix_x4(b, at_lane(right, n * 16, k));
            mma_16x8x16(s[0][2 * n], a[k], b[0], b[2]);
            mma_16x8x16(s[0][2 * n + 1], a[k], b[1], b[3]);
        }
}

// o (M · 16, WIDTH) += s (M · 16, N), rounded to bf16, times rows of `right`. A sum's registers are those of a left
// operand in pairs: no exchange between lanes.
template <u32 M, u32 N> DEVICE void add_product(float (&o)[M][BLOCKS][4], const float (&s)[M][N / 8][4], const u8* right) {
    UNROLL for (u32 k = 0; k < N / 16; k++) {
        u32 a[M][4];
        UNROLL for (u32 m = 0; m < M; m++)
            UNROLL for (u32 i = 0; i < 4; i++) a[m][i] = pack_bf16(s[m][2 * k + i / 2][i % 2 * 2], s[m][2 * k + i / 2][i % 2 * 2 + 1]);
        UNROLL for (u32 n = 0; n < TERMS; n++) {
            u32 b[4];
            load_matrix_x4_transposed(b, at_lane(right, k * 16, n));
            UNROLL for (u32 m = 0; m < M; m++) {
                mma_16x8x16(o[m][2 * n], a[m], b[0], b[1]);
                mma_16x8x16(o[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

template <u32 M> DEVICE void clear(float (&o)[M][BLOCKS][4]) {
    UNROLL for (u32 m = 0; m < M; m++)
        UNROLL for (u32 n = 0; n < BLOCKS; n++)
            UNROLL for (u32 i = 0; i < 4; i++) o[m][n][i] = 0.0f;
}

// Writes a lane's part of one row of sums: `half` 0 is row lane / 4 of the sixteen, 1 is eight further on.
DEVICE void store_row(u16* row, const float (&o)[BLOCKS][4], u32 half, float factor) {
    u32* to = (u32*)row + threadIdx.x % 4;
    UNROLL for (u32 n = 0; n < BLOCKS; n++) to[n * 4] = pack_bf16(o[n][2 * half] * factor, o[n][2 * half + 1] * factor);
}
}

// out = softmax(scale · q · kᵀ) · v, and log_sums = log of each softmax's denominator. A block of four warps has 128
// queries, 32 a warp. Grid: (heads, samples, blocks of queries), those with the most keys first.
KERNEL(128, 2) attend(const u16* __restrict__ qkv, const u32* __restrict__ starts, u16* __restrict__ out,
                      float* __restrict__ log_sums, u32 seq_len, u32 heads, u32 kv_heads, float scale) {
    using namespace attention;
    DYNAMIC_SHARED(shared);
    constexpr u32 M = 2, OWN = M * 16, ROWS = 4 * OWN, TILE = KEYS * ROW;
    u8 *q_tile = shared, *kv_tiles = shared + ROWS * ROW;
    u32 head = blockIdx.x, sample = blockIdx.y, kv_head = head / (heads / kv_heads);
    u32 first = (gridDim.z - 1 - blockIdx.z) * ROWS, end = smaller(first + ROWS, seq_len);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, stride = (heads + 2 * kv_heads) * WIDTH;
    qkv += (u64)sample * seq_len * stride;
    starts += (u64)sample * seq_len;
    const u16 *k = qkv + (heads + kv_head) * WIDTH, *v = k + kv_heads * WIDTH;

    // The keys that the block sees, and those of this warp; the latter are none past the sample's end.
    u32 tile = starts[first] / KEYS;
#ifdef BUG_LAST_TILE
    u32 tiles = end / KEYS;
#else
    u32 tiles = (end + KEYS - 1) / KEYS;
#endif
    u32 own = first + warp * OWN, own_end = own < seq_len ? smaller(own + OWN, seq_len) : 0;
    load_rows<ROWS, 128>(q_tile, qkv + head * WIDTH, stride, first, seq_len);
    load_rows<KEYS, 128>(kv_tiles, k, stride, tile * KEYS, seq_len);
    load_rows<KEYS, 128>(kv_tiles + TILE, v, stride, tile * KEYS, seq_len);
    copy_commit();

    float o[M][BLOCKS][4], largest[M][2], sum[M][2], factor = scale * LOG2_E;
    clear(o);
    UNROLL for (u32 m = 0; m < M; m++)
        UNROLL for (u32 half = 0; half < 2; half++) {
            largest[m][half] = -INFINITY;
            sum[m][half] = 0.0f;
        }

    for (u32 turn = 0; tile < tiles; tile++, turn ^= 1) {
        // The tile has come, and all warps have done with the one before: the next may take its place.
        u8 *k_tile = kv_tiles + turn * 2 * TILE, *v_tile = k_tile + TILE, *next = kv_tiles + (turn ^ 1) * 2 * TILE;
#if !defined(BUG_ATTEND_NO_WAIT) && !defined(BUG_ATTEND_WAIT_AFTER_BARRIER)
        copy_wait<0>();
#endif
#ifndef BUG_ATTEND_NO_BARRIER
        sync_block();
#endif
#ifdef BUG_ATTEND_WAIT_AFTER_BARRIER
        copy_wait<0>();
#endif
        if (tile + 1 < tiles) {
            load_rows<KEYS, 128>(next, k, stride, (tile + 1) * KEYS, seq_len);
            load_rows<KEYS, 128>(next + TILE, v, stride, (tile + 1) * KEYS, seq_len);
        }
        copy_commit();
        u32 key = tile * KEYS;
        if (key >= own_end) continue;

        float s[M][KEYS / 8][4];
        multiply_rows<M, KEYS>(s, q_tile, warp * OWN, k_tile);
        bool masked = key + KEYS > own + 1 || key < starts[own_end - 1];
        UNROLL for (u32 m = 0; m < M; m++) {
            u32 row = own + m * 16 + lane / 4;
            if (masked) {
                u32 start[2] = {row < seq_len ? starts[row] : 0, row + 8 < seq_len ? starts[row + 8] : 0};
                UNROLL for (u32 n = 0; n < KEYS / 8; n++)
                    UNROLL for (u32 i = 0; i < 4; i++) {
                        u32 at = key + n * 8 + lane % 4 * 2 + i % 2;
#if defined(BUG_DOCUMENT_START)
                        if (at > row + i / 2 * 8 || at + 1 < start[i / 2]) s[m][n][i] = -INFINITY;
#elif defined(BUG_NOT_CAUSAL)
                        if (at > row + i / 2 * 8 + 1 || at < start[i / 2]) s[m][n][i] = -INFINITY;
#else
                        if (at > row + i / 2 * 8 || at < start[i / 2]) s[m][n][i] = -INFINITY;
#endif
                    }
            }
            UNROLL for (u32 half = 0; half < 2; half++) {
                float top = largest[m][half];
                UNROLL for (u32 n = 0; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
                top = fmaxf(top, shuffle_xor(top, 1));
                top = fmaxf(top, shuffle_xor(top, 2));
                // A row that has seen no key of its document yet: all its terms become exp2(-infinity).
                float base = top == -INFINITY ? 0.0f : top, keep = exp2_fast((largest[m][half] - base) * factor);
                largest[m][half] = top;
#ifndef BUG_SUM_NOT_RESCALED
                sum[m][half] *= keep;
#endif
                base *= factor;
                UNROLL for (u32 n = 0; n < BLOCKS; n++) {
                    o[m][n][2 * half] *= keep;
                    o[m][n][2 * half + 1] *= keep;
                }
                UNROLL for (u32 n = 0; n < KEYS / 8; n++)
                    UNROLL for (u32 i = 2 * half; i < 2 * half + 2; i++) {
                        s[m][n][i] = exp2_fast(s[m][n][i] * factor - base);
                        sum[m][half] += s[m][n][i];
                    }
            }
        }
        add_product<M, KEYS>(o, s, v_tile);
    }

    UNROLL for (u32 m = 0; m < M; m++)
        UNROLL for (u32 half = 0; half < 2; half++) {
            float all = sum[m][half];
            all += shuffle_xor(all, 1);
            all += shuffle_xor(all, 2);
            u32 row = own + m * 16 + half * 8 + lane / 4;
            if (row < seq_len) {
                store_row(out + (((u64)sample * seq_len + row) * heads + head) * WIDTH, o[m], half, 1.0f / all);
                if (lane % 4 == 0) log_sums[((u64)sample * heads + head) * seq_len + row] = largest[m][half] * scale + log2_fast(all) * LN_2;
            }
        }
}
EXPORT(attend)

// dots = each row of `out` times that of `d_out`. A row has WIDTH / 8 lanes. Grid: (blocks of rows of a sample, samples).
KERNEL(256, 4) attend_dots(const u16* __restrict__ out, const u16* __restrict__ d_out, float* __restrict__ dots,
                           u32 seq_len, u32 heads) {
    using namespace attention;
    constexpr u32 ROWS = 256 / CHUNKS;
    u32 row = blockIdx.x * ROWS + threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS, sample = blockIdx.y, rows = seq_len * heads;
    float dot = 0.0f;
#ifdef BUG_DOTS_PAST_THE_END
    bool valid = row <= rows;
#else
    bool valid = row < rows;
#endif
    if (valid) {
        u64 at = ((u64)sample * rows + row) * CHUNKS + chunk;
        Vec4 a = ((const Vec4*)out)[at], b = ((const Vec4*)d_out)[at];
        UNROLL for (u32 i = 0; i < 4; i++) dot += low_bf16(a.v[i]) * low_bf16(b.v[i]) + high_bf16(a.v[i]) * high_bf16(b.v[i]);
    }
    UNROLL for (u32 by = 1; by < CHUNKS; by *= 2) dot += shuffle_xor(dot, by);
    if (valid && chunk == 0) dots[((u64)sample * heads + row % heads) * seq_len + row / heads] = dot;
}
EXPORT(attend_dots)

// The gradient of keys and values. A block of eight warps has 128 keys of a key-value head, 16 a warp; the queries that
// see them pass by in tiles, head after head of the group. Grid: (kv_heads, samples, blocks of keys): the first keys,
// which the most queries see, come first.
KERNEL(256, 1) attend_backward_keys(const u16* __restrict__ qkv, const u32* __restrict__ starts, const u16* __restrict__ d_out,
                                    const float* __restrict__ log_sums, const float* __restrict__ dots,
                                    u16* __restrict__ d_qkv, u32 seq_len, u32 heads, u32 kv_heads, float scale) {
    using namespace attention;
    DYNAMIC_SHARED(shared);
    constexpr u32 OWN = 16, OWN_TILE = OWN_KEYS * ROW, TILE = QUERIES * ROW, VALUES = 3 * QUERIES;
    u8 *k_tile = shared, *v_tile = shared + OWN_TILE, *qd_tiles = shared + 2 * OWN_TILE;
    u32* values = (u32*)(qd_tiles + 4 * TILE);  // of each query twice: log sum in powers of 2, dot, start of its document
    u32 kv_head = blockIdx.x, sample = blockIdx.y, first = blockIdx.z * OWN_KEYS, group = heads / kv_heads;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, stride = (heads + 2 * kv_heads) * WIDTH, own = first + warp * OWN;
    qkv += (u64)sample * seq_len * stride;
    d_qkv += (u64)sample * seq_len * stride;
    d_out += (u64)sample * seq_len * heads * WIDTH;
    starts += (u64)sample * seq_len;
    log_sums += ((u64)sample * heads + kv_head * group) * seq_len;
    dots += ((u64)sample * heads + kv_head * group) * seq_len;

    // Tiles of queries: from that of the first key to the first that begins in a document after the last key, which is
    // found by halving.
    u32 tile0 = first / QUERIES, last_key = smaller(first + OWN_KEYS, seq_len) - 1;
#ifdef BUG_LAST_QUERIES
    u32 low = tile0 + 1, tiles = seq_len / QUERIES;
#else
    u32 low = tile0 + 1, tiles = (seq_len + QUERIES - 1) / QUERIES;
#endif
    while (low < tiles) {
        u32 middle = (low + tiles) / 2;
#ifdef BUG_DOCUMENT_END
        if (starts[middle * QUERIES] < last_key) low = middle + 1; else tiles = middle;
#else
        if (starts[middle * QUERIES] <= last_key) low = middle + 1; else tiles = middle;
#endif
    }

    // Loads a tile of queries and of their outputs' gradients, and each of the first three warps one of their values,
    // to be put down when there is time.
    u32 next_head = 0, next_tile = tile0;
    auto load = [&](u32 turn) -> u32 {
        u32 head = kv_head * group + next_head, query = next_tile * QUERIES, row = query + lane;
        u8* to = qd_tiles + turn * 2 * TILE;
        load_rows<QUERIES, 256>(to, qkv + head * WIDTH, stride, query, seq_len);
        load_rows<QUERIES, 256>(to + TILE, d_out + head * WIDTH, heads * WIDTH, query, seq_len);
        copy_commit();
        u64 at = (u64)next_head * seq_len + row;
        if (++next_tile == tiles) {
            next_tile = tile0;
            next_head++;
        }
        if (warp == 0) return float_to_bits(row < seq_len ? log_sums[at] * LOG2_E : INFINITY);
        if (warp == 1) return float_to_bits(row < seq_len ? dots[at] : 0.0f);
        return row < seq_len ? starts[row] : 0xffffffffu;
    };
    load_rows<OWN_KEYS, 256>(k_tile, qkv + (heads + kv_head) * WIDTH, stride, first, seq_len);
    load_rows<OWN_KEYS, 256>(v_tile, qkv + (heads + kv_heads + kv_head) * WIDTH, stride, first, seq_len);
    u32 value = load(0);
    if (warp < 3) values[threadIdx.x] = value;

    float dk[1][BLOCKS][4], dv[1][BLOCKS][4], factor = scale * LOG2_E;
    clear(dk);
    clear(dv);
    u32 turn = 0;
    for (u32 head = 0; head < group; head++)
        for (u32 tile = tile0; tile < tiles; tile++, turn ^= 1) {
#ifndef BUG_KEYS_NO_WAIT
            copy_wait<0>();
#endif
#ifndef BUG_KEYS_NO_BARRIER
            sync_block();
#endif
            bool more = next_head < group;
            if (more) value = load(turn ^ 1);
            u8 *q_tile = qd_tiles + turn * 2 * TILE, *d_tile = q_tile + TILE;
            const u32* of = values + turn * VALUES;
            u32 query = tile * QUERIES;
            // No query of the tile sees a key of this warp: all are before it, or in later documents, or it has none.
            if (query + QUERIES > own && of[2 * QUERIES] < own + OWN && own < seq_len) {
                float s[1][QUERIES / 8][4], ds[1][QUERIES / 8][4];
                multiply_rows<1, QUERIES>(s, k_tile, warp * OWN, q_tile);
                bool masked = query + 1 < own + OWN || of[3 * QUERIES - 1] > own;
                UNROLL for (u32 n = 0; n < QUERIES / 8; n++)
                    UNROLL for (u32 i = 0; i < 4; i++) {
                        u32 column = n * 8 + lane % 4 * 2 + i % 2;
                        s[0][n][i] = exp2_fast(s[0][n][i] * factor - bits_to_float(of[column]));
                        if (masked) {
                            u32 key = own + i / 2 * 8 + lane / 4;
                            if (key > query + column || key < of[2 * QUERIES + column]) s[0][n][i] = 0.0f;
                        }
                    }
                add_product<1, QUERIES>(dv, s, d_tile);
                multiply_rows<1, QUERIES>(ds, v_tile, warp * OWN, d_tile);
                UNROLL for (u32 n = 0; n < QUERIES / 8; n++)
                    UNROLL for (u32 i = 0; i < 4; i++)
                        s[0][n][i] *= ds[0][n][i] - bits_to_float(of[QUERIES + n * 8 + lane % 4 * 2 + i % 2]);
                add_product<1, QUERIES>(dk, s, q_tile);
            }
            if (more && warp < 3) values[(turn ^ 1) * VALUES + threadIdx.x] = value;
        }

    UNROLL for (u32 half = 0; half < 2; half++) {
        u32 row = own + half * 8 + lane / 4;
        if (row < seq_len) {
            u16* to = d_qkv + (u64)row * stride + (heads + kv_head) * WIDTH;
            store_row(to, dk[0], half, scale);
            store_row(to + kv_heads * WIDTH, dv[0], half, 1.0f);
        }
    }
}
EXPORT(attend_backward_keys)

// The gradient of queries. A block of four warps has 64 queries of a head, 16 a warp, which stay in registers with their
// outputs' gradients: each tile costs 48 ldmatrix for 96 products, not 64. Grid: (heads, samples, blocks of queries),
// those with the most keys first.
KERNEL(128, 2) attend_backward_queries(const u16* __restrict__ qkv, const u32* __restrict__ starts, const u16* __restrict__ d_out,
                                       const float* __restrict__ log_sums, const float* __restrict__ dots,
                                       u16* __restrict__ d_qkv, u32 seq_len, u32 heads, u32 kv_heads, float scale) {
    using namespace attention;
    DYNAMIC_SHARED(shared);
    constexpr u32 OWN = 16, ROWS = 4 * OWN, OWN_TILE = ROWS * ROW, TILE = KEYS * ROW;
    u8 *q_tile = shared, *d_tile = shared + OWN_TILE, *kv_tiles = shared + 2 * OWN_TILE;
    u32 head = blockIdx.x, sample = blockIdx.y, kv_head = head / (heads / kv_heads);
    u32 first = (gridDim.z - 1 - blockIdx.z) * ROWS, end = smaller(first + ROWS, seq_len);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, stride = (heads + 2 * kv_heads) * WIDTH;
    qkv += (u64)sample * seq_len * stride;
    starts += (u64)sample * seq_len;
    const u16 *k = qkv + (heads + kv_head) * WIDTH, *v = k + kv_heads * WIDTH;

    u32 tile = starts[first] / KEYS, tiles = (end + KEYS - 1) / KEYS;
    u32 own = first + warp * OWN, own_end = own < seq_len ? smaller(own + OWN, seq_len) : 0;
    load_rows<ROWS, 128>(q_tile, qkv + head * WIDTH, stride, first, seq_len);
    load_rows<ROWS, 128>(d_tile, d_out + ((u64)sample * seq_len * heads + head) * WIDTH, heads * WIDTH, first, seq_len);
    copy_commit();
    load_rows<KEYS, 128>(kv_tiles, k, stride, tile * KEYS, seq_len);
    load_rows<KEYS, 128>(kv_tiles + TILE, v, stride, tile * KEYS, seq_len);
    copy_commit();

    float log_sum[2], dot[2], dq[1][BLOCKS][4], factor = scale * LOG2_E;
    UNROLL for (u32 half = 0; half < 2; half++) {
        u32 row = own + half * 8 + lane / 4;
        u64 at = ((u64)sample * heads + head) * seq_len + row;
        log_sum[half] = row < seq_len ? log_sums[at] * LOG2_E : INFINITY;
        dot[half] = row < seq_len ? dots[at] : 0.0f;
    }
    clear(dq);
    u32 q_rows[TERMS][4], d_rows[TERMS][4];
#ifndef BUG_QUERIES_NO_WAIT_FOR_ROWS
    copy_wait<1>();
#endif
#ifndef BUG_QUERIES_NO_BARRIER_FOR_ROWS
    sync_block();
#endif
    take_rows(q_rows, q_tile, warp * OWN);
    take_rows(d_rows, d_tile, warp * OWN);

    for (u32 turn = 0; tile < tiles; tile++, turn ^= 1) {
        u8 *k_tile = kv_tiles + turn * 2 * TILE, *v_tile = k_tile + TILE, *next = kv_tiles + (turn ^ 1) * 2 * TILE;
#ifndef BUG_QUERIES_NO_WAIT
        copy_wait<0>();
#endif
#ifndef BUG_QUERIES_NO_BARRIER
        sync_block();
#endif
        if (tile + 1 < tiles) {
            load_rows<KEYS, 128>(next, k, stride, (tile + 1) * KEYS, seq_len);
            load_rows<KEYS, 128>(next + TILE, v, stride, (tile + 1) * KEYS, seq_len);
        }
        copy_commit();
        u32 key = tile * KEYS;
        if (key >= own_end) continue;

        float s[1][KEYS / 8][4], ds[1][KEYS / 8][4];
        multiply_taken<KEYS>(s, q_rows, k_tile);
        multiply_taken<KEYS>(ds, d_rows, v_tile);
        bool masked = key + KEYS > own + 1 || key < starts[own_end - 1];
        u32 row = own + lane / 4;
        UNROLL for (u32 n = 0; n < KEYS / 8; n++)
            UNROLL for (u32 i = 0; i < 4; i++) s[0][n][i] = exp2_fast(s[0][n][i] * factor - log_sum[i / 2]) * (ds[0][n][i] - dot[i / 2]);
        if (masked) {
            u32 start[2] = {row < seq_len ? starts[row] : 0, row + 8 < seq_len ? starts[row + 8] : 0};
            UNROLL for (u32 n = 0; n < KEYS / 8; n++)
                UNROLL for (u32 i = 0; i < 4; i++) {
                    u32 at = key + n * 8 + lane % 4 * 2 + i % 2;
#ifdef BUG_QUERIES_NOT_CAUSAL
                    if (at > row + i / 2 * 8 + 1 || at < start[i / 2]) s[0][n][i] = 0.0f;
#else
                    if (at > row + i / 2 * 8 || at < start[i / 2]) s[0][n][i] = 0.0f;
#endif
                }
        }
        add_product<1, KEYS>(dq, s, k_tile);
    }

    UNROLL for (u32 half = 0; half < 2; half++) {
        u32 row = own + half * 8 + lane / 4;
        if (row < seq_len) store_row(d_qkv + ((u64)sample * seq_len + row) * stride + head * WIDTH, dq[0], half, scale);
    }
}
EXPORT(attend_backward_queries)
