"""What cannot be used is refused at once, with the remedy; and nothing is fetched."""

import json
import shutil
import socket
import time

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import finetune
from undertone_finetune import folder, vocabulary
from undertone_finetune.folder import Refused


def test_nothing_is_downloaded(encoders, monkeypatch, tmp_path, capsys):
    def no_network(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    assert huggingface_hub.constants.HF_HUB_OFFLINE and transformers.utils.hub.is_offline_mode()
    assert folder.encoder(encoders["wavlm"]).config.model_type == "wavlm"
    began = time.monotonic()
    # A name of the hub is no folder: it fails fast, rather than being looked for.
    command = ["--encoder", "microsoft/wavlm-base", "--corpora", str(tmp_path), "--out", str(tmp_path / "m")]
    assert finetune.main(["train", *command]) == 66
    told = capsys.readouterr().err
    assert "no such folder" in told and "hf download microsoft/wavlm-base --local-dir" in told
    assert time.monotonic() - began < 5


def test_folders_that_are_not_whole_are_refused(encoders, tmp_path):
    def refused(match, change):
        where = tmp_path / match.replace(" ", "-").replace("/", "-")
        shutil.copytree(encoders["wavlm"], where)
        change(where)
        with pytest.raises(Refused, match=match):
            folder.encoder(where)

    def lose_a_layer(where):
        weights = load_file(where / "model.safetensors")
        save_file(
            {name: values for name, values in weights.items() if "layers.1.attention" not in name},
            where / "model.safetensors",
            {"format": "pt"},
        )

    def keras_only(where):
        (where / "config.json").unlink()
        (where / "trained_model.h5").write_bytes(b"")

    def other_kind(where):
        (where / "config.json").write_text(json.dumps({"model_type": "bert"}))

    def adapter(where):
        config = json.loads((where / "config.json").read_text())
        (where / "config.json").write_text(json.dumps(config | {"add_adapter": True}))

    refused("no weights", lambda where: (where / "model.safetensors").unlink())
    refused("no config.json .there is trained_model.h5: another format", keras_only)
    refused(
        "git lfs pull",
        lambda where: (where / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
    )
    refused("known are whisper, hubert, wav2vec2, wavlm", other_kind)
    refused("weights of WavLMModel are missing", lose_a_layer)
    refused("add_adapter", adapter)
    refused("not a JSON object", lambda where: (where / "config.json").write_text("{"))
    refused(
        "named in the index",
        lambda where: (
            (where / "model.safetensors").rename(where / "model.safetensors.old")
            and (where / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
            )
        ),
    )


def test_any_folder_that_holds_a_whisper_encoder_will_do(tmp_path, encoders):
    from conftest import configuration, save
    from transformers import WhisperForAudioClassification, WhisperModel

    torch.manual_seed(3)
    for model in (WhisperModel, WhisperForAudioClassification):
        made = model(configuration("whisper"))
        read = folder.encoder(save(tmp_path / model.__name__, made))
        for ours, theirs in zip(
            read.parameters(), made.get_encoder().parameters() if model is WhisperModel else made.encoder.parameters()
        ):
            assert torch.equal(ours, theirs)


def test_others_names_become_our_labels():
    mapped = vocabulary.emotions(["ps", "Anger", "fearful", "HAPPINESS", "neu", "sadness", "disgusted", "calm"])
    assert mapped == ["surprise", "angry", "fear", "happy", "neutral", "sad", "disgust", "calm"]
    assert vocabulary.emotions(["a1", "b1"], "0=angry, b1=joy") == ["angry", "happy"]
    assert vocabulary.dimensions(["Arousal", "valence"]) == ["arousal", "valence"]
    assert vocabulary.dimensions(["arousal", "angry"]) is None and vocabulary.dimensions(["valence"]) is None
    for names, told, match in [
        (["contempt", "sad"], None, r"0 \(contempt\).*--labels"),
        (["sad", "angry"], "2=happy", "no output '2'"),
        (["sad", "angry"], "0=bored", "'bored' is no emotion"),
        (["sad", "angry"], "0=-", "fewer than two"),
    ]:
        with pytest.raises(Refused, match=match):
            vocabulary.emotions(names, told)
