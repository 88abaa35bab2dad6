#!/usr/bin/env python3
"""Writes tests/golden/files/*: small files by the packages that own the formats.

    pip install numpy 'safetensors>=0.8' tokenizers xxhash
    python3 tests/oracle/make_small_files.py

types.safetensors     one tensor of each type, a scalar, an empty one, __metadata__ (safetensors)
sharded/              two shards and their index; the second holds a tensor the index has in the first
written.safetensors   the bytes that safetensors_write() must give for the entries of its test: put
                      together here from the format, and loaded by the package
*.npy                 versions 1 to 3, ranks 0 to 3, and what is refused (numpy)
bpe/, unigram/        tokenizer.json (tokenizers), expected.tsv: ids, a tab, the text that the library
                      decodes (hexadecimal UTF-8); hash: XXH3-128 of the records described in
                      common/tokenizer.c, made here from the library's own id -> piece
"""
import json
import os
import struct
import warnings

import numpy as np
import safetensors
import safetensors.numpy
import xxhash
from tokenizers import AddedToken, Tokenizer, decoders, models

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "files")


def path(*names):
    result = os.path.join(OUT, *names)
    os.makedirs(os.path.dirname(result), exist_ok=True)
    return result


# ---- safetensors: element i of every tensor is the one that value() gives


def values(n):
    return [(i - 3) * 0.375 for i in range(n)]


def bf16(array):  # the values are exact in bf16
    return (np.asarray(array, "<f4").view("<u4") >> 16).astype("<u2")


ALIVE = []  # TensorSpec holds an address, not the array


def tensor(dtype, shape, array):
    array = np.ascontiguousarray(array)
    ALIVE.append(array)
    return safetensors.TensorSpec(dtype=dtype, shape=shape, data_ptr=array.ctypes.data,
                                  data_len=array.nbytes)


def types():
    n = 12
    v = values(n)
    halves = np.array([0.0, -0.0, 2.0**-24, -(2.0**-15), 1.0, 65504.0], "<f2")
    tensors = {
        "bool": tensor("bool", [2], np.array([1, 0], "u1")),
        "u8": tensor("uint8", [3], np.array([0, 7, 255], "u1")),
        "i8": tensor("int8", [3], np.array([-128, 7, 127], "i1")),
        "f8_e5m2": tensor("float8_e5m2", [2], np.array([1, 2], "u1")),
        "f8_e4m3": tensor("float8_e4m3fn", [2], np.array([1, 2], "u1")),
        "i16": tensor("int16", [2], np.array([-32768, 5], "<i2")),
        "u16": tensor("uint16", [2], np.array([65535, 5], "<u2")),
        "f16": tensor("float16", [2, 3], halves),
        "bf16": tensor("bfloat16", [3, 4], bf16(v)),
        "i32": tensor("int32", [2], np.array([-5, 5], "<i4")),
        "u32": tensor("uint32", [1], np.array([4294967295], "<u4")),
        "f32": tensor("float32", [2, 3, 2], np.array(v, "<f4")),
        "f64": tensor("float64", [2], np.array([0.1, -2.5], "<f8")),
        "i64": tensor("int64", [1], np.array([-(2**62)], "<i8")),
        "u64": tensor("uint64", [1], np.array([2**63 + 1], "<u8")),
        "scalar": tensor("float32", [], np.array(0.5, "<f4")),
        "empty": tensor("float32", [0, 3], np.zeros((0, 3), "<f4")),
        "größe": tensor("float32", [1], np.array([9], "<f4")),
    }
    safetensors.serialize_file(tensors, path("types.safetensors"), {"format": "pt", "k": "v\n\"ä"})


def sharded():
    one = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.arange(4, dtype="<f4") + 10}
    two = {"c": np.arange(2, dtype="<f4") + 20, "b": np.arange(4, dtype="<f4") + 90,
           "unused": np.zeros(3, "<f4")}
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    safetensors.numpy.save_file(one, path("sharded", names[0]), {"format": "np", "shard": "1"})
    safetensors.numpy.save_file(two, path("sharded", names[1]), {"format": "np", "shard": "2"})
    index = {"metadata": {"total_size": 4 * (6 + 4 + 2)},
             "weight_map": {"a": names[0], "b": names[0], "c": names[1]}}
    with open(path("sharded", "model.safetensors.index.json"), "w") as file:
        json.dump(index, file, indent=2)


def written():
    entries = [("W.weight", "F32", [2, 3], np.array(values(6), "<f4").tobytes()),
               ("step", "I64", [], struct.pack("<q", -2)),
               ("nothing", "BF16", [4, 0], b""),
               ("b", "BF16", [3], bf16([1, -2, 0.5]).tobytes())]
    header, data = {"__metadata__": {"format": "pt", "größe": "\"1\""}}, b""
    for name, dtype, shape, raw in entries:
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path("written.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    with open(path("written.safetensors"), "rb") as file:
        loaded = dict(safetensors.deserialize(file.read()))
    assert [loaded[e[0]]["shape"] for e in entries] == [e[2] for e in entries]
    assert [bytes(loaded[e[0]]["data"]) for e in entries] == [e[3] for e in entries]


# ---- npy


def save(name, array, version=None):
    with open(path(name), "wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(file, array, version=version, allow_pickle=True)


def npy():
    save("i4_3x4.npy", np.arange(12, dtype="<i4").reshape(3, 4), (1, 0))
    save("u2_5.npy", np.arange(5, dtype="<u2"), (2, 0))
    save("f8_scalar.npy", np.array(2.5, "<f8"), (3, 0))
    save("f4_2x0x3.npy", np.zeros((2, 0, 3), "<f4"))
    for letter in ("u1", "i1", "i2", "u4", "i8", "u8", "f2"):
        save("%s_2.npy" % letter, np.array([1, 2], letter))
    save("refused_big_endian.npy", np.arange(3, dtype=">i4"))
    save("refused_fortran.npy", np.asfortranarray(np.arange(6, dtype="<i4").reshape(2, 3)))
    save("refused_object.npy", np.array([None, 1], object))
    save("refused_structured.npy", np.zeros(2, [("x", "<i4"), ("y", "<f4")]))
    save("refused_bool.npy", np.array([True]))
    save("refused_string.npy", np.array(["ab"]))


# ---- tokenizers


def bpe():
    vocab = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}
    for i in range(256):
        vocab["<0x%02X>" % i] = len(vocab)
    for piece in ("▁", "t", "h", "e", "th", "the", "▁the", "▁▁", "é", "a▁b▁"):
        vocab[piece] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab, [("t", "h"), ("th", "e"), ("▁", "the")],
                                     byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                           decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<pad>", "<eos>", "<bos>")])
    tokenizer.add_tokens(["<start_of_turn>", "▁▁▁"])
    e, euro, face = "é".encode(), "€".encode(), "😀".encode()
    byte = lambda raw: [4 + b for b in raw]
    the, ab, turn = vocab["▁the"], vocab["a▁b▁"], tokenizer.token_to_id("<start_of_turn>")
    return tokenizer, vocab, [
        [], [2, the, vocab["the"]], [the, turn, turn + 1, ab], byte(e), byte(euro) + [the],
        [the] + byte(face) + byte(b"x\n"), byte(b"ab") + [2] + byte(b"c"),
        byte(b"\xff"), byte(b"\xf0\x9f"), byte(b"\xff") + [the] + byte(e)]


def unigram():
    pieces = [("<unk>", 0.0), ("<bos>", 0.0), ("▁hello", -1.5), ("▁", -2.0), ("w", -3.0), ("ö", -3.5)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, False))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    tokenizer.add_special_tokens(["<bos>"])
    return tokenizer, {p: i for i, (p, _) in enumerate(pieces)}, [[1, 2, 3, 4, 5], [5]]


def tokenizer_files(folder, made):
    tokenizer, vocab, samples = made
    tokenizer.save(path(folder, "tokenizer.json"), pretty=True)
    with open(path(folder, "expected.tsv"), "w") as file:
        for ids in samples:
            text = tokenizer.decode(ids, skip_special_tokens=False)
            file.write("%s\t%s\n" % (" ".join(map(str, ids)), text.encode().hex()))
    added = tokenizer.get_added_tokens_decoder()
    pieces = {i: tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())}
    assert all(pieces[i] == p for p, i in vocab.items())
    records = b"".join(
        struct.pack("<IIB", i, len(p.encode()), i in added) + p.encode() + b"\0"
        for i, p in sorted(pieces.items()))
    with open(path(folder, "hash"), "w") as file:
        file.write(xxhash.xxh3_128_hexdigest(records) + "\n")


types()
sharded()
written()
npy()
tokenizer_files("bpe", bpe())
tokenizer_files("unigram", unigram())
