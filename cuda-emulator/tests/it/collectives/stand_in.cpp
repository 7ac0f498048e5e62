// Stands in for NCCL: the functions as nccl.h declares them, over the memory of this process. Ranks of one
// id meet at each operation; what was called is kept as text.
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

typedef struct { char internal[128]; } ncclUniqueId;
typedef enum { ncclSuccess = 0, ncclUnhandledCudaError = 1, ncclInternalError = 3, ncclInvalidArgument = 4 } ncclResult_t;
typedef enum { ncclUint8 = 1, ncclFloat32 = 7 } ncclDataType_t;
typedef enum { ncclSum = 0 } ncclRedOp_t;
typedef struct CUstream_st* cudaStream_t;

struct Group {
    std::mutex lock;
    std::condition_variable changed;
    int world = 0, arrived = 0, live = 0;
    unsigned long meeting = 0;
    bool aborted = false;
    std::vector<const void*> from;
};
typedef struct ncclComm { Group* group; int rank; int grouped; bool finalised; }* ncclComm_t;

static std::mutex all;
static std::string calls;
static std::map<std::string, Group*> groups;
static int ids = 0, refuse = 0;
static thread_local int depth = 0;

static void say(const std::string& what) { std::lock_guard<std::mutex> held(all); calls += what + "\n"; }
static std::string text(const void* p) { char at[32]; snprintf(at, sizeof at, "%zx", (size_t)p); return at; }

// All ranks are here; false where one has aborted.
static bool meet(Group* g) {
    std::unique_lock<std::mutex> held(g->lock);
    unsigned long meeting = g->meeting;
    if (++g->arrived == g->world) { g->arrived = 0; g->meeting++; g->changed.notify_all(); }
    g->changed.wait(held, [&] { return g->meeting != meeting || g->aborted; });
    return g->meeting != meeting;
}

template <class Work> static ncclResult_t together(const char* name, ncclComm_t comm, const void* from, Work work) {
    if (depth != 1 || comm->finalised) return ncclInvalidArgument;
    { std::lock_guard<std::mutex> held(all); if (refuse == comm->rank + 1) { refuse = 0; return ncclInternalError; } }
    { std::lock_guard<std::mutex> held(comm->group->lock); comm->group->from[comm->rank] = from; }
    if (!meet(comm->group)) return ncclInternalError;
    work(comm->group->from);
    (void)name;
    return meet(comm->group) ? ncclSuccess : ncclInternalError;
}

static size_t size_of(ncclDataType_t type) { return type == ncclFloat32 ? 4 : 1; }

extern "C" {
const char* stand_in_calls() { static thread_local std::string copy; std::lock_guard<std::mutex> held(all); copy = calls; return copy.c_str(); }
void stand_in_refuse(int rank) { std::lock_guard<std::mutex> held(all); refuse = rank + 1; }

ncclResult_t ncclGetVersion(int* version) { *version = 22809; return ncclSuccess; }
const char* ncclGetErrorString(ncclResult_t result) { return result == ncclInternalError ? "internal error" : "other error"; }
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    std::lock_guard<std::mutex> held(all);
    memset(id->internal, 'x', sizeof id->internal);
    snprintf(id->internal, 64, "group %d", ++ids);
    id->internal[127] = 'z';
    return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int nranks, ncclUniqueId id, int rank) {
    if (id.internal[127] != 'z' || rank < 0 || rank >= nranks) return ncclInvalidArgument;
    Group* group;
    {
        std::lock_guard<std::mutex> held(all);
        Group*& place = groups[id.internal];
        if (!place) { place = new Group; place->world = nranks; place->from.resize(nranks); }
        group = place;
        calls += "init " + std::to_string(rank) + " of " + std::to_string(nranks) + "\n";
    }
    { std::lock_guard<std::mutex> held(group->lock); group->live++; }
    *comm = new ncclComm{group, rank, 0, false};
    return meet(group) ? ncclSuccess : ncclInternalError;
}
ncclResult_t ncclGroupStart() { depth++; return ncclSuccess; }
ncclResult_t ncclGroupEnd() { depth--; return ncclSuccess; }
ncclResult_t ncclAllGather(const void* sendbuff, void* recvbuff, size_t sendcount, ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream) {
    size_t bytes = sendcount * size_of(datatype);
    say("gather " + std::to_string(comm->rank) + " count " + std::to_string(sendcount) + " type " + std::to_string(datatype) + " stream " + text(stream));
    return together("gather", comm, sendbuff, [&](const std::vector<const void*>& from) {
        for (size_t i = 0; i < from.size(); i++) memmove((char*)recvbuff + i * bytes, from[i], bytes);
    });
}
ncclResult_t ncclReduceScatter(const void* sendbuff, void* recvbuff, size_t recvcount, ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    say("reduce " + std::to_string(comm->rank) + " count " + std::to_string(recvcount) + " type " + std::to_string(datatype) + " op " + std::to_string(op) + " stream " + text(stream));
    return together("reduce", comm, sendbuff, [&](const std::vector<const void*>& from) {
        for (size_t i = 0; i < recvcount; i++) {
            float sum = 0;
            for (const void* whole : from) sum += ((const float*)whole)[comm->rank * recvcount + i];
            ((float*)recvbuff)[i] = sum;
        }
    });
}
ncclResult_t ncclBroadcast(const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream) {
    size_t bytes = count * size_of(datatype);
    say("broadcast " + std::to_string(comm->rank) + " count " + std::to_string(count) + " type " + std::to_string(datatype) + " root " + std::to_string(root) + " stream " + text(stream));
    return together("broadcast", comm, sendbuff, [&](const std::vector<const void*>& from) { memmove(recvbuff, from[root], bytes); });
}
// As NCCL's, it waits for the other ranks.
ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    if (!meet(comm->group)) return ncclInternalError;
    comm->finalised = true;
    say("finalize " + std::to_string(comm->rank));
    return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    if (!comm->finalised) return ncclInvalidArgument;
    say("destroy " + std::to_string(comm->rank));
    return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    std::lock_guard<std::mutex> held(comm->group->lock);
    comm->group->aborted = true;
    comm->group->changed.notify_all();
    say("abort " + std::to_string(comm->rank));
    return ncclSuccess;
}
}
