// SPDX-License-Identifier: MPL-2.0
// A CUDA driver, NVRTC and cuBLASLt without a card: memory is the host's, copies are made, kernels and products do nothing. One
// call fails as the test plans; after a status that no process recovers from all others do too.
// Signatures: https://docs.nvidia.com/cuda/cuda-driver-api, /nvrtc, /cublas (cublasLt).

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status;
typedef unsigned long long Address;

static long calls, fail_at;
static Status fail_with, sticky;

// Statuses after which every call of the process fails ("Error handling" of the driver's documentation).
static int lasts(Status status) {
    return status == 700 || status == 719 || status == 214;
}

// Whoever asks for the version begins anew: `PLAN` says which call fails how, and `PLAN`.calls is told how many there were.
static void begin(void) {
    char name[4096];
    const char *plan = getenv("FAKE_CUDA_PLAN");
    if (!plan || snprintf(name, sizeof name, "%s.calls", plan) >= (int)sizeof name) abort();
    FILE *file = fopen(name, "w");
    if (!file) abort();
    fprintf(file, "%ld", calls);
    fclose(file);
    calls = 0;
    sticky = 0;
    file = fopen(plan, "r");
    if (!file || fscanf(file, "%ld %d", &fail_at, &fail_with) != 2) abort();
    fclose(file);
}

static Status called(void) {
    if (sticky) return sticky;
    if (++calls != fail_at) return 0;
    if (lasts(fail_with)) sticky = fail_with;
    return fail_with;
}

#define CALL                                                                                                            \
    do {                                                                                                                \
        Status status = called();                                                                                       \
        if (status) return status;                                                                                      \
    } while (0)

// Driver: nothing fails before there is a context.
Status cuInit(unsigned flags) { return 0; }
Status cuDriverGetVersion(int *version) { begin(); *version = 12080; return 0; }
Status cuDeviceGetCount(int *count) { *count = 1; return 0; }
Status cuDeviceGet(int *device, int index) { *device = index; return 0; }
Status cuDeviceGetName(char *name, int size, int device) { CALL; strncpy(name, "a card that isn't there", size); return 0; }
Status cuGetErrorString(Status status, const char **text) { *text = status == 2 ? "out of memory" : "a fault of the test"; return 0; }
Status cuGetErrorName(Status status, const char **text) { *text = "FAKE"; return 0; }

Status cuDeviceGetAttribute(int *value, int attribute, int device) {
    CALL;
    switch (attribute) {
    case 75: *value = 9; break;             // major capability
    case 76: *value = 0; break;             // minor capability
    case 97: *value = 227 << 10; break;     // shared memory of a block, opted in
    case 16: *value = 132; break;           // multiprocessors
    default: *value = 1;
    }
    return 0;
}

static int context, stream, module, function, graph, executable, event;

Status cuDevicePrimaryCtxRetain(void **result, int device) { CALL; *result = &context; return 0; }
Status cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
Status cuCtxSetCurrent(void *to) { CALL; return 0; }
Status cuCtxGetCurrent(void **result) { *result = &context; return 0; }
Status cuCtxSynchronize(void) { CALL; return 0; }
Status cuMemGetInfo_v2(size_t *free, size_t *total) { CALL; *free = (size_t)70 << 30; *total = (size_t)80 << 30; return 0; }
Status cuStreamCreate(void **result, unsigned flags) { CALL; *result = &stream; return 0; }
Status cuStreamCreateWithPriority(void **result, unsigned flags, int priority) { CALL; *result = &stream; return 0; }
Status cuCtxGetStreamPriorityRange(int *least, int *greatest) { CALL; *least = 0; *greatest = -5; return 0; }
Status cuStreamDestroy_v2(void *of) { return 0; }
Status cuStreamSynchronize(void *of) { CALL; return 0; }
Status cuStreamWaitEvent(void *of, void *on, unsigned flags) { CALL; return 0; }
Status cuStreamBeginCapture_v2(void *of, int mode) { CALL; return 0; }
Status cuStreamEndCapture(void *of, void **result) { CALL; *result = &graph; return 0; }
Status cuGraphInstantiateWithFlags(void **result, void *of, unsigned long long flags) { CALL; *result = &executable; return 0; }
Status cuGraphUpload(void *of, void *on) { CALL; return 0; }
Status cuGraphLaunch(void *of, void *on) { CALL; return 0; }
Status cuGraphExecDestroy(void *of) { return 0; }
Status cuGraphDestroy(void *of) { return 0; }
Status cuEventCreate(void **result, unsigned flags) { CALL; *result = &event; return 0; }
Status cuEventRecord(void *of, void *on) { CALL; return 0; }
Status cuEventDestroy_v2(void *of) { return 0; }
Status cuEventSynchronize(void *of) { CALL; return 0; }
Status cuEventElapsedTime(float *ms, void *from, void *to) { CALL; *ms = 1; return 0; }
Status cuEventElapsedTime_v2(float *ms, void *from, void *to) { CALL; *ms = 1; return 0; }

Status cuMemAlloc_v2(Address *result, size_t bytes) { CALL; *result = (Address)calloc(1, bytes); return *result ? 0 : 2; }
Status cuMemFree_v2(Address address) { free((void *)address); return 0; }
Status cuMemHostAlloc(void **result, size_t bytes, unsigned flags) { CALL; *result = calloc(1, bytes); return *result ? 0 : 2; }
Status cuMemFreeHost(void *memory) { free(memory); return 0; }
Status cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *on) { CALL; memcpy((void *)to, from, bytes); return 0; }
Status cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) { CALL; memcpy((void *)to, from, bytes); return 0; }
Status cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *on) { CALL; memcpy(to, (void *)from, bytes); return 0; }
Status cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) { CALL; memcpy(to, (void *)from, bytes); return 0; }
Status cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *on) { CALL; memmove((void *)to, (void *)from, bytes); return 0; }
Status cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void *on) { CALL; memset((void *)to, value, bytes); return 0; }

Status cuModuleLoadData(void **result, const void *image) { CALL; *result = &module; return 0; }
Status cuModuleUnload(void *of) { return 0; }
Status cuModuleGetFunction(void **result, void *of, const char *name) { CALL; *result = &function; return 0; }
Status cuFuncSetAttribute(void *of, int attribute, int value) { CALL; return 0; }
Status cuFuncGetAttribute(int *value, int attribute, void *of) { CALL; *value = 1; return 0; }
Status cuLaunchKernelEx(const void *config, void *of, void **arguments, void **extra) { CALL; return 0; }

// NVRTC.
static int program;

Status nvrtcVersion(int *major, int *minor) { *major = 12; *minor = 9; return 0; }
Status nvrtcCreateProgram(void **result, const char *source, const char *name, int count, const char *const *headers, const char *const *names) { CALL; *result = &program; return 0; }
Status nvrtcCompileProgram(void *of, int count, const char *const *options) { CALL; return 0; }
Status nvrtcGetCUBINSize(void *of, size_t *size) { CALL; *size = 4; return 0; }
Status nvrtcGetCUBIN(void *of, char *code) { CALL; memcpy(code, "fake", 4); return 0; }
Status nvrtcGetPTXSize(void *of, size_t *size) { CALL; *size = 5; return 0; }
Status nvrtcGetPTX(void *of, char *code) { CALL; memcpy(code, "fake", 5); return 0; }
Status nvrtcGetNumSupportedArchs(int *count) { *count = 1; return 0; }
Status nvrtcGetSupportedArchs(int *architectures) { architectures[0] = 90; return 0; }
Status nvrtcGetProgramLogSize(void *of, size_t *size) { *size = 1; return 0; }
Status nvrtcGetProgramLog(void *of, char *log) { log[0] = 0; return 0; }
Status nvrtcDestroyProgram(void **of) { return 0; }
const char *nvrtcGetErrorString(Status status) { return "a fault of the test"; }

// cuBLASLt.
Status cublasLtCreate(void **result) { CALL; *result = &context; return 0; }
Status cublasLtDestroy(void *of) { return 0; }
Status cublasLtMatmulDescCreate(void **result, int compute, int scale) { CALL; *result = &program; return 0; }
Status cublasLtMatmulDescDestroy(void *of) { return 0; }
Status cublasLtMatmulDescSetAttribute(void *of, int attribute, const void *value, size_t size) { CALL; return 0; }
Status cublasLtMatrixLayoutCreate(void **result, int type, unsigned long long rows, unsigned long long columns, long long stride) { CALL; *result = &module; return 0; }
Status cublasLtMatrixLayoutDestroy(void *of) { return 0; }
Status cublasLtMatmulPreferenceCreate(void **result) { CALL; *result = &event; return 0; }
Status cublasLtMatmulPreferenceDestroy(void *of) { return 0; }
Status cublasLtMatmulPreferenceSetAttribute(void *of, int attribute, const void *value, size_t size) { return 0; }
Status cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference, int wanted, char *results, int *count) {
    CALL;
    memset(results, 0, 96);
    *count = 1;
    return 0;
}
Status cublasLtMatmul(void *handle, void *operation, const void *alpha, const void *x, void *xl, const void *y, void *yl, const void *beta, const void *c, void *cl, void *d, void *dl, const void *algorithm, void *workspace, size_t bytes, void *on) { CALL; return 0; }
