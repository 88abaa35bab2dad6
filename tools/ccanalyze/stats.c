/* stats.c - counts, sums and maxima, row by row. */
#include "stats.h"

#include <math.h>
#include <stdlib.h>

#include "common/mem.h"

uint64_t stats_bytes(uint64_t latents)
{
    return latents * (sizeof(uint64_t) + sizeof(double) + sizeof(float));
}

int stats_init(struct stats *stats, size_t latents)
{
    *stats = (struct stats){.latents = latents};
    stats->count = mem_alloc_zero(latents, sizeof *stats->count);
    stats->sum = mem_alloc_zero(latents, sizeof *stats->sum);
    stats->max = mem_alloc_zero(latents, sizeof *stats->max);
    if (stats->count != NULL && stats->sum != NULL && stats->max != NULL)
        return 0;
    stats_free(stats);
    return mem_fail("latents", (size_t)stats_bytes(latents), 1);
}

void stats_free(struct stats *stats)
{
    free(stats->count);
    free(stats->sum);
    free(stats->max);
    *stats = (struct stats){0};
}

void stats_add(struct stats *stats, const struct scan_block *block)
{
    for (size_t i = 0; i < block->rows; i++) {
        const float *f = block->f + i * stats->latents;
        /* Three loops without a branch, which vectorise. */
        for (size_t j = 0; j < stats->latents; j++)
            stats->count[j] += f[j] != 0;
        for (size_t j = 0; j < stats->latents; j++)
            stats->sum[j] += (double)f[j];
        for (size_t j = 0; j < stats->latents; j++)
            stats->max[j] = f[j] > stats->max[j] ? f[j] : stats->max[j];
    }
    stats->rows += block->rows;
}

double stats_frequency(const struct stats *stats, size_t j)
{
    return stats->rows > 0 ? (double)stats->count[j] / (double)stats->rows : (double)NAN;
}

double stats_mean(const struct stats *stats, size_t j)
{
    return stats->count[j] > 0 ? stats->sum[j] / (double)stats->count[j] : (double)NAN;
}
