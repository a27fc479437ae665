"""The usual way in Python, for comparison: librosa MFCCs into a PyTorch LSTM, over and over.

Every half second the last three seconds are cut out, turned into 40 MFCCs per 16 ms hop and run through an
LSTM of two layers of 128: what a recogniser that was trained on whole clips does when it is put behind a
stream. The weights are random, since they do not change the cost. No network, no voice detector, no
utterances; one thread.

    python benches/python_baseline.py speech.wav
    python benches/python_baseline.py speech.wav --seconds 30 --format json

The figure is CPU time of the process per second of audio, measured after a warm-up, with the imports and
the reading of the file left out.
"""

import argparse
import json
import os
import time

# One thread, as one stream among many has: set before the libraries read it.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import librosa  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

RATE_HZ = 16_000
WINDOW_S = 3.0
EVERY_S = 0.5
MFCCS = 40
EMOTIONS = 8
WARM_UP_WINDOWS = 5


class Recogniser(torch.nn.Module):
    """Two layers of 128, the mean over time, one score per emotion."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(MFCCS, 128, num_layers=2, batch_first=True)
        self.scores = torch.nn.Linear(128, EMOTIONS)

    def forward(self, mfccs):
        hidden, _ = self.lstm(mfccs)
        return self.scores(hidden.mean(dim=1)).softmax(dim=-1)


def estimate(recogniser, window):
    mfccs = librosa.feature.mfcc(
        y=window, sr=RATE_HZ, n_fft=1024, hop_length=256, n_mels=128, n_mfcc=MFCCS, center=False
    )
    with torch.inference_mode():
        return recogniser(torch.from_numpy(mfccs.T[None].astype(np.float32)))


def windows(samples):
    """The last three seconds, every half second; as long as the stream is shorter, all of it."""
    every, length = int(EVERY_S * RATE_HZ), int(WINDOW_S * RATE_HZ)
    for end in range(every, len(samples) + 1, every):
        yield samples[max(0, end - length) : end]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", help="speech, any format librosa reads")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="audio measured; the file is looped (default 30)"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    recogniser = Recogniser().eval()
    clip, _ = librosa.load(arguments.audio, sr=RATE_HZ, mono=True)
    samples = np.resize(clip, int(arguments.seconds * RATE_HZ)).astype(np.float32)
    for window in list(windows(samples))[-WARM_UP_WINDOWS:]:
        estimate(recogniser, window)

    cpu, wall, estimates = time.process_time(), time.perf_counter(), 0
    for window in windows(samples):
        estimate(recogniser, window)
        estimates += 1
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall

    seconds = len(samples) / RATE_HZ
    result = {
        "audio_seconds": seconds,
        "estimates": estimates,
        "cpu_ms_per_audio_second": round(1000 * cpu / seconds, 3),
        "wall_ms_per_estimate": round(1000 * wall / estimates, 3),
        "librosa": librosa.__version__,
        "torch": torch.__version__,
    }
    if arguments.format == "json":
        print(json.dumps(result))
    else:
        print(
            f"{result['cpu_ms_per_audio_second']} ms CPU per second of audio, "
            f"{result['wall_ms_per_estimate']} ms per estimate, over {seconds:.0f} s "
            f"(librosa {result['librosa']}, torch {result['torch']}, one thread)"
        )


if __name__ == "__main__":
    main()
