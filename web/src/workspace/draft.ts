/** The classes of the picture that is next, where it can carry several: chosen one by one, and
 * given to it together. */

import { signal } from "@preact/signals";

import { assign, classes } from "./bench";
import type { Item, Labels } from "./item";

const draft = signal<{ item: Item; labels: Labels } | null>(null);

/** The picture whose classes are being chosen: it stays next until they are given. */
export function drafted(): Item | null {
  return draft.value?.item ?? null;
}

/** The classes chosen for a picture so far, in the order of all classes. */
export function chosenFor(item: Item): Labels {
  return draft.value?.item === item ? draft.value.labels : [];
}

/** Chooses a class for a picture, or no longer. */
export function choose(item: Item, label: string): void {
  const before = new Set(chosenFor(item));
  if (!before.delete(label)) before.add(label);
  const labels = classes.value.filter((one) => before.has(one));
  draft.value = labels.length > 0 ? { item, labels } : null;
}

/** Gives the chosen classes to a picture, if there are any. */
export function finish(item: Item): void {
  const labels = chosenFor(item);
  if (labels.length === 0) return;
  forget();
  assign([item], labels);
}

/** Chooses anew. */
export function forget(): void {
  draft.value = null;
}
