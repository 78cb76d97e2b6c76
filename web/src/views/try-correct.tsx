/** Correcting an answer: one click says what the picture is, and it becomes an
 * example of the next version. */

import { useState } from "preact/hooks";

import type { Version } from "../api/types";
import { plural } from "../format";
import { attempt, tell } from "../ui/notices";
import { type Seen, teach, teachNone, teachSeveral } from "../workspace/correct";
import type { Tried } from "./try";

/** Classes that have a button. */
const MOST_CLASSES = 60;

export function Correct(props: {
  tried: Tried;
  version: Version;
  onCorrected: () => Promise<void>;
}) {
  const { tried, version, onCorrected } = props;
  const [busy, setBusy] = useState(false);
  const { answer, file, thumbnail } = tried;
  if (!answer.embedding) return null;
  const seen: Seen = { file, thumbnail, embedding: answer.embedding };
  const isUnknown = answer.accepted === false;
  const question = isUnknown ? "Say what it is" : "It is something else, or should be learned";
  const learn = (label: string, step: () => Promise<Version>) => {
    setBusy(true);
    void attempt("It was not learned", async () => {
      const made = await step();
      const known = plural(Number(made.keyCount) + Number(made.unknownCount), "example");
      tell(`Version ${made.version} knows it as ${label}: ${known}.`);
      await onCorrected();
    }).then(() => setBusy(false));
  };
  const Choices = version.multiLabel ? Several : One;
  return (
    <details class="correct" open={isUnknown}>
      <summary>{busy ? "Learning…" : question}</summary>
      <Choices version={version} seen={seen} busy={busy} learn={learn} />
    </details>
  );
}

interface ChoicesProps {
  version: Version;
  seen: Seen;
  busy: boolean;
  learn: (label: string, step: () => Promise<Version>) => void;
}

/** For pictures of one class each. */
function One(props: ChoicesProps) {
  const { version, seen, busy, learn } = props;
  const [typed, setTyped] = useState("");
  const correct = (label: string) => learn(label, () => teach(version, seen, label));
  return (
    <>
      <div class="choices">
        {version.classes.slice(0, MOST_CLASSES).map((one) => (
          <button
            key={one.index}
            type="button"
            disabled={busy}
            onClick={() => correct(one.displayName)}
          >
            {one.displayName}
          </button>
        ))}
        <button
          type="button"
          class="plain"
          disabled={busy}
          onClick={() => learn("none of its classes", () => teachNone(version, seen))}
        >
          None of these
        </button>
      </div>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          correct(typed.trim());
        }}
      >
        <label>
          A new class
          <input value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
        </label>
        <button type="submit" disabled={busy || !typed.trim()}>
          Learn
        </button>
      </form>
    </>
  );
}

/** For pictures that carry any number of classes. */
function Several(props: ChoicesProps) {
  const { version, seen, busy, learn } = props;
  const [chosen, setChosen] = useState<ReadonlySet<number>>(new Set());
  const toggle = (index: number) => {
    const after = new Set(chosen);
    if (!after.delete(index)) after.add(index);
    setChosen(after);
  };
  const submit = (event: Event) => {
    event.preventDefault();
    const indices = [...chosen].sort((a, b) => a - b);
    const names = indices.map((index) => version.classes[index]?.displayName).join(", ");
    if (indices.length === 0) learn("none of its classes", () => teachNone(version, seen));
    else learn(names, () => teachSeveral(version, seen, indices));
  };
  return (
    <form onSubmit={submit}>
      <fieldset class="choices">
        <legend>All classes that it carries</legend>
        {version.classes.slice(0, MOST_CLASSES).map((one) => (
          <label key={one.index} class="choice">
            <input
              type="checkbox"
              checked={chosen.has(one.index)}
              onChange={() => toggle(one.index)}
            />
            {one.displayName}
          </label>
        ))}
      </fieldset>
      <button type="submit" disabled={busy}>
        {chosen.size > 0 ? "Learn" : "Learn that it carries none"}
      </button>
    </form>
  );
}
