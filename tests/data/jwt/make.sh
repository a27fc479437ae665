#!/bin/sh
# Makes the RSA key that tests sign tokens with: ring, which checks them, makes none. It opens nothing.
set -eu
cd "$(dirname "$0")"
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 |
    openssl pkcs8 -topk8 -nocrypt -outform DER -out rsa.pk8.der
