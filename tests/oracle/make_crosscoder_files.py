#!/usr/bin/env python3
"""Writes tests/golden/crosscoder/* and tests/golden/pack/* by numpy and the safetensors package.

    pip install numpy ml_dtypes safetensors xxhash
    python3 tests/oracle/make_crosscoder_files.py

crosscoder/f32, bf16, f16.safetensors   the seed's tensors: S 2, d 3, F 4, every element its place in
                    its tensor plus 100 (W_enc), 150 (W_dec), 200 (b_enc), 220 (b_dec): exact in 8 bits
crosscoder/unequal.safetensors          tensors per source: widths 2 and 3, F 4, the same numbers
crosscoder/one.safetensors              S 1
crosscoder/wrong-*.safetensors          what no crosscoder is: a shape, a value, a tensor that is missing, an
                    integer type, a threshold
crosscoder/step-7/                      a step folder with a manifest made here
pack/rows.npy       (5, 5) float32      pack/three.npy   (4, 2, 3) float16     pack/a.npy, b.npy (5, 2), (5, 3)
pack/cache-a, -b    folders as dictionary_learning's cache writes them: bfloat16 (3 + 2, 3), float16 (5, 2)
pack/wrong-*        arrays that are refused
"""
import json
import os
import shutil

import ml_dtypes
import numpy as np
import xxhash
from safetensors.numpy import save_file

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")
CC, PACK = os.path.join(GOLDEN, "crosscoder"), os.path.join(GOLDEN, "pack")


def numbers(first, *shape, dtype=np.float32):
    return (np.arange(np.prod(shape)) + first).reshape(shape).astype(dtype)


def seed(s=2, d=3, f=4, dtype=np.float32):
    return {"W_enc": numbers(100, s, d, f, dtype=dtype), "W_dec": numbers(150, f, s, d, dtype=dtype),
            "b_enc": numbers(200, f, dtype=dtype), "b_dec": numbers(220, s, d, dtype=dtype)}


def unequal():
    made = {"b_enc": numbers(200, 4)}
    for s, d in enumerate((2, 3)):
        made[f"W_enc.{s}"] = numbers(100 + 20 * s, d, 4)
        made[f"W_dec.{s}"] = numbers(150 + 20 * s, 4, d)
        made[f"b_dec.{s}"] = numbers(220 + 4 * s, d)
    return made


def crosscoders():
    def save(name, tensors, metadata=None):
        save_file(tensors, os.path.join(CC, name), metadata=metadata)

    for name, dtype in (("f32", np.float32), ("bf16", ml_dtypes.bfloat16), ("f16", np.float16)):
        save(f"{name}.safetensors", seed(dtype=dtype), {"format": "pt", "sources": "not ours"})
    save("one.safetensors", seed(s=1))
    save("unequal.safetensors", unequal())

    save("wrong-dec.safetensors", {**seed(), "W_dec": numbers(150, 4, 3, 2)})
    save("wrong-bias.safetensors", {**seed(), "b_enc": numbers(200, 5)})
    save("wrong-flat.safetensors", {**seed(), "W_enc": numbers(100, 6, 4)})
    save("wrong-missing.safetensors", {k: v for k, v in seed().items() if k != "b_dec"})
    save("wrong-empty.safetensors", seed(f=0))
    save("wrong-type.safetensors", {**seed(), "b_dec": numbers(220, 2, 3, dtype=np.int32)})
    save("wrong-other.safetensors", {"encoder.weight": numbers(0, 3, 4)})
    save("wrong-threshold.safetensors", {**seed(), "threshold": numbers(1, 1)})
    bad = seed()
    bad["W_dec"][3, 1, 2] = np.inf
    save("wrong-value.safetensors", bad)
    bad = unequal()
    del bad["W_dec.1"]
    save("wrong-source.safetensors", bad)
    bad = unequal()
    bad["W_enc.1"] = numbers(0, 3, 5)
    save("wrong-latents.safetensors", bad)
    ours = {"format": "ccpipe", "sources": json.dumps([{"name": "a", "width": 3, "scale": 0.5}])}
    save("wrong-sources.safetensors", seed(), ours)

    step = os.path.join(CC, "step-7")
    os.makedirs(step)
    ours["sources"] = json.dumps([{"name": "a.x", "width": 3, "scale": 0.5}, {"name": "b.x", "width": 3, "scale": 2}])
    ours |= {"step": "7", "rows_trained": "7168", "recipe": json.dumps({"l1": 0.7, "latents": 4})}
    save("step-7/cc.safetensors", seed(), ours)
    with open(os.path.join(step, "state.json"), "w") as f:
        f.write('{"step":7}\n')
    files = {}
    for name in ("cc.safetensors", "state.json"):
        data = open(os.path.join(step, name), "rb").read()
        files[name] = {"bytes": len(data), "xxh3_128": xxhash.xxh3_128_hexdigest(data)}
    with open(os.path.join(step, "manifest.json"), "w") as f:
        json.dump({"format": "ccpipe checkpoint 1", "files": files}, f, indent=1)


def cache(name, shards, dtype, torch_name):
    folder = os.path.join(PACK, name)
    os.makedirs(folder)
    for i, rows in enumerate(shards):
        rows = rows.astype(dtype)
        rows.tofile(os.path.join(folder, f"shard_{i}.memmap"))
        with open(os.path.join(folder, f"shard_{i}.meta"), "w") as f:
            json.dump({"dtype": torch_name, "shape": list(rows.shape)}, f)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump({"batch_size": 8, "context_len": 64, "d_model": int(shards[0].shape[1]), "io": "out",
                   "total_size": sum(len(s) for s in shards), "shard_count": len(shards)}, f)


def arrays():
    rows = (np.arange(25) - 12).reshape(5, 5) * 0.25
    np.save(os.path.join(PACK, "rows.npy"), rows.astype("<f4"))
    np.save(os.path.join(PACK, "three.npy"), numbers(-12, 4, 2, 3).astype("<f2"))
    np.save(os.path.join(PACK, "a.npy"), rows[:, :2].astype("<f4"))
    np.save(os.path.join(PACK, "b.npy"), rows[:, 2:].astype("<f2"))
    cache("cache-a", [rows[:3, :3], rows[3:, :3]], ml_dtypes.bfloat16, "torch.bfloat16")
    cache("cache-b", [rows[:, 3:]], np.float16, "torch.float16")
    np.save(os.path.join(PACK, "wrong-type.npy"), rows.astype("<f8"))
    np.save(os.path.join(PACK, "wrong-rank.npy"), np.arange(5, dtype="<f4"))
    bad = rows.astype("<f4")
    bad[3, 2] = np.nan
    np.save(os.path.join(PACK, "wrong-value.npy"), bad)


for folder, make in ((CC, crosscoders), (PACK, arrays)):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    make()
