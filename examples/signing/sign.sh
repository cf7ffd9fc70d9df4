#!/usr/bin/env bash
# Signs a request to UTMOS, sends it and prints the answer. Needs bash, openssl and curl.
#
#   sign.sh METHOD URL [BODY]        BODY is text, or @FILE
#
# UTMOS_API_ID and UTMOS_API_KEY hold the credential. With --vector before the method nothing is sent: the string to
# sign is printed, an empty line, and the signature; UTMOS_TIMESTAMP and UTMOS_NONCE then fix time and nonce.
#
# openssl takes the key as an argument, which other users of this machine can see while it runs. Where that matters, sign
# with sign.py, sign.mjs or `utmos sign`.
set -euo pipefail
# Bytes sort as bytes, whatever the language of this machine.
export LC_ALL=C

is_vector=
if [ "${1-}" = --vector ]; then is_vector=1; shift; fi
if [ $# -lt 2 ]; then echo "usage: sign.sh METHOD URL [BODY]" >&2; exit 2; fi
: "${UTMOS_API_ID:?set it to the API id of a credential}" "${UTMOS_API_KEY:?set it to the API key of that credential}"
method=$(printf %s "$1" | tr '[:lower:]' '[:upper:]')
url=$2
body=${3-}

# Path and query exactly as they are sent.
target=${url#*://}
case $target in */*) target=/${target#*/} ;; *) target=/ ;; esac
path=${target%%\?*}
query=
case $target in *\?*) query=${target#*\?} ;; esac
# Pairs sorted by name, then by value, as they are encoded; empty pairs left out.
query=$(printf '%s\n' "$query" | tr '&' '\n' | sed '/^$/d' | sort -s -t= -k1,1 -k2 | paste -sd '&' -)

timestamp=${UTMOS_TIMESTAMP:-$(date +%s)}
nonce=${UTMOS_NONCE:-$(openssl rand -hex 16)}
case $body in
  @*) body_hash=$(openssl dgst -sha256 -r "${body#@}") ;;
  *) body_hash=$(printf %s "$body" | openssl dgst -sha256 -r) ;;
esac

string_to_sign=$(printf '%s\n' UTMOS-HMAC-SHA256 "$method" "$path" "$query" "$UTMOS_API_ID" "$timestamp" "$nonce" \
  "${body_hash%% *}")
signature=$(printf %s "$string_to_sign" | openssl dgst -sha256 -hmac "$UTMOS_API_KEY" -r)
signature=${signature%% *}

if [ -n "$is_vector" ]; then
  printf '%s\n\n%s\n' "$string_to_sign" "$signature"
  exit
fi
content=()
if [ -n "$body" ]; then content=(-H 'Content-Type: application/json' --data-binary "$body"); fi
# No rewriting of the URL: what is sent is what was signed.
curl -sS --fail-with-body -w '\n' --globoff --path-as-is -X "$method" "$url" \
  -H "X-Api-Id: $UTMOS_API_ID" -H "X-Api-Timestamp: $timestamp" -H "X-Api-Nonce: $nonce" \
  -H "X-Api-Signature: $signature" ${content[@]+"${content[@]}"}
