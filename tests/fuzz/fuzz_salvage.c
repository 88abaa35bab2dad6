/* fuzz_salvage.c - any bytes, and streams with true checksums and false contents (repair.h),
 * through verify and salvage.
 *
 * What must hold: what is salvaged verifies and has the rows that were promised; and of a stream
 * that verifies nothing is lost.
 */
#define _GNU_SOURCE /* memfd_create */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "repair.h"
#include "tools/ccanalyze/salvage.h"
#include "tools/ccanalyze/verify.h"

static int input_fd = -1, output_fd = -1; /* memory files; /proc/self/fd/N opens them again */
static char input_path[64], output_path[64];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    input_fd = memfd_create("input", 0);
    output_fd = memfd_create("output", 0);
    require(input_fd >= 0 && output_fd >= 0);
    snprintf(input_path, sizeof input_path, "/proc/self/fd/%d", input_fd);
    snprintf(output_path, sizeof output_path, "/proc/self/fd/%d", output_fd);
    return 0;
}

/* Rows of the salvaged stream, counted by the reader. */
static uint64_t count_rows(void)
{
    char *paths[] = {output_path};
    struct stream_reader *reader;
    struct stream_record record;
    uint64_t rows = 0;
    require(stream_reader_open(&reader, paths, 1, BEGIN_ANY, 1) == 0);
    while (stream_reader_next(reader, &record) == 1)
        rows += record.rows;
    require(rows == stream_reader_end(reader)->rows);
    stream_reader_free(reader);
    return rows;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct frame_buffer stream;
    struct verify_report report;
    struct salvage *salvage;
    repair_input(&stream, bytes, size);
    require(ftruncate(input_fd, 0) == 0);
    require(pwrite(input_fd, stream.bytes, stream.size, 0) == (ssize_t)stream.size);
    int verified = verify_path(&report, input_path, 1);
    int status = salvage_open(&salvage, input_path);
    if (status != 0) {
        /* A small safetensors file or JSON verifies too, and is no stream. */
        require(status < 0 && salvage == NULL);
        return 0;
    }
    struct salvage_figures figures = salvage_count(salvage);
    require(verified != 0 || (figures.damages == 0 && figures.lost == 0));
    require(salvage_write(salvage, output_path, STREAM_CODEC_LZ4, 1, NULL) == 0);
    salvage_free(salvage);
    require(verify_path(&report, output_path, 1) == 0);
    require(count_rows() == figures.rows);
    return 0;
}
