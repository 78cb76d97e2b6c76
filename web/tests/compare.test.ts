import { afterEach, describe, expect, it, vi } from "vitest";

import type { Version } from "../src/api/types";
import { type Compared, compare } from "../src/workspace/compare";

function version(number: string, bundleFingerprint = "a", multiLabel = false): Version {
  const classes = ["left", "right"].map((displayName, index) => ({ displayName, index }));
  const name = `caches/signs/versions/${number}`;
  return { name, version: number, bundleFingerprint, multiLabel, classes } as unknown as Version;
}

/** Stands for the server: keeps what it is asked, and embeds a picture as its own bytes. */
function serve(): { path: string; body: string }[] {
  const asked: { path: string; body: string }[] = [];
  vi.stubGlobal("fetch", async (path: string, request: RequestInit) => {
    const body = await new Response(request.body as BodyInit).text();
    asked.push({ path, body });
    return Response.json(answer(path, body));
  });
  return asked;
}

function answer(path: string, body: string): object {
  if (path.endsWith(":embed")) {
    const { inputs } = JSON.parse(body) as { inputs: { encodedImage: string }[] };
    return { inputs: inputs.map((one) => ({ embedding: { values: one.encodedImage } })) };
  }
  if (path.endsWith(":evaluate")) return { evaluations: [{ top1: 1 }, { top1: 0.5 }] };
  return { classification: { top: [{ displayName: "left", probability: 1 }], labels: [] } };
}

const files = ["left/1.png", "left/2.png", "right/3.png"].map((path) => ({
  path,
  file: new File([path], path),
  label: path.split("/")[0] ?? null,
}));

async function compared(pair: [Version, Version]) {
  const asked = serve();
  const seen: Compared[] = [];
  const listener = { compared: (one: Compared) => seen.push(one), refused: () => {} };
  const evaluations = await compare(pair, files, listener);
  const of = (verb: string) => asked.filter(({ path }) => path.endsWith(verb));
  return { seen, evaluations, of };
}

afterEach(() => vi.unstubAllGlobals());

describe("two versions on the same pictures", () => {
  it("encodes each picture once, for both versions and for the score", async () => {
    const { seen, evaluations, of } = await compared([version("1"), version("2")]);
    expect(seen.map((one) => one.path)).toEqual(files.map((one) => one.path));
    expect(evaluations.map((one) => one.top1)).toEqual([1, 0.5]);
    expect(of(":embed")).toHaveLength(1);
    expect(of(":classify")).toHaveLength(2 * files.length);
    for (const { body } of [...of(":classify"), ...of(":evaluate")]) {
      expect(body).not.toContain("encodedImage");
    }
  });

  it("encodes by each version's own bundle if they differ", async () => {
    const { of } = await compared([version("1", "a"), version("2", "b")]);
    const bundles = of(":embed").map(({ body }) => (JSON.parse(body) as { bundle: string }).bundle);
    expect(bundles).toEqual(["a", "b"]);
    expect(of(":evaluate")).toHaveLength(2);
  });

  it("does not score versions whose pictures carry several classes", async () => {
    const { evaluations, of } = await compared([version("1", "a", true), version("2", "a", true)]);
    expect(evaluations).toEqual([]);
    expect(of(":evaluate")).toHaveLength(0);
  });
});
