#!/bin/sh
# Makes what the overlays want as secrets, for a trial: an authority and a certificate, one token with its identity, a key for resume
# tokens. It writes into a new folder, and prints the commands that bring it into the cluster; it touches no cluster.
#   sh deploy/kubernetes/make-secrets.sh FOLDER
# UNDERTONE is the program (default: undertone), such as "docker run --rm registry.example/undertone:0.1.0"; NAMESPACE the namespace.
set -eu

folder=${1:?"usage: make-secrets.sh FOLDER"}
namespace=${NAMESPACE:-undertone}
undertone=${UNDERTONE:-undertone}

fail() { printf '%s\n' "$1" >&2 && exit 1; }

command -v openssl >/dev/null || fail "openssl is missing: apt-get install openssl"
[ ! -e "$folder" ] || fail "$folder is there already; secrets are not written over"
umask 077
mkdir -p "$folder"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

key "$folder/ca.key"
openssl req -x509 -new -key "$folder/ca.key" -days 3650 -subj "/CN=Undertone's authority" -out "$folder/ca.crt" \
    -addext keyUsage=critical,keyCertSign,cRLSign
key "$folder/tls.key"
service=undertone.$namespace.svc
printf 'subjectAltName=DNS:undertone,DNS:%s,DNS:%s.cluster.local,DNS:localhost\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n' \
    "$service" "$service" >"$folder/extensions"
openssl req -new -key "$folder/tls.key" -subj "/CN=$service" |
    openssl x509 -req -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -days 365 \
        -extfile "$folder/extensions" -out "$folder/tls.crt" 2>/dev/null
rm -f "$folder/extensions" "$folder"/*.srl

# The token goes to standard output; the line for the file of identities is the last one on standard error.
$undertone identities token >"$folder/app.token" 2>"$folder/line" ||
    fail "no token: is undertone in the PATH, or UNDERTONE set? $(cat "$folder/line")"
cat >"$folder/identities.yaml" <<END
schema: undertone.identities/v1
identities:
  - name: app
    roles: [stream, analyze, watch, acknowledge]
    tokens:
      $(tail -n 1 "$folder/line" | sed 's/^ *//')
END
rm "$folder/line"
$undertone resume-key >"$folder/resume.keys"

cat <<END
In $folder: keep ca.key away from the cluster, and hand app.token and ca.crt to the clients. Then:

kubectl create namespace $namespace
kubectl -n $namespace create secret generic undertone-identities --from-file=identities.yaml=$folder/identities.yaml
kubectl -n $namespace create secret generic undertone-resume-keys --from-file=resume.keys=$folder/resume.keys

Without cert-manager (overlay single), the certificate too:

kubectl -n $namespace create secret generic undertone-tls --from-file=tls.crt=$folder/tls.crt --from-file=tls.key=$folder/tls.key --from-file=ca.crt=$folder/ca.crt
END
