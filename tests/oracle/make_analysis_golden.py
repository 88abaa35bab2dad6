#!/usr/bin/env python3
"""Writes tests/golden/analysis/*: crosscoders, rows, and what ccanalyze must print of them, in f64.

    pip install numpy xxhash lz4 zstandard safetensors
    python3 tests/oracle/make_analysis_golden.py

exact     two sources of width 5; weights and rows are small multiples of powers of 2, so that f32 holds every
          latent and reconstruction exactly. Among the latents: all bounds of the classes, equal and opposite
          decoders, one without decoders, one that never fires. Among the rows: ties, repeats, an epoch.
uneven    three sources of widths 4, 3 and 6, Gaussian weights, int8 rows, a bare file of tensors
single    one source, bf16 rows in LZ4 frames

expected.json of each: [{"args": [...], "header": [...], "rows": [[...]], "json": ...}], null where there is no
value. The args' CC, ROWS and MODEL are files beside it.
"""
import codecs
import json
import os
import struct

import lz4.frame
import numpy as np
from safetensors.numpy import save_file

from make_stream_golden import Stream

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "analysis")


# ---- what the verbs compute

def real(x):
    return None if x is None or not np.isfinite(x) else float(x)


def ratio(a, b):
    return a / b if b > 0 else None


class Crosscoder:
    def __init__(self, names, widths, w_enc, w_dec, b_enc, b_dec, l1=None):
        self.names, self.widths, self.l1 = names, widths, l1
        self.w_enc, self.w_dec, self.b_enc, self.b_dec = (a.astype(np.float32) for a in (w_enc, w_dec, b_enc, b_dec))
        at = np.concatenate([[0], np.cumsum(widths)])
        self.parts = [slice(at[s], at[s + 1]) for s in range(len(widths))]
        self.labels = [n.split(".blocks.")[0] for n in names]
        self.latents = len(b_enc)
        d, e = self.w_dec.astype(np.float64), self.w_enc.astype(np.float64)
        self.dec = np.stack([np.sqrt((d[:, p] ** 2).sum(1)) for p in self.parts], 1)
        self.enc = np.stack([np.sqrt((e[p] ** 2).sum(0)) for p in self.parts], 1)

    def forward(self, x):
        pre = x @ self.w_enc.astype(np.float64) + self.b_enc.astype(np.float64)
        assert np.abs(pre).min() > 1e-4, "a latent near 0 may fire or not in f32"
        f = np.maximum(pre, 0)
        return f, f @ self.w_dec.astype(np.float64) + self.b_dec.astype(np.float64)

    def relative(self, j, a, b):
        return ratio(self.dec[j, b], self.dec[j, a] + self.dec[j, b])

    def delta(self, n, rest):
        most = max(n, rest)
        return 0.5 * ((n - rest) / most + 1) if most > 0 else None

    def cosine(self, j, a, b, weights, norms):
        if self.widths[a] != self.widths[b] or norms[j, a] == 0 or norms[j, b] == 0:
            return None
        u, v = weights[j, self.parts[a]].astype(np.float64), weights[j, self.parts[b]].astype(np.float64)
        return float(u @ v) / (norms[j, a] * norms[j, b])

    def pair(self, pair):
        return pair if pair else (0, 1) if len(self.widths) == 2 else None


def case(args, header, lines, value=None, **extra):
    if value is None:
        value = {"latents": [dict(zip(header, line)) for line in lines], **extra}
    return {"args": args, "header": header, "rows": lines, "json": value}


def norms(cc, args=(), pair=None):
    pair = cc.pair(pair)
    many = len(cc.widths) > 2
    header = ["index"] + ["norm_" + n for n in cc.labels]
    header += ["relative_norm", "delta", "dec_cosine"] if pair else []
    header += ["delta_" + n for n in cc.labels] if many else []
    header += ["enc_norm_" + n for n in cc.labels] + (["enc_cosine"] if pair else [])
    rows = []
    for j in range(cc.latents):
        n = cc.dec[j]
        row = [j] + list(n)
        if pair:
            a, b = pair
            row += [cc.relative(j, a, b), cc.delta(n[b], n[a]), cc.cosine(j, a, b, cc.w_dec, cc.dec)]
        if many:
            row += [cc.delta(n[s], n.sum() - n[s]) for s in range(len(n))]
        row += list(cc.enc[j])
        if pair:
            row += [cc.cosine(j, a, b, cc.w_enc.T, cc.enc)]
        rows.append(row)
    return case(["norms", "CC", *args], header, rows)


def clusters(cc, args=(), pair=None, classes=None, dead=()):
    """classes: per latent the class by R and by delta, as the maker of the latents knows them."""
    pair = cc.pair(pair)
    live = [j for j in range(cc.latents) if j not in dead]
    if pair:
        a, b = pair
        names = [cc.labels[a] + "_only", "shared", cc.labels[b] + "_only", "other"]
        value = {}
        for at, kind in enumerate(["relative_norm", "delta"]):
            value[kind] = dict.fromkeys(names, 0)
            for j in live:
                value[kind][names[classes[j][at]]] += 1
    else:
        names = [n + "_only" for n in cc.labels] + ["other"]
        value = {"delta": dict.fromkeys(names, 0)}
        for j in live:
            n = cc.dec[j]
            only = [s for s in range(len(n)) if (cc.delta(n[s], n.sum() - n[s]) or 0) > 0.9]
            value["delta"][names[only[0] if only else len(n)]] += 1
    rows = [[kind, name, count] for kind in value for name, count in value[kind].items()]
    return case(["clusters", "CC", *args], ["definition", "class", "count"], rows, value)


def cosine(cc, args=(), pair=None, shared=()):
    a, b = cc.pair(pair)
    return case(["cosine", "CC", *args], ["index", "cosine"],
                [[j, cc.cosine(j, a, b, cc.w_dec, cc.dec)] for j in shared])


def freq(cc, x):
    f, _ = cc.forward(x)
    rows = []
    for j in range(cc.latents):
        fires = f[:, j] != 0
        n = int(fires.sum())
        most = float(f[:, j].max())
        rows.append([j, n, n / len(x), f[fires, j].mean() if n else None, most, most * cc.dec[j].sum(), int(n == 0)])
    return case(["freq", "CC", "ROWS"], ["index", "count", "frequency", "mean", "max", "max_scaled", "dead"], rows,
                rows=len(x))


def evaluate(cc, x, batch=4096, args=(), l1=None):
    f, xhat = cc.forward(x)
    l1 = cc.l1 if l1 is None else l1
    header = ["source", "rows", "loss", "l2", "l1", "l0", "explained_variance", "fve", "fve_centered"]
    rows = []
    for s, name in enumerate(["all"] + list(cc.names)):
        p = slice(None) if s == 0 else cc.parts[s - 1]
        y, e = x[:, p], x[:, p] - xhat[:, p]
        weight = cc.dec.sum(1) if s == 0 else cc.dec[:, s - 1]
        explained, centered, kept = [], 0, 0
        for at in range(0, len(x), batch):
            yb, eb = y[at:at + batch], e[at:at + batch]
            spread = ((yb - yb.mean(0)) ** 2).sum(1)
            some = spread > 1e-20
            explained += list(1 - (eb[some] ** 2).sum(1) / spread[some])
            if some.any():
                centered += len(yb) * (1 - ((eb - eb.mean(0)) ** 2).sum() / spread.sum())
                kept += len(yb)
        l2, first = (e ** 2).sum(1).mean(), (f @ weight).mean()
        rows.append([name, len(x), None if l1 is None else l2 + l1 * first, l2, first,
                     float((f != 0).sum(1).mean()) if s == 0 else None, np.mean(explained) if explained else None,
                     1 - (e ** 2).sum() / ((y - y.mean(0)) ** 2).sum(), centered / kept if kept else None])
    objects = [dict(zip(header, r)) for r in rows]
    return case(["eval", "CC", "ROWS", *args], header, rows,
                {"rows": len(x), "batch": batch, "l1_coeff": l1, "all": objects[0], "sources": objects[1:]})


codecs.register_error("each", lambda e: ("\ufffd", e.start + 1))  # one for each byte that belongs nowhere


def decode(vocabulary, ids):
    data = b""
    for i in ids:
        piece = vocabulary.get(i)
        if piece is None:
            data += f"<id {i}>".encode()
        elif piece.startswith("<0x"):
            data += bytes([int(piece[3:5], 16)])
        else:
            data += piece.replace("\u2581", " ").encode()
    return data.decode("utf-8", "each")


def escape(text):
    names = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}
    return "".join(names.get(c) or (f"\\x{ord(c):02x}" if ord(c) < 32 or ord(c) == 127 else c) for c in text)


def top(cc, x, tags, args=(), n=20, context=10, latents=None, vocabulary=None):
    f, _ = cc.forward(x)
    sequences, seen = [], set()  # lists of rows
    for i, (sequence, position, _) in enumerate(tags):
        if not sequences or tags[sequences[-1][0]][0] != sequence or position == tags[sequences[-1][0]][1]:
            sequences.append([])
        sequences[-1].append(i)
    kept = []
    for order, members in enumerate(sequences):
        key = tuple(tags[i][2] for i in members)
        if len(members) > 1 and key in seen:
            continue
        seen.add(key)
        kept.append((order, members))
    header = ["index", "rank", "activation", "sequence", "position", "token", "context"]
    rows, lists = [], []
    for j in range(cc.latents) if latents is None else latents:
        found = []
        for order, members in kept:
            best = max(members, key=lambda i: (f[i, j], -i))
            if f[best, j] > 0:
                found.append((-f[best, j], order, best, members))
        examples = []
        for rank, (value, _, i, members) in enumerate(sorted(found, key=lambda t: t[:2])[:n], 1):
            at = members.index(i)
            around = members[max(0, at - context):at + context + 1]
            ids, here = [tags[k][2] for k in around], around.index(i)
            if vocabulary is None:
                words = " ".join(map(str, ids))
            else:
                words = (decode(vocabulary, ids[:here]) + "«" + decode(vocabulary, [ids[here]]) + "»" +
                         decode(vocabulary, ids[here + 1:]))
            rows.append([j, rank, -value, *tags[i], escape(words)])
            examples.append({"rank": rank, "activation": -value, "sequence": tags[i][0], "position": tags[i][1],
                             "token": tags[i][2], "at": here, "tokens": ids,
                             "activations": [float(f[k, j]) for k in around]})
            if vocabulary is not None:
                examples[-1]["pieces"] = [decode(vocabulary, [k]) for k in ids]
        lists.append({"index": j, "examples": examples})
    return case(["top", "CC", "ROWS", *args], header, rows, {"latents": lists, "rows": len(x)})


# ---- files

def save_crosscoder(folder, cc, metadata):
    if len(set(cc.widths)) == 1:
        s, d, f = len(cc.widths), cc.widths[0], cc.latents
        tensors = {"W_enc": cc.w_enc.reshape(s, d, f), "W_dec": cc.w_dec.reshape(f, s, d), "b_enc": cc.b_enc,
                   "b_dec": cc.b_dec.reshape(s, d)}
    else:
        tensors = {"b_enc": cc.b_enc}
        for s, p in enumerate(cc.parts):
            tensors |= {f"W_enc.{s}": cc.w_enc[p], f"W_dec.{s}": cc.w_dec[:, p], f"b_dec.{s}": cc.b_dec[p]}
    tensors = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    save_file(tensors, os.path.join(folder, "cc.safetensors"), metadata)


def begin(cc, dtype, rows):
    at, sources = 0, []
    for name, width in zip(cc.names, cc.widths):
        sources.append({"name": name, "model": name.split(".")[0], "hook": name.partition(".")[2], "model_hash": "",
                        "offset": at, "width": width, "scale": 1.0})
        at += width
    return {"kind": "activations", "tool": "oracle 1", "rows": rows, "first_row": 0, "options": {}, "extra": {},
            "upstream": None, "dtype": dtype, "width": at, "tokenizer_hash": "", "data_plane": "inline",
            "sources": sources}


def save_rows(path, cc, dtype, tags, data, cut, lz4_frames=False):
    rows = [(struct.pack("<QII", *t), d) for t, d in zip(tags, data)]
    s = Stream(begin(cc, dtype, len(rows)), planes=2 if dtype == "bf16" else 0)
    for at in range(0, len(rows), cut):
        s.activations(rows[at:at + cut])
    s.end()
    out = b"".join(s.records)
    if lz4_frames:
        out = b"".join(lz4.frame.compress(r, block_linked=False, content_checksum=True, store_size=True)
                       for r in s.records)
    with open(path, "wb") as f:
        f.write(out)


def save_cases(folder, cases):
    def plain(v):
        if isinstance(v, dict):
            return {k: plain(w) for k, w in v.items()}
        if isinstance(v, (list, tuple)):
            return [plain(w) for w in v]
        return v if v is None or isinstance(v, (str, int)) else real(v)
    with open(os.path.join(folder, "expected.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(plain(c), ensure_ascii=False) for c in cases) + "\n]\n")


# ---- the crosscoders

BASE, SHARED, CHAT, OTHER = range(4)

VOCABULARY = {0: "<pad>", 1: "a", 2: "\u2581b", 3: "\n", 4: "\t", 5: "\\", 6: "<0xE2>", 7: "<0x82>", 8: "<0xAC>",
              9: "<b>&", 10: "\x1b[31m", 11: "é", 12: "«", 13: "\r"}


def exact_decoders():
    """Decoder pairs with their classes by R and by delta: (base, chat, class, class)."""
    def axis(i, n):
        v = np.zeros(5)
        v[i] = n
        return v
    sixteenths = [  # norms of base and chat, exactly; the classes follow from the definitions on paper
        (7, 3, OTHER, OTHER), (3, 7, OTHER, OTHER),    # R = 0.3, 0.7; delta = 3/14, 11/14
        (9, 1, OTHER, BASE), (1, 9, OTHER, CHAT),      # R = 0.1, 0.9; delta = 1/18, 17/18
        (5, 1, OTHER, OTHER), (1, 5, OTHER, OTHER),    # R = 1/6, 5/6; delta = 0.1, 0.9
        (5, 4, SHARED, OTHER), (4, 5, SHARED, OTHER),  # R = 4/9, 5/9; delta = 0.4, 0.6
        (7, 6, SHARED, SHARED), (6, 7, SHARED, SHARED),
        (19, 2, BASE, BASE), (2, 19, CHAT, CHAT),      # R = 2/21, 19/21
        (0, 4, CHAT, CHAT), (4, 0, BASE, BASE), (0, 0, OTHER, OTHER)]
    out = [(axis(i % 5, a / 16), axis((i + 1) % 5, b / 16), *c) for i, (a, b, *c) in enumerate(sixteenths)]
    v = np.array([3, 1, -2, 5, 7]) / 16
    out += [(v, v, SHARED, SHARED), (v, -v, SHARED, SHARED), (v, 2 * v, SHARED, OTHER)]  # delta 3/4, R 2/3
    out += [(np.array([1, -2, 3, 0, 1]) / 16, np.array([2, 1, -3, 1, 1]) / 16, SHARED, SHARED)]  # 15 and 16, squared
    return out


def exact():
    rng = np.random.default_rng(5)
    decoders = exact_decoders()
    latents = len(decoders)
    w_dec = np.array([np.concatenate(d[:2]) for d in decoders])
    classes = [d[2:] for d in decoders]
    w_enc = rng.integers(-4, 5, (10, latents)) / 16
    w_enc[:5, 3] = 0  # no encoder in base: no cosine
    b_enc = (2 * rng.integers(-8, 8, latents) + 1) / 128  # odd: no latent is 0 before ReLU
    b_enc[4] = -1000 - 1 / 128
    cc = Crosscoder(["base.blocks.3.hook_resid_pre", "chat.blocks.3.hook_resid_pre"], [5, 5], w_enc, w_dec, b_enc,
                    rng.integers(-8, 9, 10) / 16, l1=0.75)
    return cc, classes


def exact_rows(rng):
    """Sequences of 1 to 9 rows: [(index, first position, ids, rows)]."""
    sequences, x, tags = [], [], []
    for index in range(3, 17):
        length = 1 + (5 * index) % 9
        sequences.append((index, 1, rng.integers(0, 14, length).tolist(), rng.integers(-8, 9, (length, 10)) / 4))
    a, b, c = sequences[2], sequences[5], sequences[7]
    assert len(a[2]) > 3 and len(b[2]) > 3 and len(c[2]) > 3
    sequences.append((20, 1, list(a[2]), 2 * a[3]))                # a repeat with larger values: not taken
    sequences.append((21, 4, [int(i) + 1 for i in b[2]], b[3]))    # the values of b again: ties
    sequences.append((22, 1, [99, *c[2][1:]], c[3][::-1].copy()))  # the same maxima elsewhere, an id without piece
    sequences += [(23, 1, [5], a[3][:1]), (24, 1, [5], a[3][:1])]  # single rows are no repeats
    sequences.append(b)                                            # the second epoch begins
    for index, first, ids, rows in sequences:
        for k, (i, row) in enumerate(zip(ids, rows)):
            tags.append((index, first + k + (3 if k > 2 else 0), int(i)))  # positions may have gaps
            x.append(row)
    return np.array(x), tags


def make_exact():
    folder = os.path.join(OUT, "exact")
    os.makedirs(os.path.join(folder, "model"), exist_ok=True)
    cc, classes = exact()
    x, tags = exact_rows(np.random.default_rng(6))
    sources = json.dumps([{"name": n, "width": w, "scale": 1.0} for n, w in zip(cc.names, cc.widths)])
    save_crosscoder(folder, cc, {"format": "ccpipe", "sources": sources, "recipe": json.dumps({"l1": cc.l1})})
    save_rows(os.path.join(folder, "rows"), cc, "f32", tags, [r.astype("<f4").tobytes() for r in x], 17)
    with open(os.path.join(folder, "model", "tokenizer.json"), "w") as f:
        json.dump({"model": {"type": "BPE", "vocab": {v: k for k, v in VOCABULARY.items()}, "merges": []},
                   "added_tokens": []}, f)
    f, _ = cc.forward(x)
    dead = [j for j in range(cc.latents) if not f[:, j].any()]
    assert 4 in dead
    shared = [j for j, c in enumerate(classes) if c[0] == SHARED]
    flip = [tuple({BASE: CHAT, CHAT: BASE}.get(k, k) for k in c) for c in classes]
    between = [j for j in range(cc.latents) if (r := cc.relative(j, 0, 1)) is not None and 0.5 <= r <= 0.7]
    assert 1 in between and 11 not in between
    swapped = ["--pair", "chat,base"]
    save_cases(folder, [
        norms(cc), norms(cc, ["--pair", "1,0"], (1, 0)), clusters(cc, classes=classes),
        clusters(cc, swapped, (1, 0), [tuple(c) for c in flip]),
        clusters(cc, ["--dead", "DEAD"], classes=classes, dead=dead), cosine(cc, shared=shared),
        cosine(cc, swapped, (1, 0), shared), freq(cc, x), evaluate(cc, x), evaluate(cc, x, 40, ["--batch", "40"]),
        evaluate(cc, x, len(x) - 1, ["--batch", str(len(x) - 1), "--l1", "2"], 2.0), evaluate(cc, x, 1, ["--batch", "1"]),
        top(cc, x, tags, ["-n", "3", "--context", "2"], 3, 2),
        top(cc, x, tags, ["--latents", "17,2,17", "--model", "MODEL"], latents=[17, 2], vocabulary=VOCABULARY),
        top(cc, x, tags, ["--context", "0", "--n", "1", "--latents", "5"], 1, 0, [5]),
        top(cc, x, tags, ["--min-relative-norm", "0.5", "--max-relative-norm", "0.7", "-n", "2", "--context", "1"], 2, 1,
            between)])


def make_uneven():
    folder = os.path.join(OUT, "uneven")
    os.makedirs(folder, exist_ok=True)
    widths, latents = [4, 3, 6], 7
    rng = np.random.default_rng(11)
    w_dec = rng.normal(0, 0.4, (latents, 13))
    w_dec[1, 4:] = 0      # of the first source alone
    w_dec[2, :7] *= 0.01  # nearly of the third alone
    w_dec[3] = 0
    b_enc = rng.normal(0, 0.3, latents)
    b_enc[5] = -50
    cc = Crosscoder(["a.x", "b.x", "c.x"], widths, rng.normal(0, 0.4, (13, latents)), w_dec, b_enc, rng.normal(0, 0.2, 13))
    quanta = rng.uniform(0.005, 0.02, (61, 3)).astype("<f4")
    bytes_ = rng.integers(-127, 128, (61, 13)).astype("i1")
    data = [q.tobytes() + b.tobytes() for q, b in zip(quanta, bytes_)]
    x = np.stack([np.repeat(q, widths) * b.astype(np.float32) for q, b in zip(quanta, bytes_)]).astype(np.float64)
    tags = [(i // 10, 1 + i % 10, int(t)) for i, t in enumerate(rng.integers(0, 1000, 61))]
    save_crosscoder(folder, cc, None)
    save_rows(os.path.join(folder, "rows"), cc, "int8", tags, data, 20)
    cc.names = cc.labels = ["source0", "source1", "source2"]  # the file has none
    n = cc.dec
    by_r = [OTHER if r is None else BASE if r < 0.1 else CHAT if r > 0.9 else SHARED if 0.3 < r < 0.7 else OTHER
            for r in (cc.relative(j, 0, 2) for j in range(latents))]
    by_delta = [OTHER if d is None else BASE if d < 0.1 else CHAT if d > 0.9 else SHARED if 0.4 < d < 0.6 else OTHER
                for d in (cc.delta(n[j, 2], n[j, 0]) for j in range(latents))]
    save_cases(folder, [
        norms(cc), norms(cc, ["--pair", "0,2"], (0, 2)), clusters(cc),
        clusters(cc, ["--pair", "source0,source2"], (0, 2), list(zip(by_r, by_delta))),
        cosine(cc, ["--pair", "0,2"], (0, 2), [j for j in range(latents) if by_r[j] == SHARED]), freq(cc, x),
        evaluate(cc, x), evaluate(cc, x, 7, ["--batch", "7", "--l1", "0.5"], 0.5),
        top(cc, x, tags, ["-n", "4", "--context", "3"], 4, 3)])


def make_single():
    folder = os.path.join(OUT, "single")
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(3)
    cc = Crosscoder(["a.x"], [6], rng.normal(0, 0.5, (6, 5)), rng.normal(0, 0.5, (5, 6)), rng.normal(0, 0.3, 5),
                    rng.normal(0, 0.2, 6))
    bits = (rng.normal(0, 1, (30, 6)).astype("<f4").view("<u4") >> 16).astype("<u2")
    x = (bits.astype("<u4") << 16).view("<f4").astype(np.float64)
    tags = [(i, 0, 0) for i in range(30)]
    save_crosscoder(folder, cc, None)
    save_rows(os.path.join(folder, "rows"), cc, "bf16", tags, [b.tobytes() for b in bits], 8, True)
    cc.names = cc.labels = ["source0"]
    save_cases(folder, [norms(cc), freq(cc, x), evaluate(cc, x), top(cc, x, tags, ["-n", "2"], 2)])


if __name__ == "__main__":
    make_exact()
    make_uneven()
    make_single()
