// SPDX-License-Identifier: MPL-2.0
// attention.cu's computation for live streams, on tensor cores. It is bound by reading the rings.
//   ONE_PASS         1 where all keys fit into one pass
//   KEYS COLUMNS     keys of a pass, and columns of their position scores, padded against bank conflicts
//   RING_ROW         bytes of a row of a ring in memory
//   RING_PITCH       bytes of it in shared memory
// Shared memory is the table, of TABLE_ROWS rows and TABLE_BYTES with the barrier that says it is there at its end; then,
// of each warp's WARP_BYTES, K (K_ROWS), V and from SCALES_AT on scales. Position scores lie where K was, but for the last
// rows of K, which are the step's own and still to be kept.
#if RINGS

// 16-byte units of a row, and rows that a warp copies at once.
#define UNITS (RING_ROW / 16)
#define ROWS (32 / UNITS)

static_assert(RING_ROWS == 16 && TABLE_ROWS == LEFT + 31, "tiles of 8 queries, two at most");
static_assert(64 * COLUMNS <= (K_ROWS - RING_ROWS) * RING_PITCH, "position scores leave the step's own rows of K alone");

#if CACHE8
// Bytes a and b of x as a pair. In half precision each is BIAS too large, which is taken from the sums instead.
template <int a, int b>
__device__ __forceinline__ u32 pair_of_bytes(u32 x) {
#if REAL == 1
    u32 y;  // 1024 + byte, whose last bit is 1
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(y) : "r"(x), "r"(0x64646464), "n"(0x4040 | b << 8 | a));
    return y;
#else
    u32 low, high;  // 2^23 + byte
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(low) : "r"(x), "r"(0x4b000000), "n"(0x7440 | a));
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(high) : "r"(x), "r"(0x4b000000), "n"(0x7440 | b));
    return pair(__uint_as_float(low) - 8388736.0f, __uint_as_float(high) - 8388736.0f);
#endif
}

#if REAL == 1
#define BIAS 0x64806480  // 1152 = 1024 + 128, twice
#endif

// Four of the step's own rows: half a warp has K, the other V.
__device__ __forceinline__ void read_four(uint4 (&loaded)[4], const real* rows, int begin, int frames, int lane) {
    rows += (u64)begin * (3 * WIDTH) + (1 + lane / 16) * WIDTH + lane % 16 * 8;
#pragma unroll
    for (int x = 0; x < 4; x++) {
        const bool there = lane % 16 < HEAD / 8 && begin + x < frames;
        loaded[x] = there ? *(const uint4*)(rows + (u64)x * (3 * WIDTH)) : make_uint4(0, 0, 0, 0);
    }
}

// The same as bytes. `to` is the first of the step's rows of K.
__device__ __forceinline__ void quantise_four(
    const uint4 (&loaded)[4], int begin, int frames, u8* to, float* scales, int lane) {
    const int kind = lane / 16, unit = lane % 16;
#pragma unroll
    for (int x = 0; x < 4; x++) {
        if (begin + x >= frames) break;
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
        const Scaling s = scaling(largest);
        if (unit < HEAD / 8) {
#pragma unroll
            for (int d = 0; d < 8; d += 2) {
                u8* const at = to + (kind * KEYS + begin + x) * RING_PITCH + byte_of(unit * 8 + d, kind);
                *(u16*)at = (u16)(quantised(values[d], s) | quantised(values[d + 1], s) << 8);
            }
        }
        if (unit == 0) scales[kind * KEYS + begin + x] = s.scale;
    }
}
#endif

// Whether tile t, which only more than 8 frames need, has no key.
#define EMPTY(t) (CACHE8 && ONE_PASS && 16 * (t) >= LEFT + 8 && 16 * (t) >= here)

// One item and head, by a warp.
struct Task {
    Item item;
    u8* ring;
    int head;
};

// What a warp works with.
struct Desk {
    u8* memory;
    u32 table;               // in shared memory
    const float* constants;  // likewise
    int lowest, table_rows;  // p of its first row, rows
    int lane;
};

// Keys [done, done + here), of which the first `kept` are in the ring: they lie at the end of their memory.
__device__ __forceinline__ void read_keys(
    const Task& task, const Desk& desk, const real* rows, int turn, int old, int done, int here, int kept) {
    const int lane = desk.lane, first = lane / UNITS, unit = lane % UNITS * 16, ring = task.item.ring;
#if CACHE8
    uint4 own[4];
    const int frames = kept < here ? task.item.frames : 0;
    read_four(own, rows, 0, frames, lane);
#endif
    if (first < ROWS) {
        u32 to = shared_at(desk.memory) + (K_ROWS - here + first) * RING_PITCH + unit;
        const u8* from = task.ring + (turn + done + first) * RING_ROW + unit;
        const int edge = ring - turn - done, back = ring * RING_ROW;
        int x = first;
#pragma unroll 4
        for (; x < kept; x += ROWS) {
            const u8* const k = from - (x >= edge ? back : 0);
            copy16(to, k);
            copy16(to + KEYS * RING_PITCH, k + LEFT * RING_ROW);
            to += ROWS * RING_PITCH;
            from += ROWS * RING_ROW;
        }
#if !CACHE8
        for (; x < here; x += ROWS) {
            const real* const k = rows + (u64)(done + x - old) * (3 * WIDTH) + WIDTH + unit / 2;
            copy16(to, k);
            copy16(to + KEYS * RING_PITCH, k + WIDTH);
            to += ROWS * RING_PITCH;
        }
#endif
    }
#if CACHE8
    float* const scales = (float*)(desk.memory + SCALES_AT);
    for (int x = lane; x < kept; x += 32) {
        const int row = turn + done + x - (turn + done + x >= ring ? ring : 0);
        const u32 to = shared_at(scales + KEYS - here + x);
        const u8* const from = task.ring + RING8_SCALES_AT + row * 4;
        copy4(to, from);
        copy4(to + KEYS * 4, from + LEFT * 4);
    }
    copies_end();
    for (int begin = 0; begin < frames; begin += 4) {
        if (begin > 0) read_four(own, rows, begin, frames, lane);
        quantise_four(own, begin, frames, desk.memory + (K_ROWS - frames) * RING_PITCH, scales + KEYS - frames, lane);
    }
#else
    copies_end();
#endif
}

// Queries from row `begin` on: keys are the rows of the products and queries their columns, `count` tiles of 8, so that
// few frames cost little.
// A thread holds keys g and g + 8 and queries 2 tq and 2 tq + 1 of a tile, g = lane / 4, tq = lane % 4.
template <int count, typename Meanwhile>
__device__ __forceinline__ void attend(
    const Task& task, const Desk& desk, int begin, const real* qkv, real* out, Meanwhile meanwhile) {
    // Tiles of 16 keys and of 16 columns of position scores.
    constexpr int most_keys = ONE_PASS ? LEFT + (CACHE8 ? 16 : 8 * count) : KEYS;
    constexpr int tiles = (most_keys + 15) / 16, bands = (most_keys + 8 * count + 14) / 16;
    const Item& item = task.item;
    const int lane = desk.lane, g = lane / 4, tq = lane % 4;
    const int oldest = oldest_of(item), old = item.first - oldest, keys = old + item.frames;
    const int frames = item.frames - begin;
    const int turn = item.ring > 0 ? (int)((u32)oldest % (u32)item.ring) : 0;
    const real* const rows = qkv + (u64)item.row * (3 * WIDTH) + task.head * HEAD;
    float* const band = (float*)desk.memory;
#if CACHE8
    const float* const scales = (const float*)(desk.memory + SCALES_AT);
    float unit = 0.0f;  // of sums: the largest scale of V so far, so that weights times scales fit 16 bits
#endif
    const float factor = rsqrtf((float)HEAD) * 1.44269504f;
#ifdef BIAS
    const u32 bias[4] = {BIAS, BIAS, BIAS, BIAS};
    float biased_sums[count][4] = {};
#endif
    u32 q[HEAD / 16][count][2], a[4];
    float sums[HEAD / 16][count][4] = {}, total[count][2] = {}, most[count][2];
    Seen seen[count][2];
#pragma unroll
    for (int n = 0; n < count; n++) {
        for (int x = 0; x < 2; x++) {
            const int i = 8 * n + 2 * tq + x;
            seen[n][x] = seen_by(item, item.first + begin + i, oldest, keys);
            if (i >= frames) seen[n][x].to = 0;
            most[n][x] = NOTHING;
        }
    }
    // The last pass is full or the only one, so that all of the step's own rows are in it.
    const int passes = ONE_PASS ? 1 : (keys + KEYS - 1) / KEYS;
#pragma unroll
    for (int n = 0; n < count; n++) {
        const bool there = 8 * n + g < frames;
        const real* const from = rows + (u64)(begin + 8 * n + g) * (3 * WIDTH) + tq * 2;
#pragma unroll
        for (int k = 0; k < HEAD / 16; k++) {
            q[k][n][0] = there ? *(const u32*)(from + 16 * k) : 0;
            q[k][n][1] = there ? *(const u32*)(from + 16 * k + 8) : 0;
        }
    }
    for (int pass = 0, done = 0, here; pass < passes; pass++, done += here) {
        here = pass == 0 ? keys - (passes - 1) * KEYS : KEYS;
        const u32 k_rows = shared_at(desk.memory) + (K_ROWS - here) * RING_PITCH, v_rows = k_rows + KEYS * RING_PITCH;
        read_keys(task, desk, rows, turn, old, done, here, min(max(old - done, 0), here));
        if (pass == 0) meanwhile();
        else wait_for_copies<0>();
        __syncwarp();

        // Position scores: query i and key j in column i - j + here - 1 of row i.
        const int shift = old + begin - done - (here - 1) - desk.lowest;
        float scores[tiles][count][4] = {}, positions[bands][count][4] = {};
#ifdef BIAS
        float biased[count][4] = {};
#endif
        u32 k_from[tiles], p_from[bands];
#pragma unroll
        for (int t = 0; t < tiles; t++)
            k_from[t] = k_rows + min(16 * t + lane % 16, here - 1) * RING_PITCH + lane / 16 * 16;
#pragma unroll
        for (int t = 0; t < bands; t++) {
            const int row = min(max(shift + 16 * t + lane % 16, 0), desk.table_rows - 1);
            p_from[t] = desk.table + row * HEAD_PITCH + lane / 16 * 16;
        }
#pragma unroll
        for (int k = 0; k < HEAD / 16; k++) {
#ifdef BIAS
#pragma unroll
            for (int n = 0; n < count; n++) multiply(biased[n], bias, q[k][n][0], q[k][n][1]);
#endif
#pragma unroll
            for (int t = 0; t < tiles; t++) {
#if CACHE8
                if (k % 2 || EMPTY(t)) continue;
                matrices(a, k_from[t] + 16 * k);
#pragma unroll
                for (int x = 0; x < 2; x++) {
                    const u32 low = a[2 * x], high = a[2 * x + 1];
                    const u32 wide[4] = {pair_of_bytes<0, 1>(low), pair_of_bytes<0, 1>(high), pair_of_bytes<2, 3>(low),
                        pair_of_bytes<2, 3>(high)};
#pragma unroll
                    for (int n = 0; n < count; n++) multiply(scores[t][n], wide, q[k + x][n][0], q[k + x][n][1]);
                }
#else
                matrices(a, k_from[t] + 32 * k);
#pragma unroll
                for (int n = 0; n < count; n++) multiply(scores[t][n], a, q[k][n][0], q[k][n][1]);
#endif
            }
#pragma unroll
            for (int t = 0; t < bands; t++) {
                matrices(a, p_from[t] + 32 * k);
#pragma unroll
                for (int n = 0; n < count; n++) multiply(positions[t][n], a, q[k][n][0], q[k][n][1]);
            }
        }
        __syncwarp();
#pragma unroll
        for (int t = 0; t < 2 * bands; t++) {
            const int column = 8 * t + g;
            const float constant = desk.constants[min(max(shift + column, 0), desk.table_rows - 1)];
#pragma unroll
            for (int n = 0; n < count; n++) {
                const float* const c = &positions[t / 2][n][t % 2 * 2];
                float* const row = band + (8 * n + 2 * tq) * COLUMNS + column;
                if (8 * n + 2 * tq < frames) row[0] = c[0] + constant;
                if (8 * n + 2 * tq + 1 < frames) row[COLUMNS] = c[1] + constant;
            }
        }
        __syncwarp();

        float top[count][2], keep[count][2], base[count][2];
#pragma unroll
        for (int n = 0; n < count; n++)
            for (int x = 0; x < 2; x++) top[n][x] = most[n][x];
#pragma unroll
        for (int t = 0; t < tiles; t++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int j = 16 * t + 8 * half + g;
#if CACHE8
                if (EMPTY(t)) continue;
                const float scale = scales[KEYS - here + min(j, here - 1)];
#endif
#pragma unroll
                for (int n = 0; n < count; n++) {
#pragma unroll
                    for (int x = 0; x < 2; x++) {
                        // Of a key that isn't there some other shared memory is read, and not used.
                        const int i = 8 * n + 2 * tq + x;
                        const float position = band[i * COLUMNS + i - j + here - 1];
                        float& score = scores[t][n][2 * half + x];
#ifdef BIAS
                        score -= biased[n][x];
#endif
#if CACHE8
                        score = score * scale + position;
#else
                        score += position;
#endif
                        const bool sees = done + j >= seen[n][x].from && done + j < min(seen[n][x].to, done + here);
                        score = sees ? score : NOTHING;
                        top[n][x] = fmaxf(top[n][x], score);
                    }
                }
            }
        }
#pragma unroll
        for (int n = 0; n < count; n++) {
            for (int x = 0; x < 2; x++) {
                for (int y = 4; y < 32; y *= 2)
                    top[n][x] = fmaxf(top[n][x], __shfl_xor_sync(0xffffffffu, top[n][x], y));
                base[n][x] = top[n][x] == NOTHING ? 0.0f : top[n][x] * factor;
                keep[n][x] = power(most[n][x] * factor - base[n][x]);
                most[n][x] = top[n][x];
                total[n][x] *= keep[n][x];
            }
        }
#if CACHE8
        float largest = unit;
        for (int x = lane; x < here; x += 32) largest = fmaxf(largest, scales[2 * KEYS - here + x]);
        largest = max_of_warp(largest);
        const float inverse = largest > 0.0f ? __fdividef(1.0f, largest) : 0.0f, smaller = unit * inverse;
        unit = largest;
#else
        const float smaller = 1.0f;
#endif
        if (pass > 0) {
#pragma unroll
            for (int d = 0; d < HEAD / 16; d++)
                for (int n = 0; n < count; n++)
                    for (int x = 0; x < 4; x++) sums[d][n][x] *= keep[n][x % 2] * smaller;
#ifdef BIAS
            for (int n = 0; n < count; n++)
                for (int x = 0; x < 4; x++) biased_sums[n][x] *= keep[n][x % 2] * smaller;
#endif
        }
#pragma unroll
        for (int t = 0; t < tiles; t++) {
            if (EMPTY(t)) continue;
            u32 weights[count][2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
#if CACHE8
                const float scale = scales[2 * KEYS - here + min(16 * t + 8 * half + g, here - 1)] * inverse;
#else
                const float scale = 1.0f;
#endif
#pragma unroll
                for (int n = 0; n < count; n++) {
                    const float x = power(scores[t][n][2 * half] * factor - base[n][0]);
                    const float y = power(scores[t][n][2 * half + 1] * factor - base[n][1]);
                    total[n][0] += x;
                    total[n][1] += y;
                    weights[n][half] = turned(pair(x * scale, y * scale));
                }
            }
#ifdef BIAS
#pragma unroll
            for (int n = 0; n < count; n++) multiply(biased_sums[n], bias, weights[n][0], weights[n][1]);
#endif
            const int row = min(16 * t + lane / 16 * 8 + lane % 8, here - 1);
            const u32 from = v_rows + row * RING_PITCH + lane / 8 % 2 * 16;
#pragma unroll
            for (int k = 0; k < UNITS / 2; k++) {
                matrices_turned(a, from + 32 * k);
#if CACHE8
                // Even values are rows 0 to 7 of a tile of sums, odd ones 8 to 15.
#pragma unroll
                for (int x = 0; x < 2; x++) {
                    const u32 low = a[x], high = a[2 + x];
                    const u32 wide[4] = {pair_of_bytes<0, 2>(low), pair_of_bytes<1, 3>(low), pair_of_bytes<0, 2>(high),
                        pair_of_bytes<1, 3>(high)};
#pragma unroll
                    for (int n = 0; n < count; n++) multiply(sums[2 * k + x][n], wide, weights[n][0], weights[n][1]);
                }
#else
#pragma unroll
                for (int n = 0; n < count; n++) multiply(sums[k][n], a, weights[n][0], weights[n][1]);
#endif
            }
        }
        __syncwarp();
    }

#pragma unroll
    for (int n = 0; n < count; n++) {
        float share[2];
        for (int x = 0; x < 2; x++) {
            for (int y = 4; y < 32; y *= 2) total[n][x] += __shfl_xor_sync(0xffffffffu, total[n][x], y);
#if CACHE8
            share[x] = __fdividef(unit, total[n][x]);
#else
            share[x] = __fdividef(1.0f, total[n][x]);
#endif
        }
        // Past the frames shares are infinite or NaN, and are not written.
        real* const to = out + (u64)(item.row + begin) * WIDTH + task.head * HEAD;
#pragma unroll
        for (int d = 0; d < HEAD / 16; d++) {
            float(&c)[4] = sums[d][n];
#ifdef BIAS
#pragma unroll
            for (int x = 0; x < 4; x++) c[x] -= biased_sums[n][x];
#endif
#if CACHE8
#pragma unroll
            for (int x = 0; x < 2; x++) {
                const int i = 8 * n + 2 * tq + x;
                const u32 y = narrow_pair(c[x] * share[x], c[2 + x] * share[x]);
                if (i < frames) *(u32*)(to + (u64)i * WIDTH + 16 * d + 2 * g) = y;
            }
#else
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const u32 y = turned(narrow_pair(c[2 * half] * share[0], c[2 * half + 1] * share[1]));
                if (8 * n + g < frames) *(u32*)(to + (u64)(8 * n + g) * WIDTH + 16 * d + 8 * half + 2 * tq) = y;
            }
#endif
        }
    }
}

// All that was in the ring has been read: the new rows take the places of the oldest.
__device__ __forceinline__ void keep_rows(const Task& task, const Desk& desk) {
    const int frames = task.item.frames, ring = task.item.ring, from = max(0, frames - ring);
    if (ring == 0) return;
    for (int x = desk.lane; x < 2 * (frames - from) * UNITS; x += 32) {
        const int kind = x / UNITS % 2, row = from + x / UNITS / 2;
        const int to = kind * LEFT + (int)((u32)(task.item.first + row) % (u32)ring);
        const int at = K_ROWS + kind * KEYS - frames + row;
        *(uint4*)(task.ring + to * RING_ROW + x % UNITS * 16) =
            *(const uint4*)(desk.memory + at * RING_PITCH + x % UNITS * 16);
#if CACHE8
        const float* const scales = (const float*)(desk.memory + SCALES_AT);
        if (x % UNITS == 0)
            ((float*)(task.ring + RING8_SCALES_AT))[to] = scales[kind * KEYS + KEYS - frames + row];
#endif
    }
}

// A barrier in shared memory, for one use: every thread of a block arrives one time, and only those wait that have to.
__device__ __forceinline__ void barrier_begins(u32 barrier, int threads) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(threads) : "memory");
}

__device__ __forceinline__ void arrive(u32 barrier) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void wait_for_all(u32 barrier) {
    asm volatile(
        "{ .reg .pred all;\n"
        "again: mbarrier.test_wait.parity.shared.b64 all, [%0], 0;\n"
        "@!all bra again; }" ::"r"(barrier) : "memory");
}

#define WORD(field) __shfl_sync(0xffffffffu, words, (int)((u64) & ((const Item*)0)->field) / 4)

// Items of 1 to 16 rows over their rings, which are LEFT rows at most; `blocks` has one entry at least. A warp does
// one item at a time, a block one head.
// Grid (blocks of a head, HEADS), at best max(1, min(items, processors / HEADS)) blocks of a head; as many warps as fit, at
// most RING_THREADS / 32; shared memory TABLE_BYTES and WARP_BYTES for each.
extern "C" __global__ void __launch_bounds__(RING_THREADS, 1) attention_ring(
    const real* qkv, real* out, const real* table, const float* constant, int least, int positions, const Item* items,
    const Counts* counts, const u64* blocks, int layer) {
    extern __shared__ __align__(16) u8 memory[];
    const int warp = threadIdx.x / 32, stride = gridDim.x * (blockDim.x / 32), count = counts->items;
    int index = blockIdx.x + gridDim.x * warp;
    launch_next();
    if ((int)blockIdx.x >= count) return;
    const u32 table_there = shared_at(memory + TABLE_BYTES - 8);
    if (threadIdx.x == 0) barrier_begins(table_there, blockDim.x);
    __syncthreads();

    Desk desk;
    desk.memory = memory + TABLE_BYTES + warp * WARP_BYTES;
    desk.table = shared_at(memory);
    desk.lowest = max(least, -15);
    desk.table_rows = min(least + positions, LEFT + 16) - desk.lowest;
    desk.lane = threadIdx.x % 32;
    float* const constants = (float*)(memory + TABLE_ROWS * HEAD_PITCH);
    desk.constants = constants;
    const u64 row = (u64)blockIdx.y * positions + (desk.lowest - least);
    for (int x = threadIdx.x; x < desk.table_rows * (HEAD / 8); x += blockDim.x)
        copy16(desk.table + x / (HEAD / 8) * HEAD_PITCH + x % (HEAD / 8) * 16, table + row * HEAD + x * 8);
    for (int x = threadIdx.x; x < desk.table_rows; x += blockDim.x)
        copy4(shared_at(constants + x), constant + row + x);
    copies_end();
    // The table was there before the step.
    wait_for_last();
    if (index >= count) {
        wait_for_copies<0>();
        arrive(table_there);
        return;
    }

    // Each lane holds a word of the next item, which costs one register and one load.
    const int lane = desk.lane;
    int words = lane < (int)sizeof(Item) / 4 ? ((const int*)(items + index))[lane] : 0;
    u64 block = blocks[WORD(ring) > 0 ? WORD(slot) / SLOTS : 0];
    for (bool ready = false;;) {
        Task task;
        task.head = blockIdx.y;
        task.item.row = WORD(row);
        task.item.frames = WORD(frames);
        task.item.first = WORD(first);
        task.item.left = WORD(left);
        task.item.chunk = WORD(chunk);
        task.item.right = WORD(right);
        task.item.ring = WORD(ring);
        // ring_of, from the block that is known already.
        task.ring = (u8*)block + ((u64)(layer * SLOTS + WORD(slot) % SLOTS) * HEADS + task.head) * KV_BYTES;
        const bool more = index + stride < count;
        if (more && lane < (int)sizeof(Item) / 4) words = ((const int*)(items + index + stride))[lane];
        // While the copies are under way the next block is looked up; the table is waited for once.
        const auto meanwhile = [&]() {
            block = blocks[WORD(ring) > 0 ? WORD(slot) / SLOTS : 0];
            wait_for_copies<0>();
            if (ready) return;
            arrive(table_there);
            wait_for_all(table_there);
            ready = true;
        };
#if CACHE8
        // Reading the ring again costs many frames less than a second copy of the code costs few frames.
        for (int begin = 0; begin < task.item.frames; begin += 8) {
            if (begin > 0) __syncwarp();
            attend<1>(task, desk, begin, qkv, out, meanwhile);
        }
#else
        if (task.item.frames <= 8) attend<1>(task, desk, 0, qkv, out, meanwhile);
        else attend<2>(task, desk, 0, qkv, out, meanwhile);
#endif
        keep_rows(task, desk);
        if (!more) return;
        index += stride;
        __syncwarp();
    }
}

#endif
