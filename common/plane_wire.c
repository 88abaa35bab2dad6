/* plane_wire.c - messages of one size, so that a look at the size tells what is none.
 *
 * SOCK_SEQPACKET keeps messages apart and in order, and says when the other end is closed. Where
 * that end was closed with something unread, the first receive fails with ECONNRESET, and what had
 * been sent before comes only after it: so that is not yet the end.
 */
#define _GNU_SOURCE /* struct ucred */
#include "plane_wire.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "le.h"

static const uint8_t wire_magic[4] = {'C', 'C', 'P', 'L'};

void plane_wire_put(uint8_t to[PLANE_WIRE_BYTES], const struct plane_wire *message)
{
    memset(to, 0, PLANE_WIRE_BYTES);
    memcpy(to, wire_magic, sizeof wire_magic);
    le_put16(to + 4, PLANE_WIRE_VERSION);
    le_put16(to + 6, (uint16_t)message->type);
    switch (message->type) {
    case PLANE_HELLO:
        le_put32(to + 8, message->kind);
        le_put32(to + 12, message->nccl_version);
        le_put32(to + 16, message->nccl_one_device);
        memcpy(to + 20, message->uuid, PLANE_UUID_BYTES);
        break;
    case PLANE_REFUSE:
        memcpy(to + 8, message->text, sizeof message->text - 1);
        break;
    case PLANE_PASS:
        le_put32(to + 16, message->pass.buffer);
        le_put32(to + 20, message->pass.rows);
        le_put32(to + 24, message->pass.served);
        le_put64(to + 8, message->pass.number);
        break;
    case PLANE_FREE:
        le_put64(to + 8, message->pass.number);
        break;
    default:
        break;
    }
}

static void wire_get_text(char *to, const uint8_t *from, size_t size)
{
    for (size_t i = 0; i + 1 < size && from[i] != 0; i++)
        to[i] = from[i] >= 32 && from[i] < 127 ? (char)from[i] : '?';
}

bool plane_wire_get(struct plane_wire *message, const uint8_t *from, size_t size)
{
    memset(message, 0, sizeof *message);
    if (size != PLANE_WIRE_BYTES || memcmp(from, wire_magic, sizeof wire_magic) != 0)
        return false;
    message->version = le_get16(from + 4);
    uint16_t type = le_get16(from + 6);
    if (type < PLANE_HELLO || type > PLANE_BYE)
        return false;
    message->type = (enum plane_wire_type)type;
    if (type == PLANE_HELLO) {
        message->kind = le_get32(from + 8);
        message->nccl_version = le_get32(from + 12);
        message->nccl_one_device = le_get32(from + 16);
        memcpy(message->uuid, from + 20, PLANE_UUID_BYTES);
        return true;
    }
    if (type == PLANE_REFUSE)
        wire_get_text(message->text, from + 8, sizeof message->text);
    if (type == PLANE_PASS || type == PLANE_FREE)
        message->pass = (struct plane_pass){le_get64(from + 8), le_get32(from + 16),
                                            le_get32(from + 20), le_get32(from + 24)};
    return message->version == PLANE_WIRE_VERSION;
}

int plane_wire_receive(struct plane_wire *message, int fd)
{
    uint8_t bytes[PLANE_WIRE_BYTES + 1];
    for (;;) {
        ssize_t size = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (size > 0)
            return plane_wire_get(message, bytes, (size_t)size) ? 1 : ERR_DATA;
        if (size == 0)
            return ERR_CLOSED;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 0;
        if (errno != EINTR && errno != ECONNRESET)
            return ERR_CLOSED;
    }
}

int plane_wire_send(int fd, const struct plane_wire *message)
{
    uint8_t bytes[PLANE_WIRE_BYTES];
    plane_wire_put(bytes, message);
    for (;;) {
        if (send(fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 1;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 0;
        if (errno != EINTR)
            return ERR_CLOSED;
    }
}

socklen_t plane_wire_address(struct sockaddr_un *address, const char *name)
{
    size_t length = strlen(name); /* below BEGIN_SOCKET_BYTES, which is below sun_path's size */
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path + 1, name, length);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

bool plane_wire_is_own(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}
