"""Samples -> hidden states, and which of them were heard.

In: windows [batch, samples] at 16 kHz, zeros behind what was heard (`frontend`). Out: the hidden states of every layer
(the embedding first, the last layer last, each [batch, frames, width]) and a mask, bool [batch, frames].

The layers are `transformers`' own; the way through them is written out here, for three reasons. The masks must follow
from the samples inside the graph. What was not heard must not count, not even in encoders whose published code lets it
(Whisper knows no mask; the first convolution of wav2vec 2.0 base is normalised over all time): the same audio in a
longer window of zeros gives the same states. And Whisper must take windows of less than 30 s.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional

from .folder import BAD_USAGE, Refused
from .frontend import LogMel, heard, normalised, up_to

# WavLM's layers hand a bool and a float mask to PyTorch, which joins them and says each time that it will not for ever.
warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask and attn_mask")

# Added to the attention scores of what was not heard: its weight after the softmax is exactly 0.
UNHEARD = -1e9


def attention_mask(mask: Tensor) -> Tensor:
    """[batch, frames] -> what is added to attention scores [batch, heads, frames, frames]."""
    return torch.where(mask, 0.0, UNHEARD)[:, None, None]


def dropped(layer_drop: float, training: bool) -> bool:
    """Whether to leave out a layer (LayerDrop, Fan et al. 2019), as it was in pre-training."""
    return training and layer_drop > 0 and float(torch.rand([])) < layer_drop


class WhisperStates(nn.Module):
    """Whisper's encoder on windows up to the 30 s that it was trained on (`max_source_positions`, 20 ms each).

    `transformers` refuses anything but 30 s, because it adds all positional embeddings to the frames. They are fixed
    sinusoids, the first n of them are the sinusoids of n positions, so a window of n positions takes the first n. Two
    contexts:

    - "window": the encoder sees the window alone, its unheard part masked. A 5 s window costs less than a sixth of 30
      s. Whisper was trained with silence up to 30 s, so an encoder is better *tuned* in this context than used frozen.
    - "full": the window is filled with zeros to 30 s inside the graph and nothing is masked, as in pre-training. Right
      for frozen encoders and for classifiers trained so.
    """

    SAMPLES_PER_POSITION = 2 * LogMel.HOP

    def __init__(self, encoder: nn.Module, context: str):
        super().__init__()
        self.encoder, self.full = encoder, context == "full"
        self.log_mel = LogMel(encoder.config.num_mel_bins)
        self.width, self.layers = encoder.config.d_model, encoder.config.encoder_layers + 1
        self.longest = encoder.config.max_source_positions * self.SAMPLES_PER_POSITION

    def features(self) -> list[nn.Module]:
        """What `--freeze features` keeps as it is."""
        return [self.encoder.conv1, self.encoder.conv2]

    def forward(self, samples: Tensor) -> tuple[list[Tensor], Tensor]:
        if samples.shape[1] > self.longest or samples.shape[1] % self.SAMPLES_PER_POSITION:
            raise Refused(
                f"a window of {samples.shape[1]} samples: Whisper takes multiples of {self.SAMPLES_PER_POSITION} "
                f"samples, at most {self.longest}",
                BAD_USAGE,
            )
        lengths = heard(samples, least=1)
        frames = (lengths + LogMel.HOP - 1) // LogMel.HOP
        positions = (frames + 1) // 2
        encoder = self.encoder
        with torch.autocast(samples.device.type, enabled=False):
            if self.full:
                samples = functional.pad(samples, (0, self.longest - samples.shape[1]))
            mel = self.log_mel(samples, None if self.full else frames)
        states = functional.gelu(encoder.conv1(mel))
        mask = up_to(positions, samples.shape[1] // self.SAMPLES_PER_POSITION)
        added = None
        if not self.full:
            # As if the convolution's own zeros began where the heard part ends.
            states = states * up_to(frames, mel.shape[2])[:, None]
            added = attention_mask(mask)
        states = functional.gelu(encoder.conv2(states)).transpose(1, 2)
        states = states + encoder.embed_positions.weight[: states.shape[1]]
        states = functional.dropout(states, encoder.dropout, self.training)
        every = [states]
        for layer in encoder.layers:
            if not dropped(encoder.layerdrop, self.training):
                states = layer(states, added)
            every.append(states)
        every[-1] = encoder.layer_norm(states)
        return every, mask


class SpeechStates(nn.Module):
    """wav2vec 2.0, HuBERT or WavLM: one state per 20 ms, from 25 ms of samples."""

    def __init__(self, model: nn.Module, normalise: bool):
        super().__init__()
        self.model, self.normalise = model, normalise
        config = model.config
        self.steps = list(zip(config.conv_kernel, config.conv_stride))
        self.width, self.layers = config.hidden_size, config.num_hidden_layers + 1
        # The shortest stretch that gives one state.
        self.least = 1
        for kernel, stride in reversed(self.steps):
            self.least = (self.least - 1) * stride + kernel

    def features(self) -> list[nn.Module]:
        """What `--freeze features` keeps as it is."""
        return [self.model.feature_extractor]

    def forward(self, samples: Tensor) -> tuple[list[Tensor], Tensor]:
        lengths = heard(samples, self.least)
        if self.normalise:
            with torch.autocast(samples.device.type, enabled=False):
                samples = normalised(samples, lengths)
        states, lengths = self.convolved(samples, lengths)
        mask = up_to(lengths, states.shape[1])
        states = self.model.feature_projection(states)
        # HuBERT gives the projection alone, the others what they projected too.
        states = states[0] if isinstance(states, tuple) else states
        if self.training and states.shape[1] > self.model.config.mask_time_length:
            # SpecAugment, as in pre-training; it draws with NumPy, so not inside a graph.
            states = self.model._mask_hidden_states(states, attention_mask=mask)
        return self.transformed(states * mask[..., None], mask), mask

    def convolved(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, frames, channels] and how many of the frames rest on heard samples alone."""
        states = samples[:, None]
        for block, (kernel, stride) in zip(self.model.feature_extractor.conv_layers, self.steps):
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
            norm = getattr(block, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                states = block.activation(heard_norm(norm, block.conv(states), lengths))
            else:
                states = block(states)
        return states.transpose(1, 2), lengths

    def transformed(self, states: Tensor, mask: Tensor) -> list[Tensor]:
        encoder, config = self.model.encoder, self.model.config
        # The stable variant normalises behind the last layer, the other before the first.
        stable = config.do_stable_layer_norm
        states = states + encoder.pos_conv_embed(states)
        states = encoder.dropout(states if stable else encoder.layer_norm(states))
        bias, every, relative = None, [states], config.model_type == "wavlm"
        added = attention_mask(mask)
        for index, layer in enumerate(encoder.layers):
            # WavLM's first layer makes the position bias of all.
            if relative and (index == 0 or not dropped(config.layerdrop, self.training)):
                states, bias = layer(states, attention_mask=mask, position_bias=bias)
            elif not relative and not dropped(config.layerdrop, self.training):
                states = layer(states, attention_mask=added)
            every.append(states)
        if stable:
            # `transformers` 5 leaves the last of its `hidden_states` as it was before this; up to version 4, when
            # weighted sums of them were published, it did not.
            every[-1] = encoder.layer_norm(states)
        return every


def heard_norm(norm: nn.GroupNorm, states: Tensor, lengths: Tensor) -> Tensor:
    """Each channel's zero mean and unit variance over the heard frames of [batch, channels, frames]."""
    with torch.autocast(states.device.type, enabled=False):
        states = states.float()
        mask, count = up_to(lengths, states.shape[2])[:, None], lengths[:, None, None].to(states.dtype)
        centred = states - (states * mask).sum(2, keepdim=True) / count
        variance = (centred * mask).square().sum(2, keepdim=True) / count
        return centred / torch.sqrt(variance + norm.eps) * norm.weight[:, None] + norm.bias[:, None]
