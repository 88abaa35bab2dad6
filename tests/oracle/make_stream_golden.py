#!/usr/bin/env python3
"""Writes tests/golden/stream/*: streams made from doc/FORMAT.md alone, by no code of the project.

    pip install numpy xxhash lz4 zstandard
    python3 tests/oracle/make_stream_golden.py

tokens.ccps       3 sequences (of 4, 0 and 2 ids), bare records
rows-f32.ccps     5 rows of two sources (widths 3 and 2), bare, in records of 2, 2 and 1 rows
rows-bf16.lz4     4 rows, byte planes, each record an LZ4 frame, index behind END
rows-int8.zst     3 rows with quanta, each record a zstd frame, no index
empty.ccps        BEGIN and END alone
aborted.ccps      BEGIN, 2 rows, ABORT

and seeds of the fuzzers to tests/fuzz/corpus/{stream,salvage}: streams whose rows travel by a data
plane, in front of each the byte that tests/fuzz/repair.h begins with; one whose END does not
say what was skipped; and golden streams with the bytes 3, 4 and 5.

hashed-ipc.ccps      the rows of rows-f32.ccps, cuda-ipc, bare
hashed-beyond.ccps   a row's place is the first one behind the window
hashed-nccl.lz4      those of rows-bf16.lz4, nccl, each record an LZ4 frame, index behind END
"""
import json
import os
import struct

import lz4.frame
import numpy as np
import xxhash
import zstandard

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "golden", "stream")
SEEDS = os.path.join(HERE, "..", "fuzz", "corpus")
BEGIN, DATA, END, ABORT = 1, 2, 3, 4


def run_id(payload):
    h = xxhash.xxh3_128_intdigest(payload)
    return struct.pack("<QQ", h & (2**64 - 1), h >> 64)


def record(kind, run, sequence, first_row, rows, payload, flags=0):
    head = struct.pack("<4sHHII16sQQIIQQ", b"CCPS", 1, kind, flags, 0, run, sequence, first_row, rows,
                       len(payload), 0, xxhash.xxh3_64_intdigest(payload))
    return head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head)) + payload


def text(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Stream:
    """Collects records; `rows` are lists of (tag bytes, row bytes)."""

    def __init__(self, begin, planes=0):
        payload = text(begin)
        self.run, self.records, self.seq, self.rows, self.low, self.high = run_id(payload), [], 0, 0, 0, 0
        self.planes, self.data, self.meta = planes, 0, []
        self.add(BEGIN, 0, payload)

    def add(self, kind, rows, payload, flags=0):
        self.records.append(record(kind, self.run, self.seq, self.rows, rows, payload, flags))
        self.meta.append((self.rows, rows))
        self.seq += 1
        self.rows += rows

    def count(self, one):
        h = xxhash.xxh3_128_intdigest(one)
        self.low = (self.low + (h & (2**64 - 1))) % 2**64
        self.high = (self.high + (h >> 64)) % 2**64

    def activations(self, rows):
        tags, data = b"".join(t for t, _ in rows), b"".join(r for _, r in rows)
        for t, r in rows:
            self.count(t + r)
        if self.planes:
            a = np.frombuffer(data, np.uint8).reshape(-1, self.planes)
            data = a[:, ::-1].T.tobytes()
        self.data += 1
        self.add(DATA, len(rows), tags + data, 1 if self.planes else 0)

    def hashed(self, rows, places):
        tags, data = b"".join(t for t, _ in rows), b""
        for (t, r), place in zip(rows, places):
            self.count(t + r)
            data += run_id(t + r) + struct.pack("<Q", place)
        self.data += 1
        self.add(DATA, len(rows), tags + data)

    def sequences(self, items):
        parts = [struct.pack("<QI", i, len(ids)) + np.array(ids, "<u4").tobytes() for i, ids in items]
        for p in parts:
            self.count(p)
        self.data += 1
        self.add(DATA, len(items), b"".join(parts))

    def end(self, skipped=None):
        self.add(END, 0, text({"records": self.data, "rows": self.rows, "skipped": skipped or {},
                               "sum_low": f"{self.low:016x}", "sum_high": f"{self.high:016x}"}))

    def abort(self, status, reason):
        self.add(ABORT, 0, text({"status": status, "reason": reason}))

    def index(self, frames):
        entries, at = b"", 0
        for (first, rows), f in zip(self.meta, frames):
            entries += struct.pack("<QQII", at, first, rows, len(f))
            at += len(f)
        size = 24 + len(entries) + 8 + 24
        body = b"CCPX" + struct.pack("<IQQ", 1, size, len(frames)) + entries
        body += struct.pack("<Q", xxhash.xxh3_64_intdigest(body)) + struct.pack("<QQ", at, size) + b"CCPXEND\n"
        return struct.pack("<II", 0x184D2A5C, size) + body


def begin_activations(dtype, rows=None):
    return {"kind": "activations", "tool": "oracle 1", "rows": rows, "first_row": 0, "options": {}, "extra": {},
            "upstream": None, "dtype": dtype, "width": 5, "tokenizer_hash": "", "data_plane": "inline",
            "sources": [{"name": "a.x", "model": "a", "hook": "x", "model_hash": "", "offset": 0, "width": 3, "scale": 1.0},
                        {"name": "b.x", "model": "b", "hook": "x", "model_hash": "", "offset": 3, "width": 2, "scale": 0.5}]}


def begin_hashed(dtype, rows, plane):
    key = {"handle": bytes(range(64)).hex()} if plane == "cuda-ipc" else {"id": bytes(range(128)).hex()}
    return {**begin_activations(dtype, rows), "data_plane": plane,
            "attach": {"socket": "ccpipe-0123.x_y", "buffers": 2, "capacity": 3, **key}}


def tag(i):
    return struct.pack("<QII", 100 + i // 2, 1 + i % 2, 7 * i)


def value(i, j):
    return (i + 1) * (0.5 + j) * (-1) ** j


def save(name, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def seed(name, data):
    for fuzzer in ("stream", "salvage"):
        with open(os.path.join(SEEDS, fuzzer, name), "wb") as f:
            f.write(data)


def lz4_frame(data):
    return lz4.frame.compress(data, block_size=lz4.frame.BLOCKSIZE_MAX4MB, block_linked=False, content_checksum=True,
                              block_checksum=True, store_size=True)


def main():
    os.makedirs(OUT, exist_ok=True)
    s = Stream({"kind": "tokens", "tool": "oracle 1", "rows": 3, "first_row": 0, "seq_len": None, "options": {}, "extra": {},
                "upstream": None})
    s.sequences([(0, [2, 10, 11, 4294967295]), (1, []), (5, [2, 3])])
    s.end({"cut": 1})
    save("tokens.ccps", b"".join(s.records))

    rows = [(tag(i), np.array([value(i, j) for j in range(5)], "<f4").tobytes()) for i in range(5)]
    s = Stream(begin_activations("f32", 5))
    for at in (0, 2, 4):
        s.activations(rows[at:at + 2])
    s.end()
    save("rows-f32.ccps", b"".join(s.records))

    bf = [(t, (np.frombuffer(r, "<u4") >> 16).astype("<u2").tobytes()) for t, r in rows[:4]]
    s = Stream(begin_activations("bf16"), planes=2)
    s.activations(bf[:3])
    s.activations(bf[3:])
    s.end()
    frames = [lz4_frame(r) for r in s.records]
    save("rows-bf16.lz4", b"".join(frames) + s.index(frames))

    q = [(t, np.array([0.5, 0.25], "<f4").tobytes() + np.array([i, -i, 127, -127, 1], "i1").tobytes()) for i, (t, _) in
         enumerate(rows[:3])]
    s = Stream(begin_activations("int8"))
    s.activations(q)
    s.end()
    z = zstandard.ZstdCompressor(level=1, write_checksum=True, write_content_size=True)
    save("rows-int8.zst", b"".join(z.compress(r) for r in s.records))

    s = Stream(begin_activations("f32", 0))
    s.end()
    save("empty.ccps", b"".join(s.records))
    s = Stream(begin_activations("f32"))
    s.activations(rows[:2])
    s.abort(130, "stopped by a signal")
    save("aborted.ccps", b"".join(s.records))

    s = Stream(begin_hashed("f32", 5, "cuda-ipc"))
    s.hashed(rows[:3], (0, 1, 2))
    s.hashed(rows[3:], (5, 3))
    s.end()
    seed("raw_hashed-ipc.ccps", b"\0" + b"".join(s.records))
    for mode in range(1, 5):
        seed(f"repaired{mode}_hashed-ipc.ccps", bytes([mode]) + b"".join(s.records))
    s = Stream(begin_hashed("f32", 5, "cuda-ipc"))
    s.hashed(rows[:2], (5, 6))
    s.end()
    seed("repaired1_hashed-beyond.ccps", b"\1" + b"".join(s.records))

    s = Stream(begin_hashed("bf16", None, "nccl"))
    s.hashed(bf, (3, 4, 5, 0))
    s.end()
    frames = [lz4_frame(r) for r in s.records]
    seed("raw_hashed-nccl.lz4", b"\0" + b"".join(frames) + s.index(frames))

    s = Stream({"kind": "tokens", "tool": "oracle 1", "rows": 1, "first_row": 0, "seq_len": None, "options": {}, "extra": {},
                "upstream": None})
    s.sequences([(0, [2, 10])])
    s.add(END, 0, text({"records": 1, "rows": 1, "sum_low": f"{s.low:016x}", "sum_high": f"{s.high:016x}"}))
    seed("raw_no-skipped.ccps", b"\0" + b"".join(s.records))

    for name in ("tokens", "rows-f32"):
        with open(os.path.join(OUT, name + ".ccps"), "rb") as f:
            data = f.read()
        seed(f"repaired3_{name}.ccps", b"\3" + data)
        seed(f"repaired4_{name}.ccps", b"\4" + data)
        # ... and the first row of entry 2
        seed(f"repaired5_{name}.ccps", b"\5" + data + struct.pack("<BQQII", 2, 0, 2, 0, 0))


if __name__ == "__main__":
    main()
