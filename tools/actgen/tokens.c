/* tokens.c - sequences out of records, with ids below the vocabulary.
 *
 * The factors of --norm estimate come from the first sequences of a stream that can be read once
 * only, so those are kept as they are (4 bytes a token) and replayed.
 */
#include "tokens.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"

struct held_sequence {
    uint64_t index;
    uint32_t length;
    size_t at; /* of its ids in `bytes` */
};

struct tokens {
    struct stream_reader *reader;
    uint32_t vocab;
    uint64_t count;              /* sequences read */
    struct stream_record record; /* the one being taken apart, from `offset` on */
    size_t offset;
    bool in_record;

    struct held_sequence *held;
    size_t held_count, held_room;
    uint8_t *bytes;
    size_t byte_count, byte_room;
    size_t next_held, replayed; /* of the two ways to read them */
};

int tokens_open(struct tokens **opened, char *const *paths, size_t path_count, unsigned threads,
                uint32_t vocab)
{
    *opened = NULL;
    struct tokens *tokens = mem_alloc_zero(1, sizeof *tokens);
    if (tokens == NULL)
        return mem_fail("tokens", 1, sizeof *tokens);
    tokens->vocab = vocab;
    int status = stream_reader_open(&tokens->reader, paths, path_count, BEGIN_TOKENS, threads);
    if (status != 0) {
        tokens_free(tokens);
        return status;
    }
    *opened = tokens;
    return 0;
}

void tokens_free(struct tokens *tokens)
{
    if (tokens == NULL)
        return;
    stream_reader_free(tokens->reader);
    free(tokens->held);
    free(tokens->bytes);
    free(tokens);
}

const struct stream_reader *tokens_reader(const struct tokens *tokens)
{
    return tokens->reader;
}

static int check_ids(const struct tokens *tokens, const struct stream_sequence *sequence)
{
    for (uint32_t i = 0; i < sequence->length; i++) {
        uint32_t id = le_get32(sequence->ids + 4 * (size_t)i);
        if (id >= tokens->vocab)
            return log_fail(ERR_DATA,
                            "'%s': sequence %" PRIu64 ", position %" PRIu32 ": token id %" PRIu32
                            " is not below the models' vocab_size %" PRIu32
                            "; were the tokens made for another model?",
                            stream_reader_file(tokens->reader)->name, sequence->index, i, id,
                            tokens->vocab);
    }
    return 0;
}

/* BEGIN's length and number of sequences were multiplied into a number of rows. What follows behind
 * them in a pipe (cat a b) may have another length. */
static int check_length(const struct tokens *tokens, const struct stream_sequence *sequence)
{
    const struct begin *begin = stream_reader_begin(tokens->reader);
    if (!begin->has_seq_len || !begin->has_rows || tokens->count >= begin->rows ||
        sequence->length == begin->seq_len)
        return 0;
    return log_fail(ERR_DATA,
                    "'%s': sequence %" PRIu64 " has %" PRIu32 " tokens, and BEGIN says that all "
                    "have %" PRIu64,
                    stream_reader_file(tokens->reader)->name, sequence->index, sequence->length,
                    begin->seq_len);
}

static int read_sequence(struct tokens *tokens, struct stream_sequence *sequence)
{
    while (!tokens->in_record ||
           stream_sequence_next(&tokens->record, &tokens->offset, sequence) == 0) {
        int status = stream_reader_next(tokens->reader, &tokens->record);
        tokens->in_record = status == 1;
        tokens->offset = 0;
        if (status != 1)
            return status;
    }
    int status = check_length(tokens, sequence);
    if (status == 0)
        status = check_ids(tokens, sequence);
    tokens->count++;
    return status != 0 ? status : 1;
}

static int reserve_held(struct tokens *tokens, size_t bytes)
{
    if (tokens->held_count == tokens->held_room) {
        size_t room = 2 * tokens->held_room + 64;
        struct held_sequence *grown = mem_resize(tokens->held, room, sizeof *grown);
        if (grown == NULL)
            return mem_fail("the sequences of --norm-sequences", room, sizeof *grown);
        tokens->held = grown;
        tokens->held_room = room;
    }
    if (bytes > tokens->byte_room - tokens->byte_count) {
        size_t room = 2 * tokens->byte_room + bytes;
        uint8_t *grown = mem_resize(tokens->bytes, room, 1);
        if (grown == NULL)
            return mem_fail("the tokens of --norm-sequences", room, 1);
        tokens->bytes = grown;
        tokens->byte_room = room;
    }
    return 0;
}

int tokens_hold(struct tokens *tokens, uint64_t count, bool *all)
{
    struct stream_sequence sequence;
    int status = 1;
    while (tokens->held_count < count && (status = read_sequence(tokens, &sequence)) == 1) {
        size_t size = 4 * (size_t)sequence.length;
        if ((status = reserve_held(tokens, size)) != 0)
            return status;
        tokens->held[tokens->held_count++] =
            (struct held_sequence){sequence.index, sequence.length, tokens->byte_count};
        if (size > 0)
            memcpy(tokens->bytes + tokens->byte_count, sequence.ids, size);
        tokens->byte_count += size;
    }
    *all = status == 0;
    return status < 0 ? status : 0;
}

static int take_held(const struct tokens *tokens, size_t *next, struct stream_sequence *sequence)
{
    if (*next == tokens->held_count)
        return 0;
    const struct held_sequence *held = &tokens->held[(*next)++];
    *sequence = (struct stream_sequence){held->index, held->length, tokens->bytes + held->at};
    return 1;
}

int tokens_next_held(struct tokens *tokens, struct stream_sequence *sequence)
{
    return take_held(tokens, &tokens->next_held, sequence);
}

int tokens_next(struct tokens *tokens, struct stream_sequence *sequence)
{
    if (take_held(tokens, &tokens->replayed, sequence) == 1)
        return 1;
    return read_sequence(tokens, sequence);
}
