/** The classes: where pictures are dragged to, and what keys stand for. */

import { useState } from "preact/hooks";

import * as bench from "../workspace/bench";
import { NONE } from "../workspace/item";
import { label } from "./label-keys";

/** What a drag of pictures carries: their ids, each on a line. */
export const DRAGGED = "application/x-tipserve-pictures";

export function Classes() {
  const [typed, setTyped] = useState("");
  const add = (event: Event) => {
    event.preventDefault();
    for (const one of typed.split(",")) bench.addClass(one);
    setTyped("");
  };
  return (
    <section aria-labelledby="classes">
      <h2 id="classes">Classes</h2>
      <ul class="classes">
        {bench.classes.value.map((name, at) => (
          <Class key={name} label={name} shown={name} hotkey={at < 9 ? `${at + 1}` : null} />
        ))}
        {bench.classes.value.length > 0 && (
          <Class key={NONE} label={NONE} shown="none of these" hotkey="n" />
        )}
      </ul>
      <form class="inline" onSubmit={add}>
        <label>
          Another class
          <input
            value={typed}
            maxLength={200}
            onInput={(event) => setTyped(event.currentTarget.value)}
          />
        </label>
        <button type="submit" disabled={!typed.trim()}>
          Add
        </button>
      </form>
    </section>
  );
}

function Class(props: { label: string; shown: string; hotkey: string | null }) {
  const { label: name, shown, hotkey } = props;
  const [over, setOver] = useState(false);
  const count = bench.counts.value.get(name) ?? 0;
  const drop = (event: DragEvent) => {
    setOver(false);
    const ids = new Set(event.dataTransfer?.getData(DRAGGED).split("\n"));
    event.preventDefault();
    const dropped = bench.items.value.filter((item) => ids.has(item.id));
    if (bench.several.value) bench.carry(dropped, name);
    else bench.assign(dropped, name === NONE ? [] : [name]);
  };
  return (
    <li
      class={`class ${over ? "over" : ""}`}
      onDragOver={(event) => {
        if (!event.dataTransfer?.types.includes(DRAGGED)) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      <button type="button" class="class-name" onClick={() => label(name)}>
        {hotkey !== null && <kbd>{hotkey}</kbd>}
        <span class={name === NONE ? "none" : ""}>{shown}</span>
        <small>{count}</small>
      </button>
      {count === 0 && name !== NONE && (
        <button
          type="button"
          class="plain"
          aria-label={`Remove the class ${name}`}
          onClick={() => bench.removeClass(name)}
        >
          ×
        </button>
      )}
    </li>
  );
}
