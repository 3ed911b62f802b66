// SPDX-License-Identifier: MPL-2.0
// Products of at most 16 rows, y [rows][N] = x [rows][K] w [N][K]^T, with what stands before and after them in a layer.
// They are bound by reading w once. A block holds all that it needs of it in registers before it waits for the kernel
// ahead (programmatic dependent launch), so that reading overlaps with what that kernel still does.
//
// A warp multiplies x (16 rows, fewer are filled up with zeros) with 8 rows of w, the outputs of a tile, over its share
// of K. The order along K is free as long as x and w agree, so a thread's values are 16 neighbouring bytes of both:
// of every 32 values of a row, a chunk, thread lane % 4 has 8. The warps' sums are added in their order, whatever the
// number of rows: a row's result doesn't depend on the others.
//
// Launch: grid ceil(N / 8 / tiles), block SKINNY_THREADS, dynamic shared memory as SkinnyShape::bytes says (for up to 8 rows
// and for up to SKINNY_ROWS, NAME_BYTES_8 and NAME_BYTES_16 of each kernel), and the largest shared memory carve-out for all
// kernels of the chain, or none starts before the one ahead is through. `counts` must have been written before the first
// kernel launched with this attribute. K is a multiple of 64 (of 32 without norms), N of 8, and addresses of 16 bytes.
//   NAME_TILES       tiles of 8 outputs that a block of a kernel computes
//   NAME_PIECES      pieces of 16 bytes of w that a thread has in registers at once
#if SKINNY

#define THREADS SKINNY_THREADS
#define WARPS (THREADS / 32)
#define ROWS SKINNY_ROWS
static_assert(ROWS == 16, "two rows of a tile a thread");

#if REAL == 1
#define TYPE "f16"
#else
#define TYPE "bf16"
#endif

// Lines of global memory are copied to whole lines of this.
extern __shared__ __align__(128) u8 memory[];

// What nobody writes while the step runs. The compiler would move a load for read-only data (`nc`) behind the waiting.
__device__ __forceinline__ uint4 load_weights(const real* from) {
    uint4 x;
    asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(from) : "memory");
    return x;
}

// Past the first cache, which isn't emptied for a kernel that starts ahead of time.
__device__ __forceinline__ int load_count(const int* from) {
    int x;
    asm volatile("ld.global.cg.s32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
    return min(x, ROWS);
}

__device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// sums += x w over 16 values of K: `a` of x, `b` of w.
__device__ __forceinline__ void multiply(float (&sums)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// A block's rows of w, TILES of them from tile `first`, and the sums of its warps.
template <int K, int TILES, int PIECES> struct Product {
    static constexpr int CHUNKS = K / 32;
    static constexpr int SHARE = (CHUNKS + WARPS - 1) / WARPS;
    // Chunks of a warp that are in registers at once, and how often that is until it has had its share.
    static constexpr int AT_ONCE = SHARE < PIECES / TILES ? SHARE : PIECES / TILES;
    static constexpr int ROUNDS = (SHARE + AT_ONCE - 1) / AT_ONCE;
    static constexpr int WIDE = 8 * TILES;
    // Columns of a row of sums, so that neither writing nor reading has conflicts.
    static constexpr int PITCH = 8 * (TILES | 1);
    // Values of the warps' sums of up to 8 rows, or of more.
    static __device__ __forceinline__ constexpr int all(int rows) { return WARPS * (rows > 8 ? 16 : 8) * PITCH; }

    // `begin` is where in a row the thread's first value is.
    int warp, lane, row, begin;
    uint4 weights[AT_ONCE][TILES];
    // Of half chunks in turn, so that a product need not wait for the last.
    static constexpr int TURNS = TILES == 1 ? 2 : 1;
    float sums[TURNS][TILES][4];

    __device__ __forceinline__ Product() : warp(threadIdx.x / 32), lane(threadIdx.x % 32) {
        row = lane / 4;
        begin = warp * AT_ONCE * 32 + lane % 4 * 8;
#pragma unroll
        for (int i = 0; i < TURNS * TILES * 4; i++) sums[i / (4 * TILES)][i / 4 % TILES][i % 4] = 0.0f;
    }

    // Whether all warps have as many chunks.
    static constexpr bool EVEN = CHUNKS % (WARPS * AT_ONCE) == 0;

    __device__ __forceinline__ bool has(int round, int c) const {
        return EVEN || (round * WARPS + warp) * AT_ONCE + c < CHUNKS;
    }
    // Where a chunk of this thread's begins in a row, from `begin` on.
    static __device__ __forceinline__ int offset(int round, int c) { return (round * WARPS * AT_ONCE + c) * 32; }

    __device__ __forceinline__ void load(const real* w, int outputs, int round) {
        const int first = blockIdx.x * WIDE;
        w += (u64)(first + row) * K + begin;
#pragma unroll
        for (int c = 0; c < AT_ONCE; c++) {
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
                weights[c][tile] = make_uint4(0, 0, 0, 0);
                if (has(round, c) && first + tile * 8 < outputs) {
                    weights[c][tile] = load_weights(w + tile * 8 * K + offset(round, c));
                }
            }
        }
    }

    // `low` and `high` are this thread's values of x in rows `row` and `row` + 8.
    __device__ __forceinline__ void add(int c, uint4 low, uint4 high) {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            const uint4 w = weights[c][tile];
            multiply(sums[0][tile], low.x, high.x, low.y, high.y, w.x, w.y);
            multiply(sums[TURNS - 1][tile], low.z, high.z, low.w, high.w, w.z, w.w);
        }
    }

    // Adds the warps' sums up. The thread's result is that of row `threadIdx.x / WIDE`, output `threadIdx.x % WIDE`.
    __device__ __forceinline__ float total(float* shared, int rows) {
        const int held = rows > 8 ? 16 : 8;
        float* to = shared + (warp * held + row) * PITCH + lane % 4 * 2;
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            float(&sum)[4] = sums[0][tile];
#pragma unroll
            for (int i = 0; i < 4; i++) sum[i] = TURNS > 1 ? sum[i] + sums[TURNS - 1][tile][i] : sum[i];
            if (row < rows) *(float2*)(to + tile * 8) = make_float2(sum[0], sum[1]);
            if (row + 8 < rows) *(float2*)(to + 8 * PITCH + tile * 8) = make_float2(sum[2], sum[3]);
        }
        __syncthreads();
        if ((int)threadIdx.x >= rows * WIDE) return 0.0f;
        const float* from = shared + threadIdx.x / WIDE * PITCH + threadIdx.x % WIDE;
        float parts[WARPS];
#pragma unroll
        for (int i = 0; i < WARPS; i++) parts[i] = from[i * held * PITCH];
#pragma unroll
        for (int step = 1; step < WARPS; step *= 2) {
#pragma unroll
            for (int i = 0; i + step < WARPS; i += 2 * step) parts[i] += parts[i + step];
        }
        return parts[0];
    }
};

// What becomes of a result. `before` reads what is there before the kernel ahead is through, `after` what isn't, for 8
// outputs of a row: piece `i` of the block.
struct Plain {
    const real* bias;
    real* y;
    float start;

    __device__ __forceinline__ void before(int output) { start = bias ? widen(bias[output]) : 0.0f; }
    __device__ __forceinline__ void after(int, u64) {}
    __device__ __forceinline__ void keep(u64 at, float sum) { y[at] = narrow(sum + start); }
};

struct Activated : Plain {
    __device__ __forceinline__ void keep(u64 at, float sum) {
        const float value = sum + start;
        y[at] = narrow(value * sigmoid(value));
    }
};

struct Added : Plain {
    float scale;
    real* old;  // shared, in the order of the threads

    __device__ __forceinline__ void after(int i, u64 at) { copy16(shared_at(old + i * 8), y + at); }
    __device__ __forceinline__ void keep(u64 at, float sum) {
        y[at] = narrow(widen(old[threadIdx.x]) + (scale * sum + start));
    }
};

struct Precise {
    const float* bias;
    float* y;
    float start;

    __device__ __forceinline__ void before(int output) { start = bias ? bias[output] : 0.0f; }
    __device__ __forceinline__ void after(int, u64) {}
    __device__ __forceinline__ void keep(u64 at, float sum) { y[at] = sum + start; }
};

// y = end(x w^T). Rows of x are `stride` values apart. The host asks for BYTES8 and BYTES16 of shared memory.
template <int K, int TILES, int PIECES, int BYTES8, int BYTES16, class End>
__device__ __forceinline__ void product(
    const int* count, const real* x, int stride, const real* w, int outputs, End end
) {
    typedef Product<K, TILES, PIECES> Part;
    static_assert(4 * Part::all(8) + 16 * THREADS * Part::AT_ONCE == BYTES8, "sums, then copies of 8 rows");
    static_assert(4 * Part::all(16) + 16 * THREADS * 2 * Part::AT_ONCE == BYTES16, "sums, then copies of 16 rows");
    launch_next();
    Part part;
    const int output = blockIdx.x * part.WIDE + threadIdx.x % part.WIDE;
    const u64 at = (u64)(threadIdx.x / part.WIDE) * outputs + output;
    const int rows = load_count(count);
    part.load(w, outputs, 0);
    const bool mine = (int)threadIdx.x < rows * part.WIDE && output < outputs;
    if (output < outputs) end.before(output);
    float* const shared = (float*)memory;
    // Each thread copies what it will read itself; first of rows 0 to 7, then of the others.
    const uint4* const copies = (uint4*)(shared + part.all(rows)) + threadIdx.x;
    const u32 to = shared_at(copies);
    const real* const lows = x + (u64)part.row * stride + part.begin;
    const real* const highs = lows + (u64)8 * stride;
    const bool low = part.row < rows, high = part.row + 8 < rows;
    wait_for_last();
    if ((int)threadIdx.x < rows * TILES) {
        const int first = (blockIdx.x * TILES + threadIdx.x % TILES) * 8;
        if (first < outputs) end.after(threadIdx.x, (u64)(threadIdx.x / TILES) * outputs + first);
    }
#pragma unroll
    for (int round = 0; round < part.ROUNDS; round++) {
        if (low) {
#pragma unroll
            for (int c = 0; c < part.AT_ONCE; c++) {
                if (part.has(round, c)) copy16(to + c * THREADS * 16, lows + part.offset(round, c));
            }
        }
        if (high) {
#pragma unroll
            for (int c = 0; c < part.AT_ONCE; c++) {
                if (part.has(round, c)) copy16(to + (part.AT_ONCE + c) * THREADS * 16, highs + part.offset(round, c));
            }
        }
        if (round > 0) part.load(w, outputs, round);
        wait_for_copies();
#pragma unroll
        for (int c = 0; c < part.AT_ONCE; c++) {
            if (!part.has(round, c)) break;
            const uint4 none = make_uint4(0, 0, 0, 0);
            part.add(c, low ? copies[c * THREADS] : none, high ? copies[(part.AT_ONCE + c) * THREADS] : none);
        }
    }
    const float sum = part.total(shared, rows);
    if (mine) end.keep(at, sum);
}

struct Norm {
    const float *weight, *bias;
};

// Mean and sum of squared deviations of some of a row's values, `count` of them.
struct Moments {
    float mean, square;

    // With as many others (Chan, Golub and LeVeque).
    __device__ __forceinline__ Moments with(Moments other, float count) const {
        const float difference = other.mean - mean;
        return {0.5f * (mean + other.mean), square + other.square + difference * difference * (0.5f * count)};
    }
};

// A row of K values as four warps hold it, rounded as in memory: so many whatever the number of rows, so that the order
// of adding is the same.
template <int K> struct Row {
    static constexpr int SHARE = (K + 1023) / 1024;
    static constexpr int PART = K / 4;
    Pack<8> packs[SHARE];

    // A warp has a quarter of the row.
    static __device__ __forceinline__ int begin(int i) {
        return threadIdx.x / 32 % 4 * PART + (i * 32 + threadIdx.x % 32) * 8;
    }
    static __device__ __forceinline__ bool inside(int i) {
        return PART % 256 == 0 || (i * 32 + threadIdx.x % 32) * 8 < PART;
    }

    static __device__ __forceinline__ void fetch(real* to, const real* from) {
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
            if (inside(i)) copy16(shared_at(to + begin(i)), from + begin(i));
        }
    }

    __device__ __forceinline__ void read(const real* from) {
#pragma unroll
        for (int i = 0; i < SHARE; i++) packs[i] = inside(i) ? load<8>(from + begin(i)) : Pack<8>{};
    }

    __device__ __forceinline__ void write(real* to) const {
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
            if (inside(i)) store<8>(to + begin(i), packs[i]);
        }
    }

    // Says what this warp's part is like.
    __device__ __forceinline__ void measure(Moments* moments) const {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
#pragma unroll
            for (int j = 0; j < 8; j++) sum += widen(packs[i].values[j]);
        }
        Moments own{sum_of_warp(sum) * (1.0f / PART), 0.0f};
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
            if (!inside(i)) continue;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float value = widen(packs[i].values[j]) - own.mean;
                own.square += value * value;
            }
        }
        own.square = sum_of_warp(own.square);
        if (threadIdx.x % 32 == 0) moments[threadIdx.x / 32 % 4] = own;
    }

    // `norm` holds K weights and K biases, `moments` what the four warps said.
    __device__ __forceinline__ void normalise(const float* norm, const Moments* moments) {
        const Moments all =
            moments[0].with(moments[1], PART).with(moments[2].with(moments[3], PART), 2 * PART);
        const float scale = rsqrtf(all.square * (1.0f / K) + EPSILON);
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
            if (!inside(i)) continue;
#pragma unroll
            for (int j = 0; j < 8; j += 4) {
                const Floats<4> weight = load_floats<4>(norm + begin(i) + j);
                const Floats<4> bias = load_floats<4>(norm + K + begin(i) + j);
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    real& value = packs[i].values[j + k];
                    value = narrow((widen(value) - all.mean) * scale * weight.values[k] + bias.values[k]);
                }
            }
        }
    }
};

// y = end(LayerNorm(x) w^T), of the last of NORMS norms. What the first of two makes of x goes to `kept`, row i from
// block i, and not to x: every block reads that. The host asks for BYTES8 and BYTES16 of shared memory.
template <int K, int TILES, int PIECES, int BYTES8, int BYTES16, int NORMS, class End>
__device__ __forceinline__ void product_of_norm(
    const Counts* counts, const real* x, const Norm (&norms)[NORMS], real* kept, const real* w, int outputs, End end
) {
    // Rows half a line apart, so that reading 8 rows of 4 pieces has no conflicts.
    constexpr int STEP = K + (K % 64 == 32 ? 0 : 32);
    typedef Product<K, TILES, PIECES> Part;
    constexpr int norm_bytes = 4 * NORMS * 2 * K, sums8 = 4 * Part::all(8), sums16 = 4 * Part::all(16);
    static_assert((sums8 > norm_bytes ? sums8 : norm_bytes) + 8 * (2 * K + 64) == BYTES8, "sums or norms, then 8 rows");
    static_assert((sums16 > norm_bytes ? sums16 : norm_bytes) + 16 * (2 * K + 64) == BYTES16, "or 16 rows");
    static_assert(2 * STEP <= 2 * K + 64, "a row's place");
    __shared__ Moments moments[NORMS * ROWS][4];
    launch_next();
    Part part;
    const int output = blockIdx.x * part.WIDE + threadIdx.x % part.WIDE;
    const u64 at = (u64)(threadIdx.x / part.WIDE) * outputs + output;
    const int rows = load_count(&counts->rows);
    part.load(w, outputs, 0);
    const bool mine = (int)threadIdx.x < rows * part.WIDE && output < outputs;
    if (output < outputs) end.before(output);
    // The norms, and once they are through the sums; then the rows.
    float* const shared = (float*)memory;
    const int all = part.all(rows);
    real* const inputs = (real*)(shared + (all > NORMS * 2 * K ? all : NORMS * 2 * K));
#pragma unroll
    for (int norm = 0; norm < NORMS; norm++) {
#pragma unroll
        for (int begin = 0; begin < 2 * K; begin += 4 * THREADS) {
            const int i = begin + threadIdx.x * 4;
            if (2 * K % (4 * THREADS) != 0 && i >= 2 * K) continue;
            copy16(shared_at(shared + norm * 2 * K + i), i < K ? norms[norm].weight + i : norms[norm].bias + (i - K));
        }
    }
    wait_for_last();
    // Each thread copies the values that it will hold, of all rows at once.
    for (int i = part.warp / 4; i < rows; i += WARPS / 4) Row<K>::fetch(inputs + i * STEP, x + (u64)i * K);
    wait_for_copies();
    __syncthreads();
    for (int first = 0; first < rows; first += WARPS / 4) {
        // All warps meet at the barriers, those without a row too.
        const int i = first + part.warp / 4;
        const bool there = i < rows;
        Row<K> row;
        if (there) {
            row.read(inputs + i * STEP);
            row.measure(moments[i]);
        }
        __syncthreads();
        if (there) {
            row.normalise(shared, moments[i]);
            if (NORMS > 1) {
                if (i % gridDim.x == blockIdx.x) row.write(kept + (u64)i * K);
                row.measure(moments[ROWS + i]);
            }
        }
        if (NORMS > 1) {
            __syncthreads();
            if (there) row.normalise(shared + 2 * K, moments[ROWS + i]);
        }
        if (there) row.write(inputs + i * STEP);
    }
    __syncthreads();
    const real* const from = inputs + part.row * STEP + part.begin;
#pragma unroll
    for (int round = 0; round < part.ROUNDS; round++) {
        if (round > 0) part.load(w, outputs, round);
#pragma unroll
        for (int c = 0; c < part.AT_ONCE; c++) {
            if (!part.has(round, c)) break;
            uint4 low = make_uint4(0, 0, 0, 0), high = low;
            if (part.row < rows) low = *(const uint4*)(from + part.offset(round, c));
            if (part.row + 8 < rows) high = *(const uint4*)(from + 8 * STEP + part.offset(round, c));
            part.add(c, low, high);
        }
    }
    const float sum = part.total(shared, rows);
    if (mine) end.keep(at, sum);
}

// kept = LayerNorm1(x), y = SiLU(LayerNorm2(kept) w^T + bias), N = FF.
extern "C" __global__ void __launch_bounds__(THREADS, 2) skinny_norm_twice_silu(
    const Counts* counts, const real* x, const float* weight1, const float* bias1, const float* weight2,
    const float* bias2, real* kept, const real* w, const real* bias, real* y
) {
    const Norm norms[2] = {{weight1, bias1}, {weight2, bias2}};
    product_of_norm<WIDTH, SKINNY_NORM_TWICE_SILU_TILES, SKINNY_NORM_TWICE_SILU_PIECES, SKINNY_NORM_TWICE_SILU_BYTES_8, SKINNY_NORM_TWICE_SILU_BYTES_16>(counts, x, norms, kept, w, FF, Activated{{bias, y}});
}

// y = SiLU(LayerNorm(x) w^T + bias), N = FF.
extern "C" __global__ void __launch_bounds__(THREADS, 2) skinny_norm_silu(
    const Counts* counts, const real* x, const float* weight, const float* norm_bias, const real* w, const real* bias,
    real* y
) {
    const Norm norms[1] = {{weight, norm_bias}};
    product_of_norm<WIDTH, SKINNY_NORM_SILU_TILES, SKINNY_NORM_SILU_PIECES, SKINNY_NORM_SILU_BYTES_8, SKINNY_NORM_SILU_BYTES_16>(counts, x, norms, (real*)0, w, FF, Activated{{bias, y}});
}

// y = LayerNorm(x) w^T + bias, N = 3 WIDTH: query, key and value.
extern "C" __global__ void __launch_bounds__(THREADS, 2) skinny_norm_3(
    const Counts* counts, const real* x, const float* weight, const float* norm_bias, const real* w, const real* bias,
    real* y
) {
    const Norm norms[1] = {{weight, norm_bias}};
    product_of_norm<WIDTH, SKINNY_NORM_3_TILES, SKINNY_NORM_3_PIECES, SKINNY_NORM_3_BYTES_8, SKINNY_NORM_3_BYTES_16>(counts, x, norms, (real*)0, w, 3 * WIDTH, Plain{bias, y});
}

// y = LayerNorm(x) w^T + bias, N = 2 WIDTH: the convolution module's gated input.
extern "C" __global__ void __launch_bounds__(THREADS, 2) skinny_norm_2(
    const Counts* counts, const real* x, const float* weight, const float* norm_bias, const real* w, const real* bias,
    real* y
) {
    const Norm norms[1] = {{weight, norm_bias}};
    product_of_norm<WIDTH, SKINNY_NORM_2_TILES, SKINNY_NORM_2_PIECES, SKINNY_NORM_2_BYTES_8, SKINNY_NORM_2_BYTES_16>(counts, x, norms, (real*)0, w, 2 * WIDTH, Plain{bias, y});
}

// y += scale (x w^T) + bias, K = FF, N = WIDTH.
extern "C" __global__ void __launch_bounds__(THREADS, 2) skinny_add_ff(
    const Counts* counts, const real* x, const real* w, const real* bias, float scale, real* y
) {
    __shared__ __align__(16) real old[ROWS * 8 * SKINNY_ADD_FF_TILES];
    product<FF, SKINNY_ADD_FF_TILES, SKINNY_ADD_FF_PIECES, SKINNY_ADD_FF_BYTES_8, SKINNY_ADD_FF_BYTES_16>(&counts->rows, x, FF, w, WIDTH, Added{{bias, y}, scale, old});
}

// y += scale (x w^T) + bias, K = N = WIDTH.
extern "C" __global__ void __launch_bounds__(THREADS, 2) skinny_add(
    const Counts* counts, const real* x, const real* w, const real* bias, float scale, real* y
) {
    __shared__ __align__(16) real old[ROWS * 8 * SKINNY_ADD_TILES];
    product<WIDTH, SKINNY_ADD_TILES, SKINNY_ADD_PIECES, SKINNY_ADD_BYTES_8, SKINNY_ADD_BYTES_16>(&counts->rows, x, WIDTH, w, WIDTH, Added{{bias, y}, scale, old});
}

// y = x w^T + bias in single precision for the joint and the predictor, by their K: `rows` counts the rows, `stride` is
// that of x, `outputs` is N.
#define PRECISE(name, NAME, inputs) \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) name( \
        const int* rows, const real* x, int stride, const real* w, const float* bias, int outputs, float* y \
    ) { \
        product<inputs, NAME##_TILES, NAME##_PIECES, NAME##_BYTES_8, NAME##_BYTES_16>( \
            rows, x, stride, w, outputs, Precise{bias, y} \
        ); \
    }
PRECISE(skinny_encoded, SKINNY_ENCODED, WIDTH)
#if SKINNY_DECODER
PRECISE(skinny_joint, SKINNY_JOINT, JOINT)
PRECISE(skinny_predictor, SKINNY_PREDICTOR, PRED)
PRECISE(skinny_predictor_2, SKINNY_PREDICTOR_2, 2 * PRED)
#endif
#endif
