#!/usr/bin/env python3
"""Reference activations of the demo's pair of models, by transformers, for tests/parity/test_actgen_expected.c.

    pip install numpy pyarrow torch transformers xxhash lz4 zstandard
    python3 tests/oracle/make_actgen_expected.py

tokens.ccps        the first two validation rows (256 ids each), a token stream
MODEL.HOOK.npy     (256, 128) f32: the first of them, weights and everything else in f32, eager attention.
                   Of chat every kind of hook in layer 3 and what enters layers 0 to 3 and 5, of base what
                   enters layer 5: enough to tell apart each of the likely mistakes
bf16_errors.json   how far transformers' own bf16 is off: the relative L2 error of a position, averaged
                   over the first sequence, for every hook of every layer
norms.json         mean L2 norm of what enters layer 3, over 100 validation rows, BOS left out, and of the
                   first two rows with BOS
"""
import json
import os

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM

from make_stream_golden import Stream

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "golden", "actgen")
DEMO = os.path.join(HERE, "..", "..", "demo", "tiny-gemma2")
KEPT = {"chat": [f"blocks.{layer}.hook_resid_pre" for layer in (0, 1, 2, 3, 5)]
        + [f"blocks.3.hook_{kind}" for kind in ("attn_out", "resid_mid", "mlp_out", "resid_post")],
        "base": ["blocks.5.hook_resid_pre"]}


def watch(model, seen):
    """Puts all hooks' values into `seen` at each forward pass."""
    def keep(name):
        def hook(_module, _inputs, output):
            seen[name] = output[0] if isinstance(output, tuple) else output
        return hook

    def keep_input(name):
        def hook(_module, inputs, named):
            seen[name] = inputs[0] if inputs else named["hidden_states"]
        return hook

    for number, layer in enumerate(model.model.layers):
        at = f"blocks.{number}.hook_"
        layer.register_forward_pre_hook(keep_input(at + "resid_pre"), with_kwargs=True)
        layer.post_attention_layernorm.register_forward_hook(keep(at + "attn_out"))
        layer.pre_feedforward_layernorm.register_forward_pre_hook(keep_input(at + "resid_mid"), with_kwargs=True)
        layer.post_feedforward_layernorm.register_forward_hook(keep(at + "mlp_out"))
        layer.register_forward_hook(keep(at + "resid_post"))


def activations(name, ids, dtype):
    model = AutoModelForCausalLM.from_pretrained(os.path.join(DEMO, name), dtype=dtype, attn_implementation="eager").eval()
    seen, parts = {}, []
    watch(model, seen)
    with torch.no_grad():
        for first in range(0, len(ids), 20):
            model(input_ids=ids[first:first + 20], use_cache=False)
            parts.append({k: v.float().numpy() for k, v in seen.items()})
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def write_tokens(rows):
    stream = Stream({"kind": "tokens", "tool": "oracle 1", "rows": len(rows), "first_row": 0, "options": {},
                     "extra": {}, "upstream": None, "seq_len": rows.shape[1]})
    stream.sequences(list(enumerate(rows)))
    stream.end()
    with open(os.path.join(OUT, "tokens.ccps"), "wb") as f:
        f.write(b"".join(stream.records))


def main():
    os.makedirs(OUT, exist_ok=True)
    rows = np.array(pq.read_table(os.path.join(DEMO, "tokens", "validation.parquet"))["input_ids"].to_pylist()[:100])
    ids, errors, norms = torch.from_numpy(rows), {}, {}
    write_tokens(rows[:2])
    for name in ("base", "chat"):
        exact, rounded = activations(name, ids, torch.float32), activations(name, ids[:1], torch.bfloat16)
        for hook in sorted(exact):
            off = np.linalg.norm((rounded[hook] - exact[hook][:1]).astype("f8"), axis=-1)
            errors[f"{name}.{hook}"] = float((off / np.linalg.norm(exact[hook][:1].astype("f8"), axis=-1)).mean())
        for hook in KEPT[name]:
            np.save(os.path.join(OUT, f"{name}.{hook}.npy"), exact[hook][0])
        size = np.linalg.norm(exact["blocks.3.hook_resid_pre"].astype("f8"), axis=-1)
        norms[name] = {"rows_100_without_bos": float(size[:, 1:].mean()), "rows_2_with_bos": float(size[:2].mean()),
                       "rows_2_without_bos": float(size[:2, 1:].mean())}
    for file, value in (("bf16_errors.json", errors), ("norms.json", norms)):
        with open(os.path.join(OUT, file), "w") as f:
            json.dump(value, f, indent=1, sort_keys=True)
            f.write("\n")


if __name__ == "__main__":
    main()
