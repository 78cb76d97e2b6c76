/** Trying: a picture in, classes out, with the examples that it resembles; what
 * is wrong is corrected at once. */

import { useEffect, useState } from "preact/hooks";

import { cacheId, classifyOrReject, getVersion, listCaches } from "../api/calls";
import type { Classification, Version } from "../api/types";
import { percent, plural } from "../format";
import { go, to } from "../router";
import { mayWrite } from "../session";
import { DropZone } from "../ui/drop";
import { Show, useLoaded } from "../ui/load";
import { attempt, tell } from "../ui/notices";
import { KeptPicture } from "../ui/picture";
import { teach } from "../workspace/correct";
import type { Found } from "../workspace/files";
import { base64, prepare } from "../workspace/shrink";
import { Camera } from "./camera";

/** Nearest examples that are shown. */
const NEIGHBOURS = 6;
/** Pictures that are tried at once, at most. */
const MOST = 24;

interface Tried {
  file: File;
  address: string | null;
  answer: Classification | null;
}

export function TryView(props: { reference: string | null }) {
  const caches = useLoaded(listCaches, []);
  const { reference } = props;
  return (
    <>
      <div class="title">
        <h1>Try</h1>
      </div>
      <Show of={caches}>
        {(all) => {
          const names = all.flatMap((cache) => [
            cacheId(cache.name),
            ...Object.keys(cache.aliases).map((alias) => `${cacheId(cache.name)}@${alias}`),
          ]);
          if (reference !== null && !names.includes(reference)) names.unshift(reference);
          const chosen = reference ?? names[0];
          if (chosen === undefined) {
            return (
              <p class="empty">
                There is no classifier yet. <a href={to("label")}>Make one</a>.
              </p>
            );
          }
          return (
            <>
              <label class="chosen">
                Classifier
                <select
                  value={chosen}
                  onChange={(event) => go("try", event.currentTarget.value)}
                >
                  {names.map((name) => (
                    <option key={name} value={name}>
                      {name}
                    </option>
                  ))}
                </select>
              </label>
              <Bench key={chosen} reference={chosen} />
            </>
          );
        }}
      </Show>
    </>
  );
}

function Bench(props: { reference: string }) {
  const [tried, setTried] = useState<Tried[]>([]);
  const [busy, setBusy] = useState(false);
  const run = (files: File[]) => {
    setBusy(true);
    void attempt("It cannot be classified", async () => {
      for (const file of files.slice(0, MOST)) {
        const one = await tryOne(props.reference, file);
        setTried((before) => [one, ...before].slice(0, MOST));
      }
    }).then(() => setBusy(false));
  };
  useEffect(() => {
    const paste = (event: ClipboardEvent) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length > 0) run(files);
    };
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, [props.reference]);
  const again = (one: Tried) =>
    tryOne(props.reference, one.file).then((fresh) =>
      setTried((before) => before.map((old) => (old === one ? fresh : old))),
    );
  return (
    <>
      <DropZone onFound={(found: Found[]) => run(found.map((one) => one.file))} folders={false}>
        Drop or paste a picture.
      </DropZone>
      <Camera onPicture={(file) => run([file])} />
      {busy && (
        <p class="busy" role="status">
          Looking…
        </p>
      )}
      <ul class="tried">
        {tried.map((one) => (
          <li key={one.address ?? one.file.name}>
            <Answer tried={one} onCorrected={() => again(one)} />
          </li>
        ))}
      </ul>
    </>
  );
}

async function tryOne(reference: string, file: File): Promise<Tried> {
  const { sent, thumbnail } = await prepare(file);
  const input = { encodedImage: await base64(sent) };
  const answer = await classifyOrReject(reference, input, { topK: 5, neighbours: NEIGHBOURS });
  return { file, address: thumbnail && URL.createObjectURL(thumbnail), answer };
}

function Answer(props: { tried: Tried; onCorrected: () => Promise<void> }) {
  const { tried } = props;
  const { answer } = tried;
  if (!answer) return null;
  const [best] = answer.top;
  const isUnknown = answer.accepted === false;
  return (
    <article class="answer">
      <figure>
        {tried.address ? (
          <img class="large" src={tried.address} alt={tried.file.name} />
        ) : (
          <span class="no-picture large">{tried.file.name}</span>
        )}
        <figcaption>{tried.file.name}</figcaption>
      </figure>
      <div>
        <h2>{isUnknown ? "None of these" : best?.displayName}</h2>
        {isUnknown && (
          <p class="hint">
            It is unlike the examples of every class. If it has to be one of them, these come nearest.
          </p>
        )}
        <ol class="scores">
          {answer.top.map((score) => (
            <li key={score.index}>
              <span>{score.displayName}</span>
              <meter min={0} max={1} value={score.probability} aria-label={score.displayName} />
              <span class="number">{percent(score.probability)}</span>
            </li>
          ))}
        </ol>
        {answer.neighbours.length > 0 && <Nearest answer={answer} />}
        <Correct tried={tried} answer={answer} onCorrected={props.onCorrected} />
      </div>
    </article>
  );
}

function Nearest(props: { answer: Classification }) {
  const { answer } = props;
  return (
    <>
      <h3>Nearest examples</h3>
      <ul class="nearest">
        {answer.neighbours.map((one) => (
          <li key={one.exampleId}>
            <KeptPicture version={answer.version} exampleId={one.exampleId} alt="" />
            <span>{one.displayName}</span>
          </li>
        ))}
      </ul>
    </>
  );
}

function Correct(props: {
  tried: Tried;
  answer: Classification;
  onCorrected: () => Promise<void>;
}) {
  const { tried, answer, onCorrected } = props;
  const version = useLoaded(() => getVersion(answer.version), [answer.version]);
  const [busy, setBusy] = useState(false);
  const [typed, setTyped] = useState("");
  if (!mayWrite.value || !version.value) return null;
  const known: Version = version.value;
  const question =
    answer.accepted === false ? "Say what it is" : "It is something else, or should be learned";
  const summary = busy ? "Learning…" : question;
  const correct = (label: string) => {
    setBusy(true);
    void attempt("It was not learned", async () => {
      const made = await teach(known, tried.file, label);
      tell(
        `Version ${made.version} knows it as ${label}: ${plural(Number(made.keyCount), "example")}.`,
      );
      await onCorrected();
    }).then(() => setBusy(false));
  };
  return (
    <details class="correct" open={answer.accepted === false}>
      <summary>{summary}</summary>
      <div class="choices">
        {known.classes.slice(0, 60).map((one) => (
          <button
            key={one.index}
            type="button"
            disabled={busy}
            onClick={() => correct(one.displayName)}
          >
            {one.displayName}
          </button>
        ))}
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
    </details>
  );
}
