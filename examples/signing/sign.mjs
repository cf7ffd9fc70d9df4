#!/usr/bin/env node
// Signs a request to UTMOS, sends it and prints the answer. Needs nothing but Node 18 or later.
//
//   node sign.mjs METHOD URL [BODY]        BODY is text, or @FILE
//
// UTMOS_API_ID and UTMOS_API_KEY hold the credential. With --vector alone nothing is sent: a published test vector is
// read from standard input as JSON; the string to sign is printed, an empty line, and the signature.

import { createHash, createHmac, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";

// Eight lines. `path` and `query` exactly as they are sent, `body` as bytes.
function stringToSign({ method, path, query, body, apiId, timestamp, nonce }) {
  const parts = (pair) => {
    const at = pair.indexOf("=");
    return at < 0 ? [pair, ""] : [pair.slice(0, at), pair.slice(at + 1)];
  };
  // Bytes, not the UTF-16 units that JavaScript compares.
  const order = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));
  const pairs = query.split("&").filter((pair) => pair !== "");
  pairs.sort((a, b) => order(parts(a)[0], parts(b)[0]) || order(parts(a)[1], parts(b)[1]));
  const bodyHash = createHash("sha256").update(body).digest("hex");
  return ["UTMOS-HMAC-SHA256", method.toUpperCase(), path, pairs.join("&"), apiId, timestamp, nonce, bodyHash].join("\n");
}

const signature = (key, text) => createHmac("sha256", key).update(text).digest("hex");

async function send(method, address, body, apiId, key) {
  // fetch encodes what a URL may not hold; it does so here already, so that what is signed is what is sent.
  const url = new URL(address);
  const timestamp = Math.floor(Date.now() / 1000);
  const nonce = randomBytes(16).toString("hex");
  const text = stringToSign({ method, path: url.pathname, query: url.search.slice(1), body, apiId, timestamp, nonce });
  const headers = {
    "X-Api-Id": apiId,
    "X-Api-Timestamp": String(timestamp),
    "X-Api-Nonce": nonce,
    "X-Api-Signature": signature(key, text),
  };
  if (body.length > 0) headers["Content-Type"] = "application/json";
  const answer = await fetch(url, { method: method.toUpperCase(), headers, body: body.length > 0 ? body : undefined });
  console.log(await answer.text());
  if (!answer.ok) process.exitCode = 22;
}

const [method, address, given = ""] = process.argv.slice(2);
if (method === "--vector") {
  const vector = JSON.parse(readFileSync(0, "utf8"));
  const body = "body_base64" in vector ? Buffer.from(vector.body_base64, "base64") : Buffer.from(vector.body);
  const text = stringToSign({ ...vector, query: vector.query ?? "", body, apiId: vector.api_id });
  console.log(`${text}\n\n${signature(vector.key, text)}`);
} else if (address === undefined) {
  console.error("usage: sign.mjs METHOD URL [BODY]");
  process.exitCode = 2;
} else {
  const body = given.startsWith("@") ? readFileSync(given.slice(1)) : Buffer.from(given);
  const { UTMOS_API_ID: apiId, UTMOS_API_KEY: key } = process.env;
  if (!apiId || !key) throw new Error("set UTMOS_API_ID and UTMOS_API_KEY");
  await send(method, address, body, apiId, key);
}
