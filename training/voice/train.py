"""Trains the voice-activity network on CREMA-D's spectrograms and synthetic noise.

    python training/voice/train.py --corpora DIR --out src/features/voice.weights

Repeatable to the bit on one machine: seeds are fixed and one thread is used.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import frontend
import noises
import speech

HOPS = 800
# Hops that a gradient reaches back.
CHUNK = 200
DENSE = 16
STATE = 16


class Network(torch.nn.Module):
    """Inputs -> 16 ReLU -> 16 GRU -> logit of speech."""

    def __init__(self):
        super().__init__()
        self.dense = torch.nn.Linear(frontend.INPUTS, DENSE)
        self.gru = torch.nn.GRU(DENSE, STATE, batch_first=True)
        self.out = torch.nn.Linear(STATE, 1)

    def forward(self, x, state=None):
        y, state = self.gru(torch.relu(self.dense(x)), state)
        return self.out(y)[:, :, 0], state.detach()


def noise_pool(count, seed, cache):
    """Mel dB [count, hops, 128] of synthetic noises of RMS 1."""
    file = Path(cache, "noises.npy") if cache else None
    if file and file.exists():
        return np.load(file)
    rng = np.random.default_rng(seed)
    pool = np.empty((count, HOPS, frontend.MELS), np.float16)
    seconds = (HOPS * frontend.HOP + frontend.FRAME) / frontend.RATE_HZ
    for i in range(count):
        pool[i] = frontend.to_db(frontend.mel_power(noises.make(rng, seconds)))[:HOPS]
        if i % 100 == 0:
            print(f"noises {i}/{count}", flush=True)
    if file:
        np.save(file, pool)
    return pool


def example(rng, clips, allowed, pool, babble):
    """Absolute mel dB, label and weight of one training sequence; the noise may be other people."""
    # Whole power of a sound of RMS 1: the window's energy times the number of bins.
    full_scale = 384 * frontend.FRAME / 2
    noise = 10 ** (pool[rng.integers(len(pool))].astype(np.float32) / 10)
    noise = np.roll(noise, rng.integers(HOPS), axis=0)
    if babble:
        noise = speech.babble(rng, clips, allowed, HOPS) + noise * rng.choice([0, 1e-7])
    noise /= max(speech.total(noise).mean(), 1e-6)
    kind = rng.random()
    loudness = 10 ** (rng.uniform(-62, -12) / 10) * full_scale
    if kind < (0.1 if babble else 0.2):
        power, target = noise * loudness, np.zeros(HOPS, np.float32)
        weight = np.ones(HOPS, np.float32)
        if rng.random() < 0.1:
            power = power * 0
    else:
        clean, target, weight = speech.sequence(rng, clips, allowed, HOPS)
        snr = rng.uniform(-4, 25) if kind < 0.75 else rng.uniform(25, 60)
        if babble:
            snr = rng.uniform(3, 25)
        noise = noise * 10 ** (-snr / 10)
        if rng.random() < 0.2:
            noise[: rng.integers(1, 300)] = 0
        power = speech.mix(rng, clean, noise) * loudness
        # What the noise covers wholly counts less.
        best = (clean / (noise + 1e-9)).reshape(HOPS, 32, 4).mean(2)
        heard = np.sort(best, axis=1)[:, -6]
        weight = weight * np.where((target > 0) & (heard < 0.5), 0.3, 1.0)
    return frontend.to_db(speech.channel(rng, power)), target, weight


def examples(seed, clips, allowed, pool, count, babble=False):
    """Inputs (half precision), labels and weights of `count` sequences."""
    rng = np.random.default_rng(seed)
    x = np.empty((count, HOPS, frontend.INPUTS), np.float16)
    y, w = np.empty((count, HOPS), np.float32), np.empty((count, HOPS), np.float32)
    began = time.time()
    for a in range(0, count, 32):
        b = min(count, a + 32)
        power, target, weight = zip(*(example(rng, clips, allowed, pool, babble) for _ in range(a, b)))
        x[a:b], y[a:b], w[a:b] = frontend.inputs(np.stack(power)), np.stack(target), np.stack(weight)
        if a % 320 == 0:
            print(f"sequences {a}/{count}  {time.time() - began:.0f} s", flush=True)
    return x, y, w


def auc(score, truth):
    """Area under the ROC curve."""
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    positives = truth.sum()
    return (ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * (len(truth) - positives))


def save(network, path):
    """The weights as text: a name and its shape, then numbers, inputs outermost."""
    state = {k: v.detach().numpy() for k, v in network.state_dict().items()}
    tables = [
        ("dense.weight", state["dense.weight"].T),
        ("dense.bias", state["dense.bias"]),
        ("gru.input", state["gru.weight_ih_l0"].T),
        ("gru.state", state["gru.weight_hh_l0"].T),
        ("gru.input_bias", state["gru.bias_ih_l0"]),
        ("gru.state_bias", state["gru.bias_hh_l0"]),
        ("out.weight", state["out.weight"].T),
        ("out.bias", state["out.bias"]),
    ]
    numbers = np.concatenate([t.ravel() for _, t in tables]).astype("<f4")
    Path(path).write_bytes(numbers.tobytes())


def sets(args):
    """Checking and training examples; speakers and noises of one are not in the other."""
    pool = noise_pool(args.noises, 11, args.cache)
    clips = speech.Clips(args.corpora)
    speakers = np.unique(clips.speakers)
    held = np.isin(clips.speakers, speakers[::8])
    allowed, unseen = np.flatnonzero(~held), np.flatnonzero(held)
    kept = len(pool) // 10
    print(f"{len(allowed)} clips of {len(np.unique(clips.speakers[allowed]))} speakers", flush=True)
    check = examples(3, clips, unseen, pool[:kept], 96)
    data = examples(5, clips, allowed, pool[kept:], args.sequences)
    check_babble = examples(4, clips, unseen, pool[:kept], 24, babble=True)
    data_babble = examples(6, clips, allowed, pool[kept:], args.sequences // 5, babble=True)
    both = [np.concatenate(pair) for pair in zip(check + data, check_babble + data_babble)]
    return both[:3], both[3:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lanes", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=3200)
    parser.add_argument("--noises", type=int, default=800)
    parser.add_argument("--cache", help="folder that keeps noises and examples between runs")
    parser.add_argument("--checkpoint", help="file for the PyTorch state, written now and then")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(7)
    file = Path(args.cache, "examples.npz") if args.cache else None
    if file and file.exists():
        arrays = [np.load(file)[f"arr_{i}"] for i in range(6)]
        check, data = arrays[:3], arrays[3:]
    else:
        check, data = sets(args)
        if file:
            np.savez(file, *check, *data)
    print(f"speech in {data[1].mean():.2f} of the hops", flush=True)
    fit(args, data, check)


def fit(args, data, check):
    """Trains and saves the network."""
    network = Network()
    print(sum(p.numel() for p in network.parameters()), "parameters")
    x, y, w = (torch.from_numpy(a) for a in data)
    unseen = torch.from_numpy(check[0]).float()
    truth = check[1].ravel() > 0.5
    batches = len(x) // args.lanes
    steps = args.epochs * batches * (HOPS // CHUNK)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=steps, pct_start=0.1)
    began = time.time()
    for epoch in range(args.epochs):
        losses = []
        for lanes in torch.randperm(len(x))[: batches * args.lanes].split(args.lanes):
            state = None
            for at in range(0, HOPS, CHUNK):
                # The state is carried on, the gradient is not.
                hops = slice(at, at + CHUNK)
                logit, state = network(x[lanes, hops].float(), state)
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, y[lanes, hops], reduction="none")
                loss = (loss * w[lanes, hops]).mean()
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
        with torch.no_grad():
            score = torch.sigmoid(network(unseen)[0]).numpy().ravel()
        threshold = np.quantile(score[~truth], 0.95)
        print(
            f"epoch {epoch + 1}/{args.epochs}  loss {np.mean(losses):.4f}  unseen speakers: AUC {auc(score, truth):.4f}"
            f"  hits at 5 % false alarm {np.mean(score[truth] > threshold):.3f} (threshold {threshold:.2f})"
            f"  {time.time() - began:.0f} s",
            flush=True,
        )
        save(network, args.out)
        if args.checkpoint:
            torch.save(network.state_dict(), args.checkpoint)


if __name__ == "__main__":
    main()
