#!/usr/bin/env python3
"""A short training run of a crosscoder by torch's autograd, optimiser and clipping, in f64.

Writes tests/golden/train: the rows (260, 15) f32, the initial and the final weights in the layout for
sources of unequal widths, and the figures of each step. Needs torch, numpy and safetensors.

    python3 tests/oracle/make_training_golden.py
"""
import json
import os

import numpy as np
import torch
from safetensors.numpy import save_file

WIDTHS, LATENTS, BATCH, STEPS = (9, 6), 21, 13, 20
RECIPE = {"lr": 1e-2, "l1": 0.4, "l1-warmup": 0.25, "lr-decay": 0.3, "lr-warmup": 3, "clip": 1.0,
          "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "batch": BATCH, "steps": STEPS,
          "latents": LATENTS}
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "train")


def split(x):
    return torch.split(x, WIDTHS, dim=-1)


def make_rows(generator):
    """Few directions at a time and noise, so that there is something to learn."""
    d = sum(WIDTHS)
    directions = generator.standard_normal((8, d))
    amounts = generator.random((BATCH * STEPS, 8)) * (generator.random((BATCH * STEPS, 8)) < 0.3)
    return (amounts @ directions + 0.1 * generator.standard_normal((BATCH * STEPS, d))).astype(np.float32)


def tensors(w_enc, w_dec, b_enc, b_dec):
    out = {"b_enc": b_enc}
    for s, (e, d, b) in enumerate(zip(np.split(w_enc, [WIDTHS[0]], 0), np.split(w_dec, [WIDTHS[0]], 1),
                                      np.split(b_dec, [WIDTHS[0]]))):
        out |= {f"W_enc.{s}": e, f"W_dec.{s}": d, f"b_dec.{s}": b}
    return {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in out.items()}


def explained(x, xh):
    error = (x - xh).pow(2).sum(-1)
    spread = (x - x.mean(0)).pow(2).sum(-1)
    return (1 - error / spread).mean().item(), (1 - error.sum() / spread.sum()).item()


def main():
    generator = np.random.default_rng(49)
    rows = make_rows(generator)
    start = [0.3 * generator.standard_normal((sum(WIDTHS), LATENTS)),
             0.3 * generator.standard_normal((LATENTS, sum(WIDTHS))),
             0.1 * generator.standard_normal(LATENTS), 0.1 * generator.standard_normal(sum(WIDTHS))]
    start = [a.astype(np.float32) for a in start]
    w_enc, w_dec, b_enc, b_dec = parameters = [torch.nn.Parameter(torch.from_numpy(a).double()) for a in start]
    adam = torch.optim.Adam(parameters, lr=RECIPE["lr"], betas=(RECIPE["beta1"], RECIPE["beta2"]), eps=RECIPE["eps"])
    lines = []
    for t in range(STEPS):
        x = torch.from_numpy(rows[t * BATCH:(t + 1) * BATCH]).double()
        l1_coeff = RECIPE["l1"] * min(1.0, t / (RECIPE["l1-warmup"] * STEPS))
        decay = RECIPE["lr-decay"] * STEPS
        lr = RECIPE["lr"] * min(1.0, t / RECIPE["lr-warmup"])
        if t >= STEPS - decay:
            lr *= (STEPS - t) / decay
        for group in adam.param_groups:
            group["lr"] = lr
        f = torch.relu(x @ w_enc + b_enc)
        xh = f @ w_dec + b_dec
        l2 = sum((a - b).pow(2).sum(-1) for a, b in zip(split(x), split(xh))).mean()
        l1 = (f * sum(w.norm(dim=-1) for w in split(w_dec))).sum(-1).mean()
        loss = l2 + l1_coeff * l1
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, RECIPE["clip"])
        adam.step()
        with torch.no_grad():
            line = {"step": t, "loss": loss.item(), "l2_loss": l2.item(), "l1_loss": l1.item(),
                    "l0_loss": (f > 0).double().sum(-1).mean().item(), "l1_coeff": l1_coeff, "lr": lr,
                    "grad_norm": norm.item()}
            line["explained_variance"], line["fve"] = explained(x, xh)
            for s, (a, b) in enumerate(zip(split(x), split(xh))):
                letter = "AB"[s]
                line[f"explained_variance_{letter}"], line[f"fve_{letter}"] = explained(a, b)
            lines.append(line)
    os.makedirs(OUT, exist_ok=True)
    np.save(os.path.join(OUT, "rows.npy"), rows)
    save_file(tensors(*start), os.path.join(OUT, "init.safetensors"))
    save_file(tensors(*(p.detach().numpy() for p in parameters)), os.path.join(OUT, "final.safetensors"))
    with open(os.path.join(OUT, "trajectory.json"), "w", encoding="utf-8") as out:
        json.dump({"widths": WIDTHS, "recipe": RECIPE, "steps": lines}, out, indent=1)
        out.write("\n")


if __name__ == "__main__":
    main()
