/** "Label this next": the server's order of the pictures without a class. */

import { effect, signal } from "@preact/signals";

import { suggest } from "../api/calls";
import { explain } from "../api/http";
import type { Suggestion } from "../api/types";
import { items, unlabelled, version } from "./bench";
import { drafted, forget } from "./draft";
import type { Item } from "./item";

/** How many are asked for at a time. */
const AHEAD = 30;
/** Labels after which the order is asked for anew. */
const RENEW = 6;
/** Pictures that are sent to be put into an order, at most. */
const MOST = 1500;
/** Quiet time before the order is asked for, milliseconds. */
const SETTLE = 600;

/** What the server suggests, by the pictures' ids. */
export const suggestions = signal<ReadonlyMap<string, Suggestion>>(new Map());
/** Why there is no order; undefined if there is one. */
export const trouble = signal<string | null>(null);

const skipped = signal<ReadonlySet<Item>>(new Set());
let last: AbortController | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;
let asked = "";

/** Asks for a new order when the classifier has changed, more pictures are
 * encoded, or the last order is used up. */
export function follow(): () => void {
  return effect(() => {
    const ready = unlabelled.value.filter((item) => item.status.value === "ready");
    const known = suggestions.value;
    const left = ready.filter((item) => known.has(item.id)).length;
    // Not with every label and every picture: the whole pool is sent each time.
    const grown = Math.ceil(Math.log2(items.value.length + 1));
    const labelled = Math.floor((items.value.length - unlabelled.value.length) / RENEW);
    const state = `${version.value !== null} ${grown} ${labelled} ${left === 0}`;
    if (ready.length === 0 || state === asked) return;
    clearTimeout(timer);
    timer = setTimeout(() => {
      asked = state;
      void order(ready);
    }, SETTLE);
  });
}

async function order(ready: Item[]): Promise<void> {
  last?.abort();
  const mine = new AbortController();
  last = mine;
  const config = {
    count: AHEAD,
    ...(version.value ? { cache: version.value.name } : {}),
  };
  try {
    // Of a large pool every n-th: what is typical or doubtful of it shows there, too.
    const step = Math.ceil(ready.length / MOST);
    const pool = ready.filter((_, at) => at % step === 0).map((item) => item.candidate());
    const answer = await suggest(config, pool, mine.signal);
    suggestions.value = new Map(answer.suggestions.map((one) => [one.id, one]));
    trouble.value = null;
  } catch (error) {
    if (mine.signal.aborted) return;
    trouble.value = explain(error);
  }
}

/** The pictures to label, the most useful first; then, or where the server
 * cannot say, in their own order. One whose classes are being chosen stays first. */
export function queue(): Item[] {
  const open = unlabelled.value.filter((item) => !skipped.value.has(item));
  const rank = new Map([...suggestions.value.keys()].map((id, at) => [id, at]));
  const begun = drafted();
  const place = (item: Item) => (item === begun ? -1 : (rank.get(item.id) ?? Infinity));
  return [...open].sort((a, b) => place(a) - place(b) || 0);
}

/** Puts a picture off until the others have a class. */
export function skip(item: Item): void {
  forget();
  skipped.value = new Set([...skipped.value, item]);
}

/** Forgets the order and what was put off. */
export function reset(): void {
  forget();
  last?.abort();
  asked = "";
  suggestions.value = new Map();
  trouble.value = null;
  skipped.value = new Set();
}
