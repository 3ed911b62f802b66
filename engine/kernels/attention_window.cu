// SPDX-License-Identifier: MPL-2.0
// attention.cu's computation for many rows without rings, on tensor cores: softmax over tiles of keys.
//   WINDOW_COLUMNS   columns of the position scores of 16 rows and 64 keys, padded against bank conflicts
#if TENSOR_CORES

static_assert(WINDOW_ROWS == 64 && WINDOW_THREADS == 128, "a warp has 16 rows, and each thread a place in a tile of them");
static_assert(256 * HEAD_PITCH + 512 + 4 * 16 * WINDOW_COLUMNS * 4 == WINDOW_BYTES, "the host asks for as much");

// 64 rows of a matrix whose rows are 3 * WIDTH apart, by the block; rows past the last are copies of it.
__device__ __forceinline__ void read_tile(u32 to, const real* from, int first, int last) {
#pragma unroll 4
    for (int x = threadIdx.x; x < 64 * (HEAD / 8); x += WINDOW_THREADS) {
        const int row = min(first + x / (HEAD / 8), last);
        copy16(to + x / (HEAD / 8) * HEAD_PITCH + x % (HEAD / 8) * 16, from + (u64)row * (3 * WIDTH) + x % (HEAD / 8) * 8);
    }
}

// 64 rows of the table from p = `first` on, and their constants, which follow 128 rows; p lies in row p % 128.
__device__ __forceinline__ void read_positions(
    u32 to, const real* table, const float* constant, int first, int least, int positions) {
    if (threadIdx.x < 64) {
        const int p = first + threadIdx.x;
        copy4(to + 128 * HEAD_PITCH + (p & 127) * 4, constant + min(max(p - least, 0), positions - 1));
    }
#pragma unroll 4
    for (int x = threadIdx.x; x < 64 * (HEAD / 8); x += WINDOW_THREADS) {
        const int p = first + x / (HEAD / 8), row = min(max(p - least, 0), positions - 1);
        copy16(to + (p & 127) * HEAD_PITCH + x % (HEAD / 8) * 16, table + (u64)row * HEAD + x % (HEAD / 8) * 8);
    }
}

// 16 rows of q from row `row` on as the left operand.
__device__ __forceinline__ void read_queries(u32 (&q)[HEAD / 16][4], const real* rows, int row, int frames, int lane) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const bool there = row + 8 * half + lane / 4 < frames;
        const real* const from = rows + (u64)(row + 8 * half + lane / 4) * (3 * WIDTH) + lane % 4 * 2;
#pragma unroll
        for (int k = 0; k < HEAD / 16; k++) {
            q[k][half] = there ? *(const u32*)(from + 16 * k) : 0;
            q[k][half + 2] = there ? *(const u32*)(from + 16 * k + 8) : 0;
        }
    }
}

__device__ __forceinline__ float max_of_quad(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float sum_of_quad(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Items without rings. Grid (ceil(rows / WINDOW_ROWS) + items, HEADS), shared memory WINDOW_BYTES (92,672 for HEAD 128: two
// blocks on a processor).
extern "C" __global__ void __launch_bounds__(WINDOW_THREADS, 2) attention_window(
    const real* qkv, real* out, const real* table, const float* constant, int least, int positions, const Item* items,
    const Counts* counts, const u64* blocks, int layer) {
    extern __shared__ __align__(16) u8 memory[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, tq = lane % 4, head = blockIdx.y;
    int from;
    const int index = item_of_tile(items, counts->items, blockIdx.x, 64, from);
    if (index < 0) return;
    const Item item = items[index];
    const int all = item.frames, last = min(from + 64, all) - 1, row = from + 16 * warp;
    const real* const rows = qkv + (u64)item.row * (3 * WIDTH) + head * HEAD;
    table += (u64)head * positions * HEAD;
    constant += (u64)head * positions;
    const u32 k_at = shared_at(memory), v_at = k_at + 64 * HEAD_PITCH, p_at = v_at + 64 * HEAD_PITCH;
    const float* const constants = (const float*)(memory + 256 * HEAD_PITCH);
    float* const band = (float*)(memory + 256 * HEAD_PITCH + 512) + warp * (16 * WINDOW_COLUMNS);
    const float factor = rsqrtf((float)HEAD) * 1.44269504f;

    const int begin = seen_by(item, item.first + from, item.first, all).from;
    const int end = seen_by(item, item.first + last, item.first, all).to;
    read_tile(k_at, rows + WIDTH, begin, all - 1);
    read_positions(p_at, table, constant, from - begin, least, positions);
    read_positions(p_at, table, constant, from - begin - 64, least, positions);
    copies_end();
    read_tile(v_at, rows + 2 * WIDTH, begin, all - 1);
    copies_end();
    u32 q[HEAD / 16][4], b[4];
    read_queries(q, rows, row, all, lane);
    Seen seen[2];
    for (int half = 0; half < 2; half++) {
        seen[half] = seen_by(item, item.first + min(row + g + 8 * half, last), item.first, all);
        if (row + g + 8 * half > last) seen[half].to = 0;
    }
    float sums[HEAD / 8][4] = {}, total[2] = {0.0f, 0.0f}, most[2] = {NOTHING, NOTHING};

    for (int key = begin; key < end; key += 64) {
        wait_for_copies<1>();
        __syncthreads();
        // Row i and key j of the tile have p = least_here + column, column = i - j + 63.
        const int least_here = row - key - 63;
        float c[10][4] = {};
        u32 p_from[5];
#pragma unroll
        for (int t = 0; t < 5; t++) {
            const int p = least_here + 16 * t + lane / 16 * 8 + lane % 8;
            p_from[t] = p_at + (p & 127) * HEAD_PITCH + lane / 8 % 2 * 16;
        }
#pragma unroll
        for (int k = 0; k < HEAD / 16; k++) {
#pragma unroll
            for (int t = 0; t < 5; t++) {
                matrices(b, p_from[t] + 32 * k);
                multiply(c[2 * t], q[k], b[0], b[1]);
                multiply(c[2 * t + 1], q[k], b[2], b[3]);
            }
        }
#pragma unroll
        for (int t = 0; t < 10; t++) {
            const int column = 8 * t + 2 * tq;
            const float c0 = constants[least_here + column & 127], c1 = constants[least_here + column + 1 & 127];
            *(float2*)(band + g * WINDOW_COLUMNS + column) = make_float2(c[t][0] + c0, c[t][1] + c1);
            *(float2*)(band + (g + 8) * WINDOW_COLUMNS + column) = make_float2(c[t][2] + c0, c[t][3] + c1);
        }
        float scores[8][4] = {};
        const u32 k_from = k_at + (lane / 16 * 8 + lane % 8) * HEAD_PITCH + lane / 8 % 2 * 16;
#pragma unroll
        for (int k = 0; k < HEAD / 16; k++) {
#pragma unroll
            for (int t = 0; t < 4; t++) {
                matrices(b, k_from + 16 * t * HEAD_PITCH + 32 * k);
                multiply(scores[2 * t], q[k], b[0], b[1]);
                multiply(scores[2 * t + 1], q[k], b[2], b[3]);
            }
        }
        __syncthreads();
        if (key + 64 < end) {
            read_tile(k_at, rows + WIDTH, key + 64, all - 1);
            read_positions(p_at, table, constant, from - key - 128, least, positions);
        }
        copies_end();

        float top[2] = {most[0], most[1]}, keep[2], base[2];
#pragma unroll
        for (int t = 0; t < 8; t++) {
#pragma unroll
            for (int x = 0; x < 4; x++) {
                const int i = g + x / 2 * 8, j = 8 * t + 2 * tq + x % 2;
                const float score = (scores[t][x] + band[i * WINDOW_COLUMNS + i - j + 63]) * factor;
                scores[t][x] = key + j >= seen[x / 2].from && key + j < seen[x / 2].to ? score : NOTHING;
                top[x / 2] = fmaxf(top[x / 2], scores[t][x]);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            top[half] = max_of_quad(top[half]);
            base[half] = top[half] == NOTHING ? 0.0f : top[half];
            keep[half] = power(most[half] - base[half]);
            most[half] = top[half];
            total[half] *= keep[half];
        }
#pragma unroll
        for (int t = 0; t < 8; t++) {
#pragma unroll
            for (int x = 0; x < 4; x++) {
                scores[t][x] = power(scores[t][x] - base[x / 2]);
                total[x / 2] += scores[t][x];
            }
        }
#pragma unroll
        for (int d = 0; d < HEAD / 8; d++)
            for (int x = 0; x < 4; x++) sums[d][x] *= keep[x / 2];
        wait_for_copies<1>();
        __syncthreads();
#pragma unroll
        for (int t = 0; t < 4; t++) {
            u32 weights[4];
#pragma unroll
            for (int x = 0; x < 4; x++) {
                const float(&tile)[4] = scores[2 * t + x / 2];
                weights[x] = pair(tile[x % 2 * 2], tile[x % 2 * 2 + 1]);
            }
            const u32 at = v_at + (16 * t + lane % 16) * HEAD_PITCH + lane / 16 * 16;
#pragma unroll
            for (int k = 0; k < HEAD / 16; k++) {
                matrices_turned(b, at + 32 * k);
                multiply(sums[2 * k], weights, b[0], b[1]);
                multiply(sums[2 * k + 1], weights, b[2], b[3]);
            }
        }
        __syncthreads();
        if (key + 64 < end) read_tile(v_at, rows + 2 * WIDTH, key + 64, all - 1);
        copies_end();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float share = __fdividef(1.0f, sum_of_quad(total[half]));
        real* const to = out + (u64)(item.row + row + g + 8 * half) * WIDTH + head * HEAD + 2 * tq;
        if (row + g + 8 * half > last) continue;
#pragma unroll
        for (int d = 0; d < HEAD / 8; d++)
            *(u32*)(to + 8 * d) = narrow_pair(sums[d][2 * half] * share, sums[d][2 * half + 1] * share);
    }
}

#endif
