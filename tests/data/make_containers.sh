#!/bin/sh
# Makes the container files beside this script: a second or less of a synthetic tone in every container and
# codec that Undertone reads, and in some that it does not. Needs ffmpeg with libvorbis, libmp3lame and
# libopus (Debian: apt-get install ffmpeg). Run it in any directory; it overwrites the files.
#
# The signal is a 440 Hz sine at a quarter of full scale, left channel only where there are two, so that
# the tests can check pitch, level and channel order after lossy codecs.
set -eu
cd "$(dirname "$0")"

sine() { # rate
    printf 'sine=frequency=440:sample_rate=%s:duration=1,volume=2' "$1"
}
make() { # rate, filter behind the sine, output and its options
    rate=$1
    filter=$2
    shift 2
    ffmpeg -nostdin -v error -y -f lavfi -i "$(sine "$rate")$filter" \
        -map_metadata -1 -fflags +bitexact -flags:a +bitexact "$@"
}
mono=''
left=',pan=stereo|c0=c0|c1=0*c0'

make 16000 "$mono" -c:a pcm_s16le tone_16k_mono.wav
make 8000 "$mono" -c:a pcm_mulaw tone_8k_mulaw.wav
make 8000 "$left" -t 0.25 -c:a pcm_f32le tone_8k_float_stereo.wav
make 16000 "$mono" -c:a flac -sample_fmt s16 tone_16k.flac
make 44100 "$left" -c:a libvorbis -q:a 0 tone_44k_stereo.ogg
make 24000 "$mono" -c:a libmp3lame -b:a 24k tone_24k.mp3
make 48000 "$left" -c:a aac -b:a 48k tone_48k_stereo.m4a
make 16000 "$mono" -c:a alac tone_16k_alac.m4a
make 11025 "$mono" -c:a pcm_s16be tone_11k.aiff
make 44100 "$left" -c:a libvorbis -q:a 0 tone_44k_stereo.mkv
make 16000 "$mono" -c:a adpcm_ima_wav tone_16k_adpcm.wav
# Not supported, each for its reason.
make 48000 "$mono" -c:a libopus -b:a 16k opus.ogg
make 48000 "$mono" -c:a libopus -b:a 16k opus.webm
make 8000 ',pan=hexadecagonal|c0=c0' -t 0.02 -c:a pcm_s16le sixteen_channels.wav
make 3000 "$mono" -c:a pcm_s16le rate_3k.wav
ffmpeg -nostdin -v error -y -f lavfi -i 'color=c=black:s=32x32:d=1:r=5' \
    -map_metadata -1 -fflags +bitexact -flags:v +bitexact -c:v mpeg4 video_only.mkv
ffmpeg -nostdin -v error -y -f lavfi -i 'anullsrc=r=16000:cl=mono' -t 0 \
    -map_metadata -1 -fflags +bitexact -c:a pcm_s16le no_samples.wav
