/* report.h - what a report shows, and the parts of the page.
 *
 * The verb (verb_report.c) gathers everything first: the checkpoint, its norms, the run's history,
 * and from one pass over the rows (report_pass.c) all that needs them. The page (report_page.c) is
 * then written into memory as a whole, so that a report which fails leaves what was there before.
 * Parts write to a FILE whose errors the page sees at its end; only what can fail otherwise returns
 * a code.
 */
#ifndef CCANALYZE_REPORT_H
#define CCANALYZE_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"
#include "common/tokenizer.h"
#include "evaluate.h"
#include "history.h"
#include "norms.h"
#include "scan.h"
#include "spread.h"
#include "stats.h"
#include "top.h"

/* The latents that are looked at one by one, on one side of the comparison. */
struct report_group {
    size_t source;       /* whose latents these are; source_count where they are nobody's */
    size_t first, count; /* among the chosen */
};

struct report {
    const struct crosscoder *cc;
    const struct norms *norms;
    const struct history *history;     /* without rows where there is none */
    const struct tokenizer *tokenizer; /* NULL: ids are shown */

    size_t most;      /* latents of a group that are shown */
    uint64_t *chosen; /* (chosen_count) latents, group by group, the most specific first */
    size_t chosen_count;
    struct report_group *groups; /* (group_count) */
    size_t group_count;

    bool has_rows; /* all below is empty without */
    uint64_t rows, batch;
    struct stats stats;
    struct evaluate_figures *figures; /* (S + 1) */
    struct top *top;
    struct spread *spreads; /* (chosen_count) of the activations above 0 */
};

/* ---- report_choose.c */

/* Fills in chosen and groups: with a pair, latents outside of the shared ones on either side; with
 * more sources, latents of one source by its delta; with one source, those of the largest decoders.
 * More than `most` where there are more, as some may turn out never to fire. ERR_MEMORY (logged).
 */
int report_choose(struct report *report) MUST_CHECK;

/* The most that it can choose. */
size_t report_most_chosen(size_t source_count, size_t most);

/* The chosen latents of a group that are shown, as places among the chosen: shown (most). With rows
 * those that fire. */
size_t report_shown(const struct report *report, const struct report_group *group, size_t *shown);

/* ---- report_pass.c */

struct report_pass {
    size_t examples, context; /* of top.h; no examples: no contexts */
    uint64_t batch;           /* of evaluate.h */
    const char *model;        /* the folder of report.tokenizer, for messages */
};

/* Reads the rows once; for contexts they must be in sequence order (ERR_USAGE). */
int report_read_rows(struct report *report, const struct scan_setup *setup,
                     const struct report_pass *pass) MUST_CHECK;

/* Bytes that it takes at most beside scan_bytes(). */
uint64_t report_pass_bytes(const struct crosscoder *cc, size_t most,
                           const struct report_pass *pass);

/* Frees what report_choose() and report_read_rows() allocated. */
void report_free(struct report *report);

/* ---- report_page.c */

/* The whole page as text of *size bytes; the caller frees it. ERR_MEMORY (logged). */
int report_page(const struct report *report, char **text, size_t *size) MUST_CHECK;

/* ---- parts of the page */

/* report_style.c: the style sheet. */
extern const char report_style[];

/* report_summary.c: the heading with the figures that matter most, and the tables of the run. */
void report_heading(FILE *out, const struct report *report);
void report_summary(FILE *out, const struct report *report);

/* report_figures.c: how latents divide between the sources. */
int report_figures(FILE *out, const struct report *report) MUST_CHECK;

/* report_curves.c: the training. Nothing without a history. */
void report_curves(FILE *out, const struct report *report);

/* report_latents.c: latents one by one. */
int report_latents(FILE *out, const struct report *report) MUST_CHECK;

/* "base only", "shared", "chat only", "other" for the page, where a pair is compared; and the class
 * of the style sheet: "a", "s", "b", "o". */
void report_class_name(FILE *out, const struct report *report, enum norms_class which);
const char *report_class_style(enum norms_class which);

#endif
