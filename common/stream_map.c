/* stream_map.c - finding parts from the end of a file backward, by index or by walking.
 *
 * Without an index the bytes are walked frame by frame, which reads a few bytes per 4 MiB. What is
 * walked is taken for one part: END's own count of records tells whether that is so, and if it is
 * not (two files without index behind each other), the part is left without has_end and its
 * rows stay unknown. Nothing here has to be right about damaged files; the reader will be.
 */
#include "stream_map.h"

#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "json.h"
#include "mem.h"
#include "stream.h"

static int map_add(struct stream_map *map, const struct stream_part *part)
{
    struct stream_part *grown = mem_resize(map->parts, map->count + 1, sizeof *grown);
    if (grown == NULL)
        return mem_fail("parts", map->count + 1, sizeof *grown);
    map->parts = grown;
    map->parts[map->count++] = *part;
    return 0;
}

/* Decodes the frame at `at`; 0 and the record, or 1 where there is none of that type. */
static int map_record(struct frame_record *record, const struct io_file *file, int64_t at,
                      uint16_t type)
{
    struct frame frame = {0};
    int status = frame_read_at(&frame, file, at);
    if (status == 1 && frame.kind != FRAME_SKIPPABLE)
        status = frame_decode(record, &frame, NULL);
    else
        status = status < 0 ? status : 1;
    if (status == 0 && frame.kind == FRAME_BARE) {
        /* The payload lies in the frame's bytes: hand them over with the record. */
        struct frame_buffer stored = frame.stored;
        frame.stored = record->content;
        record->content = stored;
    }
    frame_buffer_free(&frame.stored);
    if (status == ERR_DATA || status == ERR_TRUNCATED)
        return 1;
    return status == 0 && record->header.type != type ? 1 : status;
}

/* Reads END at `at` into the part; has_end where it counts `records` data records. */
static int map_end(struct stream_part *part, const struct io_file *file, int64_t at,
                   uint64_t records)
{
    struct frame_record record = {0};
    int status = map_record(&record, file, at, STREAM_END);
    if (status == 0) {
        json_error_t error;
        json_t *json = json_loadb((const char *)record.payload, record.header.payload_bytes,
                                  JSON_REJECT_DUPLICATES, &error);
        json_int_t said = json_integer_value(json_object_get(json, "records"));
        json_int_t rows = json_integer_value(json_object_get(json, "rows"));
        part->has_end = json != NULL && said == (json_int_t)records && rows >= 0;
        part->joined = json != NULL && said < (json_int_t)records;
        part->rows = part->has_end ? (uint64_t)rows : 0;
        json_decref(part->skipped);
        json_t *skipped = json_object_get(json, "skipped");
        part->skipped = part->has_end && json_is_counts(skipped) ? json_incref(skipped) : NULL;
        part->first_row = record.header.first_row - part->rows;
        json_decref(json);
    }
    frame_buffer_free(&record.content);
    return status < 0 ? status : 0;
}

/* The bytes 0 .. end as one part. Where a skippable frame lies before the end, it closes a part
 * behind which another one begins, which is cut: nothing is known of the whole. */
static int map_walk(struct stream_part *part, const struct io_file *file, int64_t end)
{
    int64_t at = 0, last = -1;
    uint64_t frames = 0;
    while (at < end) {
        int64_t next;
        enum frame_kind kind;
        int status = frame_measure(file, at, &next, &kind);
        if (status == ERR_DATA || status == ERR_TRUNCATED || status == 0)
            break;
        if (status < 0)
            return status;
        if (kind == FRAME_SKIPPABLE) {
            part->joined = next < end;
            break;
        }
        last = at;
        at = next;
        frames++;
    }
    part->end = at;
    return frames < 2 || part->joined ? 0 : map_end(part, file, last, frames - 2);
}

static void map_free_part(struct stream_part *part)
{
    index_free(&part->index);
    json_decref(part->skipped);
}

static void map_reverse(struct stream_part *parts, size_t count)
{
    for (size_t i = 0; i < count / 2; i++) {
        struct stream_part swap = parts[i];
        parts[i] = parts[count - 1 - i];
        parts[count - 1 - i] = swap;
    }
}

static int map_file(struct stream_map *map, const struct io_file *file, size_t number)
{
    int64_t end = io_size(file);
    size_t first = map->count;
    while (end > 0) {
        struct stream_part part = {.file = number};
        int status = index_read(&part.index, file, end);
        if (status == 0 && part.index.count >= 2) {
            const struct index_entry *last = &part.index.entries[part.index.count - 1];
            part.start = part.index.part_start;
            part.end = part.start + (int64_t)part.index.part_bytes;
            status = map_end(&part, file, part.start + (int64_t)last->offset, part.index.count - 2);
        } else if (status >= 0) {
            index_free(&part.index);
            status = map_walk(&part, file, end);
        }
        if (status == 0)
            status = map_add(map, &part);
        if (status != 0) {
            map_free_part(&part);
            return status;
        }
        end = part.start;
    }
    map_reverse(map->parts + first, map->count - first);
    return end < 0 ? (int)end : 0;
}

int stream_map_build(struct stream_map *map, const struct io_file *files, size_t count)
{
    memset(map, 0, sizeof *map);
    for (size_t i = 0; i < count; i++) {
        int status = map_file(map, &files[i], i);
        if (status != 0) {
            stream_map_free(map);
            return status;
        }
    }
    return 0;
}

void stream_map_free(struct stream_map *map)
{
    for (size_t i = 0; i < map->count; i++)
        map_free_part(&map->parts[i]);
    free(map->parts);
    memset(map, 0, sizeof *map);
}

uint64_t stream_part_skipped(const struct stream_part *part, const char *reason)
{
    json_int_t count = json_integer_value(json_object_get(part->skipped, reason));
    return count > 0 ? (uint64_t)count : 0;
}

bool stream_map_rows(const struct stream_map *map, uint64_t *rows)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < map->count; i++) {
        if (!map->parts[i].has_end || map->parts[i].rows > UINT64_MAX - sum)
            return false;
        sum += map->parts[i].rows;
    }
    *rows = sum;
    return map->count > 0;
}

bool stream_map_is_joined(const struct stream_map *map)
{
    return map->count > 1 || (map->count == 1 && map->parts[0].joined);
}

/* *seq_len of the BEGIN at `at`, 0 where it has none (a length of 0 is no sequence worth a number).
 */
static int map_length(const struct io_file *file, int64_t at, json_int_t *seq_len)
{
    struct frame_record record = {0};
    int status = map_record(&record, file, at, STREAM_BEGIN);
    *seq_len = 0;
    if (status == 0) {
        json_error_t error;
        json_t *json = json_loadb((const char *)record.payload, record.header.payload_bytes,
                                  JSON_REJECT_DUPLICATES, &error);
        *seq_len = json_integer_value(json_object_get(json, "seq_len"));
        json_decref(json);
    }
    frame_buffer_free(&record.content);
    return status < 0 ? status : 0;
}

int stream_map_same_length(const struct stream_map *map, const struct io_file *files)
{
    json_int_t first = 0, other;
    for (size_t i = 0; i < map->count; i++) {
        const struct stream_part *part = &map->parts[i];
        int status = map_length(&files[part->file], part->start, i == 0 ? &first : &other);
        if (status != 0)
            return status;
        if (part->joined || first == 0 || (i > 0 && other != first))
            return 0;
    }
    return map->count > 0;
}
