/* pass.c - collects sequences, positions, tags and kept rows of a pass. */
#include "pass.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/le.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/stream.h"

/* ids, positions, row, in_chunk and a tag */
enum { TOKEN_BYTES = 4 * 4 + STREAM_TAG_BYTES };

size_t pass_round_up(size_t chunk, size_t tokens)
{
    return (tokens + chunk - 1) / chunk * chunk;
}

uint64_t pass_bytes(size_t chunk, size_t tokens, size_t sequences)
{
    return (uint64_t)pass_round_up(chunk, tokens) * TOKEN_BYTES +
           sequences * sizeof(struct kernels_span);
}

void pass_free(struct pass *pass)
{
    free(pass->ids);
    free(pass->positions);
    free(pass->spans);
    free(pass->row);
    free(pass->in_chunk);
    free(pass->chunk_first);
    free(pass->tags);
    memset(pass, 0, sizeof *pass);
}

int pass_reserve(struct pass *pass, size_t chunk, size_t tokens, size_t sequences)
{
    assert(pass->tokens == 0);
    pass_free(pass);
    /* Rows are numbered in 32 bits. */
    if (tokens > UINT32_MAX - chunk)
        return log_fail(ERR_USAGE, "%zu tokens in one pass are too many; lower --batch", tokens);
    size_t n = pass_round_up(chunk, tokens);
    pass->ids = mem_alloc(n, sizeof *pass->ids);
    pass->positions = mem_alloc(n, sizeof *pass->positions);
    pass->spans = mem_alloc(sequences, sizeof *pass->spans);
    pass->row = mem_alloc(n, sizeof *pass->row);
    pass->in_chunk = mem_alloc(n, sizeof *pass->in_chunk);
    pass->chunk_first = mem_alloc(n / chunk + 1, sizeof *pass->chunk_first);
    pass->tags = mem_alloc(n, STREAM_TAG_BYTES);
    if (pass->ids == NULL || pass->positions == NULL || pass->spans == NULL || pass->row == NULL ||
        pass->in_chunk == NULL || pass->chunk_first == NULL || pass->tags == NULL) {
        pass_free(pass);
        return mem_fail("the tokens of a pass", n, TOKEN_BYTES);
    }
    pass->chunk = chunk;
    pass->capacity = n;
    pass->span_capacity = sequences;
    return 0;
}

bool pass_fits(const struct pass *pass, uint32_t length)
{
    return length <= pass->capacity - pass->tokens && pass->span_count < pass->span_capacity;
}

static bool is_dropped(const struct pass_rule *rule, uint32_t id)
{
    for (size_t i = 0; i < rule->id_count; i++)
        if (rule->ids[i] == id)
            return true;
    return false;
}

void pass_add(struct pass *pass, const struct pass_rule *rule, struct pass_skipped *skipped,
              uint64_t index, const uint8_t *ids, uint32_t length)
{
    assert(pass_fits(pass, length));
    if (length == 0)
        return;
    size_t start = pass->tokens;
    pass->spans[pass->span_count++] = (struct kernels_span){(uint32_t)start, length};
    for (uint32_t position = 0; position < length; position++) {
        size_t token = start + position;
        uint32_t id = le_get32(ids + 4 * (size_t)position);
        pass->ids[token] = id;
        pass->positions[token] = position;
        if (position < rule->first) {
            skipped->position++;
        } else if (is_dropped(rule, id)) {
            skipped->id++;
        } else {
            struct stream_tag tag = {index, position, id};
            stream_tag_put(pass->tags + pass->kept * STREAM_TAG_BYTES, tag);
            pass->in_chunk[pass->kept] = (uint32_t)(token % pass->chunk);
            pass->row[pass->kept++] = (uint32_t)token;
        }
    }
    pass->tokens = start + length;
}

size_t pass_close(struct pass *pass)
{
    size_t padded = pass_round_up(pass->chunk, pass->tokens), chunks = padded / pass->chunk,
           kept = 0;
    for (size_t token = pass->tokens; token < padded; token++)
        pass->ids[token] = pass->positions[token] = 0;
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        while (kept < pass->kept && pass->row[kept] < chunk * pass->chunk)
            kept++;
        pass->chunk_first[chunk] = kept;
    }
    pass->chunk_first[chunks] = pass->kept;
    return chunks;
}

void pass_clear(struct pass *pass)
{
    pass->tokens = pass->span_count = pass->kept = 0;
}
