"""WAV files: where the samples lie and how they are coded.

RIFF as Microsoft and IBM laid it down in 1991, with the extensible format that came later.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .audio import AudioFormat, Encoding
from .errors import InvalidRequest

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_ENCODINGS = {(_FLOAT, 32): Encoding.FLOAT32, (_ALAW, 8): Encoding.ALAW, (_MULAW, 8): Encoding.MULAW}
_PCM_BITS = (8, 16, 24, 32)
# Eight-bit samples are unsigned, with silence at 128.
_SIGNED = bytes(value ^ 0x80 for value in range(256))
_HEADER, _FORMAT, _EXTENDED_BYTES = struct.Struct("<4sI"), struct.Struct("<HHIIHH"), 26


class Wav:
    """An open WAV file, read from the first sample on.

    PCM of 8, 24 and 32 bits becomes LINEAR16, its lower bits are cut off; all else is passed on as it is.

    Raises:
        InvalidRequest: It is not one, or is coded in another way.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._file = file
        name, _ = self._chunk()
        if name not in (b"RIFF", b"RF64") or file.read(4) != b"WAVE":
            raise _refuse(path, "is no WAV file")
        head, name, size = b"", *self._chunk()
        while name != b"data":
            if not name:
                raise _refuse(path, "holds no audio")
            following = file.tell() + size + size % 2  # Chunks begin at even bytes.
            if name == b"fmt ":
                head = file.read(min(size, _EXTENDED_BYTES))
            file.seek(following)
            name, size = self._chunk()
        if len(head) < _FORMAT.size:
            raise _refuse(path, "does not say how it is coded")
        tag, channels, rate, _, _, bits = _FORMAT.unpack_from(head)
        if tag == _EXTENSIBLE and len(head) >= _EXTENDED_BYTES:
            tag = int.from_bytes(head[24:26], "little")
        encoding = Encoding.LINEAR16 if tag == _PCM and bits in _PCM_BITS else _ENCODINGS.get((tag, bits))
        if encoding is None:
            raise _refuse(path, f"is coded in a way that streams do not have (format {tag}, {bits} bits)")
        if not channels or not rate:
            raise _refuse(path, "has no channels or no rate")
        self.format = AudioFormat(encoding, rate, channels)
        self._sample_bytes = bits // 8
        self._left = size

    def _chunk(self) -> tuple[bytes, int]:
        header = self._file.read(_HEADER.size)
        return _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0)

    def read(self, seconds: float) -> bytes:
        """The next samples, `seconds` of them or what is left; empty at the end. Blocks."""
        frame = self._sample_bytes * self.format.channels
        size = self.format.size(seconds) // self.format.frame_bytes * frame
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return self._as_sent(data)

    def _as_sent(self, data: bytes) -> bytes:
        if self.format.encoding is not Encoding.LINEAR16 or self._sample_bytes == 2:  # noqa: PLR2004
            return data
        width = self._sample_bytes
        data = data[: len(data) // width * width]
        samples = bytearray(len(data) // width * 2)
        if width == 1:
            samples[1::2] = data.translate(_SIGNED)
        else:
            samples[0::2], samples[1::2] = data[width - 2 :: width], data[width - 1 :: width]
        return bytes(samples)


def blocks(wav: Wav, seconds: float) -> Iterator[bytes]:
    """All samples, `seconds` of them at a time."""
    while data := wav.read(seconds):
        yield data


def _refuse(path: Path, problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} {problem}",
        fields=(("path", problem),),
        remedy="`analyze` takes other containers; or convert it: ffmpeg -i FILE -c:a pcm_s16le OUT.wav",
    )
