"""Tiny encoders with random weights, saved as their publishers save theirs, and invented clips: no weights and no
recordings are needed here, and nothing is downloaded."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# First: it keeps `transformers` off the network.
import undertone_finetune  # noqa: F401  isort: skip

import json

import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from undertone_training.labels import LABELS

RATE_HZ = 16_000
SPEECH = dict(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=(12,) * 7,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2,
    vocab_size=8,
)
# As large-v3 and others: layers normalised before attention, convolutions over channels.
STABLE = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
# 2 s of positions instead of 30 s.
WHISPER = dict(
    d_model=24,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_ffn_dim=32,
    num_mel_bins=80,
    max_source_positions=100,
    vocab_size=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=1,
)


def configuration(kind: str, **more):
    """A tiny configuration of one architecture."""
    if kind == "whisper":
        return WhisperConfig(**WHISPER, **more)
    if kind == "wavlm":
        return WavLMConfig(**SPEECH, num_buckets=16, max_bucket_distance=40, **more)
    return {"wav2vec2": Wav2Vec2Config, "hubert": HubertConfig}[kind](**(SPEECH | more))


MODELS = {
    "whisper": WhisperForConditionalGeneration,
    "wavlm": WavLMModel,
    "wav2vec2": Wav2Vec2Model,
    "hubert": HubertModel,
}


def save(folder: Path, model: PreTrainedModel, normalise: bool = True) -> Path:
    """Saves a model with weights large enough that its outputs move."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.dim() > 1 and "embed_positions" not in name:
                values.mul_(3.0)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": normalise, "sampling_rate": RATE_HZ}))
    return folder


def tiny(folder: Path, kind: str, **more) -> Path:
    torch.manual_seed(7)
    return save(folder, MODELS[kind](configuration(kind, **more)))


@pytest.fixture(scope="session")
def encoders(tmp_path_factory):
    """A folder per architecture."""
    place = tmp_path_factory.mktemp("encoders")
    return {kind: tiny(place / kind, kind, **(STABLE if kind == "wav2vec2" else {})) for kind in MODELS}


def clip(emotion: int, speaker: int, take: int) -> np.ndarray:
    """A buzz whose pitch and pace tell the emotion; speakers differ a little."""
    rng = np.random.default_rng([emotion, speaker, take])
    seconds = np.arange(int(rng.uniform(0.8, 1.6) * RATE_HZ)) / RATE_HZ
    pitch = 90 + 40 * emotion + 5 * speaker
    buzz = sum(np.sin(2 * np.pi * number * pitch * seconds) / number for number in range(1, 8))
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * (1 + emotion) * seconds)
    return (0.1 * buzz * swell + 0.002 * rng.standard_normal(len(seconds))).astype(np.float32)


@pytest.fixture(scope="session")
def corpora(tmp_path_factory) -> Path:
    """Two invented corpora, six speakers, four emotions, and one corpus without audio."""
    place = tmp_path_factory.mktemp("corpora")
    emotions = [LABELS.index(name) for name in ("neutral", "happy", "sad", "angry")]
    rows = []
    for speaker in range(6):
        for number, emotion in enumerate(emotions):
            name = f"{speaker}-{LABELS[emotion]}"
            path = f"invented/{name}.wav"
            (place / "invented").mkdir(exist_ok=True)
            soundfile.write(place / path, clip(number, speaker, 0), RATE_HZ)
            rows.append(
                [
                    path,
                    name,
                    "invented" if speaker < 4 else "other",
                    LABELS[emotion],
                    "normal",
                    f"s{speaker}",
                    "F",
                    "none",
                    speaker % 3,
                ]
            )
    rows.append(["crema-d/logmel.npz", "none", "crema-d", "sad", "normal", "c1", "F", "none", 0])
    with (place / "manifest.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow("path clip corpus emotion intensity speaker sex text fold".split())
        writer.writerows(rows)
    return place


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def pytest_configure(config):
    # Said of WavLM's layers, which are not ours; `encoder` ignores it, and pytest resets that.
    config.addinivalue_line("filterwarnings", "ignore:Support for mismatched key_padding_mask and attn_mask")
