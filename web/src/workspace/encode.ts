/** Encoding: each picture once, through Embed. What it is labelled later, and
 * how often, needs the picture no more. */

import { batch, computed, signal } from "@preact/signals";

import { embed } from "../api/calls";
import { Problem, explain, pause } from "../api/http";
import type { EmbedResult, Input } from "../api/types";
import { items, version } from "./bench";
import type { Item } from "./item";
import { base64, prepare } from "./shrink";

/** Most pictures of one call. */
const BATCH = 16;
/** Bytes of pictures from which a call is sent. */
const BATCH_BYTES = 3_000_000;
/** How long a call waits after one that found no room, seconds. */
const CROWDED = 0.5;
/** Calls under way at once. */
const PARALLEL = 2;

let queue: Item[] = [];
const running = signal(0);

/** How far encoding is; none where nothing is being encoded. */
export const progress = computed(() => {
  if (running.value === 0) return null;
  const all = items.value.length;
  const done = items.value.filter((item) => item.status.value !== "waiting").length;
  return { done, all };
});

/** Encodes pictures, in the background. */
export function encode(fresh: Item[]): void {
  queue.push(...fresh);
  while (running.value < PARALLEL && queue.length > 0) {
    running.value += 1;
    void work().finally(() => (running.value -= 1));
  }
}

/** Forgets what is waiting. */
export function stop(): void {
  queue = [];
}

async function work(): Promise<void> {
  for (;;) {
    const { taken, inputs } = await gather();
    if (taken.length === 0) return;
    await settle(taken, inputs);
  }
}

/** The next pictures, as many as make a call. */
async function gather(): Promise<{ taken: Item[]; inputs: Input[] }> {
  const taken: Item[] = [];
  const inputs: Input[] = [];
  let bytes = 0;
  while (taken.length < BATCH && bytes < BATCH_BYTES) {
    const item = queue.shift();
    if (!item) break;
    try {
      const { sent, thumbnail } = await prepare(item.file);
      item.show(thumbnail);
      inputs.push({ encodedImage: await base64(sent) });
      taken.push(item);
      bytes += sent.size;
    } catch (error) {
      // Gone from the disk since it was dropped, say.
      item.reject(explain(error));
    }
  }
  return { taken, inputs };
}

async function settle(taken: Item[], inputs: Input[]): Promise<void> {
  let results: EmbedResult[];
  try {
    results = await embed(inputs, version.value);
  } catch (error) {
    // Too much for one message, say: each alone tells which it is.
    if (error instanceof Problem && taken.length > 1) {
      for (const [at, item] of taken.entries()) {
        const input = inputs[at];
        if (input) await settle([item], [input]);
      }
    } else {
      for (const item of taken) item.reject(explain(error));
    }
    return;
  }
  const again: Item[] = [];
  batch(() => {
    for (const [at, item] of taken.entries()) {
      const { embedding, error } = results[at] ?? {};
      if (embedding) item.take(embedding.values);
      else if (error && new Problem(error).passes) again.push(item);
      else item.reject(error?.message ?? "the server did not answer for it");
    }
  });
  if (again.length > 0) {
    // No room just now: last, and not at once.
    queue.push(...again);
    await pause(CROWDED);
  }
}
