/** "Label this next": one picture at a time, the most useful first. */

import { percent, plural } from "../format";
import * as bench from "../workspace/bench";
import { chosenFor, finish } from "../workspace/draft";
import { type Item, NONE } from "../workspace/item";
import { queue, skip, suggestions, trouble } from "../workspace/suggest";
import { labelNext } from "./label-keys";

export function Next() {
  const [next, ...later] = queue();
  if (!next) return null;
  return (
    <section class="next" aria-labelledby="next">
      <h2 id="next">Label this next</h2>
      <div class="next-body">
        <Large item={next} />
        <div>
          <Choices item={next} />
          <Why item={next} />
        </div>
      </div>
      <ul class="later" aria-label="Then">
        {later.slice(0, 8).map((item) => (
          <li key={item.id}>
            {item.address.value ? (
              <img src={item.address.value} alt={item.path} />
            ) : (
              <span class="no-picture">{item.path}</span>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

function Large(props: { item: Item }) {
  const { item } = props;
  return (
    <figure>
      {item.address.value ? (
        <img class="large" src={item.address.value} alt={item.path} />
      ) : (
        <span class="no-picture large">{item.path}</span>
      )}
      <figcaption>{item.path}</figcaption>
    </figure>
  );
}

function Choices(props: { item: Item }) {
  const { item } = props;
  const known = suggestions.value.get(item.id);
  const probability = new Map(known?.top.map((one) => [one.displayName, one.probability]));
  if (bench.classes.value.length === 0) return <p class="hint">Add a class first.</p>;
  const several = bench.several.value;
  const chosen = chosenFor(item);
  return (
    <div class="choices">
      {bench.classes.value.map((name, at) => (
        <button
          key={name}
          type="button"
          aria-pressed={several ? chosen.includes(name) : undefined}
          onClick={() => labelNext(item, name)}
        >
          {at < 9 && <kbd>{at + 1}</kbd>}
          <span>{name}</span>
          {probability.has(name) && <small>{percent(probability.get(name) ?? 0)}</small>}
        </button>
      ))}
      {several && (
        <button type="button" class="primary" disabled={chosen.length === 0} onClick={() => finish(item)}>
          <kbd>Enter</kbd> These are all
        </button>
      )}
      <button type="button" class="plain" onClick={() => labelNext(item, NONE)}>
        <kbd>n</kbd> None of these
      </button>
      <button type="button" class="plain" onClick={() => skip(item)}>
        <kbd>0</kbd> Later
      </button>
      <button type="button" class="plain" disabled={!bench.undoable.value} onClick={bench.undo}>
        <kbd>u</kbd> Undo
      </button>
    </div>
  );
}

function Why(props: { item: Item }) {
  const known = suggestions.value.get(props.item.id);
  if (known) {
    const stands = Number(known.clusterSize) - 1;
    return (
      <p class="hint">
        {known.reason === "REASON_UNCERTAIN"
          ? "The classifier hesitates over this one."
          : "It is typical of pictures of which none has a class yet."}
        {stands > 0 && ` It stands for ${plural(stands, "more", "more")} like it.`}
      </p>
    );
  }
  if (trouble.value !== null) {
    return <p class="hint">In the order of the files: {trouble.value}</p>;
  }
  return null;
}
