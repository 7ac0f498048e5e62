// Runs a case's file: buffers, and launches of kernels that are in this program. case.rs writes it and reads the answer.
//
// runner CASE ANSWER ORDER EAGER. Each buffer is an allocation of exactly its length, so that ASan sees one byte beyond.
// The answer: buffers one after the other, then matrix loads and conflicts. Ends with 3 and the error's text on
// standard error if a launch fails.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "prelude.cuh"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef void Emulated(Dim3 grid, Dim3 block, u32 shared, void** arguments);
extern "C" {
void emu_set_order(int order);
void emu_set_eager(int eager);
u64 emu_matrix_loads();
u64 emu_conflicts();
const char* emu_error();
int emu_launch(Emulated* kernel, const u32* grid, const u32* block, u32 shared, void** arguments);
}

static FILE* file;

static void end(const char* why) {
    fprintf(stderr, "runner: %s\n", why);
    exit(4);
}
static void take(void* to, size_t bytes) {
    if (bytes > 0 && fread(to, 1, bytes, file) != bytes) end("the case ends early");
}
static u64 number() {
    u64 value;
    take(&value, sizeof value);
    return value;
}

int main(int count, char** arguments) {
    if (count != 5) end("CASE ANSWER ORDER EAGER");
    alarm(100);
    emu_set_order(atoi(arguments[3]));
    emu_set_eager(atoi(arguments[4]));
    file = fopen(arguments[1], "rb");
    if (!file) end("no such case");
    u64 buffers = number();
    u8** at = (u8**)malloc((buffers + 1) * sizeof(u8*));
    u64* lengths = (u64*)malloc((buffers + 1) * sizeof(u64));
    for (u64 i = 0; i < buffers; i++) {
        lengths[i] = number();
        void* start = nullptr;
        if (posix_memalign(&start, 256, lengths[i]) != 0) end("no memory");
        at[i] = (u8*)start;
        take(at[i], lengths[i]);
    }
    u64 matrix_loads = 0, conflicts = 0;
    for (u64 launches = number(); launches > 0; launches--) {
        char name[128] = "emulate_";
        u64 length = number();
        if (length > 100) end("a kernel's name is too long");
        take(name + 8, length);
        u32 grid[3], block[3] = {1, 1, 1};
        for (int i = 0; i < 3; i++) grid[i] = (u32)number();
        block[0] = (u32)number();
        u32 shared = (u32)number();
        u64 values[64];
        void* cells[64];
        u64 parameters = number();
        if (parameters > 64) end("too many parameters");
        for (u64 i = 0; i < parameters; i++) {
            u64 buffer = number(), value = number();
            if (buffer != ~0ull && buffer >= buffers) end("no such buffer");
            values[i] = buffer == ~0ull ? value : (u64)(uintptr_t)(at[buffer] + value);
            cells[i] = &values[i];
        }
        Emulated* kernel = (Emulated*)dlsym(RTLD_DEFAULT, name);
        if (!kernel) end("no such kernel");
        if (emu_launch(kernel, grid, block, shared, cells)) {
            fprintf(stderr, "%s: %s\n", name + 8, emu_error());
            exit(3);
        }
        matrix_loads += emu_matrix_loads();
        conflicts += emu_conflicts();
    }
    fclose(file);
    FILE* answer = fopen(arguments[2], "wb");
    if (!answer) end("the answer cannot be written");
    for (u64 i = 0; i < buffers; i++)
        if (lengths[i] > 0 && fwrite(at[i], 1, lengths[i], answer) != lengths[i]) end("the answer cannot be written");
    u64 counts[2] = {matrix_loads, conflicts};
    if (fwrite(counts, sizeof counts, 1, answer) != 1 || fclose(answer) != 0) end("the answer cannot be written");
    return 0;
}
