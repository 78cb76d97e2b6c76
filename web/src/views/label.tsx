/** Making and labelling: pictures in, classes on them, a classifier that
 * learns meanwhile. */

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import type { Version } from "../api/types";
import { plural, sentence } from "../format";
import { to } from "../router";
import { server } from "../session";
import { DropZone } from "../ui/drop";
import { confirm } from "../ui/dialog";
import { attempt } from "../ui/notices";
import * as bench from "../workspace/bench";
import { forget } from "../workspace/draft";
import { encode, progress, stop } from "../workspace/encode";
import type { Found } from "../workspace/files";
import * as learn from "../workspace/learn";
import * as suggest from "../workspace/suggest";
import { Classes } from "./label-classes";
import { Grid } from "./label-grid";
import { useLabelKeys } from "./label-keys";
import { Next } from "./label-next";

/** Of which classifier the bench is: it stays while other views are open. */
let openFor: string | null | undefined;

/** Whether the bench is laid out: before, nothing can be put on it. */
const opened = signal(false);

function suggestedName(): string {
  const prefix = server.value?.caller?.cachePrefix ?? "";
  const date = new Date().toISOString().slice(0, 10);
  return `${prefix}pictures-${date}`;
}

async function open(cache: string | null): Promise<void> {
  if (openFor === cache && openFor !== undefined) return;
  const same = cache !== null && cache === bench.name.value;
  if (same || (cache === null && bench.items.value.length > 0)) return;
  const unsaved = bench.items.value.filter((item) => item.saved === null).length;
  if (unsaved > 0) {
    const question = `${plural(unsaved, "picture")} of “${bench.name.value}” on this page would be forgotten; what it has learned stays.`;
    if (!(await confirm("Leave these pictures?", question, "Leave them", true))) return;
  }
  stop();
  suggest.reset();
  learn.again();
  if (cache === null) bench.start(suggestedName());
  else await bench.resume(cache);
  openFor = cache;
}

export function LabelView(props: { cache: string | null }) {
  useEffect(() => {
    opened.value = false;
    void attempt("The classifier cannot be opened", () => open(props.cache)).then(
      (done) => (opened.value = done),
    );
  }, [props.cache]);
  useEffect(() => {
    const ends = [learn.follow(), suggest.follow()];
    return () => ends.forEach((end) => end());
  }, []);
  useEffect(() => {
    // The browser asks before the tab is closed over pictures that nobody has labelled yet.
    const warn = (event: BeforeUnloadEvent) => {
      if (bench.items.value.some((item) => item.saved === null)) event.preventDefault();
    };
    addEventListener("beforeunload", warn);
    return () => removeEventListener("beforeunload", warn);
  }, []);
  useLabelKeys();
  const take = (found: Found[]) => encode(bench.add(found));
  const empty = bench.items.value.length === 0;
  if (!opened.value) {
    return (
      <p class="waiting" role="status">
        Loading…
      </p>
    );
  }
  return (
    <>
      <div class="title">
        <h1>{bench.version.value ? `Add to ${bench.name.value}` : "Make a classifier"}</h1>
      </div>
      <Learned />
      {!bench.version.value && <Name />}
      <DropZone onFound={take} folders>
        {empty
          ? "Drop pictures here: a folder with one folder for each class, a zip, or files that nobody has sorted yet."
          : "Drop more pictures here."}
      </DropZone>
      <Progress />
      <Rejected />
      {(!empty || bench.classes.value.length > 0) && (
        <>
          <Classes />
          <Next />
          <Grid />
        </>
      )}
    </>
  );
}

function Name() {
  const carried = bench.items.value.some((item) => (item.labels.value?.length ?? 0) > 1);
  return (
    <div class="name">
      <label>
        Name of the classifier
        <input
          value={bench.name.value}
          pattern="[a-z0-9][a-z0-9_.\-]{0,62}"
          title="Lower-case letters, digits, -, _ and ."
          onChange={(event) => {
            bench.name.value = event.currentTarget.value.trim();
            learn.again();
          }}
        />
      </label>
      <label class="choice">
        <input
          type="checkbox"
          checked={bench.several.value}
          disabled={carried || learn.learning.value === "busy"}
          onChange={(event) => {
            forget();
            bench.several.value = event.currentTarget.checked;
          }}
        />
        A picture can carry several classes
      </label>
    </div>
  );
}

/** What it has learned so far, or what is missing before it does. */
function Learned() {
  const version = bench.version.value;
  const failed = learn.failure.value;
  const missing = learn.obstacle();
  const name = bench.name.value;
  return (
    <section class="learned" aria-label="What it has learned" aria-live="polite">
      {failed !== null && (
        <p class="trouble" role="alert">
          It did not learn: {failed}{" "}
          <button type="button" onClick={learn.again}>
            Try again
          </button>
        </p>
      )}
      {learn.learning.value === "busy" && <p class="busy">Learning…</p>}
      {version && learn.learning.value === "idle" && (
        <p>
          <strong>Version {version.version}</strong> is served: {plural(Number(version.keyCount), "example")}
          {learn.took.value !== null && `, learned in ${learn.took.value.toFixed(1)} s`}.{" "}
          <a href={to("try", name)}>Try it</a>{" "}
          <a href={to("caches", name, "quality")}>How good is it?</a>
        </p>
      )}
      {version && learn.learning.value === "idle" && <Unlabelled version={version} />}
      {!version && missing !== null && learn.learning.value === "idle" && failed === null && (
        <p class="hint">{missing}</p>
      )}
    </section>
  );
}

/** What the pictures without a class could add, or have added. */
function Unlabelled(props: { version: Version }) {
  const used = props.version.head?.unlabelled;
  const ready = bench.unlabelled.value.filter((item) => item.status.value === "ready").length;
  const isDone = Number(used?.count ?? 0) === ready;
  return (
    <>
      {used && <p class="hint">{sentence(used.reason)}</p>}
      {ready > 0 && !isDone && !props.version.multiLabel && (
        <button type="button" onClick={() => void learn.learnUnlabelled()}>
          Learn from {plural(ready, "picture")} without a class, too
        </button>
      )}
    </>
  );
}

function Progress() {
  const now = progress.value;
  if (!now) return null;
  return (
    <p class="progress" role="status">
      <label>
        Encoding {now.done} of {now.all}
        <progress value={now.done} max={now.all} />
      </label>
    </p>
  );
}

function Rejected() {
  const rejected = bench.rejected.value;
  if (rejected.length === 0) return null;
  return (
    <details class="rejected">
      <summary>{plural(rejected.length, "file")} cannot be used</summary>
      <ul>
        {rejected.slice(0, 500).map((item) => (
          <li key={item.id}>
            <strong>{item.path}</strong>: {item.reason.value}
          </li>
        ))}
      </ul>
      <button type="button" onClick={() => bench.discard(rejected)}>
        Take them off the page
      </button>
    </details>
  );
}
