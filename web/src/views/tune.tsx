/** Fine-tuning: started, watched, cancelled; the result is compared before an
 * alias moves. */

import { useEffect, useRef, useState } from "preact/hooks";

import { cacheId, cancelFineTune, fineTune, listFineTunes } from "../api/calls";
import { Problem } from "../api/http";
import type { Cache, FineTuneProgress, FineTuneRun } from "../api/types";
import { Training } from "../charts/training";
import { percent, sentence, time } from "../format";
import { to } from "../router";
import { mayWrite } from "../session";
import { Show, useLoaded } from "../ui/load";
import { attempt, complain, tell } from "../ui/notices";

/** How often runs of others are asked for, milliseconds. */
const WATCH = 3000;

const STATES: Record<string, string> = {
  STATE_QUEUED: "waiting for its turn",
  STATE_RUNNING: "training",
  STATE_SUCCEEDED: "done",
  STATE_FAILED: "failed",
  STATE_CANCELLED: "cancelled",
};

const RESIDUAL = "FINE_TUNE_RECIPE_RESIDUAL";
const KEYS = "FINE_TUNE_RECIPE_TIP_ADAPTER_F";
type Recipe = typeof RESIDUAL | typeof KEYS;

function ended(run: FineTuneRun): boolean {
  return !["STATE_QUEUED", "STATE_RUNNING"].includes(run.state);
}

export function TuneView(props: { cache: Cache; onChanged: () => void }) {
  const id = cacheId(props.cache.name);
  const runs = useLoaded(() => listFineTunes(id), [id, props.cache.etag]);
  const open = runs.value?.some((run) => !ended(run)) ?? false;
  useEffect(() => {
    if (!open) return undefined;
    const timer = setInterval(runs.reload, WATCH);
    return () => clearInterval(timer);
  }, [open]);
  return (
    <>
      <p class="hint">
        Fine-tuning makes a new version, which is worth it with many examples of each class; the
        versions before it stay. A correction of the classifier is kept only if examples that it has not
        seen are better told apart; training the examples’ keys (Tip-Adapter-F) takes longer.
      </p>
      {mayWrite.value && (
        <Start
          cache={props.cache}
          onChanged={() => {
            runs.reload();
            props.onChanged();
          }}
        />
      )}
      <h2>Runs</h2>
      <Show of={runs}>
        {(all) =>
          all.length === 0 ? (
            <p class="hint">None yet.</p>
          ) : (
            <ul class="runs">
              {all.map((run) => (
                <Run key={run.name} run={run} cache={id} onChanged={runs.reload} />
              ))}
            </ul>
          )
        }
      </Show>
    </>
  );
}

/** A run that was started here, epoch by epoch. */
interface Watched {
  run: FineTuneRun | null;
  curve: FineTuneProgress[];
}

function Start(props: { cache: Cache; onChanged: () => void }) {
  const { cache, onChanged } = props;
  const [recipe, setRecipe] = useState<Recipe>(RESIDUAL);
  const [epochs, setEpochs] = useState(20);
  const [watched, setWatched] = useState<Watched | null>(null);
  const stop = useRef<AbortController | null>(null);
  useEffect(() => () => stop.current?.abort(), []);
  const latest = cache.latest;
  if (!latest) return null;

  const start = async (event: Event) => {
    event.preventDefault();
    const mine = new AbortController();
    stop.current = mine;
    setWatched({ run: null, curve: [] });
    try {
      // Detached: it goes on where this page is closed or the connection is lost.
      const numbers = recipe === KEYS ? { epochs } : {};
      const options = { recipe, ...numbers, detached: true };
      for await (const said of fineTune(latest.name, options, mine.signal)) {
        setWatched((before) => follow(before, said.run, said.progress));
        if (said.run && ended(said.run)) finished(said.run);
      }
    } catch (error) {
      if (!mine.signal.aborted) lost(error);
      setWatched(null);
    }
    onChanged();
  };
  // The curve of a run that has ended stays to be looked at.
  const busy = watched !== null && !(watched.run && ended(watched.run));
  return (
    <>
      <form class="inline" onSubmit={start}>
        <label>
          What to train
          <select
            value={recipe}
            onChange={(event) => setRecipe(event.currentTarget.value as Recipe)}
          >
            <option value={RESIDUAL}>A correction, if it helps</option>
            <option value={KEYS}>The keys (Tip-Adapter-F)</option>
          </select>
        </label>
        {recipe === KEYS && (
          <label>
            Epochs
            <input
              type="number"
              min={1}
              max={1000}
              value={epochs}
              onInput={(event) => setEpochs(Number(event.currentTarget.value))}
            />
          </label>
        )}
        <button type="submit" class="primary" disabled={busy}>
          Fine-tune version {latest.version}
        </button>
      </form>
      {watched && <Watch watched={watched} />}
    </>
  );
}

function follow(
  before: Watched | null,
  run: FineTuneRun | undefined,
  progress: FineTuneProgress | undefined,
): Watched {
  const { run: old = null, curve = [] } = before ?? {};
  const rest = curve.filter((point) => point.epoch !== progress?.epoch);
  return { run: run ?? old, curve: progress ? [...rest, progress] : curve };
}

function finished(run: FineTuneRun): void {
  if (run.unchanged) tell(run.outcome);
  else if (run.version) tell(`Version ${run.version.version} is made. Compare it before an alias moves.`);
  else if (run.error) complain(new Error(run.error.message), "Fine-tuning failed");
}

function lost(error: unknown): void {
  if (error instanceof Problem && error.passes) {
    tell("The connection was lost; the run goes on, and is listed below.");
  } else complain(error, "Fine-tuning failed");
}

function Watch(props: { watched: Watched }) {
  const { run, curve } = props.watched;
  const last = curve[curve.length - 1];
  return (
    <div class="watch">
      <p class="progress" role="status">
        <label>
          {run ? STATES[run.state] : "starting"}
          {last && `, epoch ${last.epoch} of ${last.epochs}`}
          <progress value={Number(last?.step ?? 0)} max={Math.max(1, Number(last?.steps ?? 1))} />
        </label>{" "}
        {run && !ended(run) && (
          <button
            type="button"
            onClick={() =>
              void attempt("It was not cancelled", () => cancelFineTune(run.name).then(() => {}))
            }
          >
            Cancel
          </button>
        )}
      </p>
      {curve.length > 0 && <Training points={curve} />}
    </div>
  );
}

function Run(props: { run: FineTuneRun; cache: string; onChanged: () => void }) {
  const { run, cache, onChanged } = props;
  // If nothing better came of it, the version is the one that it started from.
  const made = run.unchanged ? undefined : run.version;
  const record = made?.fineTune;
  const from = run.parent.split("/").pop() ?? "";
  return (
    <li>
      <p>
        Version {from} → {made ? `version ${made.version}` : (STATES[run.state] ?? "")}
        {record && record.accuracyAfter > 0 &&
          `: ${percent(record.accuracyBefore)} before, ${percent(record.accuracyAfter)} after`}
        {run.error && `: ${run.error.message}`} <small>{time(run.createTime)}</small>
      </p>
      {run.outcome && <p class="hint">{sentence(run.outcome)}</p>}
      <div class="actions">
        {made && (
          <a class="button" href={to("caches", cache, "compare", `${from}-${made.version}`)}>
            Compare {from} and {made.version}
          </a>
        )}
        {!ended(run) && mayWrite.value && (
          <button
            type="button"
            onClick={() =>
              void attempt("It was not cancelled", () =>
                cancelFineTune(run.name).then(onChanged),
              )
            }
          >
            Cancel
          </button>
        )}
      </div>
    </li>
  );
}
