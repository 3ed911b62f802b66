// SPDX-License-Identifier: MPL-2.0
// Log-mel features, NeMo's FilterbankFeatures: frame t is centred on sample HOP t and sees HANN / 2 samples on either side,
// zeros outside the signal. In double precision up to the power spectrum, as the CPU backend computes it.
//   HOP HANN FFT     samples from frame to frame, of a window and of a transform
//   PREEMPHASIS      what of a sample is taken from the next
//   LOG_GUARD        NeMo's log_zero_guard_value
//   DEVIATION_GUARD  what is added to a bin's deviation
//   NORMALIZE_BINS   bins that a block of `mel_normalize` takes

#define NORMALIZE_ROWS (NORMALIZE_THREADS / NORMALIZE_BINS)
// Bits of an index into half a transform, to be reversed.
#define FFT_BITS 8
static_assert(FFT / 2 == 1 << FFT_BITS && MEL_THREADS == FFT / 4, "a thread does one butterfly of a transform");

// Sample `at` of an item's signal with pre-emphasis, 0 outside the signal. Samples are counted modulo 2^32, which is a day
// or three: only how far they are from those at hand matters.
__device__ __forceinline__ float emphasised(const Item& item, const float* pcm, u32 at) {
    int index = (int)(at - (u32)item.pcm_first);
    if (index < 0 || index >= item.samples) return 0.0f;
    float x = pcm[item.pcm + index];
    // A signal's first sample has none before it; in a later step nobody sees the first that is at hand.
    if (index == 0) return x;
    return __fsub_rn(x, __fmul_rn(PREEMPHASIS, pcm[item.pcm + index - 1]));
}

// One frame a block. `hann` [HANN]; `roots` [FFT / 2] exp(-2 pi i k / FFT); `filters` [BINS] first bin
// and number of weights of each triangle, its weights from `offsets` on in `weights`. `out` [frames][BINS].
extern "C" __global__ void __launch_bounds__(MEL_THREADS) mel_frames(
    const Item* items, const Counts* counts, const Place* places, const float* pcm, const double* hann,
    const double2* roots, const int2* filters, const int* offsets, const float* weights, float* out
) {
    if (blockIdx.x >= counts->mels) return;
    // Real samples, two by two as complex ones: a transform of half the size.
    __shared__ double2 data[FFT / 2];
    __shared__ float power[FFT / 2 + 1];
    Place place = places[blockIdx.x];
    const Item& item = items[place.item];
    int frame = item.mel_first + item.mel_old + place.index;
    for (int n = threadIdx.x; n < FFT / 2; n += MEL_THREADS) {
        double2 value = make_double2(0.0, 0.0);
        int m = 2 * n - (FFT - HANN) / 2;
        if (m >= 0 && m < HANN) {
            u32 at = (u32)frame * HOP - HANN / 2 + m;
            value.x = (double)emphasised(item, pcm, at) * hann[m];
            value.y = (double)emphasised(item, pcm, at + 1) * hann[m + 1];
        }
        data[__brev(n) >> (32 - FFT_BITS)] = value;
    }
    __syncthreads();
    for (int half = 1; half < FFT / 2; half *= 2) {
        int k = threadIdx.x % half;
        int low = (threadIdx.x - k) * 2 + k;
        double2 root = roots[k * (FFT / 2 / half)];
        double2 a = data[low], b = data[low + half];
        double2 turned = make_double2(b.x * root.x - b.y * root.y, b.x * root.y + b.y * root.x);
        data[low] = make_double2(a.x + turned.x, a.y + turned.y);
        data[low + half] = make_double2(a.x - turned.x, a.y - turned.y);
        __syncthreads();
    }
    for (int k = threadIdx.x; k <= FFT / 2; k += MEL_THREADS) {
        // The spectra of the even and of the odd samples, then of all.
        double2 z = data[k % (FFT / 2)], mirrored = data[(FFT / 2 - k) % (FFT / 2)];
        double2 even = make_double2(0.5 * (z.x + mirrored.x), 0.5 * (z.y - mirrored.y));
        double2 odd = make_double2(0.5 * (z.y + mirrored.y), 0.5 * (mirrored.x - z.x));
        double2 root = k == FFT / 2 ? make_double2(-1.0, 0.0) : roots[k];
        double re = even.x + odd.x * root.x - odd.y * root.y;
        double im = even.y + odd.x * root.y + odd.y * root.x;
        power[k] = (float)(re * re + im * im);
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < BINS; bin += MEL_THREADS) {
        int2 filter = filters[bin];
        const float* weight = weights + offsets[bin];
        float energy = 0.0f;
        for (int i = 0; i < filter.y; i++) energy = __fadd_rn(energy, __fmul_rn(weight[i], power[filter.x + i]));
        out[(u64)(item.mel + item.mel_old + place.index) * BINS + bin] = logf(energy + LOG_GUARD);
    }
}

// Puts the frames that a slot kept before an item's new ones, then keeps its last ones. One item a block.
extern "C" __global__ void __launch_bounds__(HISTORY_THREADS) mel_history(const Item* items, const Counts* counts, const u64* blocks, float* mel) {
    if (blockIdx.x >= counts->items) return;
    const Item& item = items[blockIdx.x];
    float* kept = (float*)state_of(blocks, item.slot);
    float* frames = mel + (u64)item.mel * BINS;
    for (int i = threadIdx.x; i < item.mel_old * BINS; i += HISTORY_THREADS) frames[i] = kept[i];
    __syncthreads();
    const float* last = frames + (item.mel_old + item.mel_new - item.mel_keep) * BINS;
    for (int i = threadIdx.x; i < item.mel_keep * BINS; i += HISTORY_THREADS) kept[i] = last[i];
}

// Sums of what the threads of a column of NORMALIZE_ROWS x NORMALIZE_BINS have.
__device__ __forceinline__ double sum_of_column(double x) {
    __shared__ double sums[NORMALIZE_ROWS][NORMALIZE_BINS];
    __syncthreads();
    sums[threadIdx.x / NORMALIZE_BINS][threadIdx.x % NORMALIZE_BINS] = x;
    __syncthreads();
    double sum = 0.0;
    for (int i = 0; i < NORMALIZE_ROWS; i++) sum += sums[i][threadIdx.x % NORMALIZE_BINS];
    return sum;
}

// NeMo's per_feature: subtracts each bin's mean and divides by its deviation (N - 1) plus DEVIATION_GUARD, over all
// frames of an item. NORMALIZE_BINS bins of an item a block: grid (items, ceil(BINS / NORMALIZE_BINS)).
extern "C" __global__ void __launch_bounds__(NORMALIZE_THREADS) mel_normalize(const Item* items, const Counts* counts, float* mel) {
    if (blockIdx.x >= counts->items) return;
    const Item& item = items[blockIdx.x];
    const int bin = blockIdx.y * NORMALIZE_BINS + threadIdx.x % NORMALIZE_BINS, first = threadIdx.x / NORMALIZE_BINS;
    const int count = bin < BINS ? item.mel_old + item.mel_new : 0;
    float* const values = mel + (u64)item.mel * BINS + bin;
    double sum = 0.0;
#pragma unroll 4
    for (int t = first; t < count; t += NORMALIZE_ROWS) sum += (double)values[(u64)t * BINS];
    const double mean = sum_of_column(sum) / (double)count;
    double square = 0.0;
#pragma unroll 4
    for (int t = first; t < count; t += NORMALIZE_ROWS) {
        const double distance = (double)values[(u64)t * BINS] - mean;
        square += distance * distance;
    }
    square = sum_of_column(square);
    // One frame has no deviation: NeMo turns the resulting NaN into 0.
    const double deviation = (count > 1 ? sqrt(square / (double)(count - 1)) : 0.0) + DEVIATION_GUARD;
#pragma unroll 4
    for (int t = first; t < count; t += NORMALIZE_ROWS) {
        values[(u64)t * BINS] = (float)(((double)values[(u64)t * BINS] - mean) / deviation);
    }
}
