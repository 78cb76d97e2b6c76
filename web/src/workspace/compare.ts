/** Two versions on the same pictures: each picture is encoded once, and both are
 * asked with its embedding. */

import { classify, embed, evaluate } from "../api/calls";
import { Problem, explain } from "../api/http";
import type { Classification, EmbedResult, Evaluation, Input, Version } from "../api/types";
import type { Found } from "./files";
import { base64, prepare } from "./shrink";

/** Pictures that are encoded in one call. */
const BATCH = 8;

export type Pair = [Version, Version];

/** A picture with both versions' answers. */
export interface Compared {
  path: string;
  address: string | null;
  label: string | null;
  answers: [Classification, Classification];
}

/** A file that neither could be asked about. */
export interface Refused {
  path: string;
  reason: string;
}

interface Encoded {
  found: Found;
  thumbnail: Blob | null;
  inputs: [Input, Input];
}

/** Whether one embedding is right for both. */
function areAlike([a, b]: Pair): boolean {
  return a.bundleFingerprint === b.bundleFingerprint && a.exifOrientation === b.exifOrientation;
}

async function encode(pair: Pair, files: Found[]): Promise<(Encoded | Refused)[]> {
  const prepared = await Promise.all(files.map(({ file }) => prepare(file)));
  const pictures: Input[] = [];
  for (const { sent } of prepared) pictures.push({ encodedImage: await base64(sent) });
  const first = await embed(pictures, pair[0]);
  const second = areAlike(pair) ? first : await embed(pictures, pair[1]);
  return files.map((found, at) => {
    const inputs = [inputOf(first[at]), inputOf(second[at])];
    const [a, b] = inputs;
    if (a && b) return { found, thumbnail: prepared[at]?.thumbnail ?? null, inputs: [a, b] };
    const failed = first[at]?.error ?? second[at]?.error;
    return { path: found.path, reason: failed?.message ?? "the server did not answer for it" };
  });
}

function inputOf(result: EmbedResult | undefined): Input | null {
  return result?.embedding ? { embedding: result.embedding } : null;
}

/** What is told while pictures are compared. */
export interface Listener {
  compared: (one: Compared) => void;
  refused: (one: Refused) => void;
}

/** Compares versions on pictures, and gives how well both do on those whose folder names a
 * class; nothing if there are none. */
export async function compare(
  pair: Pair,
  files: Found[],
  listener: Listener,
): Promise<Evaluation[]> {
  const encoded: Encoded[] = [];
  for (let at = 0; at < files.length; at += BATCH) {
    for (const one of await encodeOrSay(pair, files.slice(at, at + BATCH))) {
      if ("reason" in one) {
        listener.refused(one);
        continue;
      }
      encoded.push(one);
      listener.compared(await answered(pair, one));
    }
  }
  return judged(pair, encoded);
}

/** If they are too much for one call, each alone tells which it is. */
async function encodeOrSay(pair: Pair, files: Found[]): Promise<(Encoded | Refused)[]> {
  try {
    return await encode(pair, files);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const [only, ...others] = files;
    if (only && others.length === 0) return [{ path: only.path, reason: explain(error) }];
    const each: (Encoded | Refused)[] = [];
    for (const file of files) each.push(...(await encodeOrSay(pair, [file])));
    return each;
  }
}

async function answered(pair: Pair, one: Encoded): Promise<Compared> {
  const { found, thumbnail, inputs } = one;
  const answers: [Classification, Classification] = await Promise.all([
    classify(pair[0].name, inputs[0], { topK: 1 }),
    classify(pair[1].name, inputs[1], { topK: 1 }),
  ]);
  const address = thumbnail && URL.createObjectURL(thumbnail);
  return { path: found.path, address, label: found.label, answers };
}

/** Pictures that carry several classes are not sorted into folders: they are not judged. */
async function judged(pair: Pair, encoded: Encoded[]): Promise<Evaluation[]> {
  if (pair.some((version) => version.multiLabel)) return [];
  const index = new Map(pair[0].classes.map((one) => [one.displayName, one.index]));
  const items = (side: 0 | 1) =>
    encoded.flatMap(({ found, inputs }) => {
      const classIndex = index.get(found.label ?? "");
      return classIndex === undefined ? [] : [{ id: found.path, classIndex, input: inputs[side] }];
    });
  if (items(0).length === 0) return [];
  const [a, b] = pair;
  if (areAlike(pair)) return evaluate([a.name, b.name], items(0));
  return [...(await evaluate([a.name], items(0))), ...(await evaluate([b.name], items(1)))];
}

/** What a version takes a picture for: its class, all its classes, or none. */
export function verdict(version: Version, answer: Classification): string {
  if (!version.multiLabel) return answer.top[0]?.displayName ?? "";
  return answer.labels.map((one) => one.displayName).join(", ") || "none of its classes";
}
