// Lanes, their turns, and what they exchange. Compiled without a sanitizer: what happens here is the GPU's, and
// TSan is told of it where it orders a kernel's memory (sync_block, sync_warp, the start and end of a block).
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prelude.cuh"

#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define API extern "C" __attribute__((visibility("default")))

#ifdef EMU_TSAN
extern "C" {
void __tsan_acquire(void*);
void __tsan_release(void*);
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
}
#define ACQUIRE(at) __tsan_acquire(at)
#define RELEASE(at) __tsan_release(at)
#else
#define ACQUIRE(at) (void)0
#define RELEASE(at) (void)0
#endif

namespace emu {
// ---- Switching between fibres.
#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
struct Context {
    void* stack;
};
extern "C" __attribute__((visibility("hidden"))) void emu_switch(Context* from, Context* to);
// Keeps what a called function must keep, and returns on the other stack.
asm(R"(
    .text
    .type emu_switch, @function
    .hidden emu_switch
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emu_switch, .-emu_switch
)");
static void prepare(Context& context, u8* stack, size_t bytes, void (*entry)()) {
    void** top = (void**)(stack + bytes);
    *--top = nullptr;  // at its first instruction a function finds the stack 8 bytes off a multiple of 16
    *--top = (void*)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    context.stack = top;
}
static void switch_context(Context& from, Context& to) { emu_switch(&from, &to); }
#else
}  // namespace emu
#include <ucontext.h>
namespace emu {
struct Context {
    ucontext_t context;
};
static void prepare(Context& context, u8* stack, size_t bytes, void (*entry)()) {
    getcontext(&context.context);
    context.context.uc_stack.ss_sp = stack;
    context.context.uc_stack.ss_size = bytes;
    context.context.uc_link = nullptr;
    makecontext(&context.context, entry, 0);
}
static void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
#endif

// ---- What there is.
enum class State : u8 { Ready, AtBarrier, AtWarp, Done };

struct Fibre : Lane {
    Context context;
    u32 index;
    State state;
    Together what;
    Cells cells;
    const char* file;
    int line;
    u8* stack;
    // Copies that are not done, oldest first; how many of them each group has; how many are in none yet.
    Copy* copies;
    u32 copies_first, copies_end, copies_room;
    u32* groups;
    u32 groups_first, groups_end, groups_room;
    u32 open;
#ifdef EMU_TSAN
    void* tsan;
#endif
};

constexpr u32 LANES_MAX = 1024, WARP = 32;
#ifndef EMU_STACK
#define EMU_STACK (256u << 10)
#endif

struct Settings {
    // 0 forwards, 1 backwards, 2 … 99 seeds of random turns, from 100 seeds of one warp that runs ahead.
    int order = 0;
    bool eager = false;
};

// What a thread of the CPU has.
struct Thread {
    Settings settings;
    u64 matrix_loads, conflicts;
    char error[2048];
    bool failed;
    Fibre* lanes;
    u32 lanes_made;
    u8* stacks;
    Context scheduler;
    u8 *dynamic, *statics;
    size_t dynamic_bytes, statics_bytes;
    u32 count, done, waiting;
    u32 arrived[LANES_MAX / WARP];
    void (*body)(void*);
    void* work;
    u64 random;
#ifdef EMU_TSAN
    void* tsan;
    char* launch;
#endif
};

thread_local Own own;

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const size_t page = (size_t)sysconf(_SC_PAGESIZE);

static void end_thread(void* at) {
    Thread* ending = (Thread*)at;
    for (u32 i = 0; i < ending->lanes_made; i++) {
        free(ending->lanes[i].copies);
        free(ending->lanes[i].groups);
    }
    free(ending->lanes);
    if (ending->stacks) munmap(ending->stacks, LANES_MAX * (EMU_STACK + page));
    free(ending);
}

static Thread& here() {
    if (!own.thread) {
        pthread_once(&once, [] { pthread_key_create(&key, end_thread); });
        own.thread = (Thread*)calloc(1, sizeof(Thread));
        pthread_setspecific(key, own.thread);
    }
    return *own.thread;
}

static Fibre& self() { return *(Fibre*)own.lane; }

static u32 random_below(Thread& t, u32 end) {
    t.random ^= t.random << 13;
    t.random ^= t.random >> 7;
    t.random ^= t.random << 17;
    return (u32)((t.random >> 32) * end >> 32);
}

static const char* name_of(const char* file) {
    const char* slash = strrchr(file, '/');
    return slash ? slash + 1 : file;
}

__attribute__((format(printf, 2, 3))) static void say(Thread& t, const char* format, ...) {
    size_t used = strlen(t.error);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(t.error + used, sizeof t.error - used, format, arguments);
    va_end(arguments);
}

// ---- A lane's side.
static void yield() {
    Fibre& me = self();
#ifdef EMU_TSAN
    __tsan_switch_to_fiber(own.thread->tsan, 1);
#endif
    switch_context(me.context, own.thread->scheduler);
}

static void entry() {
#ifdef EMU_TSAN
    ACQUIRE(own.thread->launch);
#endif
    own.thread->body(own.thread->work);
#ifdef EMU_TSAN
    RELEASE(own.thread->launch + 1);
#endif
    self().state = State::Done;
    own.thread->done++;
    yield();
    abort();
}

void fail(const char* what, const char* file, int line) {
    if (!own.thread->failed) {
        Fibre& me = self();
        say(*own.thread, "%s at %s:%d, lane %u of block (%u, %u, %u)", what, name_of(file), line, me.index, me.block.x, me.block.y,
            me.block.z);
        own.thread->failed = true;
    }
    self().state = State::Done;
    yield();
    abort();
}

u8* dynamic_shared() { return own.thread->dynamic; }

void barrier(const char* file, int line) {
    Fibre& me = self();
    me.file = file;
    me.line = line;
    me.state = State::AtBarrier;
    own.thread->waiting++;
    RELEASE(&own.thread->waiting);
    yield();
    ACQUIRE(&own.thread->waiting);
}

// Eight rows of 16 bytes are read at once, and the memory has eight places that wide: how many times more than
// once it is read.
static u32 conflicts(const u64* rows) {
    u32 most = 1;
    for (int bank = 0; bank < 8; bank++) {
        u64 seen[8];
        u32 count = 0;
        for (int i = 0; i < 8; i++) {
            if (rows[i] / 16 % 8 != (u64)bank) continue;
            bool known = false;
            for (u32 j = 0; j < count; j++) known |= seen[j] == rows[i];
            if (!known) seen[count++] = rows[i];
        }
        if (count > most) most = count;
    }
    return most - 1;
}

// The layouts are those of the PTX ISA, "ldmatrix" and "Matrix Fragments for mma.m16n8k16"; tests/it/layout.rs
// holds this code against the published formulas.
static void load_matrices(Thread& t, Fibre* warp, bool transposed) {
    u16 at[4][8][8];
    for (u32 matrix = 0; matrix < 4; matrix++) {
        u64 rows[8];
        for (u32 row = 0; row < 8; row++) {
            const u32* v = warp[matrix * 8 + row].cells.v;
            for (u32 i = 0; i < 4; i++) {
                at[matrix][row][2 * i] = (u16)v[i];
                at[matrix][row][2 * i + 1] = (u16)(v[i] >> 16);
            }
            rows[row] = v[4] | (u64)v[5] << 32;
        }
        t.matrix_loads++;
        t.conflicts += conflicts(rows);
    }
    for (u32 i = 0; i < WARP; i++) {
        u32 row = i / 4, column = i % 4 * 2;
        for (u32 matrix = 0; matrix < 4; matrix++) {
            auto& m = at[matrix];
            u16 low = transposed ? m[column][row] : m[row][column];
            u16 high = transposed ? m[column + 1][row] : m[row][column + 1];
            warp[i].cells.v[matrix] = low | (u32)high << 16;
        }
    }
}

static void multiply(Fibre* warp) {
    float a[16][16], b[16][8], d[16][8];
    for (u32 i = 0; i < WARP; i++) {
        const u32* v = warp[i].cells.v;
        u32 group = i / 4, pair = i % 4 * 2;
        for (u32 q = 0; q < 4; q++) d[group + q / 2 * 8][pair + q % 2] = bits_to_float(v[q]);
        for (u32 q = 0; q < 4; q++) {
            float* to = &a[group + q % 2 * 8][pair + q / 2 * 8];
            to[0] = low_bf16(v[4 + q]);
            to[1] = high_bf16(v[4 + q]);
        }
        for (u32 q = 0; q < 2; q++) {
            b[pair + q * 8][group] = low_bf16(v[8 + q]);
            b[pair + q * 8 + 1][group] = high_bf16(v[8 + q]);
        }
    }
    for (u32 row = 0; row < 16; row++)
        for (u32 k = 0; k < 16; k++)
            for (u32 column = 0; column < 8; column++) d[row][column] += a[row][k] * b[k][column];
    for (u32 i = 0; i < WARP; i++)
        for (u32 q = 0; q < 4; q++) warp[i].cells.v[q] = float_to_bits(d[i / 4 + q / 2 * 8][i % 4 * 2 + q % 2]);
}

static void compute(Thread& t, Fibre* warp, Together what) {
    switch (what) {
        case Together::Sync:
            break;
        case Together::Shuffle: {
            u32 values[WARP][2];
            for (u32 i = 0; i < WARP; i++) values[i][0] = warp[i].cells.v[0], values[i][1] = warp[i].cells.v[1];
            for (u32 i = 0; i < WARP; i++) {
                u32 source = warp[i].cells.v[2];
                warp[i].cells.v[0] = values[source][0], warp[i].cells.v[1] = values[source][1];
            }
            break;
        }
        case Together::Ballot: {
            u32 bits = 0;
            for (u32 i = 0; i < WARP; i++) bits |= (warp[i].cells.v[0] & 1) << i;
            for (u32 i = 0; i < WARP; i++) warp[i].cells.v[0] = bits;
            break;
        }
        case Together::LoadMatrix:
        case Together::LoadMatrixTransposed:
            load_matrices(t, warp, what == Together::LoadMatrixTransposed);
            break;
        case Together::Multiply:
            multiply(warp);
            break;
    }
}

void together(Together what, Cells& cells, const char* file, int line) {
    Thread& t = *own.thread;
    Fibre& me = self();
    u32& arrived = t.arrived[me.index / WARP];
    Fibre* warp = t.lanes + me.index / WARP * WARP;
    me.what = what;
    me.cells = cells;
    me.file = file;
    me.line = line;
    if (what == Together::Sync) RELEASE(&arrived);
    if (++arrived < WARP) {
        me.state = State::AtWarp;
        yield();
    } else {
        for (u32 i = 0; i < WARP; i++)
            if (warp[i].what != what || warp[i].line != line || strcmp(warp[i].file, file) != 0) {
                char text[256];
                snprintf(text, sizeof text, "a warp's lanes are apart: lane %u is at %s:%d, another", warp[i].index,
                         name_of(warp[i].file), warp[i].line);
                fail(text, file, line);
            }
        arrived = 0;
        compute(t, warp, what);
        for (u32 i = 0; i < WARP; i++) warp[i].state = State::Ready;
    }
    if (what == Together::Sync) ACQUIRE(&arrived);
    cells = me.cells;
}

static bool is_shared(const void* at, size_t bytes) {
    auto inside = [&](const u8* start, size_t length) {
        return (const u8*)at >= start && (const u8*)at + bytes <= start + length;
    };
    return inside(own.thread->dynamic, own.thread->dynamic_bytes) || inside(own.thread->statics, own.thread->statics_bytes);
}

void check_matrix_row(const void* row, const char* file, int line) {
    if ((uintptr_t)row % 16 != 0) fail("a matrix's row is not on 16 bytes", file, line);
    if (!is_shared(row, 16)) fail("a matrix's row is not in shared memory", file, line);
}

template <class T> static void push(T*& list, u32& first, u32& end, u32& room, const T& value) {
    if (first == end) first = end = 0;
    if (end == room) {
        room = room ? room * 2 : 16;
        list = (T*)realloc((void*)list, room * sizeof(T));
    }
    list[end++] = value;
}

bool start_copy(const Copy& copy, const char* file, int line) {
    if (((uintptr_t)copy.to | (uintptr_t)copy.from) % 16 != 0) fail("an asynchronous copy is not on 16 bytes", file, line);
    if (!is_shared(copy.to, 16)) fail("an asynchronous copy is not into shared memory", file, line);
    if (own.thread->settings.eager) return true;
    Fibre& me = self();
    push(me.copies, me.copies_first, me.copies_end, me.copies_room, copy);
    me.open++;
    return false;
}

void commit_copies() {
    Fibre& me = self();
    push(me.groups, me.groups_first, me.groups_end, me.groups_room, me.open);
    me.open = 0;
}

bool next_copy(u32 left, Copy& copy) {
    Fibre& me = self();
    for (; me.groups_end - me.groups_first > left; me.groups_first++) {
        u32& group = me.groups[me.groups_first];
        if (group == 0) continue;
        group--;
        copy = me.copies[me.copies_first++];
        return true;
    }
    return false;
}

// ---- The GPU's side.

// This library's (or program's) thread-local memory: SHARED arrays are there, beside what is ours.
static int find_statics(dl_phdr_info* info, size_t, void* at) {
    Thread& t = *(Thread*)at;
    if (!info->dlpi_tls_data) return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr)& header = info->dlpi_phdr[i];
        u8* start = (u8*)info->dlpi_tls_data;
        if (header.p_type != PT_TLS || (u8*)&own < start || (u8*)&own >= start + header.p_memsz) continue;
        t.statics = start;
        t.statics_bytes = header.p_memsz;
        return 1;
    }
    return 0;
}

// Makes shared memory what no kernel may take for a value: every float in it is NaN, every index far off.
static void spoil_shared(Thread& t) {
    memset(t.dynamic, 0xff, t.dynamic_bytes);
    u8 *ours = (u8*)&own, *after = ours + sizeof own, *end = t.statics + t.statics_bytes;
    if (!t.statics) return;
    memset(t.statics, 0xff, (size_t)(ours - t.statics));
    memset(after, 0xff, (size_t)(end - after));
}

// Lanes up to `count` have a stack, with a page below it that nobody may touch.
static bool make_lanes(Thread& t, u32 count) {
    const size_t each = EMU_STACK + page;
    if (!t.stacks) {
        void* at = mmap(nullptr, LANES_MAX * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        t.lanes = (Fibre*)calloc(LANES_MAX, sizeof(Fibre));
        if (at == MAP_FAILED || !t.lanes) return false;
        t.stacks = (u8*)at;
    }
    for (; t.lanes_made < count; t.lanes_made++) {
        u8* start = t.stacks + t.lanes_made * each;
        if (mprotect(start, page, PROT_NONE) != 0) return false;
        t.lanes[t.lanes_made].stack = start + page;
    }
    return true;
}

// Lanes that wait, those at one place together.
static void say_where(Thread& t) {
    for (u32 i = 0; i < t.count;) {
        const Fibre& first = t.lanes[i];
        u32 end = i + 1;
        for (; end < t.count; end++) {
            const Fibre& other = t.lanes[end];
            if (other.state != first.state) break;
            if (first.state != State::Done && (other.line != first.line || strcmp(other.file, first.file) != 0)) break;
        }
        const char* how = first.state == State::AtBarrier ? "at the barrier" : "wait for their warp at";
        say(t, "%s lanes %u to %u ", i == 0 ? "" : ";", i, end - 1);
        if (first.state == State::Done)
            say(t, "ended");
        else
            say(t, "%s %s:%d", how, name_of(first.file), first.line);
        i = end;
    }
}

// All lanes that have not ended are at a barrier: whether it is the same one, and all are there.
static bool pass_barrier(Thread& t) {
    const Fibre& first = t.lanes[0];
    for (u32 i = 0; i < t.count; i++) {
        const Fibre& other = t.lanes[i];
        if (other.state != State::AtBarrier || other.line != first.line || strcmp(other.file, first.file) != 0) return false;
    }
    t.waiting = 0;
    for (u32 i = 0; i < t.count; i++) t.lanes[i].state = State::Ready;
    return true;
}

static void run_block(Thread& t, const u32* turns_at_first, Dim3 index, Dim3 size, Dim3 grid) {
    const int order = t.settings.order;
    u32 turns[LANES_MAX];
    memcpy(turns, turns_at_first, t.count * sizeof(u32));
    t.done = t.waiting = 0;
    memset(t.arrived, 0, sizeof t.arrived);
    for (u32 i = 0; i < t.count; i++) {
        Fibre& l = t.lanes[i];
        l.index = i;
        l.state = State::Ready;
        l.thread = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
        l.block = index;
        l.block_size = size;
        l.grid = grid;
        l.copies_first = l.copies_end = l.groups_first = l.groups_end = l.open = 0;
        prepare(l.context, l.stack, EMU_STACK, entry);
#ifdef EMU_TSAN
        if (l.tsan) __tsan_destroy_fiber(l.tsan);
        l.tsan = __tsan_create_fiber(0);
#endif
    }
    while (t.done < t.count) {
        u32 only = 0;
        if (order > 1)
            for (u32 i = t.count - 1; i > 0; i--) {
                u32 j = random_below(t, i + 1), turn = turns[i];
                turns[i] = turns[j];
                turns[j] = turn;
            }
        if (order >= 100) only = turns[0] / WARP;
        bool any = false;
        for (bool again = true; again;) {
            again = false;
            for (u32 i = 0; i < t.count; i++) {
                Fibre& next = t.lanes[turns[i]];
                if (next.state != State::Ready || (order >= 100 && next.index / WARP != only)) continue;
                any = true;
                again = order >= 100;
                own.lane = &next;
#ifdef EMU_TSAN
                __tsan_switch_to_fiber(next.tsan, 1);
#endif
                switch_context(t.scheduler, next.context);
                if (t.failed) return;
            }
        }
        if (any || t.done == t.count) continue;
        bool ready = false;
        for (u32 i = 0; i < t.count; i++) ready |= t.lanes[i].state == State::Ready;
        if (ready || (t.waiting == t.count && pass_barrier(t))) continue;
        say(t, "deadlock in block (%u, %u, %u):", index.x, index.y, index.z);
        say_where(t);
        t.failed = true;
        return;
    }
}

static Dim3 place(u64 number, Dim3 grid) {
    return {(u32)(number % grid.x), (u32)(number / grid.x % grid.y), (u32)(number / ((u64)grid.x * grid.y))};
}

// One block, as a launch's work that any thread can do.
struct Turn {
    Thread* owner;
    u64 number;
    Dim3 grid, size;
    u32 shared;
    u32* whose;
    u32 mine;
#ifdef EMU_TSAN
    void* fibres[LANES_MAX];
#endif
};

static void run_turn(Thread& t, const Turn& turn) {
    if (!make_lanes(t, t.count)) {
        say(t, "no memory for %u lanes", t.count);
        t.failed = true;
        return;
    }
    if (!t.statics) dl_iterate_phdr(find_statics, &t);
    // Its end is the end of what is allocated, so that ASan knows it.
    void* dynamic = nullptr;
    if (turn.shared > 0 && posix_memalign(&dynamic, 128, turn.shared) != 0) {
        say(t, "no %u bytes of shared memory", turn.shared);
        t.failed = true;
        return;
    }
    t.dynamic = (u8*)dynamic;
    t.dynamic_bytes = turn.shared;
    spoil_shared(t);
    u32 turns[LANES_MAX];
    for (u32 i = 0; i < t.count; i++) turns[i] = t.settings.order == 1 ? t.count - 1 - i : i;
#ifdef EMU_TSAN
    char launch[2];
    t.launch = launch;
    t.tsan = __tsan_get_current_fiber();
    RELEASE(t.launch);
#endif
    run_block(t, turns, place(turn.number, turn.grid), turn.size, turn.grid);
#ifdef EMU_TSAN
    ACQUIRE(t.launch + 1);
#endif
    free(dynamic);
    t.dynamic = nullptr;
    t.dynamic_bytes = 0;
}

#ifdef EMU_TSAN
// TSan must not take one block to come after another: each has a thread of its own, and whose turn it is, is passed
// on where TSan does not see it.
static void* block_thread(void* at) {
    Turn& turn = *(Turn*)at;
    while (__atomic_load_n(turn.whose, __ATOMIC_ACQUIRE) != turn.mine) sched_yield();
    Thread& t = here();
    Thread& owner = *turn.owner;
    if (!owner.failed) {
        t.settings = owner.settings;
        t.count = owner.count;
        t.body = owner.body;
        t.work = owner.work;
        t.random = owner.random;
        run_turn(t, turn);
        owner.random = t.random;
        owner.matrix_loads += t.matrix_loads;
        owner.conflicts += t.conflicts;
        owner.failed = t.failed;
        if (t.failed) say(owner, "%s", t.error);
    }
    for (u32 i = 0; i < t.lanes_made; i++) turn.fibres[i] = t.lanes[i].tsan;
    __atomic_store_n(turn.whose, turn.mine + 1, __ATOMIC_RELEASE);
    return nullptr;
}

constexpr u64 THREADS_MAX = 128, LANES_AT_ONCE = 6144;

static void run_turns(Thread& t, const u64* order, u64 blocks, Turn turn) {
    u64 most = LANES_AT_ONCE / t.count < THREADS_MAX ? LANES_AT_ONCE / t.count : THREADS_MAX;
    for (u64 first = 0; first < blocks && !t.failed; first += most) {
        u64 count = blocks - first < most ? blocks - first : most;
        pthread_t threads[THREADS_MAX];
        Turn* turns = (Turn*)calloc(count, sizeof(Turn));
        if (!turns) abort();
        u32 whose = 0;
        for (u64 i = 0; i < count; i++) {
            turns[i] = turn;
            turns[i].number = order[first + i];
            turns[i].whose = &whose;
            turns[i].mine = (u32)i;
            if (pthread_create(&threads[i], nullptr, block_thread, &turns[i]) != 0) abort();
        }
        for (u64 i = 0; i < count; i++) pthread_join(threads[i], nullptr);
        // TSan has room for some 8,000 threads and fibres, and takes a new one for an old one whose place it gets:
        // they end when all blocks of these have, so that no block passes for another.
        for (u64 i = 0; i < count; i++)
            for (void* fibre : turns[i].fibres)
                if (fibre) __tsan_destroy_fiber(fibre);
        free(turns);
    }
}
#else
static void run_turns(Thread& t, const u64* order, u64 blocks, Turn turn) {
    for (u64 i = 0; i < blocks && !t.failed; i++) {
        turn.number = order[i];
        run_turn(t, turn);
    }
}
#endif

void run(Dim3 grid, Dim3 size, u32 shared, void (*body)(void*), void* work) {
    Thread& t = here();
    t.error[0] = 0;
    t.failed = false;
    t.matrix_loads = t.conflicts = 0;
    t.random = 0x9e3779b97f4a7c15ull * (u64)(t.settings.order + 1);
    u64 lanes = (u64)size.x * size.y * size.z, blocks = (u64)grid.x * grid.y * grid.z;
    if (lanes == 0 || lanes > LANES_MAX || lanes % WARP != 0) {
        say(t, "a block of %llu lanes: a multiple of 32 up to 1024 is wanted", lanes);
        t.failed = true;
    } else if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535 || blocks > 1u << 28) {
        say(t, "a grid of %u, %u, %u blocks is too large", grid.x, grid.y, grid.z);
        t.failed = true;
    } else if (shared > 227u << 10) {
        say(t, "%u bytes of shared memory are more than any GPU has", shared);
        t.failed = true;
    }
    if (t.failed || blocks == 0) return;
    t.count = (u32)lanes;
    t.body = body;
    t.work = work;
    // Blocks come in no order either.
    u64* order = (u64*)malloc(blocks * sizeof(u64));
    if (!order) {
        say(t, "no memory for %llu blocks", blocks);
        t.failed = true;
        return;
    }
    for (u64 i = 0; i < blocks; i++) order[i] = t.settings.order == 1 ? blocks - 1 - i : i;
    if (t.settings.order > 1)
        for (u64 i = blocks - 1; i > 0; i--) {
            u64 j = random_below(t, (u32)i + 1), kept = order[i];
            order[i] = order[j];
            order[j] = kept;
        }
    Turn turn{};
    turn.owner = &t;
    turn.grid = grid;
    turn.size = size;
    turn.shared = shared;
    run_turns(t, order, blocks, turn);
    free(order);
    own.lane = nullptr;
}
}  // namespace emu

// ---- What a program calls; all of it is the calling thread's.
typedef void Emulated(Dim3 grid, Dim3 block, u32 shared, void** arguments);

API void emu_set_order(int order) { emu::here().settings.order = order; }
API void emu_set_eager(int eager) { emu::here().settings.eager = eager != 0; }
// Of the last launch: how often a matrix's eight rows were read, and how many reads more than those it took
// because rows lie at the same place of the memory's width.
API u64 emu_matrix_loads() { return emu::here().matrix_loads; }
API u64 emu_conflicts() { return emu::here().conflicts; }
// The last launch's error, or null.
API const char* emu_error() { return emu::here().failed ? emu::here().error : nullptr; }
// Whether it failed.
API int emu_launch(Emulated* kernel, const u32* grid, const u32* block, u32 shared, void** arguments) {
    kernel({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared, arguments);
    return emu::here().failed;
}
