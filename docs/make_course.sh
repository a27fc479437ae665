#!/bin/sh
# Draws docs/course.svg: what the policy care-call makes of a call that is synthesised here, calm, then
# agitated, then silent. Nobody was recorded. Needs espeak-ng and sox.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
undertone=${UNDERTONE:-$here/../target/release/undertone}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
espeak-ng -v en-us -s 150 -w calm.wav "Hello. I slept quite well, thank you. The nurse came at eight and \
brought me some tea. I read the paper and looked out of the window for a while. My daughter is coming on Sunday."
espeak-ng -v en-us -s 200 -p 90 -a 200 -w upset.wav "No! Leave me alone! I have told you three times already! \
Nobody ever listens to me! What do you want from me? Go away, all of you! I will not do it! Stop it, stop it now!"
rate=$(sox --i -r calm.wav)
sox -n -r "$rate" -c 1 -b 16 pause.wav trim 0 2
sox -n -r "$rate" -c 1 -b 16 silence.wav trim 0 70
sox calm.wav pause.wav calm.wav pause.wav upset.wav upset.wav pause.wav upset.wav upset.wav pause.wav \
    calm.wav silence.wav call.wav
"$undertone" policy test "$here/../policies/care-call.yaml" call.wav --plot "$here/course.svg"
