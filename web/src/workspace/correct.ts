/** Corrections of a served classifier, one picture at a time: each makes the
 * next version. */

import { addExamples } from "../api/calls";
import type { Embedding, Version } from "../api/types";
import { base64 } from "./shrink";

/** The index of a class, and the class where it is new. */
function place(version: Version, label: string) {
  const known = version.classes.findIndex((one) => one.displayName === label);
  return known >= 0
    ? { classIndex: known, newClasses: [] }
    : { classIndex: version.classes.length, newClasses: [{ displayName: label }] };
}

async function next(
  version: Version,
  spec: object,
  examples: string[],
): Promise<Version> {
  const whole = { keepPictures: true, allowEmptyClasses: true, ...spec };
  const made = await addExamples(version.name, whole, examples);
  const [refused] = made.rejected;
  if (refused) throw new Error(refused.message);
  return made.version;
}

/** A picture that was tried: its file, and its embedding by the version's encoder. */
export interface Seen {
  file: File;
  thumbnail: Blob | null;
  embedding: Embedding;
}

async function exampleOf(seen: Seen, label: object): Promise<string> {
  const { file, thumbnail, embedding } = seen;
  return JSON.stringify({
    exampleId: `${file.name} ${new Date().toISOString()} ${crypto.getRandomValues(new Uint16Array(1))[0]}`,
    ...label,
    uri: file.name.slice(0, 512),
    input: { embedding },
    thumbnail: await base64(thumbnail ?? file),
  });
}

/** Teaches a picture: it becomes an example of the class. It was encoded when it was tried. */
export async function teach(version: Version, seen: Seen, label: string): Promise<Version> {
  const { classIndex, newClasses } = place(version, label);
  return next(version, { newClasses }, [await exampleOf(seen, { classIndex })]);
}

/** Teaches a picture that is of none of the classes. */
export async function teachNone(version: Version, seen: Seen): Promise<Version> {
  const label = version.multiLabel ? { classIndices: [] } : { unknown: true };
  return next(version, {}, [await exampleOf(seen, label)]);
}

/** Teaches a picture that carries several classes. */
export async function teachSeveral(
  version: Version,
  seen: Seen,
  classIndices: number[],
): Promise<Version> {
  return next(version, {}, [await exampleOf(seen, { classIndices })]);
}

/** Leaves an example out. */
export function leaveOut(version: Version, exampleId: string): Promise<Version> {
  return next(version, { removeExampleIds: [exampleId] }, []);
}

/** Gives an example another class. The server keeps its features and its picture: nothing is
 * encoded again. */
export function relabel(version: Version, exampleId: string, label: string): Promise<Version> {
  const { classIndex, newClasses } = place(version, label);
  return next(version, { newClasses, relabel: [{ exampleId, classIndex }] }, []);
}
