#!/usr/bin/env python3
"""Signs a request to UTMOS, sends it and prints the answer. Needs nothing but Python 3's standard library.

    sign.py METHOD URL [BODY]        BODY is text, or @FILE

UTMOS_API_ID and UTMOS_API_KEY hold the credential. With --vector alone nothing is sent: a published test vector is read
from standard input as JSON; the string to sign is printed, an empty line, and the signature.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


def string_to_sign(method, path, query, body, api_id, timestamp, nonce):
    """Eight lines. `path` and `query` exactly as they are sent, `body` as bytes."""
    pairs = [pair for pair in query.split("&") if pair]
    pairs.sort(key=lambda pair: pair.partition("=")[::2])
    return "\n".join(
        [
            "UTMOS-HMAC-SHA256",
            method.upper(),
            path,
            "&".join(pairs),
            api_id,
            str(timestamp),
            nonce,
            hashlib.sha256(body).hexdigest(),
        ]
    )


def signature(key, text):
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def send(method, url, body, api_id, key):
    sent = urllib.parse.urlsplit(url)
    timestamp, nonce = int(time.time()), secrets.token_hex(16)
    text = string_to_sign(method, sent.path or "/", sent.query, body, api_id, timestamp, nonce)
    headers = {
        "X-Api-Id": api_id,
        "X-Api-Timestamp": str(timestamp),
        "X-Api-Nonce": nonce,
        "X-Api-Signature": signature(key, text),
    }
    if body:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, data=body or None, headers=headers, method=method.upper())
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def main():
    if sys.argv[1:] == ["--vector"]:
        vector = json.load(sys.stdin)
        body = base64.b64decode(vector["body_base64"]) if "body_base64" in vector else vector["body"].encode()
        text = string_to_sign(
            vector["method"],
            vector["path"],
            vector["query"] or "",
            body,
            vector["api_id"],
            vector["timestamp"],
            vector["nonce"],
        )
        print(text, "", signature(vector["key"], text), sep="\n")
        return
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: sign.py METHOD URL [BODY]")
    method, url = sys.argv[1:3]
    body = sys.argv[3] if len(sys.argv) == 4 else ""
    if body.startswith("@"):
        with open(body[1:], "rb") as file:
            body = file.read()
    else:
        body = body.encode()
    status, answer = send(method, url, body, os.environ["UTMOS_API_ID"], os.environ["UTMOS_API_KEY"])
    print(answer)
    sys.exit(0 if status < 400 else 22)


main()
