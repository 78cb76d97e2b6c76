/** Corrections of a served classifier, one picture at a time: each makes the
 * next version. */

import { addExamples } from "../api/calls";
import type { Version } from "../api/types";
import { base64, prepare } from "./shrink";

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

/** Teaches a picture: it becomes an example of the class. */
export async function teach(version: Version, file: File, label: string): Promise<Version> {
  const { classIndex, newClasses } = place(version, label);
  const { sent, thumbnail } = await prepare(file);
  const example = {
    exampleId: `${file.name} ${new Date().toISOString()} ${crypto.getRandomValues(new Uint16Array(1))[0]}`,
    classIndex,
    uri: file.name,
    input: { encodedImage: await base64(sent) },
    ...(thumbnail ? { thumbnail: await base64(thumbnail) } : {}),
  };
  return next(version, { newClasses }, [JSON.stringify(example)]);
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
