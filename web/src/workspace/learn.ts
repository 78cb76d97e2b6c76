/** Learning: labels become a version as soon as there are enough, and every
 * further label improves it. Nothing is encoded again. */

import { batch, effect, signal } from "@preact/signals";

import { addExamples, createCache } from "../api/calls";
import { Problem, explain } from "../api/http";
import type { RejectedExample, Version } from "../api/types";
import { classes, items, name, several, unlabelled, version } from "./bench";
import { type Item, type Labels, isSame } from "./item";

/** Labels of each class before the first version is made. */
export const FIRST_SHOTS = 3;
/** How long labels are collected before they are sent, milliseconds. */
const COLLECT = 500;

/** What learning is busy with, or waits for. */
export const learning = signal<"idle" | "busy">("idle");
/** Why the last attempt failed; none after one that did not. */
export const failure = signal<string | null>(null);
/** Seconds that the last version took. */
export const took = signal<number | null>(null);

/** What the next version differs in from the newest. */
export interface Difference {
  /** Classes that are new, in their order. */
  newClasses: string[];
  /** Ids of examples that lose their class, or change it. */
  removed: string[];
  /** Pictures to add, each with the indices of its classes; empty: of none of them. */
  added: { item: Item; classIndices: number[] }[];
}

/** What is to be learned, from what the bench holds. */
export function difference(
  known: string[],
  named: string[],
  bench: { labels: Labels | null; saved: Labels | null; ready: boolean; item: Item }[],
): Difference {
  const used = new Set(bench.filter((one) => one.ready).flatMap((one) => one.labels ?? []));
  const newClasses = named.filter((label) => !known.includes(label) && used.has(label));
  const all = [...known, ...newClasses];
  const removed: string[] = [];
  const added: Difference["added"] = [];
  for (const { labels, saved, ready, item } of bench) {
    if (!ready || isSame(labels, saved)) continue;
    if (saved !== null) removed.push(item.id);
    if (labels === null) continue;
    const classIndices = labels.map((label) => all.indexOf(label)).sort((a, b) => a - b);
    if (!classIndices.includes(-1)) added.push({ item, classIndices });
  }
  return { newClasses, removed, added };
}

function pending(): Difference {
  const bench = items.value.map((item) => ({
    labels: item.labels.value,
    saved: item.saved,
    ready: item.status.value === "ready",
    item,
  }));
  const known = version.value?.classes.map((one) => one.displayName) ?? [];
  return difference(known, classes.value, bench);
}

/** Why nothing is learned yet; none where it can be. */
export function obstacle(): string | null {
  const { added, removed } = pending();
  if (version.value) return added.length + removed.length > 0 ? null : "";
  const shots = new Map<string, number>();
  for (const { item } of added) {
    for (const label of item.labels.value ?? []) shots.set(label, (shots.get(label) ?? 0) + 1);
  }
  if (shots.size < 2) return `Label ${FIRST_SHOTS} pictures of at least two classes.`;
  for (const [label, have] of shots) {
    const missing = FIRST_SHOTS - have;
    if (missing > 0) return `${missing} more of “${label}” and it learns for the first time.`;
  }
  if (!name.value) return "Give the classifier a name.";
  return null;
}

let timer: ReturnType<typeof setTimeout> | undefined;

/** Learns whenever the labels change. */
export function follow(): () => void {
  return effect(() => {
    const labelledWaits = items.value.some(
      (item) => item.labels.value !== null && item.status.value === "waiting",
    );
    const ready = obstacle() === null && !labelledWaits;
    clearTimeout(timer);
    if (ready && learning.value === "idle" && failure.value === null) {
      timer = setTimeout(() => void learn(), COLLECT);
    }
  });
}

/** Tries again after a failure. */
export function again(): void {
  failure.value = null;
}

/** Makes the next version. */
async function learn(): Promise<void> {
  const { newClasses, removed, added } = pending();
  if (added.length + removed.length === 0) return;
  learning.value = "busy";
  const begun = performance.now();
  try {
    const examples: string[] = [];
    const base = version.value;
    for (const { item, classIndices } of added) {
      examples.push(await item.example(classIndices, several.value));
    }
    const spec = {
      keepPictures: true,
      ...(base ? {} : { cacheId: name.value, etag: "new", multiLabel: several.value }),
      [base ? "newClasses" : "classes"]: newClasses.map((displayName) => ({ displayName })),
      ...(base ? { removeExampleIds: removed, allowEmptyClasses: true } : {}),
    };
    const made = base
      ? await addExamples(base.name, spec, examples)
      : await createCache(spec, examples);
    settle(made.version, made.rejected, removed, added);
    took.value = (performance.now() - begun) / 1000;
  } catch (error) {
    const taken = error instanceof Problem && error.reason === "ETAG_MISMATCH";
    failure.value = taken
      ? `there is a classifier of the name “${name.value}”: choose another name, or add pictures to that one`
      : explain(error);
  } finally {
    learning.value = "idle";
  }
}

/** Pictures without a class that a version learns from, at most. */
const MOST_UNLABELLED = 2000;

/** Makes a version that learns from the pictures without a class, too, where that helps. */
export async function learnUnlabelled(): Promise<void> {
  const base = version.value;
  if (!base) return;
  learning.value = "busy";
  try {
    const ready = unlabelled.value.filter((item) => item.status.value === "ready");
    const step = Math.ceil(ready.length / MOST_UNLABELLED);
    const pool = ready.filter((_, at) => at % step === 0).map((item) => item.unlabelled());
    // In place of those that an earlier version was given: some have a class by now.
    const spec = { keepPictures: true, allowEmptyClasses: true, dropUnlabelled: true };
    const made = await addExamples(base.name, spec, pool);
    version.value = made.version;
  } catch (error) {
    failure.value = explain(error);
  } finally {
    learning.value = "idle";
  }
}

/** What is in the new version is noted with each picture. Labels that changed
 * meanwhile make the next one. */
function settle(
  made: Version,
  refused: RejectedExample[],
  removed: string[],
  added: Difference["added"],
): void {
  const reasons = new Map(refused.map((one) => [one.exampleId, one.message]));
  const gone = new Set(removed);
  batch(() => {
    for (const item of items.value) if (gone.has(item.id)) item.saved = null;
    for (const { item, classIndices } of added) {
      const reason = reasons.get(item.id);
      if (reason !== undefined) item.reject(reason);
      else item.saved = classIndices.flatMap((index) => made.classes[index]?.displayName ?? []);
    }
    version.value = made;
  });
}
