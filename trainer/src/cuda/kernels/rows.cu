// What a layer does to each row between its products: rotary positions and SwiGLU. bf16 rows, f32 inside.
#include "prelude.cuh"

namespace rows {
constexpr float LOG2_E = 1.44269504f;

// 1 / (1 + e^−x): 0 where e^−x overflows.
DEVICE float sigmoid(float x) { return 1.0f / (1.0f + exp2_fast(-LOG2_E * x)); }
}

// Rotary positions on the first `heads` heads of each row of qkv (tokens, stride), in place: the pairs are columns i
// and i + head_dim / 2 of a head. cos, sin: (seq_len, head_dim / 2). direction 1 turns, −1 turns back, which is the
// backward pass. head_dim is a multiple of 16. Grid (tokens): eight pairs at a time a thread.
KERNEL(128, 8) rotate(Vec4* __restrict__ qkv, const float* __restrict__ cos, const float* __restrict__ sin, u32 seq_len,
                      u32 heads, u32 head_dim, u32 stride, float direction) {
    u32 half = head_dim / 16;
    u32 position = blockIdx.x % seq_len;
#ifdef BUG_ROTATE_POSITION
    position = smaller(blockIdx.x, seq_len - 1);
#endif
    Vec4* row = qkv + (u64)blockIdx.x * (stride / 8);
    for (u32 i = threadIdx.x; i < heads * half; i += 128) {
        Vec4* low_at = row + i / half * half * 2 + i % half;
        u64 angle = ((u64)position * half + i % half) * 8;
        Floats8 low = unpack_bf16(low_at[0]), high = unpack_bf16(low_at[half]);
        Floats8 c = load_floats(cos + angle), s = load_floats(sin + angle);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float a = low.v[j], b = high.v[j], turned = s.v[j] * direction;
            low.v[j] = a * c.v[j] - b * turned;
            high.v[j] = b * c.v[j] + a * turned;
        }
        low_at[0] = pack_bf16(low);
        low_at[half] = pack_bf16(high);
    }
}
EXPORT(rotate)

// h (tokens, ffn) ← silu(gate) · up with gate | up in gate_up (tokens, 2 · ffn). Grid (tokens).
KERNEL(128, 8) swiglu(const Vec4* __restrict__ gate_up, Vec4* __restrict__ h, u32 ffn) {
    u32 vectors = ffn / 8;
    const Vec4* from = gate_up + (u64)blockIdx.x * vectors * 2;
    Vec4* to = h + (u64)blockIdx.x * vectors;
    for (u32 i = threadIdx.x; i < vectors; i += 128) {
        Floats8 gate = unpack_bf16(from[i]), up = unpack_bf16(from[vectors + i]);
#pragma unroll
        for (int j = 0; j < 8; j++) gate.v[j] = gate.v[j] * rows::sigmoid(gate.v[j]) * up.v[j];
        to[i] = pack_bf16(gate);
    }
}
EXPORT(swiglu)

// The gradient of SwiGLU: d_gate_up (tokens, 2 · ffn) from gate_up and d_h (tokens, ffn); h is computed again, for the
// gradient of the matrix after it. d_gate_up may be gate_up, h must not be d_h. Grid (tokens).
KERNEL(128, 8) swiglu_backward(const Vec4* gate_up, const Vec4* __restrict__ d_h, Vec4* __restrict__ h, Vec4* d_gate_up,
                               u32 ffn) {
    u32 vectors = ffn / 8;
    u64 row = (u64)blockIdx.x * vectors;
    for (u32 i = threadIdx.x; i < vectors; i += 128) {
        u64 gate_at = row * 2 + i, up_at = gate_at + vectors;
        Floats8 gate = unpack_bf16(gate_up[gate_at]), up = unpack_bf16(gate_up[up_at]), dh = unpack_bf16(d_h[row + i]), made;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float sigmoid = rows::sigmoid(gate.v[j]), silu = gate.v[j] * sigmoid;
            made.v[j] = silu * up.v[j];
            gate.v[j] = dh.v[j] * up.v[j] * (sigmoid + silu * (1.0f - sigmoid));
            up.v[j] = dh.v[j] * silu;
        }
        h[row + i] = pack_bf16(made);
        d_gate_up[gate_at] = pack_bf16(gate);
        d_gate_up[up_at] = pack_bf16(up);
    }
}
EXPORT(swiglu_backward)
