/* index.c - encoding, checking and finding the advisory index. */
#include "index.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "le.h"
#include "mem.h"

#define INDEX_MAGIC 0x184D2A5Cu
#define INDEX_HEAD 24
#define INDEX_ENTRY 24
#define INDEX_FOOTER 24
#define INDEX_FIXED (INDEX_HEAD + 8 + INDEX_FOOTER)
#define INDEX_END_MARK "CCPXEND\n"

int index_add(struct index *index, const struct index_entry *entry)
{
    if (index->count == index->capacity) {
        size_t capacity = index->capacity == 0 ? 256 : index->capacity * 2;
        struct index_entry *grown = mem_resize(index->entries, capacity, sizeof *grown);
        if (grown == NULL)
            return mem_fail("the index", capacity, sizeof *grown);
        index->entries = grown;
        index->capacity = capacity;
    }
    index->entries[index->count++] = *entry;
    return 0;
}

void index_free(struct index *index)
{
    free(index->entries);
    memset(index, 0, sizeof *index);
}

int index_encode(struct frame_buffer *out, const struct index *index)
{
    size_t payload = INDEX_FIXED + index->count * INDEX_ENTRY;
    int status = frame_buffer_reserve(out, 8 + payload);
    if (status != 0)
        return status;
    uint8_t *at = out->bytes;
    le_put32(at, INDEX_MAGIC);
    le_put32(at + 4, (uint32_t)payload);
    uint8_t *body = at += 8;
    memcpy(at, "CCPX", 4);
    le_put32(at + 4, 1);
    le_put64(at + 8, payload);
    le_put64(at + 16, index->count);
    at += INDEX_HEAD;
    for (size_t i = 0; i < index->count; i++, at += INDEX_ENTRY) {
        const struct index_entry *entry = &index->entries[i];
        le_put64(at, entry->offset);
        le_put64(at + 8, entry->first_row);
        le_put32(at + 16, entry->rows);
        le_put32(at + 20, entry->stored_bytes);
    }
    le_put64(at, XXH3_64bits(body, (size_t)(at - body)));
    le_put64(at + 8, index->part_bytes);
    le_put64(at + 16, payload);
    memcpy(at + 24, INDEX_END_MARK, 8);
    out->size = 8 + payload;
    return 0;
}

bool index_recognise(const struct frame *frame)
{
    const struct frame_buffer *stored = &frame->stored;
    if (stored->size < 8 + INDEX_FIXED)
        return false;
    size_t payload = stored->size - 8;
    const uint8_t *body = stored->bytes + 8;
    return le_get64(body + 8) == payload || le_get64(body + payload - 16) == payload;
}

const char *index_check(const struct frame *frame)
{
    const struct frame_buffer *stored = &frame->stored;
    if (stored->size < 8 + INDEX_FIXED)
        return "the index is too short";
    size_t payload = stored->size - 8;
    const uint8_t *body = stored->bytes + 8, *footer = body + payload - INDEX_FOOTER;
    uint64_t count = le_get64(body + 16);
    if (le_get32(stored->bytes) != INDEX_MAGIC || memcmp(body, "CCPX", 4) != 0 ||
        le_get32(body + 4) != 1)
        return "the index has an unknown form";
    if (le_get64(body + 8) != payload || le_get64(footer + 8) != payload ||
        memcmp(footer + 16, INDEX_END_MARK, 8) != 0)
        return "the index's size marks do not match";
    if (count != (payload - INDEX_FIXED) / INDEX_ENTRY ||
        (payload - INDEX_FIXED) % INDEX_ENTRY != 0)
        return "the index's count does not match its size";
    if (le_get64(footer - 8) != XXH3_64bits(body, payload - INDEX_FOOTER - 8))
        return "the index's checksum does not match";
    if (le_get64(footer) > (uint64_t)frame->offset)
        return "the index says that its part begins before the file";
    for (uint64_t i = 0; i < count; i++)
        if (le_get64(body + INDEX_HEAD + i * INDEX_ENTRY) >= le_get64(footer))
            return "the index has a record outside of its part";
    return NULL;
}

static int index_load(struct index *index, const struct frame *frame)
{
    const uint8_t *body = frame->stored.bytes + 8;
    size_t count = (size_t)le_get64(body + 16);
    const uint8_t *at = body + INDEX_HEAD;
    for (size_t i = 0; i < count; i++, at += INDEX_ENTRY) {
        struct index_entry entry = {le_get64(at), le_get64(at + 8), le_get32(at + 16),
                                    le_get32(at + 20)};
        int status = index_add(index, &entry);
        if (status != 0)
            return status;
    }
    index->part_bytes = le_get64(at + 8);
    index->part_start = frame->offset - (int64_t)index->part_bytes;
    return 0;
}

int index_read(struct index *index, const struct io_file *file, int64_t end)
{
    memset(index, 0, sizeof *index);
    uint8_t footer[INDEX_FOOTER];
    if (end < 8 + INDEX_FIXED)
        return 1;
    int status = io_pread(file, footer, sizeof footer, end - INDEX_FOOTER);
    if (status != 0)
        return status;
    uint64_t payload = le_get64(footer + 8);
    if (memcmp(footer + 16, INDEX_END_MARK, 8) != 0 || payload > (uint64_t)end - 8 ||
        payload > FRAME_MAX_KEPT)
        return 1;
    uint8_t magic[4];
    int64_t start = end - 8 - (int64_t)payload;
    if ((status = io_pread(file, magic, sizeof magic, start)) != 0)
        return status;
    if (le_get32(magic) != INDEX_MAGIC)
        return 1;
    struct frame frame = {0};
    if ((status = frame_read_at(&frame, file, start)) == 1)
        status = index_check(&frame) == NULL ? index_load(index, &frame) : 1;
    frame_buffer_free(&frame.stored);
    if (status != 0)
        index_free(index);
    return status;
}
