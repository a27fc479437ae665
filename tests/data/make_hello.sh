#!/bin/sh
# Makes hello.wav: two synthesised sentences, the second one higher, faster and louder. Needs espeak-ng and sox.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
espeak-ng -v en-us -s 150 -p 40 -a 60 -w "$work/1.wav" "Good morning. I would like to ask about my appointment."
espeak-ng -v en-us -s 210 -p 80 -a 120 -w "$work/2.wav" "No! That is not what you told me! I have been waiting for hours!"
sox "$work/1.wav" "$work/2.wav" -r 16000 -c 1 -b 16 hello.wav
