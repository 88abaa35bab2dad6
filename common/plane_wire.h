/* plane_wire.h - the messages of the control socket as bytes. Internal to plane.c and to its test.
 *
 * A message is PLANE_WIRE_BYTES long, whatever its type: "CCPL", u16 version, u16 type, then what
 * the type has, then zeros. Integers are little-endian.
 *
 * - HELLO, trainer: u32 data plane, u32 NCCL's version, u32 whether one device will do, uuid (16)
 * - ACCEPT, generator
 * - REFUSE, generator: text, ended by 0
 * - PASS, generator: u64 number, u32 buffer, u32 rows, u32 served
 * - FREE, trainer: u64 number
 * - BEAT, both: once a second
 * - BYE, both: nothing more comes
 */
#ifndef CCPIPE_PLANE_WIRE_H
#define CCPIPE_PLANE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "plane.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PLANE_WIRE_BYTES 256
#define PLANE_WIRE_VERSION 1

enum plane_wire_type {
    PLANE_HELLO = 1,
    PLANE_ACCEPT = 2,
    PLANE_REFUSE = 3,
    PLANE_PASS = 4,
    PLANE_FREE = 5,
    PLANE_BEAT = 6,
    PLANE_BYE = 7
};

struct plane_wire {
    enum plane_wire_type type;
    uint16_t version;
    uint32_t kind, nccl_version, nccl_one_device; /* HELLO */
    uint8_t uuid[PLANE_UUID_BYTES];
    char text[PLANE_WIRE_BYTES - 8]; /* REFUSE; printable, ended by 0 */
    struct plane_pass pass;          /* PASS; FREE: its number */
};

void plane_wire_put(uint8_t to[PLANE_WIRE_BYTES], const struct plane_wire *message);

/* False where those are not the bytes of a message of this version; of a HELLO any version will do,
 * so that it can be refused. */
bool plane_wire_get(struct plane_wire *message, const uint8_t *from, size_t size);

/* One message, without waiting: 1; 0 where there is none now; ERR_CLOSED where the other side has
 * closed and nothing is left to read; ERR_DATA where it is no message. Nothing is logged. */
int plane_wire_receive(struct plane_wire *message, int fd) MUST_CHECK;

/* The same: 1 sent; 0 where there is no room now; ERR_CLOSED. */
int plane_wire_send(int fd, const struct plane_wire *message) MUST_CHECK;

/* The address of an abstract name, and its length. */
socklen_t plane_wire_address(struct sockaddr_un *address, const char *name);

/* Whether a process of this user is at the other end. */
bool plane_wire_is_own(int fd);

#ifdef __cplusplus
}
#endif
#endif
