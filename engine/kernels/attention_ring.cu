// SPDX-License-Identifier: MPL-2.0
// attention.cu's computation for live streams, on tensor cores. It is bound by reading the rings.
#if REAL != 0 && HEAD <= 128 && HEAD % (CACHE8 ? 32 : 16) == 0

// Keys of one pass, tiles of 16 of them and columns of their position scores.
#if LEFT <= 80
#define KEYS (LEFT + 16)
#else
#define KEYS 64
#endif
#define TILES ((KEYS + 15) / 16)
#define COLUMNS ((16 * TILES + 47) / 32 * 32 + 8)
// A row of a ring in memory and in shared memory, and 16-byte units of it.
#define RING_ROW (CACHE8 ? HEAD : 2 * HEAD)
#define RING_PITCH (RING_ROW + 16)
#define UNITS (RING_ROW / 16)
// The table in shared memory; then, of each warp: K, V, scales. Position scores lie where K was, but for the last
// rows of K, which are the step's own and still to be kept.
#define TABLE_BYTES ((LEFT + 31) * PITCH + ((LEFT + 31) * 4 + 15) / 16 * 16)
#define K_ROWS (64 * COLUMNS / RING_PITCH + 17 > KEYS ? 64 * COLUMNS / RING_PITCH + 17 : KEYS)
#define SCALES_AT ((K_ROWS + KEYS) * RING_PITCH)
#define WARP_BYTES (SCALES_AT + (CACHE8 ? (2 * KEYS * 4 + 15) / 16 * 16 : 0))

#if CACHE8
// Bytes a and b of x, biased by 128, as a pair.
template <int a, int b>
__device__ __forceinline__ u32 pair_of_bytes(u32 x) {
#if REAL == 1
    u32 y;  // 1024 + byte, whose last bit is 1
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(y) : "r"(x), "r"(0x64646464), "n"(0x4040 | b << 8 | a));
    asm("sub.f16x2 %0, %1, %2;" : "=r"(y) : "r"(y), "r"(0x64806480));
    return y;
#else
    u32 low, high;  // 2^23 + byte
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(low) : "r"(x), "r"(0x4b000000), "n"(0x7440 | a));
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(high) : "r"(x), "r"(0x4b000000), "n"(0x7440 | b));
    return pair(__uint_as_float(low) - 8388736.0f, __uint_as_float(high) - 8388736.0f);
#endif
}

// The step's own rows as bytes: half a warp does K, the other V. `to` is row 0 of K.
__device__ __forceinline__ void quantise_rows(const real* rows, int frames, u8* to, float* scales, int lane) {
    const int kind = lane / 16, unit = lane % 16;
    const bool there = unit < HEAD / 8;
    to += kind * (KEYS * RING_PITCH) + unit * 8;
    for (int begin = 0; begin < frames; begin += 4) {
        uint4 loaded[4];
#pragma unroll
        for (int x = 0; x < 4; x++) {
            loaded[x] = make_uint4(0, 0, 0, 0);
            const real* const from = rows + (u64)(begin + x) * (3 * WIDTH) + (1 + kind) * WIDTH + unit * 8;
            if (there && begin + x < frames) loaded[x] = *(const uint4*)from;
        }
#pragma unroll
        for (int x = 0; x < 4; x++) {
            const u32 words[4] = {loaded[x].x, loaded[x].y, loaded[x].z, loaded[x].w};
            float values[8], largest = 0.0f;
#pragma unroll
            for (int d = 0; d < 8; d++) {
                real value;
                value.bits = (u16)(words[d / 2] >> d % 2 * 16);
                values[d] = widen(value);
                largest = fmaxf(largest, fabsf(values[d]));
            }
            for (int y = 8; y > 0; y /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, y));
            if (!there || begin + x >= frames) continue;
            const Scaling s = scaling(largest);
            u32 bytes[2] = {};
#pragma unroll
            for (int d = 0; d < 8; d++) bytes[d / 4] |= quantised(values[d], s) << d % 4 * 8;
            *(uint2*)(to + (begin + x) * RING_PITCH) = make_uint2(bytes[0], bytes[1]);
            if (unit == 0) scales[kind * KEYS + begin + x] = s.scale;
        }
    }
}
#endif

// A head's table and constants for p from `lowest` on, by the whole block; the table's copies stay in flight.
__device__ __forceinline__ void read_table(u8* memory, const real* table, const float* constant, int rows) {
#if CACHE8
    // Pairs of values in the order that read_queries<true> gives them.
    for (int x = threadIdx.x; x < rows * (HEAD / 2); x += blockDim.x) {
        const int row = x / (HEAD / 2), at = x % (HEAD / 2), place = at / 8 * 8 + at % 8 / 2 + at % 2 * 4;
        *(u32*)(memory + row * PITCH + place * 4) = ((const u32*)table)[x];
    }
#else
    for (int x = threadIdx.x; x < rows * (HEAD / 8); x += blockDim.x)
        copy16(shared_at(memory) + x / (HEAD / 8) * PITCH + x % (HEAD / 8) * 16, table + x * 8);
#endif
    float* const constants = (float*)(memory + (LEFT + 31) * PITCH);
    for (int x = threadIdx.x; x < rows; x += blockDim.x) constants[x] = constant[x];
}

// Items of up to 16 rows over their rings. A warp does one item at a time, a block one head.
// Grid (blocks of a head, HEADS), at best max(1, min(items, processors / HEADS)) blocks of a head; block 32 * W; shared
// memory TABLE_BYTES + W * WARP_BYTES, where W is the most warps that fit, at most 4, or 8 with CACHE8.
// For LEFT 70, HEAD 128: 27,888 + 4 * 46,784 bytes, with CACHE8 27,888 + 8 * 25,456.
extern "C" __global__ void __launch_bounds__(CACHE8 ? 256 : 128, 1) attention_ring(
    const real* qkv, real* out, const real* table, const float* constant, int least, int positions, const Item* items,
    const Counts* counts, const u64* blocks, int layer) {
    extern __shared__ __align__(16) u8 memory[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, tq = lane % 4;
    const int head = blockIdx.y, stride = gridDim.x * (blockDim.x / 32), count = counts->items;
    int index = blockIdx.x + gridDim.x * warp;
    if ((int)blockIdx.x >= count) return;
    const int lowest = max(least, -15), table_rows = min(least + positions, LEFT + 16) - lowest;
    const u64 table_row = (u64)head * positions + (lowest - least);
    read_table(memory, table + table_row * HEAD, constant + table_row, table_rows);
    copies_end();
    const float* const constants = (const float*)(memory + (LEFT + 31) * PITCH);
    const u32 table_at = shared_at(memory);
    u8* const own_memory = memory + TABLE_BYTES + warp * WARP_BYTES;
    float* const band = (float*)own_memory;
#if CACHE8
    float* const scales = (float*)(own_memory + SCALES_AT);
#endif
    const u32 k_at = shared_at(own_memory), v_at = k_at + K_ROWS * RING_PITCH;
    const float factor = rsqrtf((float)HEAD) * 1.44269504f;
    if (index >= count) {
        wait_for_copies<0>();
        __syncthreads();
        return;
    }
    Item item = items[index];
    u8* ring = item.ring > 0 ? ring_of(blocks, item.slot, layer, head) : 0;
    for (bool ready = false;; ready = true) {
        const int frames = item.frames, oldest = oldest_of(item), old = item.first - oldest, keys = old + frames;
        const int turn = item.ring > 0 ? oldest % item.ring : 0;
        const real* const rows = qkv + (u64)item.row * (3 * WIDTH) + head * HEAD;
        Seen seen[2];
        for (int half = 0; half < 2; half++) {
            seen[half] = seen_by(item, item.first + g + 8 * half, oldest, keys);
            if (g + 8 * half >= frames) seen[half].to = 0;
        }
        Item next = item;
        u8* next_ring = 0;
        u32 q[HEAD / 16][4];
        float sums[HEAD / 8][4] = {}, total[2] = {0.0f, 0.0f}, most[2] = {NOTHING, NOTHING};
#if CACHE8
        float unit = 0.0f;  // of sums: the largest scale of V so far, so that weights times scales fit 16 bits
#endif
        // The last pass is full or the only one, so that all of the step's own rows are in it.
        const int passes = (keys + KEYS - 1) / KEYS;
        for (int pass = 0, done = 0, here; pass < passes; pass++, done += here) {
            here = pass == 0 ? keys - (passes - 1) * KEYS : KEYS;
            // Keys lie at the end of their memory.
            const int base = KEYS - here;
            const u32 k_rows = k_at + (K_ROWS - here) * RING_PITCH, v_rows = v_at + base * RING_PITCH;
            const int kept = min(max(old - done, 0), here);
#pragma unroll
            for (int kind = 0; kind < 2; kind++) {
                const u32 to = kind ? v_rows : k_rows;
                const u8* const from = ring + kind * (LEFT * RING_ROW);
#pragma unroll 4
                for (int x = lane; x < kept * UNITS; x += 32) {
                    int row = turn + done + x / UNITS;
                    if (row >= item.ring) row -= item.ring;
                    copy16(to + x / UNITS * RING_PITCH + x % UNITS * 16, from + row * RING_ROW + x % UNITS * 16);
                }
#if CACHE8
                for (int x = lane; x < kept; x += 32) {
                    int row = turn + done + x;
                    if (row >= item.ring) row -= item.ring;
                    copy4(shared_at(scales + kind * KEYS + base + x), ring + 2 * LEFT * HEAD + (kind * LEFT + row) * 4);
                }
#else
                for (int x = lane; x < (here - kept) * UNITS; x += 32) {
                    const int row = done + kept - old + x / UNITS;
                    const real* const own = rows + (u64)row * (3 * WIDTH) + (1 + kind) * WIDTH;
                    copy16(to + (kept + x / UNITS) * RING_PITCH + x % UNITS * 16, own + x % UNITS * 8);
                }
#endif
                copies_end();
            }
#if CACHE8
            if (kept < here)
                quantise_rows(rows, frames, own_memory + (K_ROWS - frames) * RING_PITCH, scales + KEYS - frames, lane);
#endif
            if (pass == 0) {
                read_queries<CACHE8 != 0>(q, rows, 0, frames, lane);
                if (index + stride < count) {
                    next = items[index + stride];
                    if (next.ring > 0) next_ring = ring_of(blocks, next.slot, layer, head);
                }
            }
            wait_for_copies<1>();
            if (!ready && pass == 0) __syncthreads();
            else __syncwarp();

            float scores[2 * TILES][4] = {};
            u32 at[TILES], b[4];
#pragma unroll
            for (int t = 0; t < TILES; t++)
                at[t] = k_rows + min(16 * t + lane / 16 * 8 + lane % 8, here - 1) * RING_PITCH + lane / 8 % 2 * 16;
#pragma unroll
            for (int k = 0; k < UNITS / 2; k++) {
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    matrices(b, at[t] + 32 * k);
#if CACHE8
#pragma unroll
                    for (int x = 0; x < 4; x++) {
                        const u32 low = pair_of_bytes<0, 1>(b[x]), high = pair_of_bytes<2, 3>(b[x]);
                        multiply(scores[2 * t + x / 2], q[2 * k + x % 2], low, high);
                    }
#else
                    multiply(scores[2 * t], q[k], b[0], b[1]);
                    multiply(scores[2 * t + 1], q[k], b[2], b[3]);
#endif
                }
            }
            __syncwarp();

            // Position scores: row i and key j in column i - j + here - 1.
            const int shift = old - done - (here - 1) - lowest;
            for (int column = 0; column < here + frames - 1; column += 32) {
                float c[4][4] = {};
                u32 from[2];
#pragma unroll
                for (int x = 0; x < 2; x++) {
                    const int row = shift + column + 16 * x + lane / 16 * 8 + lane % 8;
                    from[x] = table_at + min(max(row, 0), table_rows - 1) * PITCH + lane / 8 % 2 * 16;
                }
#pragma unroll
                for (int k = 0; k < HEAD / 16; k++) {
#pragma unroll
                    for (int x = 0; x < 2; x++) {
                        matrices(b, from[x] + 32 * k);
                        multiply(c[2 * x], q[k], b[0], b[1]);
                        multiply(c[2 * x + 1], q[k], b[2], b[3]);
                    }
                }
#pragma unroll
                for (int x = 0; x < 4; x++) {
                    const int to = column + 8 * x + 2 * tq;
                    const float c0 = constants[min(max(shift + to, 0), table_rows - 1)];
                    const float c1 = constants[min(max(shift + to + 1, 0), table_rows - 1)];
                    if (g < frames) *(float2*)(band + g * COLUMNS + to) = make_float2(c[x][0] + c0, c[x][1] + c1);
                    if (g + 8 < frames)
                        *(float2*)(band + (g + 8) * COLUMNS + to) = make_float2(c[x][2] + c0, c[x][3] + c1);
                }
            }
            __syncwarp();

            float top[2] = {most[0], most[1]};
#pragma unroll
            for (int t = 0; t < 2 * TILES; t++) {
#pragma unroll
                for (int x = 0; x < 4; x++) {
                    const int i = g + x / 2 * 8, j = 8 * t + 2 * tq + x % 2;
                    float score = NOTHING;
                    if (done + j >= seen[x / 2].from && done + j < seen[x / 2].to && j < here) {
#if CACHE8
                        scores[t][x] *= scales[base + j];
#endif
                        score = (scores[t][x] + band[i * COLUMNS + i - j + here - 1]) * factor;
                    }
                    scores[t][x] = score;
                    top[x / 2] = fmaxf(top[x / 2], score);
                }
            }
            float keep[2], from[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                QUAD_MAX(top[half]);
                from[half] = top[half] == NOTHING ? 0.0f : top[half];
                keep[half] = power(most[half] - from[half]);
                most[half] = top[half];
                total[half] *= keep[half];
            }
            wait_for_copies<0>();
            __syncwarp();
#if CACHE8
            float largest = unit;
            for (int x = lane; x < here; x += 32) largest = fmaxf(largest, scales[KEYS + base + x]);
            largest = max_of_warp(largest);
            const float inverse = largest > 0.0f ? 1.0f / largest : 0.0f;
            keep[0] *= unit * inverse;
            keep[1] *= unit * inverse;
            unit = largest;
#endif
#pragma unroll
            for (int t = 0; t < 2 * TILES; t++) {
#pragma unroll
                for (int x = 0; x < 4; x++) {
                    scores[t][x] = power(scores[t][x] - from[x / 2]);
                    total[x / 2] += scores[t][x];
#if CACHE8
                    const int j = 8 * t + 2 * tq + x % 2;
                    if (j < here) scores[t][x] *= scales[KEYS + base + j] * inverse;
#endif
                }
            }
            if (pass > 0) {
#pragma unroll
                for (int d = 0; d < HEAD / 8; d++)
                    for (int x = 0; x < 4; x++) sums[d][x] *= keep[x / 2];
            }
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                u32 weights[4];
#pragma unroll
                for (int x = 0; x < 4; x++) {
                    const float(&tile)[4] = scores[2 * t + x / 2];
                    weights[x] = pair(tile[x % 2 * 2], tile[x % 2 * 2 + 1]);
                }
                const u32 from = v_rows + min(16 * t + lane % 16, here - 1) * RING_PITCH + lane / 16 * 16;
#pragma unroll
                for (int k = 0; k < UNITS / 2; k++) {
                    matrices_turned(b, from + 32 * k);
#if CACHE8
#pragma unroll
                    for (int x = 0; x < 2; x++) {
                        const u32 low = b[2 * x], high = b[2 * x + 1];
                        multiply(sums[4 * k + 2 * x], weights, pair_of_bytes<0, 2>(low), pair_of_bytes<0, 2>(high));
                        multiply(sums[4 * k + 2 * x + 1], weights, pair_of_bytes<1, 3>(low), pair_of_bytes<1, 3>(high));
                    }
#else
                    multiply(sums[2 * k], weights, b[0], b[1]);
                    multiply(sums[2 * k + 1], weights, b[2], b[3]);
#endif
                }
            }
            __syncwarp();
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            QUAD_SUM(total[half]);
#if CACHE8
            const float share = unit / total[half];
#else
            const float share = 1.0f / total[half];
#endif
            real* const to = out + (u64)(item.row + g + 8 * half) * WIDTH + head * HEAD;
            if (g + 8 * half < frames) {
#pragma unroll
                for (int d = 0; d < HEAD / 8; d++) {
                    const float x = sums[d][2 * half] * share, y = sums[d][2 * half + 1] * share;
#if CACHE8
                    // Even values are in one tile of sums, odd ones in the next.
                    if (d % 2) continue;
                    const float z = sums[d + 1][2 * half] * share, w = sums[d + 1][2 * half + 1] * share;
                    *(uint2*)(to + 8 * d + 4 * tq) = make_uint2(narrow_pair(x, z), narrow_pair(y, w));
#else
                    *(u32*)(to + 8 * d + 2 * tq) = narrow_pair(x, y);
#endif
                }
            }
        }
        // All that was in the ring has been read: the new rows take the places of the oldest.
        if (item.ring > 0) {
            const int from = max(0, frames - item.ring);
            for (int x = lane; x < 2 * (frames - from) * UNITS; x += 32) {
                const int kind = x / UNITS % 2, row = from + x / UNITS / 2;
                const int place = kind * LEFT + (item.first + row) % item.ring;
                const int rows_of_kind = kind ? K_ROWS + KEYS : K_ROWS;
                const u8* const own = own_memory + (rows_of_kind - frames + row) * RING_PITCH + x % UNITS * 16;
                *(uint4*)(ring + place * RING_ROW + x % UNITS * 16) = *(const uint4*)own;
#if CACHE8
                if (x % UNITS == 0)
                    ((float*)(ring + 2 * LEFT * HEAD))[place] = scales[kind * KEYS + KEYS - frames + row];
#endif
            }
        }
        index += stride;
        if (index >= count) return;
        item = next;
        ring = next_ring;
        __syncwarp();
    }
}

#endif
