import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { Problem, ask, ndjson, stream } from "../src/api/http";
import * as session from "../src/session";

type Answer = () => Response | Promise<Response>;
let asked: { url: string; init: RequestInit }[] = [];

/** A server that gives these answers, one after the other. */
function answers(...given: Answer[]) {
  asked = [];
  vi.stubGlobal("fetch", (url: string, init: RequestInit) => {
    asked.push({ url, init });
    const next = given.shift();
    return next ? Promise.resolve().then(next) : Promise.reject(new TypeError("unexpected"));
  });
}

function refusal(status: number, code: number, message: string, reason = "R"): Answer {
  const details = [{ "@type": "t", reason }];
  return () => new Response(JSON.stringify({ code, message, details }), { status });
}

const good = (body: unknown): Answer => () => new Response(JSON.stringify(body));
const gone: Answer = () => Promise.reject(new TypeError("Failed to fetch"));

function streamed(...parts: string[]): Answer {
  return () =>
    new Response(
      new ReadableStream({
        start(controller) {
          for (const part of parts) controller.enqueue(new TextEncoder().encode(part));
          controller.close();
        },
      }),
    );
}

async function collected(given: AsyncGenerator<unknown>): Promise<unknown[]> {
  const all = [];
  for await (const one of given) all.push(one);
  return all;
}

beforeEach(() => {
  vi.useFakeTimers({ shouldAdvanceTime: true, advanceTimeDelta: 50 });
  sessionStorage.clear();
  session.token.value = "";
  session.wanted.value = null;
  session.unreachable.value = false;
});
afterEach(() => {
  vi.useRealTimers();
});

describe("calls", () => {
  it("carry the token and the query, without what is not set", async () => {
    session.token.value = "secret";
    answers(good({ fine: true }));
    expect(await ask("/v1/x", { query: { a: 1, b: undefined } })).toEqual({ fine: true });
    expect(asked[0]?.url).toBe("/v1/x?a=1");
    expect(new Headers(asked[0]?.init.headers).get("Authorization")).toBe("Bearer secret");
  });

  it("fail with the server's reason", async () => {
    answers(refusal(404, 5, "no such cache", "NOT_FOUND"));
    const error = await ask("/v1/x").catch((problem: unknown) => problem);
    expect(error).toBeInstanceOf(Problem);
    expect(error).toMatchObject({ code: 5, reason: "NOT_FOUND", message: "no such cache" });
  });

  it("are repeated while the server is away, if that does no harm", async () => {
    answers(gone, refusal(503, 14, "loading"), good({ back: true }));
    const asking = ask("/v1/x");
    await vi.waitFor(() => expect(session.unreachable.value).toBe(true));
    expect(await asking).toEqual({ back: true });
    expect(session.unreachable.value).toBe(false);
    expect(asked).toHaveLength(3);
  });

  it("are not repeated if room will not come free, as on a full disk", async () => {
    answers(refusal(429, 8, "slow down", "QUEUE_FULL"), refusal(429, 8, "disk full", "STORE_FULL"));
    await expect(ask("/v1/x")).rejects.toThrow("disk full");
    expect(asked).toHaveLength(2);
  });

  it("that change something are not repeated by themselves", async () => {
    answers(gone);
    await expect(ask("/v1/x", { method: "POST", body: {} })).rejects.toThrow("does not answer");
    expect(asked).toHaveLength(1);
  });

  it("wait for a new token where the old one has expired, and go on", async () => {
    session.token.value = "old";
    answers(refusal(401, 16, "the token has expired"), good({ fine: true }));
    const asking = ask("/v1/x", { method: "POST", body: { a: 1 } });
    await vi.waitFor(() => expect(session.wanted.value).toBe("the token has expired"));
    session.signIn("new", { version: "", device: "", dtype: "", limits: {} });
    expect(await asking).toEqual({ fine: true });
    expect(new Headers(asked[1]?.init.headers).get("Authorization")).toBe("Bearer new");
    expect(asked[1]?.init.body).toBe('{"a":1}');
    expect(session.wanted.value).toBeNull();
  });

  it("do not ask for a token while one is being tried", async () => {
    answers(refusal(401, 16, "unknown token"));
    await expect(ask("/v1/x", { token: "wrong" })).rejects.toThrow("unknown token");
    expect(session.wanted.value).toBeNull();
  });
});

describe("streams", () => {
  it("give messages as lines come, however they are cut", async () => {
    answers(streamed('{"n":1}\n{"n', '":2}\n', '\n{"n":3}'));
    expect(await collected(stream("/v1/x", { method: "POST" }))).toEqual([
      { n: 1 },
      { n: 2 },
      { n: 3 },
    ]);
  });

  it("end with the problem that the last line tells", async () => {
    answers(streamed('{"n":1}\n', '{"error":{"code":3,"message":"too many"}}\n'));
    await expect(collected(stream("/v1/x", { method: "POST" }))).rejects.toThrow("too many");
  });

  it("send one message a line", async () => {
    expect(await ndjson(["a", "b"]).text()).toBe("a\nb\n");
    expect(ndjson([]).type).toBe("application/x-ndjson");
  });
});
