/* progress.c - a thread that looks at counters, so that the work never stops to report.
 *
 * Rates that are shown are those of the last ten seconds: what a user wants to know is how it goes
 * now. Rates in metrics are since the start. The thread ends through a condition variable, never
 * through a sleep that has to run out.
 */
#include "progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "log.h"
#include "mem.h"
#include "sig.h"

#define PROGRESS_SECOND 1000000000
#define PROGRESS_TICK (PROGRESS_SECOND / 2)
#define PROGRESS_SAMPLES 20 /* ticks that a shown rate goes over */
#define PROGRESS_LINE_TICKS 60
#define PROGRESS_STALL ((int64_t)60 * PROGRESS_SECOND)

/* One side that is waited for. */
struct progress_side {
    const struct io_file *file;
    const char *name;
    int64_t before;      /* waited before the start */
    int64_t stall, told; /* start of a long wait, and the minutes of it that have been told */
};

struct progress {
    const char *unit;
    uint64_t total, first;
    struct progress_side in, out;
    _Atomic uint64_t done;
    int64_t start;

    pthread_t thread;
    bool running;
    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t wake;
    bool stop;
    struct io_file metrics;
    bool handed_over; /* a line by the tool */
    int lost;         /* 0, or why metrics are incomplete */

    /* of the thread */
    bool terminal, draws, prints;
    int64_t sample_time[PROGRESS_SAMPLES];
    uint64_t sample_done[PROGRESS_SAMPLES];
    uint64_t ticks;
};

/* ---- figures */

static double progress_seconds(const struct progress *progress)
{
    return (double)(io_clock_ns() - progress->start) / PROGRESS_SECOND;
}

/* Time spent waiting for a side, the wait now going on included. */
static int64_t progress_waited(const struct io_file *file)
{
    if (file == NULL)
        return 0;
    int64_t since = file->waiting_since_ns, now = io_clock_ns();
    return file->waited_ns + (since > 0 && now > since ? now - since : 0);
}

static double progress_share(const struct progress *progress, const struct progress_side *side)
{
    int64_t elapsed = io_clock_ns() - progress->start;
    int64_t waited = progress_waited(side->file) - side->before;
    if (elapsed <= 0 || waited < 0)
        return 0;
    return waited < elapsed ? (double)waited / (double)elapsed : 1;
}

double progress_rate(const struct progress *progress)
{
    double seconds = progress_seconds(progress);
    uint64_t done = progress->done;
    return seconds > 0 && done > progress->first ? (double)(done - progress->first) / seconds : 0;
}

double progress_wait_fraction(const struct progress *progress)
{
    return progress_share(progress, &progress->in);
}

/* Takes a sample; the rate over the samples kept. */
static double progress_recent_rate(struct progress *progress)
{
    uint64_t kept = progress->ticks < PROGRESS_SAMPLES ? progress->ticks : PROGRESS_SAMPLES;
    size_t oldest = (progress->ticks - kept) % PROGRESS_SAMPLES;
    size_t here = progress->ticks++ % PROGRESS_SAMPLES;
    int64_t now = io_clock_ns();
    uint64_t done = progress->done;
    int64_t then = kept > 0 ? progress->sample_time[oldest] : progress->start;
    uint64_t before = kept > 0 ? progress->sample_done[oldest] : progress->first;
    progress->sample_time[here] = now;
    progress->sample_done[here] = done;
    double seconds = (double)(now - then) / PROGRESS_SECOND;
    return seconds > 0 && done > before ? (double)(done - before) / seconds : 0;
}

/* ---- lines */

/* 1234567 as "1.23M". */
static void progress_short(char *text, size_t size, double value)
{
    static const char suffixes[] = "kMGT";
    size_t i = 0;
    if (value < 10000) {
        snprintf(text, size, value < 10 && value > 0 ? "%.2f" : "%.0f", value);
        return;
    }
    for (value /= 1000; value >= 1000 && suffixes[i + 1] != '\0'; i++)
        value /= 1000;
    snprintf(text, size, value < 10 ? "%.2f%c" : "%.1f%c", value, suffixes[i]);
}

static void progress_left(char *text, size_t size, double seconds)
{
    unsigned long whole = seconds < 3.6e7 ? (unsigned long)seconds : 36000000;
    if (whole >= 3600)
        snprintf(text, size, ", %lu h %02lu min left", whole / 3600, whole / 60 % 60);
    else if (whole >= 60)
        snprintf(text, size, ", %lu min %02lu s left", whole / 60, whole % 60);
    else
        snprintf(text, size, ", %lu s left", whole);
}

/* "12.3M rows of 40.0M, 45.6k/s, waiting 12 % for input and 3 % for output, 10 min 08 s left" */
static void progress_line(const struct progress *progress, double rate, char *line, size_t size)
{
    char done[32], total[48] = "", speed[32], waits[64], left[48] = "", number[32];
    uint64_t count = progress->done;
    progress_short(done, sizeof done, (double)count);
    progress_short(speed, sizeof speed, rate);
    if (progress->total > 0) {
        progress_short(number, sizeof number, (double)progress->total);
        snprintf(total, sizeof total, " of %s", number);
        if (rate > 0 && progress->total > count)
            progress_left(left, sizeof left, (double)(progress->total - count) / rate);
    }
    snprintf(waits, sizeof waits, "waiting %.0f %% for input and %.0f %% for output",
             100 * progress_share(progress, &progress->in),
             100 * progress_share(progress, &progress->out));
    snprintf(line, size, "%s %s%s, %s/s, %s%s", done, progress->unit, total, speed, waits, left);
}

/* Tells of each full minute of a wait; a warning, so that -q shows it. */
static void progress_watch(struct progress_side *side)
{
    int64_t since = side->file == NULL ? 0 : side->file->waiting_since_ns;
    if (since != side->stall) {
        side->stall = since;
        side->told = 0;
    }
    int64_t minutes = since == 0 ? 0 : (io_clock_ns() - since) / PROGRESS_STALL;
    if (minutes <= side->told)
        return;
    side->told = minutes;
    log_warning("waiting for %s for %lld s", side->name, (long long)(minutes * 60));
}

static void progress_tick(struct progress *progress)
{
    char line[256];
    double rate = progress_recent_rate(progress);
    progress_watch(&progress->in);
    progress_watch(&progress->out);
    bool due = progress->ticks % PROGRESS_LINE_TICKS == 0;
    if (!progress->draws && !(progress->prints && due))
        return;
    progress_line(progress, rate, line, sizeof line);
    if (progress->draws)
        log_redraw(line);
    else
        log_note("%s", line);
}

static struct timespec progress_next_tick(void)
{
    int64_t at = io_clock_ns() + PROGRESS_TICK;
    struct timespec time = {.tv_sec = (time_t)(at / PROGRESS_SECOND),
                            .tv_nsec = (long)(at % PROGRESS_SECOND)};
    return time;
}

static void *progress_run(void *argument)
{
    struct progress *progress = argument;
    pthread_mutex_lock(&progress->mutex);
    while (!progress->stop) {
        struct timespec until = progress_next_tick();
        int woken = 0;
        while (!progress->stop && woken != ETIMEDOUT)
            woken = pthread_cond_timedwait(&progress->wake, &progress->mutex, &until);
        if (progress->stop)
            break;
        pthread_mutex_unlock(&progress->mutex);
        progress_tick(progress);
        pthread_mutex_lock(&progress->mutex);
    }
    pthread_mutex_unlock(&progress->mutex);
    return NULL;
}

/* ---- metrics */

static int progress_write(struct progress *progress, const json_t *line)
{
    if (line == NULL)
        return mem_fail("a line of metrics", 1, 256);
    char *text = json_text(line);
    if (text == NULL)
        return mem_fail("a line of metrics", 1, 256);
    size_t length = strlen(text);
    text[length] = '\n'; /* one write a line, so that a reader never sees half of one for long */
    int status = progress->lost == 0 ? io_write(&progress->metrics, text, length + 1) : 0;
    free(text);
    if (status == ERR_CLOSED)
        log_warning("the reader of '%s' went away; metrics end here", progress->metrics.name);
    if (status != 0)
        progress->lost = status == ERR_INTERRUPTED ? status : ERR_IO;
    return 0;
}

int progress_metric(struct progress *progress, json_t *line)
{
    int status = 0;
    pthread_mutex_lock(&progress->mutex);
    progress->handed_over = true;
    if (progress->metrics.fd >= 0)
        status = progress_write(progress, line);
    pthread_mutex_unlock(&progress->mutex);
    json_decref(line);
    return status;
}

static int progress_write_last(struct progress *progress)
{
    json_t *line =
        json_pack("{s:I, s:f, s:f, s:f, s:f}", progress->unit, (json_int_t)progress->done,
                  "seconds", progress_seconds(progress), "per_s", progress_rate(progress),
                  "wait_in_fraction", progress_share(progress, &progress->in), "wait_out_fraction",
                  progress_share(progress, &progress->out));
    int status = progress_write(progress, line);
    json_decref(line);
    return status;
}

/* ---- start and stop */

void progress_set(struct progress *progress, uint64_t done)
{
    atomic_store_explicit(&progress->done, done, memory_order_relaxed);
}

static int progress_init(struct progress *progress, const struct progress_setup *setup)
{
    *progress = (struct progress){.unit = setup->unit,
                                  .total = setup->total,
                                  .first = setup->first,
                                  .in = {.file = setup->in, .name = "input"},
                                  .out = {.file = setup->out, .name = "output"},
                                  .done = setup->first,
                                  .start = io_clock_ns(),
                                  .metrics = IO_FILE_CLOSED};
    progress->in.before = progress_waited(setup->in);
    progress->out.before = progress_waited(setup->out);
    /* Neither call fails with these attributes on Linux. */
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&progress->mutex, NULL);
    pthread_cond_init(&progress->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    bool told = log_get_level() >= LOG_NOTE, terminal = isatty(STDERR_FILENO) == 1;
    bool last = setup->out == NULL || !setup->out->pipe;
    progress->draws = told && terminal && last;
    progress->prints = told && !terminal;
    return setup->metrics == NULL ? 0 : io_open_output(&progress->metrics, setup->metrics, false);
}

int progress_start(struct progress **result, const struct progress_setup *setup)
{
    *result = NULL;
    struct progress *progress = mem_alloc(1, sizeof *progress);
    if (progress == NULL)
        return mem_fail("the progress line", 1, sizeof *progress);
    int status = progress_init(progress, setup);
    if (status == 0)
        status = sig_thread_create(&progress->thread, progress_run, progress);
    progress->running = status == 0;
    if (status == 0) {
        *result = progress;
        return 0;
    }
    int stopped = progress_stop(progress);
    (void)stopped;
    return status;
}

int progress_stop(struct progress *progress)
{
    if (progress == NULL)
        return 0;
    if (progress->running) {
        pthread_mutex_lock(&progress->mutex);
        progress->stop = true;
        pthread_cond_signal(&progress->wake);
        pthread_mutex_unlock(&progress->mutex);
        pthread_join(progress->thread, NULL);
    }
    if (progress->draws)
        log_redraw("");
    int status = 0;
    if (progress->running && progress->metrics.fd >= 0 && !progress->handed_over)
        status = progress_write_last(progress);
    int closed = io_close(&progress->metrics);
    if (status == 0)
        status = progress->lost != 0 ? progress->lost : closed;
    pthread_cond_destroy(&progress->wake);
    pthread_mutex_destroy(&progress->mutex);
    free(progress);
    return status;
}
