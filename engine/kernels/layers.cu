// SPDX-License-Identifier: MPL-2.0
// What a Conformer layer does beside products and attention (arXiv:2005.08100; NeMo ConformerLayer), row by row.
//   FF               width of the feed-forward modules' inner layer
//   AHEAD            taps of the depthwise convolution that look ahead
//   CONV_NORM        1 where a LayerNorm follows the depthwise convolution; a BatchNorm is folded into its taps
//   LANE             values of a row that a thread of `layer_norm` takes at a time
//   TILE             rows of a tile
//   NORM_ROWS        rows of a block of `layer_norm`
//   PER              neighbouring channels that a thread of `convolution` takes
// With PRODUCT8, what the products read is e4m3, with a factor for each row that makes up for its largest value being 448.

// Values of a row that a lane holds, and whether that makes up whole rows: it does for every published model.
#define SHARE ((WIDTH + 31) / 32)
#define EVEN (WIDTH % (32 * LANE) == 0)

#if PRODUCT8
typedef u8 input;

// Largest value of a block through `shared`, one value a warp; two such in a row need two memories.
__device__ __forceinline__ float max_of_block(float x, float* shared) {
    x = max_of_warp(x);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    float most = 0.0f;
    for (int warp = 0; warp < blockDim.x / 32; warp++) most = fmaxf(most, shared[warp]);
    return most;
}

// What a row is multiplied by whose largest magnitude is `peak`, and in `scale` what undoes it.
__device__ __forceinline__ float factor_of(float peak, float* scale, bool first) {
    // A row of zeros has no largest value.
    peak = fmaxf(peak, 1e-20f);
    if (first) *scale = peak / 448.0f;
    return 448.0f / peak;
}

template <int N> struct __align__(N) Bytes { u8 values[N]; };

// N neighbouring values times `factor` as e4m3, saturated.
template <int N> __device__ __forceinline__ void store8(u8* to, const float* values, float factor) {
    Bytes<N> pack;
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        u16 pair;
        float high = i + 1 < N ? values[(i + 1) % N] : 0.0f;
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high * factor), "f"(values[i] * factor));
        pack.values[i] = (u8)pair;
        if (i + 1 < N) pack.values[(i + 1) % N] = (u8)(pair >> 8);
    }
    *(Bytes<N>*)to = pack;
}
#else
typedef real input;
#endif

// Rows of `WIDTH` values, one a warp; a lane holds LANE neighbours of every 32 * LANE.
struct Row {
    float values[SHARE];

    static __device__ __forceinline__ bool inside(int i, int lane) { return EVEN || (i * 32 + lane) * LANE < WIDTH; }

    __device__ __forceinline__ void read(const real* from, int lane) {
#pragma unroll
        for (int i = 0; i < SHARE / LANE; i++) {
            Pack<LANE> pack = {};
            if (inside(i, lane)) pack = load<LANE>(from + (i * 32 + lane) * LANE);
#pragma unroll
            for (int j = 0; j < LANE; j++) values[i * LANE + j] = widen(pack.values[j]);
        }
    }

    __device__ __forceinline__ void write(real* to, int lane) const {
#pragma unroll
        for (int i = 0; i < SHARE / LANE; i++) {
            Pack<LANE> pack;
#pragma unroll
            for (int j = 0; j < LANE; j++) pack.values[j] = narrow(values[i * LANE + j]);
            if (inside(i, lane)) store<LANE>(to + (i * 32 + lane) * LANE, pack);
        }
    }

    // As row `row` of `to`: as `real`s, or as e4m3 if there are scales.
    __device__ __forceinline__ void give(void* to, float* scales, int row, int lane) const {
#if PRODUCT8
        if (scales) {
            float peak = 0.0f;
#pragma unroll
            for (int i = 0; i < SHARE; i++) peak = fmaxf(peak, fabsf(values[i]));
            float factor = factor_of(max_of_warp(peak), scales + row, lane == 0);
#pragma unroll
            for (int i = 0; i < SHARE / LANE; i++) {
                u8* at = (u8*)to + (u64)row * WIDTH + (i * 32 + lane) * LANE;
                if (inside(i, lane)) store8<LANE>(at, values + i * LANE, factor);
            }
            return;
        }
#endif
        write((real*)to + (u64)row * WIDTH, lane);
    }

    __device__ __forceinline__ void normalise(const float* weight, const float* bias, int lane) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < SHARE; i++) sum += values[i];
        float mean = sum_of_warp(sum) / WIDTH;
        float square = 0.0f;
#pragma unroll
        for (int i = 0; i < SHARE; i++) {
            if (inside(i / LANE, lane)) square += (values[i] - mean) * (values[i] - mean);
        }
        float scale = rsqrtf(sum_of_warp(square) / WIDTH + EPSILON);
#pragma unroll
        for (int i = 0; i < SHARE / LANE; i++) {
            if (!inside(i, lane)) continue;
            Floats<LANE> w = load_floats<LANE>(weight + (i * 32 + lane) * LANE);
            Floats<LANE> b = load_floats<LANE>(bias + (i * 32 + lane) * LANE);
#pragma unroll
            for (int j = 0; j < LANE; j++) {
                float& value = values[i * LANE + j];
                value = (value - mean) * scale * w.values[j] + b.values[j];
            }
        }
    }
};

// y = LayerNorm(x), as e4m3 if there are `scales`. A row a warp.
extern "C" __global__ void __launch_bounds__(32 * NORM_ROWS) layer_norm(
    const Counts* counts, const real* x, const float* weight, const float* bias, void* y, float* scales
) {
    int row = blockIdx.x * NORM_ROWS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= counts->rows) return;
    Row values;
    values.read(x + (u64)row * WIDTH, lane);
    values.normalise(weight, bias, lane);
    values.give(y, scales, row, lane);
}

// x = LayerNorm(x) with the first norm, y = LayerNorm(x) with the second. A row a warp.
extern "C" __global__ void __launch_bounds__(32 * NORM_ROWS) layer_norm_twice(
    const Counts* counts, real* x, const float* weight1, const float* bias1, const float* weight2,
    const float* bias2, input* y, float* scales
) {
    int row = blockIdx.x * NORM_ROWS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= counts->rows) return;
    Row values;
    values.read(x + (u64)row * WIDTH, lane);
    values.normalise(weight1, bias1, lane);
    values.write(x + (u64)row * WIDTH, lane);
    values.normalise(weight2, bias2, lane);
    values.give(y, scales, row, lane);
}

#if PRODUCT8
// y = x sigmoid(x) over rows of FF values. A row a block.
extern "C" __global__ void __launch_bounds__(SILU_THREADS) silu(const Counts* counts, const real* x, u8* y, float* scales) {
    if (blockIdx.x >= counts->rows) return;
    __shared__ float peaks[SILU_THREADS / 32];
    u64 row = (u64)blockIdx.x * FF;
    float values[(FF + SILU_THREADS * LANE - 1) / (SILU_THREADS * LANE)][LANE];
    float peak = 0.0f;
#pragma unroll
    for (int i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        int at = (i * SILU_THREADS + threadIdx.x) * LANE;
        Pack<LANE> pack = {};
        if (at < FF) pack = load<LANE>(x + row + at);
#pragma unroll
        for (int j = 0; j < LANE; j++) {
            float value = widen(pack.values[j]);
            values[i][j] = value * sigmoid(value);
            peak = fmaxf(peak, fabsf(values[i][j]));
        }
    }
    float factor = factor_of(max_of_block(peak, peaks), scales + blockIdx.x, threadIdx.x == 0);
#pragma unroll
    for (int i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        int at = (i * SILU_THREADS + threadIdx.x) * LANE;
        if (at < FF) store8<LANE>(y + row + at, values[i], factor);
    }
}

// y = x over rows of `width` values. A row a block.
extern "C" __global__ void __launch_bounds__(QUANTISE_THREADS) quantise_rows(const real* x, int width, u8* y, float* scales) {
    __shared__ float peaks[QUANTISE_THREADS / 32];
    u64 row = (u64)blockIdx.x * width;
    float peak = 0.0f;
    for (int at = threadIdx.x * LANE; at < width; at += QUANTISE_THREADS * LANE) {
        Pack<LANE> pack = load<LANE>(x + row + at);
#pragma unroll
        for (int j = 0; j < LANE; j++) peak = fmaxf(peak, fabsf(widen(pack.values[j])));
    }
    float factor = factor_of(max_of_block(peak, peaks), scales + blockIdx.x, threadIdx.x == 0);
    for (int at = threadIdx.x * LANE; at < width; at += QUANTISE_THREADS * LANE) {
        Pack<LANE> pack = load<LANE>(x + row + at);
        float values[LANE];
#pragma unroll
        for (int j = 0; j < LANE; j++) values[j] = widen(pack.values[j]);
        store8<LANE>(y + row + at, values, factor);
    }
}
#else
// x = x sigmoid(x) over rows of FF values.
extern "C" __global__ void __launch_bounds__(SILU_THREADS) silu(const Counts* counts, real* x) {
    u64 total = (u64)counts->rows * FF / LANE;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += (u64)gridDim.x * blockDim.x) {
        Pack<LANE> pack = load<LANE>(x + i * LANE);
#pragma unroll
        for (int j = 0; j < LANE; j++) {
            float value = widen(pack.values[j]);
            pack.values[j] = narrow(value * sigmoid(value));
        }
        store<LANE>(x + i * LANE, pack);
    }
}
#endif

// Sum over a block through `shared`, one value a warp; two such sums in a row need two memories.
__device__ __forceinline__ float sum_of_block(float x, float* shared) {
    x = sum_of_warp(x);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (int warp = 0; warp < blockDim.x / 32; warp++) sum += shared[warp];
    return sum;
}

// The gated linear unit of row `at` at `channel`: in [rows][2 * WIDTH], a | b -> a sigmoid(b).
__device__ __forceinline__ void gated(const real* in, u64 at, int channel, float (&out)[PER]) {
    Pack<PER> a = load<PER>(in + at * 2 * WIDTH + channel);
    Pack<PER> b = load<PER>(in + at * 2 * WIDTH + WIDTH + channel);
#pragma unroll
    // Rounded as if it had been stored, since a later step reads it from the tail.
    for (int i = 0; i < PER; i++) out[i] = widen(narrow(widen(a.values[i]) * sigmoid(widen(b.values[i]))));
}

// Input row `i` of an item at `channel`: its own, what the slot kept before it, or zeros.
__device__ __forceinline__ void input_row(
    const Item& item, const real* in, const real* tail, int i, int channel, float (&out)[PER]
) {
#pragma unroll
    for (int j = 0; j < PER; j++) out[j] = 0.0f;
    if (i >= 0) {
        if (i < item.frames) gated(in, item.row + i, channel, out);
        return;
    }
#if TAIL > 0
    int frame = item.first + i;
    if (frame >= 0 && item.ring > 0) {
        Pack<PER> pack = load<PER>(tail + (frame % TAIL) * WIDTH + channel);
#pragma unroll
        for (int j = 0; j < PER; j++) out[j] = widen(pack.values[j]);
    }
#endif
}

// Gated linear unit, depthwise convolution with what the slot kept before and zeros after, norm and SiLU; then keeps the
// last TAIL inputs. A block computes a tile of one item over the whole width, a thread PER channels. `in`
// [rows][2 * WIDTH], `taps` [TAPS][WIDTH], `out` [rows][WIDTH] with `scales` [rows].
template <bool EARLY> __device__ __forceinline__ void convolve(
    const Item* items, const Counts* counts, const Place* tiles, const u64* blocks, int layer, const real* in,
    const float* taps, const float* bias, const float* norm_weight, const float* norm_bias, input* out,
    float* scales
) {
    if (EARLY) launch_next();
    if (blockIdx.x >= counts->tiles) return;
    __shared__ float sums[2][32];
#if PRODUCT8
    __shared__ float peaks[2][32];
#endif
    Place tile = tiles[blockIdx.x];
    const Item item = items[tile.item];
    int channel = threadIdx.x * PER;
    // Threads beyond the width compute its last channels again and keep nothing.
    bool surplus = channel >= WIDTH;
    if (surplus) channel = WIDTH - PER;
    real* tail = tail_of(blocks, item.slot, layer);
    // The inputs of a row, the oldest first; all but the last are known before the loop, and loaded side by side.
    float window[TAPS][PER];
#pragma unroll
    for (int tap = 1; tap < TAPS; tap++) input_row(item, in, tail, tile.index - TAIL + tap - 1, channel, window[tap]);
    Floats<PER> start = load_floats<PER>(bias + channel);
    // Of what is read so far, the kernel ahead has written nothing.
    if (EARLY) wait_for_last();
    int end = min(tile.index + TILE, item.frames);
    for (int row = tile.index; row < end; row++) {
#pragma unroll
        for (int tap = 0; tap + 1 < TAPS; tap++) {
#pragma unroll
            for (int j = 0; j < PER; j++) window[tap][j] = window[tap + 1][j];
        }
        input_row(item, in, tail, row + AHEAD, channel, window[TAPS - 1]);
        float sum[PER];
#pragma unroll
        for (int j = 0; j < PER; j++) sum[j] = start.values[j];
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) {
            Floats<PER> weights = load_floats<PER>(taps + tap * WIDTH + channel);
#pragma unroll
            for (int j = 0; j < PER; j++) sum[j] += weights.values[j] * window[tap][j];
        }
#if CONV_NORM
        float part = 0.0f;
#pragma unroll
        for (int j = 0; j < PER; j++) part += surplus ? 0.0f : sum[j];
        float mean = sum_of_block(part, sums[0]) / WIDTH;
        part = 0.0f;
#pragma unroll
        for (int j = 0; j < PER; j++) part += surplus ? 0.0f : (sum[j] - mean) * (sum[j] - mean);
        float scale = rsqrtf(sum_of_block(part, sums[1]) / WIDTH + EPSILON);
        Floats<PER> weight = load_floats<PER>(norm_weight + channel);
        Floats<PER> summand = load_floats<PER>(norm_bias + channel);
#pragma unroll
        for (int j = 0; j < PER; j++) sum[j] = (sum[j] - mean) * scale * weight.values[j] + summand.values[j];
#endif
#pragma unroll
        for (int j = 0; j < PER; j++) sum[j] *= sigmoid(sum[j]);
        input* at = out + (u64)(item.row + row) * WIDTH + channel;
#if PRODUCT8
        float peak = 0.0f;
#pragma unroll
        for (int j = 0; j < PER; j++) peak = fmaxf(peak, fabsf(sum[j]));
        peak = max_of_block(peak, peaks[row % 2]);
        float factor = factor_of(peak, scales + item.row + row, threadIdx.x == 0);
        if (!surplus) store8<PER>(at, sum, factor);
#else
        Pack<PER> pack;
#pragma unroll
        for (int j = 0; j < PER; j++) pack.values[j] = narrow(sum[j]);
        if (!surplus) store<PER>(at, pack);
#endif
    }
#if TAIL > 0
    // A slot's step is one tile, so nobody else reads its tail; nothing looks ahead there, so the last rows are at hand.
    if (item.ring == 0 || surplus) return;
#pragma unroll
    for (int tap = TAPS - TAIL; tap < TAPS; tap++) {
        int i = item.frames - TAPS + tap;
        if (i < 0) continue;
        Pack<PER> pack;
#pragma unroll
        for (int j = 0; j < PER; j++) pack.values[j] = narrow(window[tap][j]);
        store<PER>(tail + ((item.first + i) % TAIL) * WIDTH + channel, pack);
    }
#endif
}

extern "C" __global__ void __launch_bounds__(CONVOLUTION_THREADS) convolution(
    const Item* items, const Counts* counts, const Place* tiles, const u64* blocks, int layer, const real* in,
    const float* taps, const float* bias, const float* norm_weight, const float* norm_bias, input* out,
    float* scales
) {
    convolve<false>(items, counts, tiles, blocks, layer, in, taps, bias, norm_weight, norm_bias, out, scales);
}

// The same for items with rings, started before the kernel ahead is through.
extern "C" __global__ void __launch_bounds__(CONVOLUTION_THREADS) convolution_early(
    const Item* items, const Counts* counts, const Place* tiles, const u64* blocks, int layer, const real* in,
    const float* taps, const float* bias, const float* norm_weight, const float* norm_bias, input* out,
    float* scales
) {
    convolve<true>(items, counts, tiles, blocks, layer, in, taps, bias, norm_weight, norm_bias, out, scales);
}

// x = ReLU(x + weight[language of the row's stream]) over rows of `width` values; `weight` [places][width].
extern "C" __global__ void __launch_bounds__(PROMPT_THREADS) prompt(
    const Item* items, const Counts* counts, const Place* places, const float* weight, int width, real* x
) {
    if (blockIdx.x >= counts->rows) return;
    const float* column = weight + (u64)items[places[blockIdx.x].item].language * width;
    real* row = x + (u64)blockIdx.x * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) row[i] = narrow(positive(widen(row[i]) + column[i]));
}

// The rows of one layer's projected positions by head, and what the two biases of attention differ in: with u added to the
// query, q P + (v - u) P is what a query with v would give. `projected` [positions][WIDTH], `difference` [WIDTH], `table`
// [HEADS][positions][HEAD], `constant` [HEADS][positions]. One position and head a block, which is a warp.
extern "C" __global__ void __launch_bounds__(POSITION_THREADS) position_table(
    const float* projected, const float* difference, real* table, float* constant
) {
    const float* row = projected + (u64)blockIdx.x * WIDTH + blockIdx.y * HEAD;
    u64 at = (u64)blockIdx.y * gridDim.x + blockIdx.x;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < HEAD; i += POSITION_THREADS) {
        real value = narrow(row[i]);
        table[at * HEAD + i] = value;
        sum += widen(value) * difference[blockIdx.y * HEAD + i];
    }
    sum = sum_of_warp(sum);
    if (threadIdx.x == 0) constant[at] = sum;
}
