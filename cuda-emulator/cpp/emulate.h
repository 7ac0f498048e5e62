// A GPU's block on one thread of a CPU: what prelude.cuh names, for kernels that the host's compiler compiles.
//
// Each lane is a fibre; lanes take turns at barriers and at the functions of a warp. How they take turns is a setting,
// as is when asynchronous copies happen, and memory that a kernel has not written holds NaN: a kernel whose
// result depends on either has a mistake. What reads or writes a kernel's memory is in this file and is compiled with the
// kernel, so that sanitizers see it; lanes, turns and what lanes exchange are in emulate.cpp, which is not.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DEVICE static inline
#define KERNEL(threads, blocks) static void
#define SHARED static thread_local
#define DYNAMIC_SHARED(name) u8* const name = emu::dynamic_shared()
#define EXPORT(name) \
    extern "C" __attribute__((visibility("default"))) void emulate_##name(Dim3 grid, Dim3 block, u32 shared, void** arguments) { \
        emu::launch(name, grid, block, shared, arguments); \
    }
#define FULL 0xffffffffu
#define threadIdx (emu::own.lane->thread)
#define blockIdx (emu::own.lane->block)
#define blockDim (emu::own.lane->block_size)
#define gridDim (emu::own.lane->grid)
// Where a function of the prelude is called.
#define EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

struct Dim3 {
    u32 x, y, z;
};

namespace emu {
// What a kernel may know of its lane.
struct Lane {
    Dim3 thread, block, block_size, grid;
};
// What a thread of the CPU knows; thread-local memory is a block's shared memory but for this.
struct Thread;
struct Own {
    Lane* lane;
    Thread* thread;
};
extern thread_local Own own;

u8* dynamic_shared();
void barrier(const char* file, int line);

// What all lanes of a warp do at once.
enum class Together : u32 { Sync, Shuffle, Ballot, LoadMatrix, LoadMatrixTransposed, Multiply };
// A lane's operands, and then its results.
struct Cells {
    u32 v[10];
};
void together(Together what, Cells& cells, const char* file, int line);

// A copy that is under way.
struct Copy {
    void* to;
    const void* from;
    bool valid;
};
// Checks it and says whether to do it at once; otherwise keeps it.
bool start_copy(const Copy& copy, const char* file, int line);
void commit_copies();
// The next copy to do until `left` groups are left.
bool next_copy(u32 left, Copy& copy);
// Ends the launch with an error; does not return. (Not declared so: ASan would look for this fibre's stack.)
void fail(const char* what, const char* file, int line);
void check_matrix_row(const void* row, const char* file, int line);

// Runs body(work) for each lane of each block.
void run(Dim3 grid, Dim3 block, u32 shared, void (*body)(void*), void* work);

template <size_t... I> struct Indices {};
template <size_t N, size_t... I> struct Count : Count<N - 1, N - 1, I...> {};
template <size_t... I> struct Count<0, I...> {
    typedef Indices<I...> Type;
};
template <class... A, size_t... I> void call(void (*kernel)(A...), void** arguments, Indices<I...>) {
    kernel(*(A*)arguments[I]...);
}
template <class... A> void launch(void (*kernel)(A...), Dim3 grid, Dim3 block, u32 shared, void** arguments) {
    struct Work {
        void (*kernel)(A...);
        void** arguments;
    } work{kernel, arguments};
    run(grid, block, shared,
        [](void* at) {
            Work* work = (Work*)at;
            call(work->kernel, work->arguments, typename Count<sizeof...(A)>::Type());
        },
        &work);
}

inline void copy_now(const Copy& copy) {
    struct alignas(16) Sixteen {
        u64 v[2];
    } value{{0, 0}};
    if (copy.valid) value = *(const Sixteen*)copy.from;
    *(Sixteen*)copy.to = value;
}

template <class T> inline T shuffled(T value, u32 source, const char* file, int line) {
    Cells cells{};
    memcpy(cells.v, &value, sizeof value);
    cells.v[2] = source;
    together(Together::Shuffle, cells, file, line);
    memcpy(&value, cells.v, sizeof value);
    return value;
}

inline void load_matrix(u32 (&r)[4], const void* row, Together how, const char* file, int line) {
    check_matrix_row(row, file, line);
    Cells cells{};
    memcpy(cells.v, __builtin_assume_aligned(row, 16), 16);
    uintptr_t address = (uintptr_t)row;
    memcpy(cells.v + 4, &address, sizeof address);
    together(how, cells, file, line);
    memcpy(r, cells.v, 16);
}
}  // namespace emu

DEVICE float bits_to_float(u32 bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
DEVICE u32 float_to_bits(float value) {
    u32 bits;
    memcpy(&bits, &value, 4);
    return bits;
}
DEVICE u32 emu_round_bf16(float value) {
    if (value != value) return 0x7fff;
    u32 bits = float_to_bits(value);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
DEVICE u32 pack_bf16(float low, float high) { return emu_round_bf16(low) | emu_round_bf16(high) << 16; }

DEVICE float exp2_fast(float x) { return exp2f(x); }
DEVICE float log2_fast(float x) { return log2f(x); }

DEVICE float add_exact(float a, float b) { return a + b; }
DEVICE float sub_exact(float a, float b) { return a - b; }
DEVICE float mul_exact(float a, float b) { return a * b; }
__attribute__((no_sanitize("float-divide-by-zero"))) DEVICE float div_exact(float a, float b) { return a / b; }
DEVICE float sqrt_exact(float a) { return sqrtf(a); }
DEVICE float rsqrt_exact(float a) { return div_exact(1.0f, sqrtf(a)); }
DEVICE double f64_add(double a, double b) { return a + b; }
DEVICE double f64_mul(double a, double b) { return a * b; }

DEVICE u32 popcount(u32 bits) { return (u32)__builtin_popcount(bits); }
DEVICE u32 clz(u32 bits) { return bits == 0 ? 32 : (u32)__builtin_clz(bits); }
DEVICE u32 find_first(u32 bits) { return (u32)__builtin_ffs((int)bits) - 1; }

#define SHUFFLES(T) \
    DEVICE T shuffle_xor(T value, u32 by, EMU_HERE) { \
        if (by > 31) emu::fail("shuffle_xor by more than 31", file, line); \
        return emu::shuffled(value, (threadIdx.x & 31) ^ by, file, line); \
    } \
    DEVICE T shuffle_up(T value, u32 by, EMU_HERE) { \
        if (by > 31) emu::fail("shuffle_up by more than 31", file, line); \
        u32 own = threadIdx.x & 31; \
        return emu::shuffled(value, own < by ? own : own - by, file, line); \
    } \
    DEVICE T shuffle_down(T value, u32 by, EMU_HERE) { \
        if (by > 31) emu::fail("shuffle_down by more than 31", file, line); \
        u32 own = threadIdx.x & 31; \
        return emu::shuffled(value, own + by > 31 ? own : own + by, file, line); \
    } \
    DEVICE T shuffle(T value, u32 lane, EMU_HERE) { \
        if (lane > 31) emu::fail("shuffle from a lane above 31", file, line); \
        return emu::shuffled(value, lane, file, line); \
    }
SHUFFLES(float)
SHUFFLES(u32)
SHUFFLES(i32)
SHUFFLES(double)
#undef SHUFFLES
DEVICE u32 ballot(bool yes, EMU_HERE) {
    emu::Cells cells{};
    cells.v[0] = yes;
    emu::together(emu::Together::Ballot, cells, file, line);
    return cells.v[0];
}
DEVICE void sync_warp(EMU_HERE) {
    emu::Cells cells{};
    emu::together(emu::Together::Sync, cells, file, line);
}
DEVICE void sync_block(EMU_HERE) { emu::barrier(file, line); }
DEVICE void atomic_add_shared(u32* to, u32 value) { __atomic_fetch_add(to, value, __ATOMIC_RELAXED); }

DEVICE void copy_async(void* to, const void* from, bool valid, EMU_HERE) {
    emu::Copy copy{to, from, valid};
    if (emu::start_copy(copy, file, line)) emu::copy_now(copy);
}
DEVICE void copy_commit() { emu::commit_copies(); }
template <int N> DEVICE void copy_wait() {
    for (emu::Copy copy; emu::next_copy(N, copy);) emu::copy_now(copy);
}

DEVICE void load_matrix_x4(u32 (&r)[4], const void* row, EMU_HERE) {
    emu::load_matrix(r, row, emu::Together::LoadMatrix, file, line);
}
DEVICE void load_matrix_x4_transposed(u32 (&r)[4], const void* row, EMU_HERE) {
    emu::load_matrix(r, row, emu::Together::LoadMatrixTransposed, file, line);
}
DEVICE void mma_16x8x16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, EMU_HERE) {
    emu::Cells cells;
    memcpy(cells.v, d, 16);
    memcpy(cells.v + 4, a, 16);
    cells.v[8] = b0;
    cells.v[9] = b1;
    emu::together(emu::Together::Multiply, cells, file, line);
    memcpy(d, cells.v, 16);
}
