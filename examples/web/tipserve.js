// Classifies a picture from a browser, over gRPC-web, without a build step. Real programs will
// rather generate this from proto/tipserve/v1 (protoc-gen-grpc-web, Connect); it is short enough
// to show what goes over the wire.

const METHOD = "/tipserve.v1.ClassifyService/Classify";
const TRAILERS = 0x80;

// ---- protocol buffers: the two messages that are needed

function varint(number) {
  const bytes = [];
  for (; number > 127; number = Math.floor(number / 128)) bytes.push((number % 128) | 128);
  return [...bytes, number];
}

// A field that has a length: a text, bytes, or another message.
function field(number, payload) {
  const head = new Uint8Array([...varint(number * 8 + 2), ...varint(payload.length)]);
  return joined([head, payload]);
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

// ClassifyRequest: cache = 1, input = 2 { encoded_image = 1 }.
function classifyRequest(cache, picture) {
  return joined([field(1, new TextEncoder().encode(cache)), field(2, field(1, picture))]);
}

// Every field of a message, as [number, value]; 32-bit values are floats.
function* fields(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const number = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = number();
    const id = Math.floor(tag / 8);
    switch (tag % 8) {
      case 0:
        yield [id, number()];
        break;
      case 1:
        yield [id, view.getFloat64(at, true)];
        at += 8;
        break;
      case 2: {
        const length = number();
        yield [id, bytes.subarray(at, at + length)];
        at += length;
        break;
      }
      case 5:
        yield [id, view.getFloat32(at, true)];
        at += 4;
        break;
      default:
        throw new Error("not a protocol buffer");
    }
  }
}

// ClassifyResponse: classification = 1 { version = 1, top = 2 { index = 1, display_name = 2,
// logit = 3, probability = 4 } }.
function classification(response) {
  const text = (bytes) => new TextDecoder().decode(bytes);
  const answer = { version: "", top: [] };
  for (const [, body] of fields(response)) {
    for (const [id, value] of fields(body)) {
      if (id === 1) answer.version = text(value);
      if (id !== 2) continue;
      const score = Object.fromEntries(fields(value));
      answer.top.push({
        index: score[1] ?? 0,
        name: text(score[2] ?? new Uint8Array()),
        logit: score[3] ?? 0,
        probability: score[4] ?? 0,
      });
    }
  }
  return answer;
}

// ---- gRPC-web: frames of a flag, a length in four bytes, and a payload

function frame(message) {
  const head = new Uint8Array(5);
  new DataView(head.buffer).setUint32(1, message.length);
  return joined([head, message]);
}

function unframed(body) {
  const messages = [];
  let trailers = new Map();
  for (let at = 0; at < body.length; ) {
    const length = new DataView(body.buffer, body.byteOffset + at + 1).getUint32(0);
    const payload = body.subarray(at + 5, at + 5 + length);
    if (body[at] & TRAILERS) {
      const lines = new TextDecoder().decode(payload).trim().split("\r\n");
      trailers = new Map(lines.map((line) => [line.split(":", 1)[0], line.replace(/^[^:]*:\s*/, "")]));
    } else {
      messages.push(payload);
    }
    at += 5 + length;
  }
  return { messages, trailers };
}

/**
 * Classifies a picture file.
 *
 * @param {string} server its address: "http://localhost:50051"
 * @param {string} cache the cache: "birds", "birds@stable", "birds@3"
 * @param {Uint8Array} picture a file as JPEG, PNG, WebP, GIF, BMP, TIFF or PNM
 * @param {Object<string, string>} metadata more headers, such as {authorization: "Bearer ..."}
 * @returns {Promise<{version: string, top: {index: number, name: string, logit: number,
 *   probability: number}[]}>} the version that answered and the best classes, best first
 * @throws {Error} with the gRPC code (a number) as `code`
 */
export async function classify(server, cache, picture, metadata = {}) {
  const response = await fetch(server + METHOD, {
    method: "POST",
    headers: { "content-type": "application/grpc-web+proto", "x-grpc-web": "1", ...metadata },
    body: frame(classifyRequest(cache, picture)),
  });
  if (!response.ok) throw new Error(`HTTP ${response.status}: ${await response.text()}`);
  const { messages, trailers } = unframed(new Uint8Array(await response.arrayBuffer()));
  // An error without any answer has its status in the headers.
  const status = (name) => trailers.get(name) ?? response.headers.get(name) ?? "";
  if (status("grpc-status") !== "0") {
    const error = new Error(decodeURIComponent(status("grpc-message")));
    throw Object.assign(error, { code: Number(status("grpc-status")) });
  }
  return classification(messages[0]);
}
