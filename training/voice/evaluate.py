"""Compares the detector with earshot on corpora that it was not trained on.

    python training/voice/evaluate.py --corpora DIR --weights src/features/voice.weights

RAVDESS, SAVEE and TESS audio with noises of generators of their own (not those of `noises.py`). Prints Markdown.
"""

import argparse
import csv
from pathlib import Path

import earshot
import numpy as np
import soundfile
from scipy.signal import butter, lfilter, resample_poly, sosfilt

import frontend
import network

RATE = frontend.RATE_HZ
HOP = frontend.HOP
ON, OFF = 0.6, 0.35


# --- noises, none of them made as in noises.py -----------------------------------------------------


def rain(rng, n):
    drops = np.where(rng.random(n) < 300 / RATE, rng.exponential(1, n), 0) * rng.choice([-1, 1], n)
    sos = butter(2, [1200, 7000], "bandpass", fs=RATE, output="sos")
    return sosfilt(sos, drops) + 0.02 * rng.standard_normal(n)


def applause(rng, n):
    out = np.zeros(n)
    for centre, q in zip(rng.uniform(700, 2600, 25), rng.uniform(0.2, 0.6, 25)):
        claps = np.zeros(n)
        at = np.cumsum(rng.normal(0.25, 0.03, int(n / RATE * 6)).clip(0.1)) * RATE
        claps[at[at < n].astype(int)] = rng.uniform(0.3, 1, (at < n).sum())
        sos = butter(1, [centre * (1 - q / 2), min(7900, centre * (1 + q))], "bandpass", fs=RATE, output="sos")
        out += sosfilt(sos, lfilter([1], [1, -0.985], claps) * rng.standard_normal(n))
    return out


def engine(rng, n):
    rate = 28 + 14 * np.interp(np.arange(n), np.linspace(0, n, 9), rng.random(9))
    phase = np.cumsum(rate) / RATE
    fire = np.diff(np.floor(phase * 2), prepend=0) * (1 + 0.3 * rng.standard_normal(n))
    return lfilter([1], [1, -1.85, 0.88], fire) + 0.3 * lfilter([1], [1, -0.95], rng.standard_normal(n))


def plucks(rng, n):
    """Karplus and Strong's plucked strings playing a tune."""
    out = np.zeros(n)
    step = int(rng.uniform(0.18, 0.45) * RATE)
    for start in range(0, n - step, step):
        period = int(RATE / (110 * 2 ** (rng.choice([0, 3, 5, 7, 10, 12, 15, 19]) / 12)))
        excite = np.zeros(min(3 * step, n - start))
        excite[:period] = rng.uniform(-1, 1, period)
        a = np.zeros(period + 2)
        a[0], a[period], a[period + 1] = 1, -0.498, -0.498
        out[start : start + len(excite)] += lfilter([1], a, excite)
    return out


def telephone(rng, n):
    t = np.arange(n) / RATE
    ring = (np.sin(2 * np.pi * 440 * t) + np.sin(2 * np.pi * 480 * t)) * (t % 3 < 1.2)
    bell = np.sin(2 * np.pi * 1850 * t) * (np.sin(2 * np.pi * 20 * t) > 0) * (t % 4 > 2.6)
    return ring + bell + 0.01 * rng.standard_normal(n)


def keyboard(rng, n):
    out = 0.002 * rng.standard_normal(n)
    at = 0.1
    while at < n / RATE - 0.3:
        for delay, size in ((0, 1.0), (rng.uniform(0.06, 0.12), 0.5)):
            a = int((at + delay) * RATE)
            x = np.arange(700)
            out[a : a + 700] += size * rng.standard_normal(700) * np.exp(-x / rng.uniform(30, 120))
        at += rng.gamma(2, 0.09)
    return sosfilt(butter(1, 500, "highpass", fs=RATE, output="sos"), out)


def vacuum(rng, n):
    t = np.arange(n) / RATE
    sos = butter(1, [400, 3000], "bandpass", fs=RATE, output="sos")
    whine = sum(np.sin(2 * np.pi * 297 * k * t + 0.4 * np.sin(2 * np.pi * 0.7 * t)) / k for k in range(1, 12))
    return sosfilt(sos, rng.standard_normal(n)) + 0.15 * whine


def birds(rng, n):
    out = 0.01 * rng.standard_normal(n)
    at = 0.3
    while at < n / RATE - 0.4:
        length = int(rng.uniform(0.05, 0.25) * RATE)
        x = np.linspace(0, 1, length)
        pitch = rng.uniform(2000, 5500) * (1 + rng.uniform(-0.3, 0.3) * x + 0.06 * np.sin(2 * np.pi * rng.uniform(3, 12) * x))
        a = int(at * RATE)
        out[a : a + length] += np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * np.sin(np.pi * x)
        at += rng.exponential(0.35) + 0.05
    return out


def monitor(rng, n):
    """A patient monitor's pulse tones and alarm over ventilation."""
    t = np.arange(n) / RATE
    pulse = np.sin(2 * np.pi * 900 * t) * (t % 0.8 < 0.09)
    alarm = np.sign(np.sin(2 * np.pi * 523 * t)) * (t % 2 < 0.15) * (t % 10 > 5)
    return pulse + 0.7 * alarm + 0.15 * lfilter([1], [1, -0.9], rng.standard_normal(n))


def wind(rng, n):
    gust = np.interp(np.arange(n), np.linspace(0, n, int(n / RATE * 3) + 2), rng.gamma(1.0, 1, int(n / RATE * 3) + 2))
    return lfilter([1], [1, -1.97, 0.9705], rng.standard_normal(n)) * gust


def white(rng, n):
    return rng.standard_normal(n)


def brown(rng, n):
    return lfilter([1], [1, -0.995], rng.standard_normal(n))


NOISES = [white, brown, rain, applause, engine, plucks, telephone, keyboard, vacuum, birds, monitor, wind]


def unit(x):
    return x / np.sqrt(np.mean(x**2) + 1e-20)


# --- streams and their reference labels ------------------------------------------------------------


def reference(audio):
    """Speech per hop of clean audio: 1, 0, or -1 where that is ambiguous.

    RMS over 25 ms in dB. Threshold: 30 dB below the 95th percentile, at least 10 dB above the 5th.
    Gaps up to 6 hops are closed, as ambiguous; so are hops within 5 dB of the threshold and the
    neighbours of every change.
    """
    count = len(audio) // HOP
    padded = np.pad(audio, (72, 400))
    level = np.array([np.mean(padded[HOP * k : HOP * k + 400] ** 2) for k in range(count)])
    level = 10 * np.log10(level + 1e-10)
    loud, quiet = np.percentile(level, [95, 5])
    threshold = max(loud - 30, quiet + 10)
    speech = (level > threshold).astype(int)
    out = np.where(np.abs(level - threshold) < 5, -1, speech)
    change = np.flatnonzero(np.diff(speech))
    for k in change:
        out[max(0, k) : k + 2] = -1
    for a, b in zip(change[:-1], change[1:]):
        if speech[a] and b - a <= 6:
            out[a : b + 2] = -1
            speech[a + 1 : b + 1] = 1
    return out, speech


def streams(corpora, corpus, rng, count):
    """`count` streams of six clips of one speaker each, with pauses of digital silence between."""
    rows = [r for r in csv.DictReader((Path(corpora) / "manifest.csv").open()) if r["corpus"] == corpus]
    speakers = sorted({r["speaker"] for r in rows})
    out = []
    for i in range(count):
        own = [r for r in rows if r["speaker"] == speakers[i % len(speakers)]]
        audio, labels, onsets = [], [], []
        for r in rng.choice(own, 6, replace=False):
            clip, rate = soundfile.read(Path(corpora) / r["path"], dtype="float64")
            assert rate == RATE
            clip = clip[: len(clip) // HOP * HOP]
            clip = unit(clip) * 0.05
            pause = int(rng.integers(40, 90))
            mark, speech = reference(clip)
            at = sum(map(len, labels)) + pause
            first = np.flatnonzero(speech)
            onsets += [at + first[0]] if len(first) else []
            labels += [np.zeros(pause, int), mark]
            audio += [np.zeros(pause * HOP), clip]
        out.append((np.concatenate(audio), np.concatenate(labels), onsets))
    return out


def mu_law(audio):
    """Through 8 kHz and G.711's curve, and back to 16 kHz."""
    low = np.clip(resample_poly(audio, 1, 2), -1, 1)
    code = np.round(np.sign(low) * np.log1p(255 * np.abs(low)) / np.log(256) * 127) / 127
    return resample_poly(np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255, 2, 1)


def condition(name, audio, labels, noise, voices):
    """The stream as it is heard under a condition."""
    speech = np.repeat(labels == 1, HOP)
    power = np.mean(audio[speech] ** 2)
    snr, gain = {
        "clean": (None, 0), "20 dB": (20, 0), "10 dB": (10, 0), "5 dB": (5, 0), "0 dB": (0, 0),
        "telephone, 20 dB": (20, 0), "gain -30 dB, 20 dB": (20, -30), "gain +10 dB, 20 dB": (20, 10),
        "8 voices, 10 dB": (10, 0),
    }[name]  # fmt: skip
    heard = audio
    if snr is not None:
        noise = voices if "voices" in name else noise
        heard = audio + noise[: len(audio)] * np.sqrt(power * 10 ** (-snr / 10))
    heard = np.clip(heard * 10 ** (gain / 20), -1, 1)
    if "telephone" in name:
        heard = mu_law(heard)[: len(audio)]
    return (np.round(heard * 32767) / 32768).astype(np.float32)


CONDITIONS = [
    "clean", "20 dB", "10 dB", "5 dB", "0 dB", "telephone, 20 dB", "gain -30 dB, 20 dB", "gain +10 dB, 20 dB",
    "8 voices, 10 dB",
]  # fmt: skip


# --- detectors: a score per hop, as known when that hop has arrived --------------------------------


def score_earshot(recordings):
    out = []
    for audio in recordings:
        detector = earshot.Detector()
        out.append(np.array([detector.predict_f32(hop) for hop in audio[: len(audio) // HOP * HOP].reshape(-1, HOP)]))
    return out


def score_ours(weights, recordings):
    hops = [len(audio) // HOP for audio in recordings]
    # The first frame comes with the fourth hop.
    db = np.full((len(recordings), max(hops) - 3, frontend.MELS), -100, np.float32)
    for lane, audio in zip(db, recordings):
        frames = frontend.to_db(frontend.mel_power(audio))
        lane[: len(frames)] = frames
    scores = network.probabilities(weights, db)
    return [np.concatenate([np.zeros(3), lane[: n - 3]]) for lane, n in zip(scores, hops)]


def shift(score, lag):
    """The score that speaks of hop k is known `lag` hops later."""
    return np.concatenate([score[lag:], np.full(lag, score[-1])])


def auc(score, truth):
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    # Equal scores share their mean rank.
    values, inverse = np.unique(score, return_inverse=True)
    ranks = (np.bincount(inverse, ranks) / np.bincount(inverse))[inverse]
    p = truth.sum()
    return (ranks[truth].sum() - p * (p + 1) / 2) / (p * (len(truth) - p))


def segments(score, on, off, least=1):
    """Starts of runs that begin at `on`, last while above `off` and at least `least` hops."""
    starts, inside, began = [], False, 0
    for k, s in enumerate(score):
        if not inside and s >= on:
            inside, began = True, k
        elif inside and s < off:
            inside = False
            if k - began >= least:
                starts.append(began)
    return starts + ([began] if inside else [])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--streams", type=int, default=24, help="streams per corpus")
    args = parser.parse_args()
    weights = network.tables(args.weights)
    rng = np.random.default_rng(2024)
    detectors = {"ours": lambda x: score_ours(weights, x), "earshot": score_earshot}
    corpora = {c: streams(args.corpora, c, rng, args.streams) for c in ("ravdess", "savee", "tess")}
    everyone = [s for c in corpora.values() for s in c]

    results = {}
    for corpus, items in corpora.items():
        voices = []
        for audio, _, _ in items:
            others = [s[0] for s in everyone if s[0] is not audio]
            chosen = [others[k] for k in rng.choice(len(others), 8, replace=False)]
            voices.append(unit(sum(np.resize(np.roll(x, rng.integers(80000)), len(audio)) for x in chosen)))
        for name in CONDITIONS:
            heard = []
            for i, (audio, labels, _) in enumerate(items):
                noise = unit(NOISES[i % len(NOISES)](rng, len(audio)))
                heard.append(condition(name, audio, labels, noise, voices[i]))
            for d, score in detectors.items():
                results[corpus, name, d] = [
                    (s, labels, onsets) for s, (_, labels, onsets) in zip(score(heard), items)
                ]
            print("#", corpus, name, flush=True)

    def gather(corpus, name, d, lag, agree):
        keep_score, keep_label = [], []
        for i, (score, labels, _) in enumerate(results[corpus, name, d]):
            use = labels >= 0
            if agree:
                clean = shift(results[corpus, "clean", "earshot"][i][0], lags["earshot"]) > 0.5
                use = use & (clean == (labels == 1))
            keep_score.append(shift(score, lag)[use])
            keep_label.append(labels[use] == 1)
        return np.concatenate(keep_score), np.concatenate(keep_label)

    lags = {"earshot": 0, "ours": 0}
    for d in detectors:
        mean = [
            np.mean([auc(*gather(c, n, d, lag, False)) for c in corpora for n in ("clean", "10 dB")])
            for lag in range(6)
        ]
        lags[d] = int(np.argmax(mean))
    print(f"\nBest constant lag: ours {lags['ours']} hops, earshot {lags['earshot']} hops.\n")

    pooled = {}
    for d in detectors:
        s, t = zip(*(gather(c, n, d, lags[d], False) for c in corpora for n in CONDITIONS))
        s, t = np.concatenate(s), np.concatenate(t)
        pooled[d] = np.quantile(s[~t], 0.95)
        on = {"ours": ON, "earshot": 0.5}[d]
        print(
            f"{d}: pooled AUC {auc(s, t):.4f}; at 5 % false alarm (threshold {pooled[d]:.3f}) hits {np.mean(s[t] > pooled[d]):.3f};"
            f" at its own threshold {on}: hits {np.mean(s[t] > on):.3f}, false alarms {np.mean(s[~t] > on):.3f}"
        )
    for agree in (False, True):
        print("\nLabels:", "energy, and earshot agrees on the clean audio" if agree else "energy only", "\n")
        print("| corpus | condition | AUC ours | AUC earshot | hits at 5 % FA ours | earshot |\n|---|---|---|---|---|---|")
        for c in corpora:
            for n in CONDITIONS:
                row = []
                for d in ("ours", "earshot"):
                    s, t = gather(c, n, d, lags[d], agree)
                    row.append((auc(s, t), np.mean(s[t] > np.quantile(s[~t], 0.95))))
                print(f"| {c} | {n} | {row[0][0]:.4f} | {row[1][0]:.4f} | {row[0][1]:.3f} | {row[1][1]:.3f} |")

    print("\nOnset delay, ms from the clip's first speech hop to the decision, at the pooled 5 % threshold (median / 90 %), and clips missed\n")
    print("| condition | ours | earshot |\n|---|---|---|")
    for n in CONDITIONS:
        cells = []
        for d in ("ours", "earshot"):
            delays, missed = [], 0
            for c in corpora:
                for score, _, onsets in results[c, n, d]:
                    for at in onsets:
                        # From 4 hops before to 1 s after the onset; a detector that is on before counts from there.
                        hit = np.flatnonzero(score[max(0, at - 4) : at + 62] > pooled[d])
                        if len(hit):
                            delays.append((hit[0] - min(4, at) + 1) * 16)
                        else:
                            missed += 1
            cells.append(f"{np.median(delays):.0f} / {np.percentile(delays, 90):.0f}, {missed} of {missed + len(delays)} missed")
        print(f"| {n} | {cells[0]} | {cells[1]} |")

    print("\nNoise alone, a minute each at -45 and -25 dBFS: hops above the pooled 5 % threshold, and false utterances per minute (5 hops or longer)\n")
    print("| noise | ours | earshot |\n|---|---|---|")
    for make in NOISES:
        cells = {d: [] for d in detectors}
        noise = unit(make(rng, 60 * RATE))
        heard = [(noise * 10 ** (level / 20)).clip(-1, 1).astype(np.float32) for level in (-45, -25)]
        for d, score in detectors.items():
            for s in score(heard):
                cells[d].append((np.mean(s > pooled[d]), len(segments(s, pooled[d], pooled[d] * 0.6, 5))))
        text = {d: f"{np.mean([c[0] for c in v]):.3f}, {np.mean([c[1] for c in v]):.1f}/min" for d, v in cells.items()}
        print(f"| {make.__name__} | {text['ours']} | {text['earshot']} |", flush=True)


if __name__ == "__main__":
    main()
