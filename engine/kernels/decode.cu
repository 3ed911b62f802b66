// SPDX-License-Identifier: MPL-2.0
// Greedy TDT and RNN-T decoding by label looping over all items of a step (arXiv:2304.06795, arXiv:2406.06220; NeMo's
// greedy_batch). RNN-T is TDT with duration 0 for a token and 1 for a blank. One iteration: joint, `rank`, `decide`,
// predictor for the items that emitted, `look`. Items that are through take part in the products, but nothing is kept of
// it. The predictor's output lasts until a token comes, so an iteration looks at `span` frames of each item at once and
// passes over the blanks at the beginning: there are about as many iterations as tokens. With a span of 1 `decide` ranks
// by itself.
//   PRED PRED_LAYERS width of the predictor, LSTM layers
//   JOINT            width of the joint
//   VOCABULARY       pieces, without blank
//   DURATIONS        number of durations, 0 for RNN-T
//   DURATION_VALUES  their values in braces
//   LOGITS           row length of the logits, at least VOCABULARY + 1 + DURATIONS, a multiple of 4
//   BLANK            its label, after all pieces
//   MAX_SYMBOLS      most symbols at one frame
//   ENTROPY_ALPHA    exponent of the entropy that confidence is made of
//   MEMORY_BYTES     bytes of a slot's Memory
// All kernels run in blocks of DECODE_THREADS.

#define WARPS (DECODE_THREADS / 32)
// Label of a frame whose logits are no numbers.
#define LOST (-1)

// A slot's decoder state, after its mel frames.
struct Memory {
    float hidden[PRED_LAYERS][PRED];
    float cell[PRED_LAYERS][PRED];
    float predicted[JOINT];
    int jump;
    // State in the phrases of the stream.
    int phrase;
};
static_assert(sizeof(Memory) == MEMORY_BYTES, "the host allocates as much");

__device__ __forceinline__ Memory* memory_of(const u64* blocks, int slot) {
    return (Memory*)(state_of(blocks, slot) + KEPT * BINS * sizeof(float));
}

// Readies the joint's input of a decoded frame of an item: ReLU(encoder + predictor).
__device__ __forceinline__ void join(
    const Item& item, int frame, const float* encoded, const float* predicted, real* joint
) {
    const float* row = encoded + (u64)(item.row + item.decode + frame) * JOINT;
    for (int i = threadIdx.x; i < JOINT; i += blockDim.x) joint[i] = narrow(positive(row[i] + predicted[i]));
}

// Brings the items' state into the batch: `hidden` [items][PRED_LAYERS * PRED], `cell` the same, `predicted`
// [items][JOINT], `joint` [items][span][JOINT]. A fresh item takes the state after a first blank, `start`. One item a
// block.
extern "C" __global__ void __launch_bounds__(DECODE_THREADS) decode_begin(
    const Item* items, const Counts* counts, const u64* blocks, const Memory* start, const float* encoded,
    Cursor* cursors, real* hidden, float* cell, float* predicted, real* joint, Results* results
) {
    if (blockIdx.x >= counts->items) return;
    __shared__ Cursor cursor;
    const Item& item = items[blockIdx.x];
    const Memory* memory = item.fresh ? start : memory_of(blocks, item.slot);
    if (threadIdx.x == 0) {
        int jump = item.fresh ? 0 : memory->jump;
        cursor = Cursor{jump, -1, 0, -1, jump < item.decoded, item.fresh ? 0 : memory->phrase};
        cursors[blockIdx.x] = cursor;
        if (cursor.active) atomicAdd(&results->active, 1);
    }
    __syncthreads();
    const float* h = &memory->hidden[0][0];
    const float* c = &memory->cell[0][0];
    for (int i = threadIdx.x; i < PRED_LAYERS * PRED; i += blockDim.x) {
        hidden[(u64)blockIdx.x * PRED_LAYERS * PRED + i] = narrow(h[i]);
        cell[(u64)blockIdx.x * PRED_LAYERS * PRED + i] = c[i];
    }
    for (int i = threadIdx.x; i < JOINT; i += blockDim.x) predicted[(u64)blockIdx.x * JOINT + i] = memory->predicted[i];
    const int span = counts->joints / counts->items;
    for (int frame = cursor.frame; frame < min(cursor.frame + span, item.decoded); frame++) {
        const u64 row = (u64)blockIdx.x * span + (frame - cursor.frame);
        join(item, frame, encoded, memory->predicted, joint + row * JOINT);
    }
}

// The largest value, the first of equals, and the second largest.
struct Best {
    float value;
    int index;
    float second;
};

__device__ __forceinline__ Best better(const Best& a, const Best& b) {
    bool first = a.value > b.value || (a.value == b.value && a.index < b.index);
    const Best& winner = first ? a : b;
    const Best& loser = first ? b : a;
    return Best{winner.value, winner.index, fmaxf(winner.second, loser.value)};
}

__device__ __forceinline__ Best best_of_warp(Best best) {
    for (int lane = 16; lane > 0; lane /= 2) {
        Best other;
        other.value = __shfl_xor_sync(0xffffffffu, best.value, lane);
        other.index = __shfl_xor_sync(0xffffffffu, best.index, lane);
        other.second = __shfl_xor_sync(0xffffffffu, best.second, lane);
        best = better(best, other);
    }
    return best;
}

// Of every `step`th pack of four from `from` on, by a warp.
__device__ __forceinline__ Best best_of(const float* values, int count, int from, int step) {
    Best best{-__int_as_float(0x7f800000), 0x7fffffff, -__int_as_float(0x7f800000)};
#pragma unroll 4
    for (int i = 4 * from; i < count; i += 4 * step) {
        const Floats<4> pack = load_floats<4>(values + i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (i + j >= count) break;
            // What isn't a number is no candidate: it is greater than nothing, and no maximum is it.
            const float value = pack.values[j];
            const bool greater = value > best.value;
            best.second = fmaxf(best.second, greater ? best.value : value);
            best.index = greater ? i + j : best.index;
            best.value = greater ? value : best.value;
        }
    }
    return best_of_warp(best);
}

// Has phrases choose which piece is said in this state, where one is: the first of the largest sums of logit and what they add for
// it, where pieces that are less likely than blank count only if a phrase goes on with them. `phrases` are words as `memory/phrases.rs` writes them. By a block, each of whose threads has the result.
__device__ __forceinline__ void choose(const float* row, const u32* phrases, int state, Pick& pick) {
    __shared__ Best sums[WARPS];
    __shared__ int next;
    Best best{-__int_as_float(0x7f800000), 0x7fffffff, -__int_as_float(0x7f800000)};
    const float blank = row[BLANK];
    for (int i = threadIdx.x; i < VOCABULARY; i += blockDim.x) {
        const float value = row[i], sum = value + __uint_as_float(phrases[i]);
        if (value >= blank && sum > best.value) best = Best{sum, i, best.second};
    }
    // A state adds no less than the root, so it doesn't matter that a piece comes twice.
    const u32* first = phrases + 2 * VOCABULARY + state;
    const u32 from = first[0] + 3 * threadIdx.x, end = first[1];
    for (u32 at = from; at < end; at += 3 * blockDim.x) {
        const int piece = (int)phrases[at];
        const float sum = row[piece] + __uint_as_float(phrases[at + 1]);
        if (sum > best.value || (sum == best.value && piece < best.index)) best = Best{sum, piece, best.second};
    }
    best = best_of_warp(best);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = best;
    __syncthreads();
    best = sums[0];
    for (int i = 1; i < WARPS; i++) best = better(best, sums[i]);
    if (threadIdx.x == 0) next = (int)phrases[VOCABULARY + best.index];
    __syncthreads();
    for (u32 at = from; at < end; at += 3 * blockDim.x) {
        if ((int)phrases[at] == best.index) next = (int)phrases[at + 2];
    }
    __syncthreads();
    pick.phrase = next;
    if (best.index == pick.label) return;
    const float value = row[best.index];
    pick.label = best.index;
    pick.margin = value - pick.value;
    pick.below = pick.value - value;
}

// What a frame's logits say where the text is in `state` of `phrases`, if there are any; by a block, each of whose threads has
// the result.
__device__ __forceinline__ Pick pick(const float* row, const u32* phrases, int state) {
    __shared__ Best bests[WARPS];
    Best best = best_of(row, VOCABULARY + 1, threadIdx.x, blockDim.x);
    if (threadIdx.x % 32 == 0) bests[threadIdx.x / 32] = best;
    __syncthreads();
    best = bests[0];
    for (int i = 1; i < WARPS; i++) best = better(best, bests[i]);
    Pick pick;
    // No candidate, or one that is infinite: the precision doesn't hold the model's numbers.
    pick.label = best.index > BLANK || best.value == __int_as_float(0x7f800000) ? LOST : best.index;
    pick.value = best.value;
    pick.margin = best.value - best.second;
    pick.below = 0.0f;
    pick.phrase = state;
    pick.duration = 0;
    pick.duration_margin = __int_as_float(0x7f800000);
#if DURATIONS > 0
    const int values[DURATIONS] = DURATION_VALUES;
    float longest = -__int_as_float(0x7f800000), second = longest;
    int place = 0;
#pragma unroll
    for (int i = 0; i < DURATIONS; i++) {
        const float value = row[BLANK + 1 + i];
        const bool greater = value > longest;
        second = fmaxf(second, greater ? longest : value);
        place = greater ? i : place;
        longest = greater ? value : longest;
    }
    pick.duration = values[place];
    pick.duration_margin = longest - second;
#endif
    if (phrases != nullptr && pick.label != LOST && pick.label != BLANK) choose(row, phrases, state, pick);
    return pick;
}

// Picks of all frames that are looked at, `picks` [items][span] from `logits` [items][span][LOGITS]. One a block.
extern "C" __global__ void __launch_bounds__(DECODE_THREADS) rank(
    const Item* items, const Counts* counts, const float* logits, const Cursor* cursors, int span, Pick* picks
) {
    const int item = blockIdx.x / span;
    if (item >= counts->items) return;
    const Cursor& cursor = cursors[item];
    if (!cursor.active || cursor.frame + (int)blockIdx.x % span >= items[item].decoded) return;
    const u32* phrases = (const u32*)items[item].phrases;
    const Pick found = pick(logits + (u64)blockIdx.x * LOGITS, phrases, cursor.phrase);
    if (threadIdx.x == 0) picks[blockIdx.x] = found;
}

// One decision of each active item: the first token in its span, or that there is none, and where it goes from there. An
// item whose logits are no numbers is through. One item a block.
extern "C" __global__ void __launch_bounds__(DECODE_THREADS) decide(
    const Item* items, const Counts* counts, const float* logits, const Pick* picks, int span, Cursor* cursors,
    Results* results, Emission* tokens, int capacity
) {
    if (blockIdx.x >= counts->items) return;
    __shared__ double sums[WARPS], powers[WARPS];
    __shared__ int kept;
    Cursor& cursor = cursors[blockIdx.x];
    const int first = cursor.frame, phrase = cursor.phrase;
    if (!cursor.active) {
        if (threadIdx.x == 0) cursor.label = -1;
        return;
    }
    // The first thread changes it.
    __syncthreads();
    const int warp = threadIdx.x / 32, decoded = items[blockIdx.x].decoded;
    const u32* phrases = (const u32*)items[blockIdx.x].phrases;
    int frame = first;
    Pick best;
    const float* row;
    for (;;) {
        const u64 at = (u64)blockIdx.x * span + (frame - first);
        row = logits + at * LOGITS;
        best = span > 1 ? picks[at] : pick(row, phrases, phrase);
        if (best.label != BLANK) break;
        frame += max(best.duration, 1);
        if (frame < decoded && frame < first + span) continue;
        if (threadIdx.x == 0) {
            cursor.frame = frame;
            cursor.label = -1;
            cursor.active = frame < decoded;
            if (!cursor.active) atomicSub(&results->active, 1);
        }
        return;
    }
    // The compiler may put what comes where `pick` has its values.
    __syncthreads();
    // Thousands of small terms would be lost beside the largest in single precision.
    double sum = 0.0, power = 0.0;
#pragma unroll 4
    for (int i = 4 * threadIdx.x; i <= BLANK; i += 4 * blockDim.x) {
        const Floats<4> pack = load_floats<4>(row + i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (i + j > BLANK) break;
            const float below = pack.values[j] - best.value;
            sum += (double)expf(below);
            power += (double)expf((float)ENTROPY_ALPHA * below);
        }
    }
    for (int lane = 16; lane > 0; lane /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, lane);
        power += __shfl_xor_sync(0xffffffffu, power, lane);
    }
    if (threadIdx.x % 32 == 0) {
        sums[warp] = sum;
        powers[warp] = power;
    }
    if (threadIdx.x == 0) kept = atomicAdd(&results->tokens, 1);
    __syncthreads();
    if (threadIdx.x != 0) return;
    if (kept >= capacity) {
        // Decided again once the host has made room.
        cursor.frame = frame;
        cursor.label = -1;
        return;
    }
    if (best.label == LOST) {
        tokens[kept] = Emission{(int)blockIdx.x, LOST, frame};
        cursor.label = -1;
        cursor.active = 0;
        atomicSub(&results->active, 1);
        return;
    }
    sum = power = 0.0;
    for (int i = 0; i < WARPS; i++) {
        sum += sums[i];
        power += powers[i];
    }
    // NeMo's confidence: Tsallis entropy of the softmax, exponentially normalised.
    const double rest = 1.0 - ENTROPY_ALPHA;
    double least = exp((1.0 - pow(VOCABULARY + 1.0, rest)) / rest);
    double confidence = (exp((1.0 - power / pow(sum, ENTROPY_ALPHA)) / rest) - least) / (1.0 - least);
    tokens[kept] = Emission{
        (int)blockIdx.x, best.label, frame, best.duration, (float)-log(sum) - best.below,
        fminf(fmaxf((float)confidence, 0.0f), 1.0f), best.margin, best.duration_margin,
    };
    cursor.emitted = cursor.last == frame ? cursor.emitted + 1 : 1;
    cursor.last = frame;
    cursor.frame = frame + best.duration;
    if (cursor.frame < decoded && cursor.frame == frame && cursor.emitted >= MAX_SYMBOLS) cursor.frame += 1;
    cursor.label = best.label;
    cursor.phrase = best.phrase;
    cursor.active = cursor.frame < decoded;
    if (!cursor.active) atomicSub(&results->active, 1);
}

// The LSTM cell of layer `layer` for the items that emitted: `gates` [items][4 * PRED] (i, f, g, o) of the product, to
// which the first layer adds `table` [VOCABULARY + 1][4 * PRED] and the others `table` [4 * PRED]. One item a block.
extern "C" __global__ void __launch_bounds__(DECODE_THREADS) lstm_cell(
    const Counts* counts, const Cursor* cursors, const float* gates, const float* table, int layer, real* hidden,
    float* cell
) {
    if (blockIdx.x >= counts->items) return;
    int label = cursors[blockIdx.x].label;
    if (label < 0) return;
    const float* product = gates + (u64)blockIdx.x * 4 * PRED;
    const float* input = table + (layer == 0 ? (u64)label * 4 * PRED : 0);
    u64 state = ((u64)blockIdx.x * PRED_LAYERS + layer) * PRED;
    for (int i = threadIdx.x; i < PRED; i += blockDim.x) {
        float in = product[i] + input[i];
        float forget = product[PRED + i] + input[PRED + i];
        float candidate = product[2 * PRED + i] + input[2 * PRED + i];
        float out = product[3 * PRED + i] + input[3 * PRED + i];
        float value = cell[state + i] / (1.0f + expf(-forget)) + tanhf(candidate) / (1.0f + expf(-in));
        cell[state + i] = value;
        hidden[state + i] = narrow(tanhf(value) / (1.0f + expf(-out)));
    }
}

// Takes the predictor's new output where an item emitted and readies the joint for the next iteration. `fresh`
// [items][JOINT]. One frame of an item a block: grid (items, span).
extern "C" __global__ void __launch_bounds__(DECODE_THREADS) look(
    const Item* items, const Counts* counts, const Cursor* cursors, const float* encoded, const float* fresh,
    float* predicted, real* joint
) {
    if (blockIdx.x >= counts->items) return;
    const Cursor cursor = cursors[blockIdx.x];
    const u64 at = (u64)blockIdx.x * JOINT;
    const bool emitted = cursor.label >= 0;
    if (emitted && blockIdx.y == 0) {
        for (int i = threadIdx.x; i < JOINT; i += blockDim.x) predicted[at + i] = fresh[at + i];
    }
    const Item& item = items[blockIdx.x];
    const int frame = cursor.frame + blockIdx.y;
    if (!cursor.active || frame >= item.decoded) return;
    const u64 row = (u64)blockIdx.x * gridDim.y + blockIdx.y;
    join(item, frame, encoded, (emitted ? fresh : predicted) + at, joint + row * JOINT);
}

// Gives the items' state back to their slots. One item a block.
extern "C" __global__ void __launch_bounds__(DECODE_THREADS) decode_end(
    const Item* items, const Counts* counts, const u64* blocks, const Cursor* cursors, const real* hidden,
    const float* cell, const float* predicted
) {
    if (blockIdx.x >= counts->items) return;
    const Item& item = items[blockIdx.x];
    Memory* memory = memory_of(blocks, item.slot);
    float* h = &memory->hidden[0][0];
    float* c = &memory->cell[0][0];
    for (int i = threadIdx.x; i < PRED_LAYERS * PRED; i += blockDim.x) {
        h[i] = widen(hidden[(u64)blockIdx.x * PRED_LAYERS * PRED + i]);
        c[i] = cell[(u64)blockIdx.x * PRED_LAYERS * PRED + i];
    }
    for (int i = threadIdx.x; i < JOINT; i += blockDim.x) memory->predicted[i] = predicted[(u64)blockIdx.x * JOINT + i];
    if (threadIdx.x == 0) {
        memory->jump = cursors[blockIdx.x].frame - item.decoded;
        memory->phrase = cursors[blockIdx.x].phrase;
    }
}

// Puts the state of one item, as `lstm_cell` left it, where fresh items find it. One block.
extern "C" __global__ void __launch_bounds__(DECODE_THREADS) keep_start(const real* hidden, const float* cell, const float* predicted, Memory* start) {
    for (int i = threadIdx.x; i < PRED_LAYERS * PRED; i += blockDim.x) {
        (&start->hidden[0][0])[i] = widen(hidden[i]);
        (&start->cell[0][0])[i] = cell[i];
    }
    for (int i = threadIdx.x; i < JOINT; i += blockDim.x) start->predicted[i] = predicted[i];
    if (threadIdx.x == 0) start->jump = start->phrase = 0;
}
