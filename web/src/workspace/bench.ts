/** The bench: the pictures of this tab, their classes, and the classifier that
 * is being made of them. */

import { batch, computed, signal } from "@preact/signals";

import { getVersion, listExamples } from "../api/calls";
import type { ClassInfo, Version } from "../api/types";
import type { Found } from "./files";
import { Item, type Labels, NONE, isSame, isUnder } from "./item";

/** The classifier's id. */
export const name = signal("");

/** Its newest version; none before the first. */
export const version = signal<Version | null>(null);

/** Names of the classes, in the order in which keys choose them. */
export const classes = signal<string[]>([]);

/** Whether a picture can carry several classes: chosen before the first version. */
export const several = signal(false);

/** All pictures. */
export const items = signal<Item[]>([]);

/** Those selected in the grid. */
export const selection = signal<ReadonlySet<Item>>(new Set());

/** Ids of examples that the version held before this bench was opened. */
let heldBefore = new Set<string>();

export const waiting = computed(() => items.value.filter((i) => i.status.value === "waiting"));
export const rejected = computed(() => items.value.filter((i) => i.status.value === "rejected"));
export const unlabelled = computed(() =>
  items.value.filter((i) => i.labels.value === null && i.status.value !== "rejected"),
);

/** How many pictures each class has, those of the version included. */
export const counts = computed(() => {
  const found = new Map<string, number>(classes.value.map((one) => [one, 0]));
  for (const known of version.value?.classes ?? []) {
    found.set(known.displayName, held(known));
  }
  if (version.value) {
    found.set(NONE, Math.max(0, Number(version.value.unknownCount) - ours(NONE)));
  }
  for (const item of items.value) {
    const labels = item.labels.value;
    if (labels === null || item.status.value === "rejected") continue;
    for (const label of labels.length > 0 ? labels : [NONE]) {
      found.set(label, (found.get(label) ?? 0) + 1);
    }
  }
  return found;
});

/** Examples of a class that are not on the bench. */
function held(known: ClassInfo): number {
  return Math.max(0, known.exampleCount + known.validationCount - ours(known.displayName));
}

/** Pictures on the bench that the version holds under a label. */
function ours(label: string): number {
  return items.peek().filter((item) => isUnder(item.saved, label)).length;
}

/** Pictures of a class on the bench, or of none of the classes. */
export function of(label: string): Item[] {
  return items.value.filter(
    (item) => isUnder(item.labels.value, label) && item.status.value !== "rejected",
  );
}

const TEXT = /\.(txt|csv|tsv|json|xml|md|html?|ini|log|py|js|db|pdf|docx?|xlsx?|mp4|mov|avi)$/i;

/** Puts files on the bench; gives those that are to be encoded. */
export function add(found: Found[]): Item[] {
  const ids = new Set(items.value.map((item) => item.id));
  for (const id of heldBefore) ids.add(id);
  const fresh: Item[] = [];
  const named = new Set(classes.value);
  for (const { path, file, label } of found) {
    let id = path;
    for (let copy = 2; ids.has(id); copy++) id = `${path} (${copy})`;
    ids.add(id);
    const item = new Item(id, path, file, label);
    if (TEXT.test(path)) item.reject("not a picture, by its name");
    else if (label !== null) named.add(label);
    fresh.push(item);
  }
  batch(() => {
    items.value = [...items.value, ...fresh];
    if (named.size !== classes.value.length) classes.value = [...named];
  });
  return fresh.filter((item) => item.status.value === "waiting");
}

/** Adds a class, if there is none of that name. */
export function addClass(label: string): void {
  const trimmed = label.trim();
  if (trimmed && !classes.value.includes(trimmed)) classes.value = [...classes.value, trimmed];
}

/** Removes a class that no picture has. */
export function removeClass(label: string): void {
  if ((counts.value.get(label) ?? 0) > 0) return;
  classes.value = classes.value.filter((one) => one !== label);
}

type Change = { item: Item; before: Labels | null }[];
const history: Change[] = [];
/** Whether there is anything to undo. */
export const undoable = signal(false);

function change(chosen: Iterable<Item>, after: (before: Labels | null) => Labels | null): void {
  const changed: Change = [];
  batch(() => {
    for (const item of chosen) {
      const before = item.labels.value;
      const labels = after(before);
      if (item.status.value === "rejected" || isSame(before, labels)) continue;
      changed.push({ item, before });
      item.labels.value = labels;
    }
    if (changed.length > 0) history.push(changed);
    undoable.value = history.length > 0;
  });
}

/** Says what pictures are; null takes their classes away. */
export function assign(chosen: Iterable<Item>, labels: Labels | null): void {
  change(chosen, () => labels);
  selection.value = new Set();
}

/** Adds a class to those that pictures carry; to "none of these" it is the only one. */
export function carry(chosen: Iterable<Item>, label: string): void {
  change(chosen, (before) => {
    if (label === NONE) return [];
    return before?.includes(label) ? before : [...(before ?? []), label];
  });
}

/** Adds a class to what pictures carry, or takes it away if all of them carry it already. */
export function toggle(chosen: ReadonlySet<Item>, label: string): void {
  if (![...chosen].every((item) => isUnder(item.labels.value, label))) {
    carry(chosen, label);
    return;
  }
  change(chosen, (before) => {
    const left = before?.filter((one) => one !== label) ?? [];
    return left.length > 0 ? left : null;
  });
}

/** Takes the last change of classes back. */
export function undo(): void {
  batch(() => {
    for (const { item, before } of history.pop() ?? []) item.labels.value = before;
    undoable.value = history.length > 0;
  });
}

/** Takes pictures off the bench. Those that a version holds must have lost
 * their class first. */
export function discard(chosen: Iterable<Item>): void {
  const gone = new Set([...chosen].filter((item) => item.saved === null));
  for (const item of gone) item.drop();
  batch(() => {
    items.value = items.value.filter((item) => !gone.has(item));
    selection.value = new Set();
  });
}

function clear(): void {
  for (const item of items.value) item.drop();
  history.length = 0;
  heldBefore = new Set();
  batch(() => {
    items.value = [];
    selection.value = new Set();
    undoable.value = false;
    version.value = null;
    classes.value = [];
    several.value = false;
    name.value = "";
  });
}

/** Opens an empty bench. */
export function start(suggested: string): void {
  clear();
  name.value = suggested;
}

/** Opens a bench for more pictures of a classifier that is there. */
export async function resume(cache: string): Promise<void> {
  const found = await getVersion(cache);
  const examples = await listExamples(found.name, "", 100_000);
  clear();
  heldBefore = new Set(examples.map((example) => example.exampleId));
  batch(() => {
    name.value = cache;
    version.value = found;
    several.value = found.multiLabel;
    classes.value = found.classes.map((known) => known.displayName);
  });
}
