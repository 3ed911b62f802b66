// SPDX-License-Identifier: MPL-2.0
// Relative multi-head attention (Transformer-XL, arXiv:1901.02860), as `attend` in backend/cpu/attention.rs.
//   score(i, j) = (q_i . k_j + q_i . P[p] + c[p]) / sqrt(HEAD), p = frame_i - frame_j
// The bias u is in q already, P is the layer's projected table of positions and c = (v - u) . P.
//   qkv       [rows][3 * WIDTH]: q, k, v of the step's rows
//   out       [rows][WIDTH]
//   table     [HEADS][positions][HEAD], its first row is p = `least`; it covers every p that is visible
//   constant  [HEADS][positions]
// The items' rows follow one another in the order of the items. Chunk is 1 at least. Grids may be larger than needed.
// A ring pair is K [LEFT][HEAD], V [LEFT][HEAD] of `real`. With CACHE8 both are bytes (128 is zero; those of K in the order
// of `byte_of`) and single-precision scales follow from RING8_SCALES_AT on, K's [LEFT], then V's.
// There a step's own rows are used as the ring will give them back, so that a key has one value for its whole life;
// where an item has no ring only attention_ring does so.

#define NOTHING __int_as_float(0xff800000)

// Keys that a row sees, [from, to).
struct Seen {
    int from, to;
};

// Of `keys` keys that begin at frame `origin`.
__device__ __forceinline__ Seen seen_by(const Item& item, int frame, int origin, int keys) {
    const long long start = (u32)frame / (u32)item.chunk * (u32)item.chunk - (long long)origin;
    Seen seen;
    seen.from = (int)max(start - item.left, 0LL);
    seen.to = (int)min(start + item.chunk + item.right, (long long)keys);
    return seen;
}

// The oldest frame that the item's rows see.
__device__ __forceinline__ int oldest_of(const Item& item) {
    const int start = (int)((u32)item.first / (u32)item.chunk * (u32)item.chunk);
    return max(max(item.first - item.ring, 0), start - item.left);
}

// The item that tile `tile` of `size` rows is of, or -1; a warp looks for it. Item k has the tiles from row / size + k
// on, which never overlap: so ceil(rows / size) + items tiles suffice and nobody has to count them.
__device__ __forceinline__ int item_of_tile(const Item* items, int count, int tile, int size, int& from) {
    const int lane = threadIdx.x % 32;
    int low = 0;
    for (int among = count; among > 1;) {
        const int step = (among + 31) / 32, k = low + lane * step;
        const bool reached = lane * step < among && items[k].row / size + k <= tile;
        const int before = max(__popc(__ballot_sync(0xffffffffu, reached)) - 1, 0) * step;
        low += before;
        among = min(step, among - before);
    }
    if (count == 0) return -1;
    from = (tile - items[low].row / size - low) * size;
    return from >= 0 && from < items[low].frames ? low : -1;
}

// How a row of 8-bit integers is scaled.
struct Scaling {
    float scale, inverse;
};

__device__ __forceinline__ Scaling scaling(float largest) {
    Scaling s;
    s.scale = largest * (1.0f / 127.0f);
    s.inverse = largest > 1e-30f ? __frcp_rn(largest) * 127.0f : 0.0f;  // so that it is finite
    return s;
}

__device__ __forceinline__ u32 quantised(float x, Scaling s) { return (u32)(__float2int_rn(x * s.inverse) + 128); }

// Where value d of a row of 8-bit integers lies: a thread of attention_ring takes its four values of 16 as one word.
__device__ __forceinline__ int byte_of(int d, int kind) {
    return kind == 0 && HEAD % 16 == 0 ? d / 16 * 16 + d % 8 / 2 * 4 + d % 16 / 8 * 2 + d % 2 : d;
}

__device__ __forceinline__ Scaling scaling_of_row(const real* row, int lane) {
    float largest = 0.0f;
    for (int d = lane; d < HEAD; d += 32) largest = fmaxf(largest, fabsf(widen(row[d])));
    return scaling(max_of_warp(largest));
}

// A key (kind 0) or value (kind 1) of a ring or, where `own` isn't null, of the step, by one warp.
__device__ __forceinline__ void read_row(
    float* to, const real* own, bool kept, const u8* ring, int row, int kind, int lane) {
    const int place = kind * LEFT + row;
#if CACHE8
    if (own && kept) {
        const Scaling s = scaling_of_row(own, lane);
        for (int d = lane; d < HEAD; d += 32) to[d] = ((float)quantised(widen(own[d]), s) - 128.0f) * s.scale;
        return;
    }
    if (!own) {
        const float scale = ((const float*)(ring + RING8_SCALES_AT))[place];
        for (int d = lane; d < HEAD; d += 32) to[d] = ((float)ring[place * HEAD + byte_of(d, kind)] - 128.0f) * scale;
        return;
    }
#else
    if (!own) own = (const real*)ring + place * HEAD;
#endif
    for (int d = lane; d < HEAD; d += 32) to[d] = widen(own[d]);
}

__device__ __forceinline__ void keep_row(u8* ring, int row, int kind, const real* own, int lane) {
    const int place = kind * LEFT + row;
#if CACHE8
    const Scaling s = scaling_of_row(own, lane);
    for (int d = lane; d < HEAD; d += 32) ring[place * HEAD + byte_of(d, kind)] = (u8)quantised(widen(own[d]), s);
    if (lane == 0) ((float*)(ring + RING8_SCALES_AT))[place] = s.scale;
#else
    for (int d = lane; d < HEAD; d += 32) ((real*)ring)[place * HEAD + d] = own[d];
#endif
}

// Any type, width, length and ring, in single precision: what the others are checked against, and odd shapes.
// Grid (ceil(rows / SIMPLE_ROWS) + items, HEADS), shared memory SIMPLE_BYTES.
extern "C" __global__ void __launch_bounds__(SIMPLE_THREADS) attention_simple(
    const real* qkv, real* out, const real* table, const float* constant, int least, int positions, const Item* items,
    const Counts* counts, const u64* blocks, int layer) {
    static_assert(SIMPLE_ROWS == 16 && SIMPLE_THREADS == 8 * SIMPLE_ROWS, "eight threads a row, two keys each");
    static_assert(4 * (63 * (HEAD + 1) + 16 * HEAD + 16 * 17) == SIMPLE_BYTES, "the host asks for as much");
    extern __shared__ __align__(16) u8 memory[];
    float(*const queries)[HEAD + 1] = (float(*)[HEAD + 1])memory;
    float(*const keys)[HEAD + 1] = queries + 16;
    float(*const band)[HEAD + 1] = keys + 16;  // 31 rows: position of row r and key j in row r - j + 15
    float(*const values)[HEAD] = (float(*)[HEAD])(band + 31);
    float(*const weights)[17] = (float(*)[17])(values + 16);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = threadIdx.x / 8, part = threadIdx.x % 8;
    const int head = blockIdx.y;
    int from;
    const int index = item_of_tile(items, counts->items, blockIdx.x, 16, from);
    if (index < 0) return;
    const Item item = items[index];
    // Rows of a ring may be overwritten only when all rows of the item are done: one block does them all.
    if (item.ring > 0 && from > 0) return;
    u8* const ring = item.ring > 0 ? ring_of(blocks, item.slot, layer, head) : 0;
    const int end = item.ring > 0 ? item.frames : min(from + 16, item.frames);
    const int oldest = oldest_of(item), old = item.first - oldest, all = old + item.frames;
    const real* const rows = qkv + (u64)item.row * (3 * WIDTH) + head * HEAD;
    table += (u64)head * positions * HEAD;
    constant += (u64)head * positions;
    const float scale = rsqrtf((float)HEAD);
    for (; from < end; from += 16) {
        const int last = min(from + 16, end) - 1;
        __syncthreads();
        for (int x = threadIdx.x; x < 16 * HEAD; x += SIMPLE_THREADS) {
            const int row = from + x / HEAD;
            queries[x / HEAD][x % HEAD] = row <= last ? widen(rows[(u64)row * (3 * WIDTH) + x % HEAD]) : 0.0f;
        }
        const Seen seen = seen_by(item, item.first + min(from + r, last), oldest, all);
        const int stop = seen_by(item, item.first + last, oldest, all).to;
        float sums[(HEAD + 7) / 8] = {}, total = 0.0f, most = NOTHING;
        for (int begin = seen_by(item, item.first + from, oldest, all).from; begin < stop; begin += 16) {
            __syncthreads();
            for (int x = warp; x < 32; x += 4) {
                const int kind = x % 2, j = begin + x / 2;
                float* const to = kind ? values[x / 2] : keys[x / 2];
                const real* const own = j < old ? 0 : rows + (u64)(j - old) * (3 * WIDTH) + (1 + kind) * WIDTH;
                if (j < all) read_row(to, own, item.ring > 0, ring, j < old ? (oldest + j) % item.ring : 0, kind, lane);
                else for (int d = lane; d < HEAD; d += 32) to[d] = 0.0f;
            }
            const int least_here = old + from - begin - 15 - least;
            for (int x = threadIdx.x; x < 31 * HEAD; x += SIMPLE_THREADS) {
                const int position = min(max(least_here + x / HEAD, 0), positions - 1);
                band[x / HEAD][x % HEAD] = widen(table[(u64)position * HEAD + x % HEAD]);
            }
            __syncthreads();
            float scores[2], top = most;
            for (int x = 0; x < 2; x++) {
                const int j = part + 8 * x;
                float content = 0.0f, position = 0.0f;
                for (int d = 0; d < HEAD; d++) {
                    content += queries[r][d] * keys[j][d];
                    position += queries[r][d] * band[r - j + 15][d];
                }
                const bool sees = begin + j >= seen.from && begin + j < seen.to;
                scores[x] = NOTHING;
                if (sees) scores[x] = (content + position + constant[least_here + r - j + 15]) * scale;
                top = fmaxf(top, scores[x]);
            }
            for (int x = 1; x < 8; x *= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, x));
            const float base = top == NOTHING ? 0.0f : top, keep = expf(most - base);
            most = top;
            float sum = 0.0f;
            for (int x = 0; x < 2; x++) {
                const float weight = expf(scores[x] - base);
                weights[r][part + 8 * x] = weight;
                sum += weight;
            }
            for (int x = 1; x < 8; x *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, x);
            total = total * keep + sum;
            __syncwarp();
#pragma unroll
            for (int x = 0; x < (HEAD + 7) / 8; x++) {
                const int d = part + 8 * x;
                sums[x] *= keep;
                if (d < HEAD) for (int j = 0; j < 16; j++) sums[x] += weights[r][j] * values[j][d];
            }
        }
        if (from + r <= last) {
#pragma unroll
            for (int x = 0; x < (HEAD + 7) / 8; x++) {
                const int d = part + 8 * x;
                if (d < HEAD) out[(u64)(item.row + from + r) * WIDTH + head * HEAD + d] = narrow(sums[x] / total);
            }
        }
    }
    if (item.ring == 0) return;
    __syncthreads();
    for (int x = 2 * max(0, item.frames - item.ring) + warp; x < 2 * item.frames; x += 4) {
        const real* const own = rows + (u64)(x / 2) * (3 * WIDTH) + (1 + x % 2) * WIDTH;
        keep_row(ring, (item.first + x / 2) % item.ring, x % 2, own, lane);
    }
}

// What attention_ring.cu and attention_window.cu share, which are compiled after this file in one module.
#if TENSOR_CORES

__device__ __forceinline__ void copy4(u32 to, const void* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for this thread's copies, but for those of the last `left` groups.
template <int left>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

__device__ __forceinline__ void matrices(u32 (&r)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}

__device__ __forceinline__ void matrices_turned(u32 (&r)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}

#if REAL == 1
#define TYPE "f16"
#else
#define TYPE "bf16"
#endif

// c += a b, for 16 x 8 sums of 16 products.
__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 pair(float low, float high) {
    u32 y;
    asm("cvt.rn." TYPE "x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

__device__ __forceinline__ u32 narrow_pair(float low, float high) {
    return (u32)narrow(low).bits | (u32)narrow(high).bits << 16;
}

__device__ __forceinline__ float power(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Transposes an 8 x 8 matrix that a warp holds.
__device__ __forceinline__ u32 turned(u32 x) {
    u32 y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

#endif
