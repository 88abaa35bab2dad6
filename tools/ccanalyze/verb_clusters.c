/* verb_clusters.c - `ccanalyze clusters`: how many latents are of one source, shared, or neither.
 *
 * Two definitions are in use and differ much (R = 0.9 is delta 0.944), so both are always printed,
 * each under its name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "freq_table.h"
#include "norms.h"
#include "svg.h"
#include "verb.h"

struct clusters_options {
    struct opt_common common;
    struct table_form form;
    const char *pair, *svg, *dead;
};

#define S struct clusters_options
static const struct opt clusters_table[] = {
    OPT_STRING("pair", 0, S, pair, "A,B", NULL, 0,
               "the two sources to compare, by name or number; default: both, if there are two"),
    OPT_STRING("dead", 0, S, dead, "FREQ.tsv", NULL, 0,
               "leave out latents that never fire, by a table of ccanalyze freq"),
    OPT_STRING("svg", 0, S, svg, "FILE", NULL, OPT_WRITES, "draw the histogram of relative norms"),
    VERB_TABLE_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool clusters_tool = {
    .name = "ccanalyze clusters",
    .section = "ccanalyze",
    .summary = "how many latents are of one source only, shared, or neither",
    .synopsis = "ccanalyze clusters CC",
    .details =
        "By the relative norm R: A only below 0.1, shared between 0.3 and 0.7, B only above 0.9. "
        "By delta: A only below 0.1, shared between 0.4 and 0.6, B only above 0.9. All bounds are "
        "strict; what is in none of them, and latents without a decoder, count as other. With more "
        "than two sources, and no --pair, a latent is of one source where that source's delta is "
        "above 0.9.",
    .examples =
        "  ccanalyze clusters run --svg relative_norms.svg\n"
        "  ccanalyze freq run acts.lz4 -o freq.tsv && ccanalyze clusters run --dead freq.tsv",
    .options = clusters_table,
};

/* ---- counting */

struct clusters {
    uint64_t relative[NORMS_CLASS_COUNT], delta[NORMS_CLASS_COUNT]; /* of a pair */
    uint64_t *only; /* (S + 1) of more sources: delta of source s above 0.9; [S]: of none */
};

static bool clusters_left_out(const uint8_t *dead, size_t j)
{
    return dead != NULL && dead[j] != 0;
}

static void clusters_count_pair(struct clusters *clusters, const struct norms *norms,
                                const uint8_t *dead)
{
    for (size_t j = 0; j < norms->latents; j++) {
        if (clusters_left_out(dead, j))
            continue;
        clusters->relative[norms_class_by_relative(norms->relative[j])]++;
        clusters->delta[norms_class_by_delta(norms->pair_delta[j])]++;
    }
}

/* Two deltas of one latent cannot both be above 0.9: each would need more than the other's norm. */
static void clusters_count_all(struct clusters *clusters, const struct norms *norms,
                               const uint8_t *dead)
{
    for (size_t j = 0; j < norms->latents; j++) {
        size_t s = 0;
        while (s < norms->source_count &&
               norms_class_by_delta(norms->delta[j * norms->source_count + s]) != NORMS_B_ONLY)
            s++;
        if (clusters_left_out(dead, j))
            continue;
        clusters->only[s]++;
    }
}

/* ---- printing */

/* "base_only"; the caller frees it. */
static char *clusters_only_name(const char *label)
{
    size_t size = strlen(label) + sizeof "_only";
    char *name = mem_alloc(size, 1);
    if (name != NULL)
        snprintf(name, size, "%s_only", label);
    return name;
}

/* One definition's lines, or its object. */
static int clusters_print_definition(struct table *table, json_t *json, const char *definition,
                                     char *const *names, const uint64_t *counts, size_t count)
{
    json_t *object = json == NULL ? NULL : json_object();
    int status = 0;
    for (size_t i = 0; i < count && status == 0; i++) {
        if (json != NULL) {
            if (json_object_set_new(object, names[i], json_integer((json_int_t)counts[i])) != 0)
                status = mem_fail("the output", count, sizeof *counts);
            continue;
        }
        table_text(table, definition);
        table_text(table, names[i]);
        table_count(table, counts[i]);
        status = table_row(table);
    }
    if (json != NULL && json_object_set_new(json, definition, object) != 0)
        status = mem_fail("the output", count, sizeof *counts);
    return status;
}

static int clusters_print_names(const struct clusters_options *options, const struct norms *norms,
                                const struct clusters *clusters, char *const *names, size_t count)
{
    static const char *const columns[] = {"definition", "class", "count"};
    struct table *table = NULL;
    json_t *json = options->form.json ? json_object() : NULL;
    int status = table_open(&table, &options->form, NULL, columns, 3);
    if (status == 0 && norms->paired)
        status = clusters_print_definition(table, json, "relative_norm", names, clusters->relative,
                                           count);
    if (status == 0)
        status = clusters_print_definition(table, json, "delta", names,
                                           norms->paired ? clusters->delta : clusters->only, count);
    if (status == 0)
        status = table_end(table, json_incref(json));
    json_decref(json);
    table_free(table);
    return status;
}

static int clusters_print(const struct clusters_options *options, const struct norms *norms,
                          const struct clusters *clusters)
{
    size_t count = norms->paired ? NORMS_CLASS_COUNT : norms->source_count + 1;
    char **names = mem_alloc_zero(count, sizeof *names);
    bool made = names != NULL;
    if (made && norms->paired) {
        names[NORMS_A_ONLY] = clusters_only_name(norms->labels[norms->a]);
        names[NORMS_SHARED] = strdup("shared");
        names[NORMS_B_ONLY] = clusters_only_name(norms->labels[norms->b]);
    }
    for (size_t s = 0; made && !norms->paired && s < norms->source_count; s++)
        names[s] = clusters_only_name(norms->labels[s]);
    if (made)
        names[count - 1] = strdup("other");
    for (size_t i = 0; made && i < count; i++)
        made = names[i] != NULL;
    int status = made ? clusters_print_names(options, norms, clusters, names, count)
                      : mem_fail("names", count, sizeof *names);
    for (size_t i = 0; i < count && names != NULL; i++)
        free(names[i]);
    free(names);
    return status;
}

enum { RELATIVE_BINS = 200 };

static int clusters_draw(const char *path, const struct norms *norms, const uint8_t *dead)
{
    static const struct svg_tick ticks[] = {
        {0, "0"}, {0.25, "\u00bc"}, {0.5, "\u00bd"}, {0.75, "\u00be"}, {1, "1"}};
    uint64_t counts[RELATIVE_BINS] = {0};
    const char *a = norms->labels[norms->a], *b = norms->labels[norms->b];
    static const char format[] = "Relative Norm (0: %s only, 1: %s only)";
    size_t size = sizeof format + strlen(a) + strlen(b);
    char *label = mem_alloc(size, 1);
    if (label == NULL)
        return mem_fail("names", size, 1);
    snprintf(label, size, format, a, b);
    for (size_t j = 0; j < norms->latents; j++)
        if (!clusters_left_out(dead, j))
            svg_count(counts, RELATIVE_BINS, 0, 1, norms->relative[j]);
    struct svg_histogram figure = {
        .x_label = label,
        .y_label = "Number of Latents",
        .max = 1,
        .counts = counts,
        .bins = RELATIVE_BINS,
        .ticks = ticks,
        .tick_count = sizeof ticks / sizeof *ticks,
    };
    int status = svg_histogram_file(path, &figure);
    free(label);
    return status;
}

/* ---- running */

static int clusters_read_dead(const char *path, const struct norms *norms, uint8_t **dead)
{
    size_t count;
    if (path == NULL)
        return 0;
    *dead = mem_alloc_zero(norms->latents, 1);
    if (*dead == NULL)
        return mem_fail("latents", norms->latents, 1);
    int status = freq_table_read(path, *dead, norms->latents, &count);
    if (status == 0)
        log_note("%zu of %zu latents never fire and are left out", count, norms->latents);
    return status;
}

static int clusters_work(const void *values, const struct norms *norms)
{
    const struct clusters_options *options = values;
    struct clusters clusters = {0};
    uint8_t *dead = NULL;
    int status = 0;
    if (norms->source_count == 1 || options->svg != NULL)
        status = norms_require_pair(norms, options->svg != NULL ? "--svg" : "clusters");
    if (status == 0)
        status = clusters_read_dead(options->dead, norms, &dead);
    if (status == 0) {
        clusters.only = mem_alloc_zero(norms->source_count + 1, sizeof *clusters.only);
        if (clusters.only == NULL)
            status = mem_fail("counts", norms->source_count, sizeof *clusters.only);
    }
    if (status == 0 && norms->paired)
        clusters_count_pair(&clusters, norms, dead);
    else if (status == 0)
        clusters_count_all(&clusters, norms, dead);
    if (status == 0 && options->svg != NULL)
        status = clusters_draw(options->svg, norms, dead);
    if (status == 0)
        status = clusters_print(options, norms, &clusters);
    free(clusters.only);
    free(dead);
    return status;
}

static int clusters_run(const void *values)
{
    const struct clusters_options *options = values;
    return verb_run_norms(options, options->pair, clusters_work);
}

const struct verb verb_clusters = {&clusters_tool, sizeof(struct clusters_options), clusters_run};
