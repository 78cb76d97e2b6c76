/** Calls of the server's JSON API: errors with their reasons, retries while the
 * server is away, answers line by line. */

import { signedIn, token, unreachable } from "../session";
import type { Status } from "./types";

/** google.rpc.Code, those that matter here. */
export const Code = { notFound: 5, failedPrecondition: 9, unavailable: 14, unauthenticated: 16 };

/** Reasons that say that there is no room just now; a full disk is none. */
const CROWDED = new Set(["QUEUE_FULL", "RATE_LIMITED", "TOO_MANY_STREAMS"]);

/** What the server refuses, or why it could not be asked. */
export class Problem extends Error {
  readonly code: number;
  readonly reason: string;
  readonly retrySeconds: number | null;

  constructor(status: Status, retrySeconds: number | null = null) {
    super(status.message);
    this.code = status.code;
    this.reason = status.details?.find((detail) => detail.reason)?.reason ?? "";
    this.retrySeconds = retrySeconds;
  }

  /** Whether the same call may succeed a little later. */
  get passes(): boolean {
    return this.code === Code.unavailable || CROWDED.has(this.reason);
  }
}

/** An error in a sentence for people. */
export function explain(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export interface Call {
  method?: "GET" | "POST" | "PUT" | "DELETE";
  query?: Record<string, string | number | boolean | undefined>;
  /** JSON, or lines of it ready to be sent. */
  body?: unknown;
  signal?: AbortSignal;
  /** Whether repeating it does no harm. Default: yes, of GETs alone. */
  repeat?: boolean;
  /** The type of the answer. Default: JSON. */
  accept?: string;
  /** The token to send. Default: the session's. */
  token?: string;
}

/** JSON messages, one a line, as a request's body. */
export function ndjson(lines: Iterable<string>): Blob {
  const parts: string[] = [];
  for (const line of lines) parts.push(line, "\n");
  return new Blob(parts, { type: "application/x-ndjson" });
}

function address(path: string, query: Call["query"]): string {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined);
  const text = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
  return text ? `${path}?${text}` : path;
}

async function attempt(path: string, call: Call): Promise<Response> {
  const headers = new Headers({ Accept: call.accept ?? "application/json" });
  const bearer = call.token ?? token.value;
  if (bearer) headers.set("Authorization", `Bearer ${bearer}`);
  const request: RequestInit = { method: call.method ?? "GET", headers };
  if (call.body instanceof Blob) {
    headers.set("Content-Type", call.body.type);
    request.body = call.body;
  } else if (call.body !== undefined) {
    headers.set("Content-Type", "application/json");
    request.body = JSON.stringify(call.body);
  }
  if (call.signal) request.signal = call.signal;
  let response: Response;
  try {
    response = await fetch(address(path, call.query), request);
  } catch (error) {
    if (call.signal?.aborted) throw error;
    throw new Problem({ code: Code.unavailable, message: "The server does not answer." });
  }
  if (response.ok) return response;
  throw await problem(response);
}

async function problem(response: Response): Promise<Problem> {
  const wait = Number(response.headers.get("Retry-After"));
  const retry = Number.isFinite(wait) && wait > 0 ? wait : null;
  try {
    return new Problem((await response.json()) as Status, retry);
  } catch {
    // A proxy's answer, not the server's.
    const code = response.status >= 502 ? Code.unavailable : 2;
    return new Problem({ code, message: `The server answered ${response.status}.` }, retry);
  }
}

/** How long repeated calls wait, seconds. */
const WAITS = [0.3, 0.6, 1, 2, 3];

/** Waits; rejects when the signal is aborted. */
export function pause(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}

/** Sends a call. One without a good token waits until somebody signs in; one
 * that does no harm when repeated is, for as long as the server is away. */
export async function send(path: string, call: Call = {}): Promise<Response> {
  const repeat = call.repeat ?? (call.method ?? "GET") === "GET";
  for (let tries = 0; ; tries++) {
    try {
      const response = await attempt(path, call);
      unreachable.value = false;
      return response;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.code === Code.unauthenticated && call.token === undefined) {
        await signedIn(error.message);
        continue;
      }
      if (!repeat || !error.passes) throw error;
      unreachable.value = error.code === Code.unavailable;
      const wait = error.retrySeconds ?? WAITS[Math.min(tries, WAITS.length - 1)] ?? 3;
      await pause(wait, call.signal);
    }
  }
}

/** The answer to a call. */
export async function ask<T>(path: string, call: Call = {}): Promise<T> {
  const response = await send(path, call);
  return (await response.json()) as T;
}

function isFailure(message: unknown): message is { error: Status } {
  const failed = typeof message === "object" && message !== null && "error" in message;
  return failed && Object.keys(message).length === 1;
}

/** A streamed answer, message by message.
 *
 * Throws the problem that ended the stream, if one did. */
export async function* stream<T>(path: string, call: Call): AsyncGenerator<T> {
  const response = await send(path, call);
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let read: ReadableStreamReadResult<string>;
    try {
      read = await reader.read();
    } catch (error) {
      if (call.signal?.aborted) throw error;
      throw new Problem({ code: Code.unavailable, message: "The connection was lost." });
    }
    const lines = (rest + (read.value ?? "")).split("\n");
    rest = read.done ? "" : (lines.pop() ?? "");
    for (const line of lines) {
      if (!line.trim()) continue;
      const message = JSON.parse(line) as T | { error: Status };
      if (isFailure(message)) throw new Problem(message.error);
      yield message;
    }
    if (read.done) return;
  }
}
