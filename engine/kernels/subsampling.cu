// SPDX-License-Identifier: MPL-2.0
// The convolutions of the 8x `dw_striding` subsampling (NeMo ConvSubsampling): kernel 3 and stride 2 on time and bins.
// Positions before a stream's first and from its last on are zeros at every level, not the ReLU of a bias.
//   PAD              positions of padding before, 2 where causal, else 1
//   CHANNELS         channels
//   BINS1 BINS2 BINS3  bins of the three levels
//   PARTS            blocks that share the bins of a position

// Columns of zeros beside the bins, so that the kernel needs no bounds there.
#define MARGIN 4

// First level, ReLU and depthwise part of the second. A block computes a part of the bins of one position, a thread two
// channels at a time. `taps1`, `taps2` [9][CHANNELS]; `mel` [frames][BINS]; `out` [positions][BINS2][CHANNELS].
extern "C" __global__ void __launch_bounds__(SUBSAMPLE_FIRST_THREADS) subsample_first(
    const Item* items, const Counts* counts, const Place* places, const float* mel, const float* taps1,
    const float* bias1, const float* taps2, const float* bias2, real* out
) {
    if (blockIdx.x >= counts->positions) return;
    __shared__ float window[7][BINS + 2 * MARGIN];
    Place place = places[blockIdx.x];
    const Item& item = items[place.item];
    int position = item.position_first + place.index;
    int first = 2 * position - PAD;
    for (int i = threadIdx.x; i < 7 * (BINS + 2 * MARGIN); i += blockDim.x) {
        int row = i / (BINS + 2 * MARGIN), bin = i % (BINS + 2 * MARGIN) - MARGIN, frame = 2 * first - PAD + row;
        bool there = frame >= 0 && frame < item.mel_total && bin >= 0 && bin < BINS;
        window[row][bin + MARGIN] = there ? mel[(u64)(item.mel + frame - item.mel_first) * BINS + bin] : 0.0f;
    }
    __syncthreads();
    int from = BINS2 * blockIdx.y / PARTS, to = BINS2 * (blockIdx.y + 1) / PARTS;
    bool there[3];
#pragma unroll
    for (int row = 0; row < 3; row++) there[row] = first + row >= 0 && first + row < item.total1;
    for (int channel = 2 * threadIdx.x; channel < CHANNELS; channel += 2 * blockDim.x) {
        // The last of an odd number is computed twice.
        int pair[2] = {channel, min(channel + 1, CHANNELS - 1)};
        float inner[9][2], outer[9][2], b1[2], b2[2];
#pragma unroll
        for (int c = 0; c < 2; c++) {
#pragma unroll
            for (int tap = 0; tap < 9; tap++) {
                inner[tap][c] = taps1[tap * CHANNELS + pair[c]];
                outer[tap][c] = taps2[tap * CHANNELS + pair[c]];
            }
            b1[c] = bias1[pair[c]];
            b2[c] = bias2[pair[c]];
        }
        // The three columns of the first level under the kernel; two of them are new for each bin.
        float columns[3][3][2];
        auto column = [&](int bin, float (&values)[3][2]) {
            bool inside = bin >= 0 && bin < BINS1;
            int at = inside ? 2 * bin - PAD + MARGIN : MARGIN;
#pragma unroll
            for (int row = 0; row < 3; row++) {
                float sum[2] = {b1[0], b1[1]};
#pragma unroll
                for (int tap = 0; tap < 9; tap++) {
                    float value = window[2 * row + tap / 3][at + tap % 3];
                    sum[0] += inner[tap][0] * value;
                    sum[1] += inner[tap][1] * value;
                }
#pragma unroll
                for (int c = 0; c < 2; c++) values[row][c] = inside && there[row] ? positive(sum[c]) : 0.0f;
            }
        };
        column(2 * from - PAD, columns[2]);
        for (int bin = from; bin < to; bin++) {
#pragma unroll
            for (int row = 0; row < 3; row++) {
                columns[0][row][0] = columns[2][row][0];
                columns[0][row][1] = columns[2][row][1];
            }
            column(2 * bin - PAD + 1, columns[1]);
            column(2 * bin - PAD + 2, columns[2]);
#pragma unroll
            for (int c = 0; c < 2; c++) {
                float sum = b2[c];
#pragma unroll
                for (int tap = 0; tap < 9; tap++) sum += outer[tap][c] * columns[tap % 3][tap / 3][c];
                out[((u64)blockIdx.x * BINS2 + bin) * CHANNELS + pair[c]] = narrow(sum);
            }
        }
    }
}

// Depthwise part of the third level. A block computes a part of the bins of one row. `in` [positions][BINS2][CHANNELS],
// `out` [rows][BINS3][CHANNELS].
extern "C" __global__ void __launch_bounds__(SUBSAMPLE_SECOND_THREADS) subsample_second(
    const Item* items, const Counts* counts, const Place* places, const real* in, const float* taps,
    const float* bias, real* out
) {
    if (blockIdx.x >= counts->rows) return;
    Place place = places[blockIdx.x];
    const Item& item = items[place.item];
    int first = 2 * (item.first + place.index) - PAD;
    int from = BINS3 * blockIdx.y / PARTS, to = BINS3 * (blockIdx.y + 1) / PARTS;
    for (int channel = threadIdx.x; channel < CHANNELS; channel += blockDim.x) {
        float weights[9];
#pragma unroll
        for (int tap = 0; tap < 9; tap++) weights[tap] = taps[tap * CHANNELS + channel];
        float b = bias[channel];
        for (int bin = from; bin < to; bin++) {
            float sum = b;
#pragma unroll
            for (int tap = 0; tap < 9; tap++) {
                int at = first + tap / 3, column = 2 * bin - PAD + tap % 3;
                if (at < 0 || at >= item.total2 || column < 0 || column >= BINS2) continue;
                u64 row = (u64)(item.position + at - item.position_first) * BINS2 + column;
                sum += weights[tap] * widen(in[row * CHANNELS + channel]);
            }
            out[((u64)blockIdx.x * BINS3 + bin) * CHANNELS + channel] = narrow(sum);
        }
    }
}
