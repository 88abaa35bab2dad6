/* report_choose.c - which latents a report looks at one by one.
 *
 * They are chosen by their decoders alone, before any row is read, so that one pass over the rows
 * suffices. A latent that never fires has nothing to show, and how many there are of these is known
 * only afterwards: so several times as many are followed as are shown.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "common/mem.h"
#include "report.h"

enum { REPORT_SPARE = 4, REPORT_MOST_GROUPS = 16 };

/* Latents are shown on a side from here on, which is where the shared ones end. */
#define REPORT_SIDE 0.7
/* Of more than two sources: the source's decoder is longer than all the others together. */
#define REPORT_OWN 0.5

struct report_rank {
    double value; /* the larger, the more specific */
    uint64_t latent;
};

static int report_compare(const void *a, const void *b)
{
    const struct report_rank *left = a, *right = b;
    if (left->value != right->value)
        return left->value < right->value ? 1 : -1;
    return left->latent < right->latent ? -1 : 1;
}

/* How much latent j belongs to a group's source; NaN: not at all. */
static double report_belongs(const struct report *report, size_t source, size_t j)
{
    const struct norms *norms = report->norms;
    double value, least;
    if (norms->paired) {
        value = source == norms->a ? 1 - norms->relative[j] : norms->relative[j];
        least = REPORT_SIDE;
    } else if (source < norms->source_count) {
        value = norms->delta[j * norms->source_count + source];
        least = REPORT_OWN;
    } else {
        value = norms->code_weight[j];
        least = 0;
    }
    return value > least ? value : (double)NAN;
}

static void report_choose_group(struct report *report, struct report_group *group,
                                struct report_rank *ranks)
{
    size_t count = 0, most = REPORT_SPARE * report->most;
    for (size_t j = 0; j < report->norms->latents; j++) {
        double value = report_belongs(report, group->source, j);
        if (!isnan(value))
            ranks[count++] = (struct report_rank){value, j};
    }
    qsort(ranks, count, sizeof *ranks, report_compare);
    group->first = report->chosen_count;
    group->count = count < most ? count : most;
    for (size_t i = 0; i < group->count; i++)
        report->chosen[report->chosen_count++] = ranks[i].latent;
}

/* The sources that have a group: both of a pair, the later one, which is the one asked about,
 * first. */
static size_t report_group_source(const struct norms *norms, size_t group)
{
    if (norms->paired)
        return group == 0 ? norms->b : norms->a;
    return norms->source_count == 1 ? norms->source_count : group;
}

size_t report_most_chosen(size_t source_count, size_t most)
{
    size_t groups = source_count < 2                    ? 2
                    : source_count < REPORT_MOST_GROUPS ? source_count
                                                        : REPORT_MOST_GROUPS;
    return groups * REPORT_SPARE * most;
}

int report_choose(struct report *report)
{
    const struct norms *norms = report->norms;
    size_t groups = norms->paired ? 2 : norms->source_count;
    groups = groups < REPORT_MOST_GROUPS ? groups : REPORT_MOST_GROUPS;
    size_t most = report_most_chosen(norms->source_count, report->most);
    struct report_rank *ranks = mem_alloc(norms->latents, sizeof *ranks);
    report->groups = mem_alloc_zero(groups, sizeof *report->groups);
    report->chosen = mem_alloc(most, sizeof *report->chosen);
    if (ranks == NULL || report->groups == NULL || report->chosen == NULL) {
        free(ranks);
        return mem_fail("latents", norms->latents, sizeof *ranks);
    }
    report->group_count = groups;
    for (size_t g = 0; g < groups; g++) {
        report->groups[g].source = report_group_source(norms, g);
        report_choose_group(report, &report->groups[g], ranks);
    }
    assert(report->chosen_count <= most);
    free(ranks);
    return 0;
}

size_t report_shown(const struct report *report, const struct report_group *group, size_t *shown)
{
    size_t count = 0;
    for (size_t i = 0; i < group->count && count < report->most; i++) {
        size_t k = group->first + i;
        if (!report->has_rows || report->stats.count[report->chosen[k]] > 0)
            shown[count++] = k;
    }
    return count;
}
