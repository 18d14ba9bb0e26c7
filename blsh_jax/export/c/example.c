/* Denoises raw 32-bit float samples of BLSH_SAMPLE_RATE, one channel, from standard input to
 * standard output; the output starts BLSH_LATENCY samples late.
 *
 *     cc -O2 -o denoise blsh.c example.c -lm
 *     sox noisy.wav -r 16000 -c 1 -t f32 - | ./denoise | sox -r 16000 -c 1 -t f32 - clean.wav
 */
#include <stdio.h>
#include <string.h>

#include "blsh.h"

static blsh_state state;

int main(void)
{
    float hop[BLSH_HOP];
    size_t count;
    int after = BLSH_LATENCY / BLSH_HOP; /* hops of silence that bring out what is held back */
    blsh_init(&state);
    while ((count = fread(hop, sizeof *hop, BLSH_HOP, stdin)) > 0 || after-- > 0) {
        memset(hop + count, 0, (BLSH_HOP - count) * sizeof *hop);
        blsh_step(&state, hop, hop);
        if (fwrite(hop, sizeof *hop, BLSH_HOP, stdout) != BLSH_HOP)
            return 1;
    }
    return 0;
}
