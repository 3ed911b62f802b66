// SPDX-License-Identifier: MPL-2.0
// What all kernels share. The host puts it before each of them when they are compiled for a model and a card, after the
// declarations of what the two hand each other: Item, Counts, Place, Cursor, Pick, Results and Emission
// (backend/cuda/sizes/records.rs). All sizes are the host's, as macros (sizes/macros.rs):
//   REAL             0 single, 1 half, 2 bfloat16: the type of weights, activations and caches
//   WIDTH HEADS HEAD width of the encoder, heads, width of a head (WIDTH / HEADS)
//   LAYERS           layers of the encoder
//   LEFT             rows of a slot's K and V rings, the largest left context of the model
//   CACHE8           1 where the rings hold 8-bit integers
//   PRODUCT8         1 where the layers' products multiply e4m3 with a scale for each row
//   TAPS TAIL        taps of the depthwise convolution, and how many of them look back
//   BINS KEPT        mel bins, and how many mel frames a slot keeps at most
//   SLOTS            slots of a block of memory
//   KV_BYTES         bytes of one ring pair (K and V, with scales) of one slot, layer and head
//   TAIL_AT STATE_AT where in a block the convolution tails and the rest of the state begin, in bytes
//   STATE_BYTES      bytes of a slot's rest
//   EPSILON          what norms add to a variance
//   *_THREADS        threads of a block of a kernel (sizes/blocks.rs)
// No header is included: a machine with a driver and NVRTC has none.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#if REAL == 0
typedef float real;
__device__ __forceinline__ float widen(real x) { return x; }
__device__ __forceinline__ real narrow(float x) { return x; }
#elif REAL == 1
struct __align__(2) real { u16 bits; };
__device__ __forceinline__ float widen(real x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
// Too large a number becomes infinity and at last no number, which decoding notices: it must not pass for a large one.
__device__ __forceinline__ real narrow(float x) {
    real y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
#else
struct __align__(2) real { u16 bits; };
__device__ __forceinline__ float widen(real x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ real narrow(float x) {
    real y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
#endif

__device__ __forceinline__ u8* block_of(const u64* blocks, int slot) { return (u8*)blocks[slot / SLOTS]; }

// Ring pair of a slot, layer and head.
__device__ __forceinline__ u8* ring_of(const u64* blocks, int slot, int layer, int head) {
    return block_of(blocks, slot) + ((u64)(layer * SLOTS + slot % SLOTS) * HEADS + head) * KV_BYTES;
}

// Convolution tail of a slot and layer, [TAIL][WIDTH]: frame f lies in row f % TAIL.
__device__ __forceinline__ real* tail_of(const u64* blocks, int slot, int layer) {
    return (real*)(block_of(blocks, slot) + TAIL_AT) + (u64)(layer * SLOTS + slot % SLOTS) * (TAIL * WIDTH);
}

__device__ __forceinline__ u8* state_of(const u64* blocks, int slot) {
    return block_of(blocks, slot) + STATE_AT + (u64)(slot % SLOTS) * STATE_BYTES;
}

__device__ __forceinline__ float sum_of_warp(float x) {
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}

__device__ __forceinline__ float max_of_warp(float x) {
    for (int lane = 16; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}

// ReLU that keeps what isn't a number.
__device__ __forceinline__ float positive(float x) { return x < 0.0f ? 0.0f : x; }

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

// N neighbouring values, as one access where they make up 4, 8 or 16 bytes.
template <int N> struct __align__(N * sizeof(real) < 16 ? N * sizeof(real) : 16) Pack { real values[N]; };

template <int N> struct __align__(N < 4 ? 4 * N : 16) Floats { float values[N]; };

template <int N> __device__ __forceinline__ Floats<N> load_floats(const float* from) { return *(const Floats<N>*)from; }
template <int N> __device__ __forceinline__ Pack<N> load(const real* from) { return *(const Pack<N>*)from; }
template <int N> __device__ __forceinline__ void store(real* to, const Pack<N>& pack) { *(Pack<N>*)to = pack; }

// Programmatic dependent launch: lets the next kernel start that was launched so, as far as it doesn't wait itself.
__device__ __forceinline__ void launch_next() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Until the kernel ahead is through and what it wrote can be seen.
__device__ __forceinline__ void wait_for_last() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Address in shared memory.
__device__ __forceinline__ u32 shared_at(const void* p) {
    u32 at;
    asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(at) : "l"(p));
    return at;
}

// Copies 16 bytes to shared memory, past the first cache.
__device__ __forceinline__ void copy16(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
