/** The API's methods that the page calls, each once. */

import { unreachable } from "../session";
import { Code, type Call, Problem, ask, ndjson, pause, send, stream } from "./http";
import type {
  Analysis,
  Cache,
  Classification,
  CreateEvent,
  Drift,
  EmbedResult,
  Evaluation,
  ExampleInfo,
  FineTuneEvent,
  FineTuneRun,
  Input,
  RejectedExample,
  ServerInfo,
  SuggestResponse,
  Version,
} from "./types";

/** The path of a cache, or of one of its versions: "pets", "pets@3", or the
 * name that the API gives ("caches/pets/versions/3"). */
export function path(reference: string): string {
  if (reference.startsWith("caches/")) {
    return `/v1/${reference.split("/").map(encodeURIComponent).join("/")}`;
  }
  const [cache = "", version] = reference.split("@");
  const base = `/v1/caches/${encodeURIComponent(cache)}`;
  if (version === undefined || version === "latest") return base;
  const kind = /^\d+$/.test(version) ? "versions" : "aliases";
  return `${base}/${kind}/${encodeURIComponent(version)}`;
}

/** The bare id in "caches/pets" or "caches/pets/versions/3". */
export function cacheId(name: string): string {
  return name.split("/")[1] ?? name;
}

/** "caches/pets/versions/3" as "pets@3". */
export function shortName(name: string): string {
  const [, cache = name, , version] = name.split("/");
  return version ? `${cache}@${version}` : cache;
}

export function serverInfo(token?: string): Promise<ServerInfo> {
  return ask("/v1/serverInfo", token === undefined ? {} : { token, repeat: false });
}

/** Every page of a list. */
async function all<T>(
  address: string,
  field: string,
  query: NonNullable<Call["query"]>,
  most = Infinity,
): Promise<T[]> {
  const found: T[] = [];
  let pageToken = "";
  do {
    const call: Call = { query: { ...query, ...(pageToken ? { pageToken } : {}) } };
    const page = await ask<Record<string, unknown>>(address, call);
    found.push(...((page[field] ?? []) as T[]));
    pageToken = String(page["nextPageToken"] ?? "");
  } while (pageToken && found.length < most);
  return found;
}

export function listCaches(): Promise<Cache[]> {
  return all("/v1/caches", "caches", { pageSize: 200 });
}

export function getCache(cache: string): Promise<Cache> {
  return ask(path(cache));
}

/** A version by its name, or a cache's newest. */
export async function getVersion(reference: string): Promise<Version> {
  const address = path(reference);
  if (/\/(versions|aliases)\//.test(address)) return ask(address);
  const { latest } = await ask<Cache>(address);
  if (latest) return latest;
  throw new Problem({ code: Code.notFound, message: `${reference} has no version.` });
}

export function listVersions(cache: string): Promise<Version[]> {
  return all(`${path(cache)}/versions`, "versions", { pageSize: 100 }, 500);
}

/** Examples of a version, all or those that a filter lets through. */
export function listExamples(version: string, filter = "", most = 5000): Promise<ExampleInfo[]> {
  const query = { pageSize: Math.min(most, 1000), ...(filter ? { filter } : {}) };
  return all(`${path(version)}/examples`, "examples", query, most);
}

export async function examplePicture(version: string, exampleId: string): Promise<Blob> {
  const address = `${path(version)}/examples:picture`;
  return (await send(address, { query: { exampleId }, accept: "image/*" })).blob();
}

export function setAlias(cache: Cache, alias: string, version: string): Promise<Cache> {
  const address = `/v1/${cache.name}/aliases/${encodeURIComponent(alias)}`;
  return ask(address, { method: "PUT", body: { version, etag: cache.etag } });
}

export function deleteAlias(cache: Cache, alias: string): Promise<Cache> {
  const address = `/v1/${cache.name}/aliases/${encodeURIComponent(alias)}`;
  return ask(address, { method: "DELETE", query: { etag: cache.etag } });
}

export function deleteCache(cache: Cache): Promise<unknown> {
  return ask(`/v1/${cache.name}`, { method: "DELETE", query: { etag: cache.etag } });
}

export function deleteVersion(name: string): Promise<unknown> {
  return ask(path(name), { method: "DELETE" });
}

/** JSON in which lists of floats are base64: embeddings are not printed and read digit by digit. */
const PACKED = "application/json;floats=base64";

/** Pictures' embeddings as a version's encoder makes them; without one, the server's default. */
export async function embed(inputs: Input[], version: Version | null): Promise<EmbedResult[]> {
  const alike = version
    ? { bundle: version.bundleFingerprint, exifOrientation: version.exifOrientation }
    : {};
  const body = { inputs, ...alike };
  const call: Call = { method: "POST", body, repeat: true, accept: PACKED };
  return (await ask<{ inputs: EmbedResult[] }>("/v1/inputs:embed", call)).inputs;
}

export interface ClassifyOptions {
  topK?: number;
  neighbours?: number;
  /** Also give the picture's embedding. */
  embedding?: boolean;
  /** Also say whether the picture is of any class that the version knows. */
  reject?: object;
  /** Also give the fewest classes that hold the picture's as often as this. */
  coverage?: number;
}

export async function classify(
  reference: string,
  input: Input,
  options: ClassifyOptions,
): Promise<Classification> {
  const answer = await ask<{ classification: Classification }>(`${path(reference)}:classify`, {
    method: "POST",
    body: { input, options },
    repeat: true,
    accept: PACKED,
  });
  return answer.classification;
}

/** How often the set of classes that is given holds the picture's. */
export const COVERAGE = 0.9;

/** Classifies, and says whether the picture is of a class that the version knows and which
 * classes come into question, if the version can tell: one of a single example a class cannot,
 * and one whose pictures carry several classes answers with all of them. */
export async function classifyOrReject(
  reference: string,
  input: Input,
  options: ClassifyOptions,
): Promise<Classification> {
  try {
    return await classify(reference, input, { ...options, reject: {}, coverage: COVERAGE });
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== Code.failedPrecondition) throw error;
    return classify(reference, input, options);
  }
}

export interface Made {
  version: Version;
  rejected: RejectedExample[];
}

/** An id that no other request has. (randomUUID is for secure pages alone.) */
function requestId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** CreateCache or AddExamples: the specification, then lines with examples. Its
 * request id makes repeating it safe: it is, until the server answers. */
async function make(
  address: string,
  spec: object,
  examples: Iterable<string>,
): Promise<Made> {
  function* lines() {
    yield JSON.stringify({ spec: { ...spec, requestId: requestId() } });
    for (const example of examples) yield `{"examples":{"examples":[${example}]}}`;
  }
  const body = ndjson(lines());
  for (;;) {
    try {
      return await makeOnce(address, body);
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== Code.unavailable) throw error;
      unreachable.value = true;
      await pause(1);
    }
  }
}

async function makeOnce(address: string, body: Blob): Promise<Made> {
  const rejected: RejectedExample[] = [];
  let version: Version | undefined;
  const call: Call = { method: "POST", body, repeat: true };
  for await (const event of stream<CreateEvent>(address, call)) {
    if (event.rejected) rejected.push(event.rejected);
    if (event.version) version = event.version;
  }
  if (!version) {
    throw new Problem({ code: Code.unavailable, message: "The connection was lost." });
  }
  return { version, rejected };
}

export function createCache(spec: object, examples: Iterable<string>): Promise<Made> {
  return make("/v1/caches", spec, examples);
}

export function addExamples(
  version: string,
  spec: object,
  examples: Iterable<string>,
): Promise<Made> {
  return make(`${path(version)}:addExamples`, spec, examples);
}

/** Which of a pool to label first; `items` are messages of the API as JSON. */
export function suggest(
  config: object,
  items: Iterable<string>,
  signal: AbortSignal,
): Promise<SuggestResponse> {
  function* lines() {
    yield JSON.stringify({ config });
    for (const item of items) yield `{"items":{"items":[${item}]}}`;
  }
  const body = ndjson(lines());
  return ask("/v1/caches:suggestExamples", { method: "POST", body, repeat: true, signal });
}

export function analyze(version: string): Promise<Analysis> {
  return ask(`${path(version)}:analyze`, { query: { listLimit: 1000 } });
}

/** How what a version is asked differs from its examples. */
export function drift(version: string): Promise<Drift> {
  return ask(`${path(version)}:drift`);
}

export interface LabelledInput {
  id: string;
  classIndex: number;
  input: Input;
}

/** How well versions do on labelled pictures, side by side. */
export async function evaluate(
  caches: string[],
  items: Iterable<LabelledInput>,
): Promise<Evaluation[]> {
  function* lines() {
    yield JSON.stringify({ config: { caches } });
    for (const item of items) yield JSON.stringify({ items: { items: [item] } });
  }
  const answer = await ask<{ evaluations: Evaluation[] }>("/v1/caches:evaluate", {
    method: "POST",
    body: ndjson(lines()),
    repeat: true,
  });
  return answer.evaluations;
}

export function fineTune(
  version: string,
  options: object,
  signal: AbortSignal,
): AsyncGenerator<FineTuneEvent> {
  return stream(`${path(version)}:fineTune`, { method: "POST", body: options, signal });
}

export function listFineTunes(cache: string): Promise<FineTuneRun[]> {
  return all(`${path(cache)}/fineTunes`, "fineTunes", { pageSize: 50 }, 50);
}

export function getFineTune(name: string): Promise<FineTuneRun> {
  return ask(`/v1/${name}`);
}

export function cancelFineTune(name: string): Promise<FineTuneRun> {
  return ask(`/v1/${name}:cancel`, { method: "POST", body: {}, repeat: true });
}
