#!/bin/sh
# Holds the dependencies to deny.toml: licences, bans and sources always; advisories where RustSec's database
# can be had. It lies on a Git host; ADVISORY_DB names a mirror (a URL, or a folder with a clone). Where it
# cannot be had this says so, and fails if ADVISORIES=required.
#
#   CARGO_DENY=PATH [ADVISORY_DB=URL] [ADVISORIES=required] deploy/deny.sh
set -eu
cd "$(dirname "$0")/.."
deny=${CARGO_DENY:-cargo-deny}

"$deny" --log-level error check licenses bans sources

if [ -n "${ADVISORY_DB:-}" ]; then
    # cargo-deny takes https alone; git itself goes to the mirror.
    export GIT_CONFIG_COUNT=1
    export GIT_CONFIG_KEY_0="url.$ADVISORY_DB.insteadOf"
    export GIT_CONFIG_VALUE_0=https://github.com/RustSec/advisory-db
fi
# A host that does not answer is not waited for without end, where there is a tool that sees to it (macOS has none).
limit=
if command -v timeout >/dev/null; then limit="timeout 300"; fi
if problem=$($limit "$deny" fetch db 2>&1); then
    "$deny" check advisories
else
    echo "NOT CHECKED: advisories. RustSec's database could not be fetched; ADVISORY_DB=URL names a mirror." >&2
    printf '%s\n' "$problem" | tail -n 5 >&2
    [ "${ADVISORIES:-}" != required ]
fi
