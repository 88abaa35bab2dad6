"""What PyTorch and transformers do in the place of actgen and cctrain, on the same GPU: lines of
"name, tab, rate", for tests/gpu/check.

    peers.py [--cpu] [--tiny] --missing
    peers.py [--cpu] [--tiny] MODEL LAYERS LATENTS BATCH

--missing prints what of it cannot be run here and why, or nothing. Rates are tokens a second through
two models of MODEL's shapes stopped behind LAYERS layers (the better of eager and compiled), and rows a
second of a training step: tuned (bf16 autocast, fused Adam, compiled), and as the reference has it, in
f32. Weights are random. Needs torch and transformers. --cpu and --tiny are for trying it out.
"""
import argparse
import sys
import time


def missing(device):
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        return f"{sys.executable}: {error}"
    if device == "cuda" and not torch.cuda.is_available():
        return f"{sys.executable}: its torch {torch.__version__} sees no GPU"
    return ""


def rate(call, units, device, seconds):
    """Units a second of call(), which is repeated for so long after three that are not counted."""
    import torch

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        call()
    wait()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(3):
            call()
        wait()
        calls += 3
    return units * calls / (time.perf_counter() - start)


def forward_rate(arguments, device, compiled, seconds):
    import torch
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config.from_pretrained(arguments.model, num_hidden_layers=arguments.layers)
    config._attn_implementation = "eager"  # the others leave the soft cap out
    length, sequences = (32, 2) if arguments.tiny else (1024, 8)
    torch.manual_seed(49)
    with torch.device(device):
        model = Gemma2Model(config).to(torch.bfloat16).eval()
        ids = torch.randint(3, config.vocab_size, (sequences, length))
    if compiled:
        model = torch.compile(model)

    def call():
        with torch.no_grad():
            model(ids, use_cache=False)

    return rate(call, sequences * length, device, seconds) / 2  # two models


def step_rate(arguments, device, tuned, seconds):
    """The reference's loss: squared error, and L1 weighted by the decoder norms of the sources."""
    import json
    import torch

    with open(f"{arguments.model}/config.json", encoding="utf-8") as file:
        width = json.load(file)["hidden_size"]
    torch.manual_seed(49)
    with torch.device(device):
        decoder = torch.randn(arguments.latents, 2, width)
        decoder *= 0.08 / decoder.norm(dim=-1, keepdim=True)
        encoder = decoder.reshape(arguments.latents, -1).T.contiguous()
        weights = [encoder, decoder, torch.zeros(arguments.latents), torch.zeros(2, width)]
        weights = [weight.requires_grad_() for weight in weights]
        rows = torch.randn(arguments.batch, 2, width, dtype=torch.bfloat16)
    adam = torch.optim.Adam(weights, lr=5e-5, fused=tuned and device == "cuda")

    def loss_of(x):
        encode, decode, bias, bias_out = weights
        latents = torch.relu(x.flatten(1) @ encode + bias)
        out = (latents @ decode.flatten(1)).unflatten(1, (2, width)) + bias_out
        error = (out.float() - x.float()).pow(2).sum((1, 2)).mean()
        norms = decode.norm(dim=-1).sum(1)
        return error + 2 * (latents.float() * norms).sum(1).mean()

    loss_function = torch.compile(loss_of) if tuned else loss_of

    def call():
        adam.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=tuned):
            loss = loss_function(rows if tuned else rows.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()

    return rate(call, arguments.batch, device, seconds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("model", nargs="?")
    for name in ("layers", "latents", "batch"):
        parser.add_argument(name, nargs="?", type=int)
    arguments = parser.parse_args()
    device = "cpu" if arguments.cpu else "cuda"
    if arguments.missing:
        print(missing(device), end="")
        return
    seconds = 0.2 if arguments.tiny else 3
    rates = {}
    for name, compiled in (("eager", False), ("torch.compile", True)):
        try:
            rates[f"transformers, {name}"] = forward_rate(arguments, device, compiled, seconds)
        except Exception as error:  # the other one still counts
            print(f"{name}: {error}", file=sys.stderr)
    if rates:
        best = max(rates, key=rates.get)
        print(f"{best}\t{rates[best]:.6g}", flush=True)
    for name, tuned in (("tuned PyTorch step", True), ("reference f32 step in PyTorch", False)):
        print(f"{name}\t{step_rate(arguments, device, tuned, seconds):.6g}", flush=True)
    if not rates:
        sys.exit("the forward pass of transformers could not be run")


if __name__ == "__main__":
    main()
