/** Labelling with keys: 1 to 9 choose a class, n says that it is none of them, 0
 * puts a picture off, u takes the last step back. Where pictures carry several
 * classes, 1 to 9 choose each of them or no longer, and Enter goes on. */

import { useEffect } from "preact/hooks";

import * as bench from "../workspace/bench";
import { choose, finish } from "../workspace/draft";
import { type Item, NONE } from "../workspace/item";
import { queue, skip } from "../workspace/suggest";

/** Gives a class to what is selected, or to the picture that is next. */
export function label(name: string): void {
  const chosen = bench.selection.value;
  const [next] = queue();
  const labels = name === NONE ? [] : [name];
  // What can carry more classes stays selected for them.
  if (chosen.size > 0 && bench.several.value) bench.toggle(chosen, name);
  else if (chosen.size > 0) bench.assign(chosen, labels);
  else if (next) labelNext(next, name);
}

/** Gives a class to the picture that is next. */
export function labelNext(next: Item, name: string): void {
  if (name === NONE) bench.assign([next], []);
  else if (bench.several.value) choose(next, name);
  else bench.assign([next], [name]);
}

function typing(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("input, select, textarea, dialog") !== null;
}

/** Whether Enter already means something where the focus is. On a picture it ends a selection:
 * Space, like a click, goes on with it. */
function pressable(target: EventTarget | null): boolean {
  const ends = bench.selection.value.size > 0;
  const pressed = ends ? "button:not(.cell), a, summary" : "button, a, summary";
  return target instanceof Element && target.closest(pressed) !== null;
}

function press(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (/^[1-9]$/.test(event.key)) {
    const name = bench.classes.value[Number(event.key) - 1];
    if (name === undefined) return;
    label(name);
  } else if (event.key === "n") {
    if (bench.classes.value.length > 0) label(NONE);
  } else if (event.key === "0") {
    const [next] = queue();
    if (next) skip(next);
  } else if (event.key === "u") {
    bench.undo();
  } else if (event.key === "Enter" && bench.several.value && !pressable(event.target)) {
    const [next] = queue();
    if (bench.selection.value.size > 0) bench.selection.value = new Set();
    else if (next) finish(next);
  } else if (event.key === "Escape") {
    bench.selection.value = new Set();
  } else {
    return;
  }
  event.preventDefault();
}

/** Listens while the view is open. */
export function useLabelKeys(): void {
  useEffect(() => {
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}
