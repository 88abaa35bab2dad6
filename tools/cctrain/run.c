/* run.c - folders named step-N and step-N.tmp, and nothing else, are ours.
 *
 * The lock is flock() on the folder itself: it goes with the process, however that ends, and leaves
 * no file behind.
 *
 * The order of a checkpoint, and what a loss of power after each part leaves:
 *   files, their fsync, manifest   step-N.tmp, which the next run removes
 *   rename                         step-N or step-N.tmp, both whole; or the old state
 *   fsync of the run folder        step-N
 *   read back and verified         step-N, known to be good
 *   the oldest removed             as before, or with one step more than asked for
 * A failed fsync is not tried again: Linux reports it once and drops the pages, so the second try
 * would succeed and mean nothing. The whole checkpoint counts as failed, and the next is written
 * from memory anew.
 *
 * Steps that do not verify are kept as long as the run stands still, as somebody may want to look
 * at them, and removed once it goes on: they would be the newest of the folder for ever.
 */
#define _GNU_SOURCE /* flock(), O_DIRECTORY */
#include "run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/checkpoint.h"
#include "common/io.h"
#include "common/log.h"
#include "common/mem.h"

enum { RUN_NAME = 40 }; /* "step-18446744073709551615.tmp" */

/* "step-N" or "step-N.tmp". */
static bool run_parse(const char *name, uint64_t *step, bool *unfinished)
{
    if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(name + 5, &end, 10);
    *step = value;
    *unfinished = strcmp(end, ".tmp") == 0;
    return errno == 0 && (*end == '\0' || *unfinished);
}

static char *run_path(const struct run *run, uint64_t step, const char *ending)
{
    char name[RUN_NAME];
    snprintf(name, sizeof name, "step-%" PRIu64 "%s", step, ending);
    char *path = io_join(run->folder, name);
    if (path == NULL) {
        int ignored = mem_fail(name, sizeof name, 1);
        (void)ignored;
    }
    return path;
}

/* ---- going through the folder */

/* What is done with each step: 0 to go on, 1 to stop, or a negative code. */
typedef int run_visit_function(struct run *run, uint64_t step, bool unfinished, void *context);

static int run_visit(struct run *run, run_visit_function *visit, void *context)
{
    DIR *folder = opendir(run->folder);
    if (folder == NULL)
        return log_fail_errno("cannot read '%s'", run->folder);
    int status = 0;
    struct dirent *entry;
    while (status == 0 && (errno = 0, entry = readdir(folder)) != NULL) {
        uint64_t step;
        bool unfinished;
        if (run_parse(entry->d_name, &step, &unfinished))
            status = visit(run, step, unfinished, context);
    }
    if (status == 0 && errno != 0)
        status = log_fail_errno("cannot read '%s'", run->folder);
    closedir(folder);
    return status;
}

/* A step is renamed before its files go one by one, so that one that was half removed when the
 * process ended is not taken for a damaged one. */
static int run_discard(struct run *run, uint64_t step)
{
    char *path = run_path(run, step, ""), *unfinished = run_path(run, step, ".tmp");
    int status = path == NULL || unfinished == NULL ? ERR_MEMORY : 0;
    if (status == 0 && rename(path, unfinished) != 0)
        status = log_fail_errno("cannot rename '%s'", path);
    if (status == 0)
        status = checkpoint_remove(unfinished);
    free(path);
    free(unfinished);
    return status;
}

static int run_remove_unfinished(struct run *run, uint64_t step, bool unfinished, void *context)
{
    (void)context;
    if (!unfinished)
        return 0;
    char *path = run_path(run, step, ".tmp");
    int status = path == NULL ? ERR_MEMORY : checkpoint_remove(path);
    free(path);
    return status;
}

static int run_refuse_step(struct run *run, uint64_t step, bool unfinished, void *context)
{
    (void)context, (void)step; /* the first met, not the newest: which one is no matter */
    if (unfinished)
        return 0;
    return log_fail(ERR_USAGE, "'%s' holds a run; go on with it by --resume, or name another --out",
                    run->folder);
}

/* Of the steps behind the one that is resumed from, none verified. */
static int run_remove_later(struct run *run, uint64_t step, bool unfinished, void *context)
{
    (void)context;
    if (unfinished || step <= run->step)
        return 0;
    log_warning("removing '%s/step-%" PRIu64 "', which does not verify", run->folder, step);
    return run_discard(run, step);
}

/* ---- opening */

/* mkdir -p; *created tells whether the last one was made. */
static int run_make_folders(char *path, bool *created)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int failed = mkdir(path, 0777);
        *slash = '/';
        if (failed != 0 && errno != EEXIST)
            return log_fail_errno("cannot make a folder for '%s'", path);
    }
    *created = mkdir(path, 0700) == 0;
    return *created || errno == EEXIST ? 0 : log_fail_errno("cannot make the folder '%s'", path);
}

static int run_lock(struct run *run)
{
    run->lock = open(run->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run->lock < 0) {
        bool usage = errno == ENOTDIR || errno == EACCES;
        int status = log_fail_errno("cannot open the folder '%s'", run->folder);
        return usage ? ERR_USAGE : status;
    }
    if (flock(run->lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return log_fail(ERR_USAGE, "another cctrain is at work in '%s'", run->folder);
    return log_fail_errno("cannot lock '%s'", run->folder);
}

static int run_find_newest(struct run *run)
{
    int status = checkpoint_newest(run->folder, &run->step, &run->newest, true);
    return status == 1 ? 0 : status;
}

int run_open(struct run *run, const char *folder, bool resume)
{
    *run = (struct run){.lock = -1, .folder = strdup(folder)};
    if (run->folder == NULL)
        return mem_fail("the run folder", strlen(folder), 1);
    int status = run_make_folders(run->folder, &run->created);
    if (status == 0)
        status = run_lock(run);
    if (status == 0 && !resume)
        status = run_visit(run, run_refuse_step, NULL);
    if (status == 0)
        status = run_visit(run, run_remove_unfinished, NULL);
    return status == 0 && resume ? run_find_newest(run) : status;
}

int run_go_on(struct run *run)
{
    return run->newest != NULL ? run_visit(run, run_remove_later, NULL) : 0;
}

void run_close(struct run *run)
{
    if (run->created)
        (void)rmdir(run->folder); /* succeeds only where it is empty */
    if (run->lock >= 0)
        close(run->lock);
    free(run->folder);
    free(run->newest);
    *run = (struct run){.lock = -1};
}

/* ---- saving */

/* The oldest step below `context`'s, and how many there are. */
struct run_older {
    uint64_t below, oldest, count;
};

static int run_find_older(struct run *run, uint64_t step, bool unfinished, void *context)
{
    (void)run;
    struct run_older *older = context;
    if (unfinished || step >= older->below)
        return 0;
    if (older->count++ == 0 || step < older->oldest)
        older->oldest = step;
    return 0;
}

/* Removes the oldest until `keep` are left, `step` being the newest. */
static int run_prune(struct run *run, uint64_t step, uint64_t keep)
{
    for (;;) {
        struct run_older older = {.below = step};
        int status = run_visit(run, run_find_older, &older);
        if (status != 0 || older.count < keep)
            return status;
        if ((status = run_discard(run, older.oldest)) != 0)
            return status;
    }
}

/* Files into `path`, all on the disk. */
static int run_fill(const char *path, run_write_function *write, void *context,
                    const char *const *files, size_t file_count)
{
    if (mkdir(path, 0700) != 0)
        return log_fail_errno("cannot make the folder '%s'", path);
    int status = write(context, path);
    return status != 0 ? status : checkpoint_seal(path, files, file_count);
}

/* From step-N.tmp to step-N, which cannot be there: steps behind the present one were removed. */
static int run_put_in_place(struct run *run, const char *path, const char *final)
{
    if (rename(path, final) != 0)
        return log_fail_errno("cannot rename '%s'", path);
    int status = checkpoint_sync_folder(run->folder);
    return status != 0 ? status : checkpoint_verify(final, false);
}

/* After a failure: neither folder is there, so that the step can be tried again. */
static void run_clear_away(const char *path, const char *final)
{
    if (checkpoint_remove(path) != 0 || checkpoint_remove(final) != 0)
        log_warning("something of '%s' is left behind", final);
}

int run_save(struct run *run, uint64_t step, uint64_t keep, run_write_function *write,
             void *context, const char *const *files, size_t file_count)
{
    char *path = run_path(run, step, ".tmp"), *final = run_path(run, step, "");
    int status = ERR_MEMORY;
    if (path != NULL && final != NULL) {
        status = run_fill(path, write, context, files, file_count);
        if (status == 0)
            status = run_put_in_place(run, path, final);
        if (status != 0)
            run_clear_away(path, final);
        else if (run_prune(run, step, keep) != 0)
            log_warning("an older checkpoint could not be removed; step-%" PRIu64 " is whole",
                        step);
    }
    free(path);
    free(final);
    return status;
}
