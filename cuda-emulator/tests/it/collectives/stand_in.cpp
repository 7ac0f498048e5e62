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
typedef enum { ncclSuccess = 0, ncclUnhandledCudaError = 1, ncclInternalError = 3, ncclInvalidArgument = 4, ncclInProgress = 7 } ncclResult_t;
typedef enum { ncclUint8 = 1, ncclFloat32 = 7 } ncclDataType_t;
typedef enum { ncclSum = 0 } ncclRedOp_t;
typedef struct CUstream_st* cudaStream_t;
typedef struct { size_t size; unsigned magic, version; int blocking, cgaClusterSize, minCTAs, maxCTAs; const char* netName; } ncclConfig_t;

struct Group {
    std::mutex lock;
    std::condition_variable changed;
    int world = 0, arrived = 0, joined = 0;
    unsigned long meeting = 0;
    bool aborted = false;
    std::vector<const void*> from;
};
// `asked`: how often it is still to be asked until its last call has ended.
typedef struct ncclComm { Group* group; int rank; int asked; bool finalised; }* ncclComm_t;

static std::mutex all;
static std::string calls;
static std::map<std::string, Group*> groups;
static int ids = 0, refuse = 0, refuse_init = 0, stray = 0;
static thread_local int depth = 0;
static thread_local bool started = false;

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
    started = true;
    comm->asked = 2;
    return meet(comm->group) ? ncclSuccess : ncclInternalError;
}

static size_t size_of(ncclDataType_t type) { return type == ncclFloat32 ? 4 : 1; }

extern "C" {
const char* stand_in_calls() { static thread_local std::string copy; std::lock_guard<std::mutex> held(all); copy = calls; return copy.c_str(); }
// Lets a rank's next joining fail at once.
void stand_in_refuse_init(int rank) { std::lock_guard<std::mutex> held(all); refuse_init = rank + 1; }
// Lets a rank's next joining be one that the others never hear of.
void stand_in_stray(int rank) { std::lock_guard<std::mutex> held(all); stray = rank + 1; }
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
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int nranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
    if (id.internal[127] != 'z' || rank < 0 || rank >= nranks) return ncclInvalidArgument;
    if (config->size != sizeof *config || config->magic != 0xcafebeef || config->version != 21700 || config->blocking != 0 ||
        config->cgaClusterSize != (int)0x80000000 || config->minCTAs != (int)0x80000000 || config->maxCTAs != (int)0x80000000 || config->netName)
        return ncclInvalidArgument;
    Group* group;
    bool strays;
    {
        std::lock_guard<std::mutex> held(all);
        if (refuse_init == rank + 1) { refuse_init = 0; return ncclInternalError; }
        Group*& place = groups[id.internal];
        if (!place) { place = new Group; place->world = nranks; place->from.resize(nranks); }
        group = place;
        strays = stray == rank + 1;
        if (strays) stray = 0;
        calls += "init " + std::to_string(rank) + " of " + std::to_string(nranks) + "\n";
    }
    { std::lock_guard<std::mutex> held(group->lock); if (!strays) group->joined++; }
    *comm = new ncclComm{group, rank, 3, false};
    return ncclInProgress;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
    std::lock_guard<std::mutex> held(comm->group->lock);
    bool ready = comm->group->joined == comm->group->world && --comm->asked < 0;
    *state = comm->group->aborted ? ncclInternalError : ready ? ncclSuccess : ncclInProgress;
    return ncclSuccess;
}
ncclResult_t ncclGroupStart() { depth++; started = false; return ncclSuccess; }
ncclResult_t ncclGroupEnd() { depth--; return started ? ncclInProgress : ncclSuccess; }
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
    comm->asked = 2;
    say("finalize " + std::to_string(comm->rank));
    return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    if (!comm->finalised || comm->asked >= 0) return ncclInvalidArgument;
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
