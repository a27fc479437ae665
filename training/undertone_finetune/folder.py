"""A Hugging Face folder on this disk: what stands in it, and the encoder loaded from it.

What cannot be used is refused before anything is computed, with what is wrong and what would be right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import (
    AutoConfig,
    HubertModel,
    PreTrainedConfig,
    PreTrainedModel,
    Wav2Vec2Model,
    WavLMModel,
    WhisperForAudioClassification,
    WhisperModel,
)
from transformers.utils import logging

# Our own lines say what is being done; what is missing in a folder is our own error, what is left over is a decoder or
# a head that is not wanted.
logging.disable_progress_bar()
logging.set_verbosity_error()

# Exit codes of sysexits.h, as the service uses them.
BAD_USAGE, BAD_DATA, NO_INPUT = 64, 65, 66

SPEECH_MODELS = {"hubert": HubertModel, "wav2vec2": Wav2Vec2Model, "wavlm": WavLMModel}
KINDS = ("whisper", *SPEECH_MODELS)
# One file, or the index of several.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# Only used for masking while training; many published folders lack it.
DISPENSABLE = ("masked_spec_embed",)


class Refused(Exception):
    """What cannot be done: says what is wrong and what would be right. `code` is the exit code."""

    def __init__(self, problem: str, code: int = BAD_DATA):
        super().__init__(problem)
        self.code = code


def check(folder: Path) -> None:
    """Refuses a folder that is not there or not whole."""
    how = (
        "nothing is downloaded here: fetch the model on a machine that may, for instance with "
        "`hf download microsoft/wavlm-base --local-dir DIR`, and give that folder"
    )
    if not folder.is_dir():
        raise Refused(f"{folder}: no such folder; {how}", NO_INPUT)
    if not (folder / "config.json").is_file():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in {".h5", ".keras", ".pt", ".onnx"})
        instead = f" (there is {', '.join(others)}: another format)" if others else ""
        raise Refused(f"{folder}: no config.json{instead}; {how}", NO_INPUT)
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not found:
        raise Refused(f"{folder}: no weights, none of {', '.join(WEIGHTS)}; {how}", NO_INPUT)
    for path in shards(folder):
        if not path.is_file():
            raise Refused(f"{path}: named in the index of the weights and not there; {how}", NO_INPUT)
        with path.open("rb") as file:
            if file.read(40).startswith(b"version https://git-lfs"):
                raise Refused(f"{path}: a pointer of Git LFS, not weights; run `git lfs pull` in that folder", NO_INPUT)


def shards(folder: Path) -> list[Path]:
    """The files that hold the weights; of two formats safetensors, as `transformers` chooses."""
    for whole, index in zip(WEIGHTS[::2], WEIGHTS[1::2]):
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            named = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / name for name in sorted(set(named))]
    return []


def tensors(folder: Path, beginning: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors whose names begin so, as they stand in the folder, in 32 bits."""
    for path in shards(folder):
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                for name in file.keys():
                    if name.startswith(beginning):
                        yield name, file.get_tensor(name).float()
        else:
            for name, values in torch.load(path, map_location="cpu", weights_only=True, mmap=True).items():
                if name.startswith(beginning):
                    yield name, values.float()


def config(folder: Path) -> PreTrainedConfig:
    """The folder's configuration, of a kind of encoder that can be used."""
    check(folder)
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise Refused(f"{folder / 'config.json'}: not a JSON object ({error})") from error
    if kind not in KINDS:
        raise Refused(f"{folder}: model_type is {kind!r}; known are {', '.join(KINDS)}")
    read = AutoConfig.from_pretrained(folder, local_files_only=True)
    # Both would need another way from frames to states than `encoder` has.
    for switch in ("add_adapter", "conv_pos_batch_norm"):
        if getattr(read, switch, False):
            raise Refused(f"{folder}: config.json has {switch} = true, which cannot be used here; take another encoder")
    return read


def load(model: type[PreTrainedModel], folder: Path, needed: str = "") -> PreTrainedModel:
    """A model from the folder, in 32 bits. Weights whose names begin with `needed` must all be there."""
    # Attention is spelt out (eager): its masks are then additions, which every version of ONNX has.
    try:
        loaded, told = model.from_pretrained(
            folder,
            config=config(folder),
            local_files_only=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise Refused(f"{folder}: cannot be loaded as {model.__name__}: {error}") from error
    missing = [
        name for name in sorted(told["missing_keys"]) if name.startswith(needed) and not name.endswith(DISPENSABLE)
    ]
    if missing:
        raise Refused(
            f"{folder}: {len(missing)} weights of {model.__name__} are missing (the first is {missing[0]}); "
            "the folder holds another model than its config.json says"
        )
    # Weight normalisation shapes how a convolution is trained, not what it computes: it is multiplied out.
    for module in loaded.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return loaded


def encoder(folder: Path) -> nn.Module:
    """The folder's encoder, whatever was trained on top of it."""
    read = config(folder)
    if read.model_type != "whisper":
        return load(SPEECH_MODELS[read.model_type], folder)
    # A classifier's folder has no decoder, and names its encoder otherwise.
    classifies = any("Classification" in name for name in read.architectures or [])
    return load(WhisperForAudioClassification if classifies else WhisperModel, folder, "encoder.").encoder


def normalises(folder: Path) -> bool:
    """Whether the encoder expects samples of zero mean and unit variance, as its `preprocessor_config.json` says.

    The published encoders differ in this, also within one family.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise Refused(
            f"{path} is missing, and with it whether samples are normalised; fetch it from where the weights come from, "
            "or say so by --normalise yes or --normalise no",
            NO_INPUT,
        )
    return bool(json.loads(path.read_text(encoding="utf-8")).get("do_normalize", True))
