"""The reference's run in f32 PyTorch, for tests/gpu/check: its loss, to be compared with cctrain's.

    reference_loss.py [--cpu] START.safetensors ROWS.npy BATCH STEPS LAST

START is a checkpoint of a run of no steps (W_enc (S, d, F), W_dec (F, S, d), b_enc, b_dec), ROWS (N, S d)
f32, read round and round in batches. The recipe is the seed's, which are cctrain's defaults: Adam at 5e-5,
lambda 2 after a rise over the first 5 % of the steps, a fall of the rate over the last 20 %, gradients
clipped to a norm of 1. Prints the mean loss of the last LAST steps, and the steps' rate in rows a second.
Needs torch, numpy and safetensors.
"""
import argparse
import sys
import time

LR, L1, CLIP, L1_WARMUP, LR_DECAY = 5e-5, 2.0, 1.0, 0.05, 0.2


def loss_of(x, weights, l1):
    """x (B, S, d): squared error, and L1 weighted by the sum of the decoder norms of the sources."""
    encode, decode, bias, bias_out = weights
    latents = (x.flatten(1) @ encode.flatten(0, 1) + bias).relu()
    out = (latents @ decode.flatten(1)).unflatten(1, x.shape[1:]) + bias_out
    error = (out - x).pow(2).sum((1, 2)).mean()
    norms = decode.norm(dim=-1).sum(1)
    return error + l1 * (latents * norms).sum(1).mean()


def rates_of(step, steps):
    l1 = L1 * min(1.0, step / (L1_WARMUP * steps))
    return l1, LR * min(1.0, (steps - step) / (LR_DECAY * steps))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("start")
    parser.add_argument("rows")
    for name in ("batch", "steps", "last"):
        parser.add_argument(name, type=int)
    arguments = parser.parse_args()
    import numpy
    import torch
    from safetensors.torch import load_file

    device = "cpu" if arguments.cpu else "cuda"
    torch.backends.cuda.matmul.allow_tf32 = False
    start = load_file(arguments.start)
    weights = [start[name].float().to(device).requires_grad_() for name in ("W_enc", "W_dec", "b_enc", "b_dec")]
    sources, width = weights[3].shape
    rows = torch.from_numpy(numpy.load(arguments.rows)).to(device).unflatten(1, (sources, width))
    batches = rows.shape[0] // arguments.batch
    adam = torch.optim.Adam(weights, lr=LR, betas=(0.9, 0.999), eps=1e-8, fused=device == "cuda")
    losses, began = [], time.perf_counter()
    for step in range(arguments.steps):
        l1, adam.param_groups[0]["lr"] = rates_of(step, arguments.steps)
        first = step % batches * arguments.batch
        adam.zero_grad(set_to_none=True)
        loss = loss_of(rows[first : first + arguments.batch], weights, l1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        adam.step()
        if step >= arguments.steps - arguments.last:
            losses.append(loss.item())
    seconds = time.perf_counter() - began
    print(f"{sum(losses) / len(losses):.9g}\t{arguments.steps * arguments.batch / seconds:.6g}")


if __name__ == "__main__":
    sys.exit(main())
