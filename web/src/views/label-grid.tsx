/** All pictures on the bench, to be selected and labelled many at a time. */

import { useEffect, useState } from "preact/hooks";

import { plural } from "../format";
import * as bench from "../workspace/bench";
import { type Item, NONE, nameOf } from "../workspace/item";
import { DRAGGED } from "./label-classes";

/** Pictures that are shown before more are asked for. */
const PAGE = 120;
/** The tab of pictures without a class. */
const OPEN = "";

/** Pictures without a class, and those selected that are being given several. */
function open(): Item[] {
  if (!bench.several.value) return bench.unlabelled.value;
  const [waiting, chosen] = [new Set(bench.unlabelled.value), bench.selection.value];
  return bench.items.value.filter((item) => waiting.has(item) || chosen.has(item));
}

export function Grid() {
  const [tab, setTab] = useState(OPEN);
  const [shown, setShown] = useState(PAGE);
  useEffect(() => setShown(PAGE), [tab]);
  const all = tab === OPEN ? open() : bench.of(tab);
  const labels = [...bench.classes.value, NONE].filter((name) => bench.of(name).length > 0);
  const tabs = [OPEN, ...labels];
  const visible = all.slice(0, shown);
  return (
    <section aria-labelledby="grid">
      <h2 id="grid">Pictures on this page</h2>
      <div class="tabs" role="group" aria-label="Which pictures">
        {tabs.map((name) => (
          <button
            key={name}
            type="button"
            aria-pressed={tab === name}
            onClick={() => setTab(name)}
          >
            {nameOf(name) || "Without a class"} ({name ? bench.of(name).length : bench.unlabelled.value.length})
          </button>
        ))}
      </div>
      <Bulk visible={visible} />
      <ul class="grid">
        {visible.map((item, at) => (
          <Cell key={item.id} item={item} at={at} visible={visible} />
        ))}
      </ul>
      {all.length > shown && (
        <button type="button" onClick={() => setShown(shown + PAGE)}>
          Show more ({all.length - shown} left)
        </button>
      )}
    </section>
  );
}

const HOW = "Click to select, with Shift for a range; keys 1 to 9 and n label what is selected";

function selected(chosen: ReadonlySet<Item>): string {
  const count = `${plural(chosen.size, "picture")} selected`;
  if (!bench.several.value) return `${count}: press a class’s key or its name above`;
  return `${count}: keys and names above add a class, or take it away; Enter when done`;
}

function Bulk(props: { visible: Item[] }) {
  const chosen = bench.selection.value;
  const labelled = [...chosen].some((item) => item.labels.value !== null);
  return (
    <div class="bulk actions">
      <span role="status">{chosen.size > 0 ? selected(chosen) : HOW}</span>
      <button type="button" onClick={() => (bench.selection.value = new Set(props.visible))}>
        Select all shown
      </button>
      {chosen.size > 0 && (
        <>
          <button type="button" onClick={() => (bench.selection.value = new Set())}>
            Select none
          </button>
          {labelled && (
            <button type="button" onClick={() => bench.assign(chosen, null)}>
              Take the class away
            </button>
          )}
          {!labelled && (
            <button type="button" onClick={() => bench.discard(chosen)}>
              Take off the page
            </button>
          )}
        </>
      )}
    </div>
  );
}

/** Where a range that Shift extends began. */
let anchor = 0;

function select(event: MouseEvent, item: Item, at: number, visible: Item[]): void {
  const chosen = new Set(bench.selection.value);
  if (event.shiftKey) {
    const [from, to] = [Math.min(anchor, at), Math.max(anchor, at)];
    for (const one of visible.slice(from, to + 1)) chosen.add(one);
  } else {
    if (!chosen.delete(item)) chosen.add(item);
    anchor = at;
  }
  bench.selection.value = chosen;
}

function Cell(props: { item: Item; at: number; visible: Item[] }) {
  const { item, at, visible } = props;
  const chosen = bench.selection.value.has(item);
  const drag = (event: DragEvent) => {
    const dragged = chosen ? [...bench.selection.value] : [item];
    event.dataTransfer?.setData(DRAGGED, dragged.map((one) => one.id).join("\n"));
  };
  return (
    <li>
      <button
        type="button"
        class={`cell ${item.status.value}`}
        aria-pressed={chosen}
        draggable
        onDragStart={drag}
        onClick={(event) => select(event, item, at, visible)}
      >
        {item.address.value ? (
          <img src={item.address.value} alt={item.path} draggable={false} loading="lazy" />
        ) : (
          <span class="no-picture">{item.path}</span>
        )}
        {bench.several.value && item.labels.value && (
          <small>{item.labels.value.join(", ") || nameOf(NONE)}</small>
        )}
      </button>
    </li>
  );
}
