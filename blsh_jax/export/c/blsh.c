#include "blsh.h"

#include <math.h>
#include <string.h>

#include "blsh_model.h"

#define HALF (BLSH_WINDOW / 2)

/* The bits of a magnitude, whose order is that of magnitudes, infinity and NaN last. */
static uint32_t order(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffffu;
}

/* A sample, or silence for one that is too quiet to count or would spoil all that follow. Compared
 * by bits, as -ffast-math knows no NaN. */
static float usable(float sample)
{
    uint32_t magnitude = order(sample);
    return order(BLSH_QUIETEST) <= magnitude && magnitude <= order(BLSH_LOUDEST) ? sample : 0.0f;
}

static void swap(float *a, float *b)
{
    float kept = *a;
    *a = *b;
    *b = kept;
}

/* Complex transform of HALF points in place, z = real, imaginary, real, ... */
static void transform(float *z)
{
    for (int i = 1, j = 0; i < HALF; i++) {
        int bit = HALF >> 1;
        for (; j & bit; bit >>= 1)
            j ^= bit;
        j |= bit;
        if (i < j) {
            swap(&z[2 * i], &z[2 * j]);
            swap(&z[2 * i + 1], &z[2 * j + 1]);
        }
    }
    for (int size = 2; size <= HALF; size <<= 1) {
        int stride = BLSH_WINDOW / size;
        for (int start = 0; start < HALF; start += size) {
            for (int k = 0; k < size / 2; k++) {
                const float *w = blsh_twiddles[k * stride];
                float *a = &z[2 * (start + k)], *b = &z[2 * (start + k + size / 2)];
                float real = b[0] * w[0] - b[1] * w[1];
                float imag = b[0] * w[1] + b[1] * w[0];
                b[0] = a[0] - real;
                b[1] = a[1] - imag;
                a[0] += real;
                a[1] += imag;
            }
        }
    }
}

/* Even and odd samples went through one complex transform: take their spectra apart, join them.
 * x holds BLSH_WINDOW samples and becomes BLSH_BINS complex bins. */
static void real_transform(float *x)
{
    transform(x);
    x[BLSH_WINDOW] = x[0];
    x[BLSH_WINDOW + 1] = x[1];
    for (int k = 0; k <= HALF / 2; k++) {
        float *a = &x[2 * k], *b = &x[2 * (HALF - k)];
        const float *w = blsh_twiddles[k];
        float even_real = 0.5f * (a[0] + b[0]), even_imag = 0.5f * (a[1] - b[1]);
        float odd_real = 0.5f * (a[1] + b[1]), odd_imag = 0.5f * (b[0] - a[0]);
        float real = odd_real * w[0] - odd_imag * w[1];
        float imag = odd_real * w[1] + odd_imag * w[0];
        a[0] = even_real + real;
        a[1] = even_imag + imag;
        b[0] = even_real - real;
        b[1] = imag - even_imag;
    }
}

/* The inverse of real_transform. */
static void inverse_transform(float *x)
{
    const float scale = 1.0f / HALF;
    for (int k = 0; k <= HALF / 2; k++) {
        float *a = &x[2 * k], *b = &x[2 * (HALF - k)];
        const float *w = blsh_twiddles[k];
        float even_real = 0.5f * (a[0] + b[0]), even_imag = 0.5f * (a[1] - b[1]);
        float real = 0.5f * (a[0] - b[0]), imag = 0.5f * (a[1] + b[1]);
        float odd_real = real * w[0] + imag * w[1], odd_imag = imag * w[0] - real * w[1];
        /* Conjugated, as the inverse is the conjugate of the transform of the conjugate. */
        a[0] = even_real - odd_imag;
        a[1] = -(even_imag + odd_real);
        b[0] = even_real + odd_imag;
        b[1] = even_imag - odd_real;
    }
    transform(x);
    for (int k = 0; k < HALF; k++) {
        x[2 * k] *= scale;
        x[2 * k + 1] *= -scale;
    }
}

#if BLSH_MEL || BLSH_LEVELS || BLSH_VOICING
/* Magnitudes under the filters of a mel bank, whose weights lie one after another. */
static void filter(const float *magnitudes, const int16_t *first, const int16_t *end,
                   const float *weights, int count, float *bands)
{
    for (int m = 0; m < count; m++) {
        bands[m] = 0.0f;
        for (int f = first[m]; f < end[m]; f++)
            bands[m] += *weights++ * magnitudes[f];
    }
}
#endif

static float magnitude(const float *bin)
{
    return sqrtf(bin[0] * bin[0] + bin[1] * bin[1]);
}

/* Features of one frame: magnitudes, mel bands or log-mel bands. */
static void make_bands(const float *magnitudes, float *bands)
{
#if BLSH_MEL
    filter(magnitudes, blsh_mel_first, blsh_mel_end, blsh_mel_weights, BLSH_BANDS, bands);
#else
    memcpy(bands, magnitudes, BLSH_BANDS * sizeof *bands);
#endif
#if BLSH_LOG_MEL
    const float lowest = powf(10.0f, -BLSH_LOG_MEL_RANGE_DB / 20.0f);
    float peak = 0.0f;
    for (int m = 0; m < BLSH_BANDS; m++)
        peak = fmaxf(peak, bands[m]);
    for (int m = 0; m < BLSH_BANDS; m++)
        bands[m] = 20.0f * log10f(fmaxf(bands[m] / (peak > 0.0f ? peak : 1.0f), lowest)) +
                   BLSH_LOG_MEL_RANGE_DB;
#endif
}

/* Divides by the norm; scaled by the peak first, so that quiet frames do not underflow. */
static void normalize(const float *from, float *to, int count)
{
    float peak = 0.0f, sum = 0.0f;
    for (int d = 0; d < count; d++)
        peak = fmaxf(peak, fabsf(from[d]));
    for (int d = 0; d < count; d++) {
        to[d] = peak > 0.0f ? from[d] / peak : 0.0f;
        sum += to[d] * to[d];
    }
    for (int d = 0; d < count; d++)
        to[d] = sum > 0.0f ? to[d] / sqrtf(sum) : 0.0f;
}

#if BLSH_LEVELS
/* How far the bands of the frame in the middle of the context stand above the least of the past,
 * in dB. Frames whose window reaches into digital silence do not count. */
static void make_levels(float (*bands)[BLSH_LEVELS], float *levels)
{
    const int lead = BLSH_WINDOW / BLSH_HOP - 1, frames = BLSH_FLOOR_FRAMES + lead;
    int heard = 0, counted = 0;
    float floors[BLSH_LEVELS];
    for (int t = 0; t < frames; t++) {
        float peak = 0.0f;
        for (int m = 0; m < BLSH_LEVELS; m++)
            peak = fmaxf(peak, bands[t][m]);
        heard = peak > 0.0f ? heard + 1 : 0;
        if (t < lead || heard <= lead)
            continue;
        for (int m = 0; m < BLSH_LEVELS; m++)
            floors[m] = counted ? fminf(floors[m], bands[t][m]) : bands[t][m];
        counted = 1;
    }
    for (int m = 0; m < BLSH_LEVELS; m++) {
        float ratio = counted && floors[m] > 0.0f ? bands[frames - 1][m] / floors[m] : 1.0f;
        levels[m] = fminf(20.0f * log10f(fmaxf(ratio, 1.0f)), BLSH_LEVEL_RANGE_DB);
    }
}
#endif

#if BLSH_VOICING || BLSH_FERNS
/* cos(2 pi bin lag / window), the comb of a voice whose period is the lag. */
static float tooth(int bin, int lag)
{
    int turn = bin * lag % BLSH_WINDOW;
    return turn < HALF ? blsh_twiddles[turn][0] : -blsh_twiddles[turn - HALF][0];
}

/* Fine structure of a spectrum, and the comb that it is most like. */
static void find_comb(blsh_state *state, const float *spectrum)
{
    float *root = state->work, *fine = state->fine, best = 0.0f;
    int pitch_lag = BLSH_FIRST_LAG;
    for (int f = 0; f < BLSH_BINS; f++)
        root[f] = sqrtf(magnitude(&spectrum[2 * f]));
    for (int f = 0; f < BLSH_BINS; f++) {
        float mean = 0.0f;
        for (int i = f - BLSH_NEARBY; i <= f + BLSH_NEARBY; i++)
            mean += root[i < 0 ? 0 : i < BLSH_BINS ? i : BLSH_BINS - 1];
        mean /= 2 * BLSH_NEARBY + 1;
        fine[f] = mean > 0.0f ? root[f] / mean - 1.0f : 0.0f;
    }
    for (int lag = BLSH_FIRST_LAG; lag < BLSH_END_LAG; lag++) {
        float likeness = 0.0f;
        for (int f = BLSH_FIRST_COMB_BIN; f < BLSH_END_COMB_BIN; f++)
            likeness += fine[f] * tooth(f, lag);
        if (lag == BLSH_FIRST_LAG || likeness > best) {
            best = likeness;
            pitch_lag = lag;
        }
    }
    for (int f = 0; f < BLSH_BINS; f++)
        state->comb[f] = tooth(f, pitch_lag);
}

static const float *multiply(blsh_state *state, const float *a, const float *b)
{
    for (int f = 0; f < BLSH_BINS; f++)
        state->work[f] = a[f] * b[f];
    return state->work;
}
#endif

#if BLSH_VOICING
static void sum_bands(const float *products, float *sums)
{
    filter(products, blsh_voicing_first, blsh_voicing_end, blsh_voicing_weights, BLSH_VOICING,
           sums);
}

/* How far the spectrum is the comb of a voice, in each band. */
static void make_voicing(blsh_state *state, float *voicing)
{
    float fine_energy[BLSH_VOICING], comb_energy[BLSH_VOICING];
    sum_bands(multiply(state, state->fine, state->comb), voicing);
    sum_bands(multiply(state, state->fine, state->fine), fine_energy);
    sum_bands(multiply(state, state->comb, state->comb), comb_energy);
    for (int m = 0; m < BLSH_VOICING; m++) {
        float energies = fine_energy[m] * comb_energy[m];
        voicing[m] = energies > 0.0f ? voicing[m] / sqrtf(energies * BLSH_VOICING) : 0.0f;
    }
}
#endif

/* The unit vector that the frame in the middle of the context is compared by. */
static void make_features(blsh_state *state)
{
    normalize(state->bands[0], state->features, BLSH_SPECTRUM);
#if BLSH_LEVELS
    float *levels = state->features + BLSH_SPECTRUM;
    make_levels(state->levels, levels);
    normalize(levels, levels, BLSH_LEVELS);
#endif
#if BLSH_VOICING
    make_voicing(state, state->features + BLSH_SPECTRUM + BLSH_LEVELS);
#endif
#if BLSH_LEVELS || BLSH_VOICING
    normalize(state->features, state->features, BLSH_FEATURES);
#endif
}

/* One bit for each hyperplane: on which side the frame lies. */
static void encode(const float *features, uint32_t *code)
{
    memset(code, 0, BLSH_WORDS * sizeof *code);
    for (int l = 0; l < BLSH_BITS; l++) {
        float activation = 0.0f;
        for (int d = 0; d < BLSH_FEATURES; d++)
            activation += blsh_projections[l][d] * features[d];
        if (activation + blsh_biases[l] >= 0.0f)
            code[l / 32] |= (uint32_t)1 << (l % 32);
    }
}

/* Where the compiler can, the search is compiled a second time for processors with an instruction
 * that counts bits, and which of the two runs is chosen on the device. */
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__)) && !defined(__POPCNT__)
#define INLINE static inline __attribute__((always_inline))
#define COUNTS_AT_RUN_TIME 1
#elif defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif
#if defined(__POPCNT__) || defined(__aarch64__) || defined(__ARM_NEON) || defined(__riscv_zbb)
#define COUNTS 1
#else
#define COUNTS 0
#endif

INLINE int count_bits(uint64_t word, int instruction)
{
#if defined(__GNUC__)
    if (instruction)
        return __builtin_popcountll(word);
#else
    (void)instruction;
#endif
    word -= word >> 1 & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
    return (int)(((word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
}

/* How many of 64 bits of a code differ, from its word w on. Words of all codes lie side by side. */
INLINE int count_differing(const uint32_t *code, int n, int w, int instruction)
{
    uint64_t differing = code[w] ^ blsh_codes[w][n];
    if (w + 1 < BLSH_WORDS)
        differing |= (uint64_t)(code[w + 1] ^ blsh_codes[w + 1][n]) << 32;
    return count_bits(differing, instruction);
}

/* The K codes at the smallest Hamming distance, ties to the lowest index. Bits come in order of
 * importance, so most codes are too far by their first words; where counting is one instruction,
 * the guess whether this one is takes longer than counting on. */
INLINE void search(const uint32_t *code, int *nearest, int instruction)
{
    int distances[BLSH_NEIGHBORS], found = 0, limit = 32 * BLSH_WORDS + 1;
    for (int n = 0; n < BLSH_FRAMES; n++) {
        int distance = count_differing(code, n, 0, instruction), place;
        for (int w = 2; w < BLSH_WORDS && (instruction || distance < limit); w += 2)
            distance += count_differing(code, n, w, instruction);
        if (distance >= limit)
            continue;
        if (found < BLSH_NEIGHBORS)
            found++;
        for (place = found - 1; place > 0 && distances[place - 1] > distance; place--) {
            distances[place] = distances[place - 1];
            nearest[place] = nearest[place - 1];
        }
        distances[place] = distance;
        nearest[place] = n;
        if (found == BLSH_NEIGHBORS)
            limit = distances[found - 1];
    }
}

#ifdef COUNTS_AT_RUN_TIME
__attribute__((target("popcnt"))) static void search_counting(const uint32_t *code, int *nearest)
{
    search(code, nearest, 1);
}
#endif

static void find_nearest(const uint32_t *code, int *nearest)
{
#ifdef COUNTS_AT_RUN_TIME
    if (__builtin_cpu_supports("popcnt")) {
        search_counting(code, nearest);
        return;
    }
#endif
    search(code, nearest, COUNTS);
}

/* The mean of the neighbours' masks in a bin. */
static float vote(const int *nearest, int f)
{
    int votes = 0;
    for (int k = 0; k < BLSH_NEIGHBORS; k++)
        votes += (int)(blsh_masks[nearest[k]][f / 32] >> (f % 32) & 1u);
    return (float)votes / BLSH_NEIGHBORS;
}

#if BLSH_TRACKING
struct told {
    float mask, noise, past_snr; /* joined; energy; log */
};

static float logistic(float log_odds)
{
    return 1.0f / (1.0f + expf(-log_odds));
}

static float noise_energy(const blsh_state *state, int f)
{
    float weight = state->noise_weight[f];
    float mean = state->noise_magnitude[f] / (weight > 0.0f ? weight : 1.0f);
    return mean * mean;
}

static float ratio(float energy, float noise)
{
    return noise > 0.0f ? energy / noise : 0.0f;
}

static float limited_log(float snr)
{
    return logf(fminf(fmaxf(snr, BLSH_LEAST_SNR), BLSH_MOST_SNR));
}

/* Joins the neighbours' mask of a bin with what the bin shows of its own noise: log-odds of
 * speech, the log of the signal-to-noise ratio, which the last frame's estimate goes into, and the
 * log of the same over the past. */
static struct told join(blsh_state *state, int f, float mask, float energy)
{
    struct told told;
    float presence = fminf(fmaxf(mask, 1.0f - BLSH_CERTAINTY), BLSH_CERTAINTY);
    float absence = 1.0f - presence;
    float heard = absence / (1.0f + BLSH_OUTLIERS * ratio(energy, noise_energy(state, f)));
    float weight = energy > 0.0f ? heard : 0.0f, snr, past;
    state->noise_magnitude[f] = BLSH_MEMORY * state->noise_magnitude[f] + weight * sqrtf(energy);
    state->noise_weight[f] = BLSH_MEMORY * state->noise_weight[f] + weight;
    told.noise = noise_energy(state, f);
    snr = BLSH_SPEECH_MEMORY * ratio(state->speech_energy[f], told.noise) +
          (1.0f - BLSH_SPEECH_MEMORY) * fmaxf(ratio(energy, told.noise) - 1.0f, 0.0f);
    past = state->past_rest[f] > 0.0f ? state->past_speech[f] / state->past_rest[f] : 1.0f;
    told.past_snr = limited_log(past);
    told.mask = logistic(blsh_prior_weight[f] + blsh_mask_weight[f] * logf(presence / absence) +
                         blsh_snr_weight[f] * limited_log(snr) +
                         blsh_past_snr_weight[f] * told.past_snr);
    state->speech_energy[f] = told.mask * told.mask * energy;
    state->past_speech[f] = BLSH_MEMORY * state->past_speech[f] + presence * presence * energy;
    state->past_rest[f] = BLSH_MEMORY * state->past_rest[f] + absence * absence * energy;
    return told;
}
#endif

#if BLSH_FERNS
/* The first bin at so many Hz or above. */
#define FIRST_BIN(hertz) \
    (((hertz) * BLSH_WINDOW + BLSH_SAMPLE_RATE - 1) / BLSH_SAMPLE_RATE < BLSH_BINS \
         ? ((hertz) * BLSH_WINDOW + BLSH_SAMPLE_RATE - 1) / BLSH_SAMPLE_RATE \
         : BLSH_BINS)

enum {
    LOW = FIRST_BIN(50),
    MIDDLE = FIRST_BIN(1000),
    HIGH = FIRST_BIN(3000),
    PITCHED = FIRST_BIN(60),
    PITCHED_END = FIRST_BIN(2000)
};

/* A byte is a value times the one, plus the other, rounded down. */
struct scale {
    float times, plus;
};
static const struct scale DECIBELS = {2.0f, 160.0f}, LOG_ODDS = {16.0f, 128.0f},
                          PART = {255.0f, 0.5f}, SIGNED = {127.0f, 127.5f}, FINE = {64.0f, 64.0f};

static const float MOST_RATIO = 1e5f, LEAST_RATIO = 1e-8f, MOST_DEVIATION = 20.0f;

/* Comparisons, as fminf and fmaxf are calls where NaN may come. */
static float limit(float value, float low, float high)
{
    return value < low ? low : value > high ? high : value;
}

static float decibels(float ratio)
{
    return 4.34294482f * logf(limit(ratio, LEAST_RATIO, MOST_RATIO)); /* 10 / log(10) */
}

static float log_odds(float mask)
{
    float presence = limit(mask, 0.01f, 0.99f);
    return logf(presence / (1.0f - presence));
}

/* 1 where there is no reference. */
static float limited_ratio(float value, float reference)
{
    float found = reference > 0.0f ? value / reference : 1.0f;
    return found < MOST_RATIO ? found : MOST_RATIO;
}

static void follow(float *mean, float memory, float now)
{
    *mean = memory * *mean + (1.0f - memory) * now;
}

/* The row of ratios of two rows. */
static const float *over(blsh_state *state, const float *values, const float *references)
{
    for (int f = 0; f < BLSH_BINS; f++)
        state->work[f] = limited_ratio(values[f], references[f]);
    return state->work;
}

static float mean(const float *values, int first, int end)
{
    float sum = 0.0f;
    for (int f = first; f < end; f++)
        sum += values[f];
    return end > first ? sum / (end - first) : 0.0f;
}

/* The means over each bin and so many on either side, the outermost ones repeated: sums of 1, 2,
 * 4, ... bins in a row, and those of them that make up the window. */
static const float *smooth(blsh_state *state, const float *values, int reach)
{
    const int window = 2 * reach + 1, padded = BLSH_BINS + 2 * reach;
    float *sums = state->sums, *means = state->smoothed;
    memcpy(sums + reach, values, BLSH_BINS * sizeof *sums);
    for (int i = 0; i < reach; i++) {
        sums[i] = values[0];
        sums[reach + BLSH_BINS + i] = values[BLSH_BINS - 1];
    }
    memset(means, 0, BLSH_BINS * sizeof *means);
    for (int length = 1, covered = 0; length <= window; length *= 2) {
        if (window & length) {
            for (int f = 0; f < BLSH_BINS; f++)
                means[f] += sums[f + covered];
            covered += length;
        }
        for (int f = 0; f < padded - length && 2 * length <= window; f++)
            sums[f] += sums[f + length];
    }
    for (int f = 0; f < BLSH_BINS; f++)
        means[f] /= window;
    return means;
}

static uint8_t byte(float value, struct scale scale)
{
    return (uint8_t)limit(value * scale.times + scale.plus, 0.0f, 255.0f);
}

static void put(uint8_t *to, const float *values, struct scale scale)
{
    for (int f = 0; f < BLSH_BINS; f++)
        to[f] = byte(values[f], scale);
}

/* The value so many bins above, at the ends that of the last. */
static void put_shifted(uint8_t *to, const float *values, int bins, struct scale scale)
{
    for (int f = 0; f < BLSH_BINS; f++) {
        int place = f + bins;
        to[f] = byte(values[place < 0 ? 0 : place < BLSH_BINS ? place : BLSH_BINS - 1], scale);
    }
}

static void put_one(uint8_t *to, float value, struct scale scale)
{
    memset(to, byte(value, scale), BLSH_BINS);
}

static void put_decibels(uint8_t *to, const float *ratios)
{
    for (int f = 0; f < BLSH_BINS; f++)
        to[f] = byte(decibels(ratios[f]), DECIBELS);
}

/* Likeness of the fine structure to the comb around each bin. */
static void make_voiced(blsh_state *state, float *voiced)
{
    const float *parts[2] = {state->fine, state->comb};
    const float *sums = smooth(state, multiply(state, parts[0], parts[1]), BLSH_VOICED_REACH);
    memcpy(voiced, sums, sizeof state->voiced[0]);
    for (int i = 0; i < 2; i++) {
        sums = smooth(state, multiply(state, parts[i], parts[i]), BLSH_VOICED_REACH);
        for (int f = 0; f < BLSH_BINS; f++)
            voiced[f] = sums[f] > 0.0f ? voiced[f] / sqrtf(sums[f]) : 0.0f;
    }
}

/* What the features of a frame are made of: the newest rows, speech presence, running means. */
static void follow_frame(blsh_state *state, const int *nearest, const float *spectrum)
{
    float *snr = state->snr[2], total = 0.0f;
    memmove(state->snr[0], state->snr[1], sizeof state->snr - sizeof state->snr[0]);
    memmove(state->ratio[0], state->ratio[1], sizeof state->ratio - sizeof state->ratio[0]);
    memmove(state->log_odds[0], state->log_odds[1],
            sizeof state->log_odds - sizeof state->log_odds[0]);
    memcpy(state->voiced[0], state->voiced[1], sizeof state->voiced[0]);
    make_voiced(state, state->voiced[1]);
    for (int f = 0; f < BLSH_BINS; f++) {
        const float *bin = &spectrum[2 * f];
        float energy = bin[0] * bin[0] + bin[1] * bin[1], mask = vote(nearest, f);
        struct told told = join(state, f, mask, energy);
        float ratio = limited_ratio(energy, told.noise), deviation, absence = 1.0f - told.mask;
        state->energy[f] = energy;
        total += energy;
        state->mask[f] = mask;
        state->joined[f] = told.mask;
        state->joined_odds[f] = log_odds(told.mask);
        state->past_snr[f] = told.past_snr;
        snr[f] = decibels(ratio);
        state->ratio[2][f] = ratio;
        state->log_odds[2][f] = log_odds(mask);
        follow(&state->means.fast[f], 0.8f, energy);
        follow(&state->means.quick[f], 0.9f, energy);
        follow(&state->means.middle[f], 0.95f, energy);
        follow(&state->means.slow[f], 0.99f, energy);
        deviation = limit(decibels(limited_ratio(energy, state->means.middle[f])),
                          -MOST_DEVIATION, MOST_DEVIATION);
        follow(&state->means.unrest[f], 0.95f, deviation * deviation);
        follow(&state->means.ratio[f], 0.9f, ratio);
        follow(&state->means.mask[f], 0.9f, mask);
        follow(&state->means.absence[f], 0.93f, absence);
        follow(&state->means.rest[f], 0.93f, absence * energy);
    }
    state->frame_energy = total;
    state->frame_voiced = mean(state->voiced[1], PITCHED, PITCHED_END);
    follow(&state->means.low_snr, 0.98f, mean(snr, LOW, MIDDLE));
    follow(&state->means.high_snr, 0.98f, mean(snr, HIGH, BLSH_BINS));
    follow(&state->means.voiced, 0.98f, state->frame_voiced);
    follow(&state->means.level, 0.99f, total);
}

/* Ratios of rows in the bins around, in dB. */
static void put_ratios_around(blsh_state *state, uint8_t *to, const float *values,
                              const float *references, int reach)
{
    memcpy(state->reference, smooth(state, references, reach), sizeof state->reference);
    put_decibels(to, over(state, smooth(state, values, reach), state->reference));
}

/* The features of all bins of a frame, in the order of bin_features.py, a row of bytes each. */
static void make_bin_features(blsh_state *state)
{
    uint8_t(*row)[BLSH_ROW] = state->bin_features;
    const float *energy = state->energy, *joined = state->joined, *mask = state->mask;
    const float *snr = state->snr[2], *ratio = state->ratio[2], *voiced = state->voiced[1];
    const float *absence;
    float *work = state->work;

    put(*row++, state->joined_odds, LOG_ODDS);
    put_shifted(*row++, state->joined_odds, 1, LOG_ODDS);
    put_shifted(*row++, state->joined_odds, -1, LOG_ODDS);
    put(*row++, smooth(state, joined, 2), PART);
    put_one(*row++, mean(joined, LOW, MIDDLE), PART);
    put_one(*row++, mean(joined, MIDDLE, HIGH), PART);
    put(*row++, state->log_odds[2], LOG_ODDS);
    put(*row++, state->log_odds[1], LOG_ODDS);
    put(*row++, state->log_odds[0], LOG_ODDS);
    put(*row++, state->means.mask, PART);
    put_one(*row++, mean(mask, LOW, MIDDLE), PART);
    put_one(*row++, mean(mask, HIGH, BLSH_BINS), PART);
    put(*row++, state->past_snr, LOG_ODDS);
    put(*row++, state->snr[0], DECIBELS);
    put_shifted(*row++, snr, 4, DECIBELS);
    put_decibels(*row++, smooth(state, ratio, 2));
    for (int f = 0; f < BLSH_BINS; f++) /* in three frames */
        work[f] = (ratio[f] + state->ratio[1][f] + state->ratio[0][f]) / 3.0f;
    put_decibels(*row++, smooth(state, work, 8));
    put_decibels(*row++, smooth(state, ratio, 32));
    put_decibels(*row++, state->means.ratio);
    put_one(*row++, mean(snr, LOW, MIDDLE), DECIBELS);
    put_one(*row++, mean(snr, MIDDLE, HIGH), DECIBELS);
    put_one(*row++, mean(snr, HIGH, BLSH_BINS), DECIBELS);
    put_one(*row++, state->means.low_snr, DECIBELS);
    put_one(*row++, state->means.high_snr, DECIBELS);
    put_ratios_around(state, *row++, energy, state->means.middle, 2);
    put_ratios_around(state, *row++, state->means.quick, state->means.slow, 2);
    put_ratios_around(state, *row++, energy, state->means.fast, 8);
    for (int f = 0; f < BLSH_BINS; f++)
        work[f] = sqrtf(state->means.unrest[f]);
    put(*row++, work, DECIBELS);
    put_decibels(*row++, over(state, multiply(state, energy, state->means.absence),
                              state->means.rest));
    memcpy(state->reference, smooth(state, state->means.rest, 8), sizeof state->reference);
    absence = smooth(state, state->means.absence, 8);
    put_decibels(*row++, over(state, multiply(state, energy, absence), state->reference));
    for (int f = 0; f < BLSH_BINS; f++)
        work[f] = limited_ratio(energy[f], state->frame_energy);
    put_decibels(*row++, work);
    put_one(*row++, decibels(limited_ratio(state->frame_energy, state->means.level)), DECIBELS);
    put(*row++, state->fine, FINE);
    put(*row++, state->comb, SIGNED);
    put(*row++, voiced, SIGNED);
    put(*row++, multiply(state, state->comb, voiced), SIGNED);
    put(*row++, state->voiced[0], SIGNED);
    put_one(*row++, state->frame_voiced, SIGNED);
    put_one(*row++, state->means.voiced, SIGNED);
    for (int f = 0; f < BLSH_BINS; f++)
        work[f] = (float)f / BLSH_BINS;
    put(*row++, work, PART);
}

#if BLSH_FERN_BITS > 8
typedef uint16_t blsh_leaf;
#else
typedef uint8_t blsh_leaf;
#endif

/* Log-odds of speech: each fern's answers, bit by bit for all bins, and what its table makes of
 * them. */
static void ask_ferns(blsh_state *state)
{
    blsh_leaf leaves[BLSH_ROW]; /* here, so that compilers see that bytes are no part of it */
    memset(state->scores, 0, sizeof state->scores);
    for (int m = 0; m < BLSH_FERNS; m++) {
        memset(leaves, 0, sizeof leaves);
        for (int b = 0; b < BLSH_FERN_BITS; b++) {
            const uint8_t *values = state->bin_features[blsh_fern_features[m][b]];
            const uint8_t threshold = blsh_fern_thresholds[m][b];
            for (int f = 0; f < BLSH_ROW; f++)
                leaves[f] = (blsh_leaf)(2 * leaves[f] + (values[f] > threshold));
        }
        for (int f = 0; f < BLSH_BINS; f++)
            state->scores[f] += blsh_fern_tables[m][leaves[f]];
    }
}
#endif

#if BLSH_DECISIVE
static float log_ratio(float kept, float taken)
{
    const float total = kept + taken;
    float part = total > 0.0f ? kept / total : 0.5f;

    part = fminf(fmaxf(part, BLSH_LEAST_PART), 1.0f - BLSH_LEAST_PART);
    return logf(part / (1.0f - part));
}

/* Raises the gains, which are the real parts, where nearly all of late was speech, and lowers them
 * where hardly any was. */
static void decide(blsh_state *state, const float *from, float *gains)
{
    float kept = 0.0f, taken = 0.0f;

    for (int f = 0; f < BLSH_BINS; f++) {
        const float *bin = &from[2 * f], energy = bin[0] * bin[0] + bin[1] * bin[1];
        kept += gains[2 * f] * energy;
        taken += (1.0f - gains[2 * f]) * energy;
    }
    state->kept = BLSH_DECISION_MEMORY * state->kept + kept;
    state->taken = BLSH_DECISION_MEMORY * state->taken + taken;
    const float of_late = log_ratio(state->kept, state->taken);
    const float raised = fmaxf(of_late - BLSH_SURE_SPEECH, 0.0f);
    const float lowered = fmaxf(BLSH_SURE_NOISE - fmaxf(of_late, log_ratio(kept, taken)), 0.0f);
    const float against = expf(BLSH_DECISIVENESS * (lowered - raised));
    for (int f = 0; f < BLSH_BINS; f++)
        gains[2 * f] /= gains[2 * f] + (1.0f - gains[2 * f]) * against;
}
#endif

/* Multiplies a spectrum with the mask that the neighbours' masks become. */
static void apply_mask(blsh_state *state, const int *nearest, const float *from, float *to)
{
#if BLSH_FERNS
    follow_frame(state, nearest, from);
    make_bin_features(state);
    ask_ferns(state);
#endif
    for (int f = 0; f < BLSH_BINS; f++) {
#if BLSH_FERNS
        to[2 * f] = logistic((float)state->scores[f] * BLSH_FERN_STEP);
#elif BLSH_TRACKING
        const float *bin = &from[2 * f];
        to[2 * f] = join(state, f, vote(nearest, f), bin[0] * bin[0] + bin[1] * bin[1]).mask;
#else
        to[2 * f] = vote(nearest, f);
#endif
    }
#if BLSH_DECISIVE
    decide(state, from, to);
#endif
    for (int f = 0; f < BLSH_BINS; f++) {
        const float *bin = &from[2 * f];
        float gain = to[2 * f];
#ifdef BLSH_STRENGTH
        gain = powf(gain, BLSH_STRENGTH);
#endif
        gain = fmaxf(gain, state->floor);
        to[2 * f] = gain * bin[0];
        to[2 * f + 1] = gain * bin[1];
    }
}

void blsh_init(blsh_state *state)
{
    memset(state, 0, sizeof *state);
}

void blsh_step(blsh_state *state, const float *in, float *out)
{
    const int kept = BLSH_WINDOW - BLSH_HOP, reach = BLSH_CONTEXT / 2;
    float *work = state->work, *newest = state->spectra[reach];
    uint32_t code[BLSH_WORDS];
    int nearest[BLSH_NEIGHBORS];

    memmove(state->samples, state->samples + BLSH_HOP, kept * sizeof(float));
    for (int i = 0; i < BLSH_HOP; i++)
        state->samples[kept + i] = usable(in[i]);
    for (int i = 0; i < BLSH_WINDOW; i++)
        work[i] = state->samples[i] * blsh_hann[i];
    real_transform(work);

    memmove(state->spectra[0], state->spectra[0] + 2 * BLSH_BINS,
            (size_t)reach * sizeof state->spectra[0]);
    memcpy(newest, work, sizeof state->spectra[0]);
    memmove(state->bands[0], state->bands[0] + BLSH_BANDS,
            (BLSH_CONTEXT - 1) * sizeof state->bands[0]);
    for (int f = 0; f < BLSH_BINS; f++)
        work[f] = magnitude(&newest[2 * f]);
    make_bands(work, state->bands[BLSH_CONTEXT - 1]);
#if BLSH_LEVELS
    memmove(state->levels[0], state->levels[1], sizeof state->levels - sizeof state->levels[0]);
    filter(work, blsh_level_first, blsh_level_end, blsh_level_weights, BLSH_LEVELS,
           state->levels[BLSH_LEVEL_FRAMES - 1]);
#endif

#if BLSH_VOICING || BLSH_FERNS
    find_comb(state, state->spectra[0]);
#endif
    make_features(state);
    encode(state->features, code);
    find_nearest(code, nearest);
    apply_mask(state, nearest, state->spectra[0], work);

    inverse_transform(work);
    for (int i = 0; i < BLSH_WINDOW; i++)
        state->overlap[i] += work[i] * blsh_hann[i];
    for (int i = 0; i < BLSH_HOP; i++)
        out[i] = state->overlap[i] * blsh_scales[i];
    memmove(state->overlap, state->overlap + BLSH_HOP, kept * sizeof(float));
    memset(state->overlap + kept, 0, BLSH_HOP * sizeof(float));
}
