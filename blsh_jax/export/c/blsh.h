/* Speech denoising by boosted locality sensitive hashing, hop by hop.
 *
 * Plain C99 and libm. Nothing is allocated: all working memory lies in blsh_state, one for each
 * audio channel. Tables are constants, which linkers can leave in flash.
 *
 *     static blsh_state state;
 *     blsh_init(&state);
 *     for (;;) { read(in); blsh_step(&state, in, out); write(out); }    BLSH_HOP samples each
 *
 * The output lags the input by BLSH_LATENCY samples, at BLSH_SAMPLE_RATE. The noise is learned in
 * the first second; where a whole recording is at hand, step through that second backwards first.
 */
#ifndef BLSH_H
#define BLSH_H

#include <stdint.h>

#include "blsh_sizes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A sample that is NaN, infinite or beyond the one counts as 0, as it would spoil what follows, and
 * so does one below the other, which is digital silence. */
#define BLSH_LOUDEST 1e10f
#define BLSH_QUIETEST 1e-18f

#define BLSH_LATENCY (BLSH_WINDOW - BLSH_HOP + BLSH_CONTEXT / 2 * BLSH_HOP)

/* Frames whose levels are kept: as far back as noise floors reach, and the context ahead. */
#define BLSH_LEVEL_FRAMES (BLSH_FLOOR_FRAMES + BLSH_WINDOW / BLSH_HOP - 1 + BLSH_CONTEXT / 2)

/* Ferns: the bins of a row of bytes, rounded up so that whole vectors cover them; the bins on
 * either side that voicing is measured over, 375 Hz, and the most that a mean is over. */
#define BLSH_ROW ((BLSH_BINS + 31) / 32 * 32)
#define BLSH_VOICED_REACH ((2 * 375 * BLSH_WINDOW + BLSH_SAMPLE_RATE) / (2 * BLSH_SAMPLE_RATE))
#define BLSH_MOST_REACH (BLSH_VOICED_REACH > 32 ? BLSH_VOICED_REACH : 32)

typedef struct {
    float floor;                                       /* smallest gain of a bin, 0 to 1 */
    float samples[BLSH_WINDOW];                        /* newest input */
    float bands[BLSH_CONTEXT][BLSH_BANDS];             /* newest features, oldest frame first */
    float spectra[BLSH_CONTEXT / 2 + 1][2 * BLSH_BINS]; /* newest spectra: real, imaginary, ... */
#if BLSH_LEVELS
    float levels[BLSH_LEVEL_FRAMES][BLSH_LEVELS];      /* newest mel magnitudes, for noise floors */
#endif
#if BLSH_VOICING || BLSH_FERNS
    float fine[BLSH_BINS];                             /* fine structure of the spectrum */
    float comb[BLSH_BINS];                             /* cosines with teeth at the pitch */
#endif
#if BLSH_TRACKING
    float noise_magnitude[BLSH_BINS];                  /* weighted sum of the noise's magnitudes */
    float noise_weight[BLSH_BINS];                     /* sum of the weights */
    float speech_energy[BLSH_BINS];                    /* of the last frame's estimate */
    float past_speech[BLSH_BINS];                      /* energies that the neighbours keep */
    float past_rest[BLSH_BINS];                        /* energies that they take away */
#endif
#if BLSH_FERNS
    struct {                                           /* running means */
        float fast[BLSH_BINS], quick[BLSH_BINS], middle[BLSH_BINS], slow[BLSH_BINS]; /* of energy */
        float unrest[BLSH_BINS];                       /* of squared distance to middle, in dB */
        float ratio[BLSH_BINS];                        /* of energy over noise */
        float mask[BLSH_BINS];                         /* of the neighbours' mask */
        float absence[BLSH_BINS], rest[BLSH_BINS];     /* of speech; of energy without it */
        float low_snr, high_snr, voiced, level;        /* of frames */
    } means;
    float snr[3][BLSH_BINS];                           /* newest frames, oldest first: in dB */
    float ratio[3][BLSH_BINS];                         /* the same as ratios */
    float log_odds[3][BLSH_BINS];                      /* of the neighbours' masks */
    float voiced[2][BLSH_BINS];                        /* likeness to the comb around a bin */
    float energy[BLSH_BINS], frame_energy, frame_voiced;
    float mask[BLSH_BINS];                             /* of the neighbours */
    float joined[BLSH_BINS];                           /* with speech presence */
    float joined_odds[BLSH_BINS];
    float past_snr[BLSH_BINS];                         /* log */
    float smoothed[BLSH_BINS], reference[BLSH_BINS];
    float sums[BLSH_BINS + 2 * BLSH_MOST_REACH];
    uint8_t bin_features[BLSH_BIN_FEATURES][BLSH_ROW];
    int32_t scores[BLSH_BINS];                         /* of ferns */
#endif
#if BLSH_DECISIVE
    float kept, taken;                                 /* energies of late */
#endif
    float overlap[BLSH_WINDOW];                        /* output that later frames add to */
    float work[BLSH_WINDOW + 2];
    float features[BLSH_FEATURES];
} blsh_state;

/* Silence before the first sample; no limit to attenuation. */
void blsh_init(blsh_state *state);

/* Takes BLSH_HOP samples and gives BLSH_HOP samples, all of them finite; in and out may be the
 * same. */
void blsh_step(blsh_state *state, const float *in, float *out);

#ifdef __cplusplus
}
#endif

#endif
