"""CREMA-D's spectrograms as labelled, noisy training sequences, all in the mel-power domain."""

from pathlib import Path

import librosa
import numpy as np

from frontend import MELS, RATE_HZ

EDGES_HZ = librosa.mel_frequencies(MELS + 2, fmin=0, fmax=RATE_HZ / 2)
CENTRES_HZ = EDGES_HZ[1:-1]
# Undoes the filters' area norm: power times width sums to the frame's whole power.
WIDTHS = ((EDGES_HZ[2:] - EDGES_HZ[:-2]) / 2).astype(np.float32)
# Bins that a band averages: how much the cross term of two sounds averages out.
_BINS = np.maximum(1.0, WIDTHS / (RATE_HZ / 1024)).astype(np.float32)


def total(power):
    """Whole power of each frame."""
    return power @ WIDTHS


def label(power):
    """Speech per hop of a clean clip's mel power [hops, 128], and each hop's weight in training.

    A hop is speech where the pre-emphasised energy from 150 Hz to 7 kHz is within 35 dB of the clip's
    loud parts and well above the clip's quietest tenth. Gaps below 100 ms are closed, blips below 64 ms dropped.
    Hops within 4 dB of the threshold weigh little.
    """
    band = (CENTRES_HZ > 150) & (CENTRES_HZ < 7000)
    emphasis = (WIDTHS * np.minimum(CENTRES_HZ / 500, 6))[band]
    energy = 10 * np.log10(power[:, band] @ emphasis + 1e-12)
    energy = np.convolve(np.pad(energy, 1, mode="edge"), np.ones(3) / 3, "valid")
    loud, quiet = np.percentile(energy, [95, 8])
    threshold = max(loud - 35, quiet + min(9, 0.4 * (loud - quiet)))
    speech = energy > threshold
    weight = np.where(np.abs(energy - threshold) < 4, 0.2, 1.0)
    if loud - quiet < 15:
        weight *= 0.3
    return fill(fill(speech, False, 6), True, 4), weight.astype(np.float32)


def fill(mask, value, shorter_than):
    """Runs of `value` inside the mask that are shorter than so many hops are inverted."""
    mask = np.array(mask, bool)
    edges = np.flatnonzero(np.diff(mask.astype(np.int8))) + 1
    bounds = np.concatenate([[0], edges, [len(mask)]])
    for a, b in zip(bounds[:-1], bounds[1:]):
        inside = value or (a > 0 and b < len(mask))
        if mask[a] == value and b - a < shorter_than and inside:
            mask[a:b] = not value
    return mask


class Clips:
    """All clips of `crema-d/logmel.npz`, with labels."""

    def __init__(self, corpora):
        data = np.load(Path(corpora) / "crema-d" / "logmel.npz")
        offsets = data["offsets"]
        self.frames = data["frames"]
        self.spans = list(zip(offsets[:-1], offsets[1:]))
        self.speakers = np.array([name.split("_")[0] for name in data["clips"]])
        self.labels = [label(self.power(i)) for i in range(len(self.spans))]

    def power(self, i):
        a, b = self.spans[i]
        return 10 ** ((self.frames[a:b].astype(np.float32) / 255 * 80 - 80) / 10)


def sequence(rng, clips, allowed, hops):
    """Clean power, label and weight of `hops` hops: clips of one speaker in changing levels, with pauses."""
    power = np.zeros((hops, MELS), np.float32)
    speech = np.zeros(hops, np.float32)
    weight = np.ones(hops, np.float32)
    first = rng.choice(allowed)
    same = allowed[clips.speakers[allowed] == clips.speakers[first]]
    at = 0 if rng.random() < 0.3 else int(rng.integers(0, 200))
    gated = rng.random() < 0.3
    dead = gated or rng.random() < 0.3
    reverberant = rng.random() < 0.3
    while at < hops:
        i = rng.choice(same)
        clip, (voiced, sure) = clips.power(i), clips.labels[i]
        warp = rng.uniform(0.92, 1.1) if rng.random() < 0.5 else 1.0
        if warp != 1.0:
            clip = _warp(clip, warp)
        quiet = clip[~voiced] if (~voiced).sum() >= 8 else clip[np.argsort(total(clip))[:8]]
        if gated:
            clip = np.maximum(clip - 2 * quiet.mean(0), 1e-3 * clip)
        # Some clips enter mid-word.
        skip = int(rng.integers(0, 60)) if rng.random() < 0.25 else 0
        clip, voiced, sure = clip[skip:], voiced[skip:], sure[skip:]
        loud = np.percentile(total(clip), 90)
        scale = 10 ** (rng.normal(0, 2) / 10) / loud
        end = min(hops, at + len(clip))
        power[at:end] = clip[: end - at] * scale
        speech[at:end] = voiced[: end - at]
        weight[at:end] = sure[: end - at]
        pause = int(rng.exponential(60)) if rng.random() < 0.9 else int(rng.integers(100, 400))
        if not dead and end < hops:
            stop = min(hops, end + pause)
            # The clip's own background, back and forth.
            walk = np.abs((np.arange(stop - end) % (2 * len(quiet))) - len(quiet) + 0.5).astype(int)
            power[end:stop] = quiet[walk] * scale
        at = end + pause
    if reverberant:
        # 60 dB per reverberation time; a tail below the direct sound.
        keep = 10 ** (-6 * 0.016 / rng.uniform(0.15, 0.6))
        mix = 10 ** (rng.uniform(-20, -6) / 10)
        tail = np.zeros(MELS, np.float32)
        for t in range(hops):
            tail = tail * keep + power[t] * (1 - keep)
            power[t] += mix * tail / (1 - keep) * 0.2
    return power, speech, weight


def babble(rng, clips, allowed, hops):
    """Power of six to fourteen people who talk at once, in a room: nobody's words in particular."""
    out = np.zeros((hops, MELS), np.float32)
    for _ in range(rng.integers(6, 15)):
        scale = 10 ** (rng.normal(0, 2) / 10)
        at = -int(rng.integers(0, 100))
        while at < hops:
            clip = clips.power(rng.choice(allowed))
            clip = clip / np.percentile(total(clip), 90) * scale
            a, b = max(0, at), max(0, min(hops, at + len(clip)))
            out[a:b] += clip[a - at : b - at]
            at += len(clip)
    return out


def _warp(power, factor):
    """Moves the spectrum along the frequency axis: another length of vocal tract and another pitch."""
    at = np.interp(CENTRES_HZ * factor, CENTRES_HZ, np.arange(MELS))
    low = np.minimum(at.astype(int), MELS - 2)
    part = (at - low).astype(np.float32)
    return power[:, low] * (1 - part) + power[:, low + 1] * part


def mix(rng, speech, noise):
    """Sum of two sounds' mel powers with a random cross term."""
    cross = 1.2 * np.sqrt(speech * noise / _BINS) * np.cos(rng.uniform(0, 2 * np.pi, speech.shape).astype(np.float32))
    return np.maximum(speech + noise + cross, 0.03 * (speech + noise))


def channel(rng, power):
    """What microphones and networks do: equalisation, band limits, telephony with mu-law noise."""
    octaves = np.log2(CENTRES_HZ / 1000)
    if rng.random() < 0.5:
        knots = np.sort(rng.uniform(-5, 3, 5))
        gain = np.interp(octaves, knots, rng.normal(0, 5, 5)) + rng.uniform(-3, 3) * octaves
        power = power * (10 ** (gain / 10)).astype(np.float32)
    kind = rng.random()
    if kind < 0.25:
        cut = rng.uniform(3300, 3950)
        gain = -np.clip((CENTRES_HZ - cut) / 300, 0, 1) * rng.uniform(35, 90)
        gain -= np.clip((300 - CENTRES_HZ) / 150, 0, 1) * rng.choice([0, 15, 30])
        level = total(power) / WIDTHS[CENTRES_HZ < 4000].sum() * 10 ** (-rng.uniform(34, 40) / 10)
        ripple = rng.exponential(1, power.shape).astype(np.float32)
        if rng.random() < 0.6:
            power = power + level[:, None] * (0.5 + 0.5 * ripple)
        power = power * (10 ** (gain / 10)).astype(np.float32)
    elif kind < 0.4:
        cut = rng.uniform(4500, 7600)
        gain = -np.clip((CENTRES_HZ - cut) / 400, 0, 1) * rng.uniform(20, 80)
        power = power * (10 ** (gain / 10)).astype(np.float32)
    if rng.random() < 0.3:
        cut = rng.uniform(60, 200)
        power = power * (10 ** (-np.clip((cut - CENTRES_HZ) / 60, 0, 1) * 2)).astype(np.float32)
    return power
