/** Trying: a picture in, classes out, with the examples that it resembles; what
 * is wrong is corrected at once. */

import { useEffect, useState } from "preact/hooks";

import { COVERAGE, cacheId, classifyOrReject, getVersion, listCaches } from "../api/calls";
import type { Classification, Neighbour, Version } from "../api/types";
import { percent } from "../format";
import { go, to } from "../router";
import { mayWrite } from "../session";
import { DropZone } from "../ui/drop";
import { Show, useLoaded } from "../ui/load";
import { attempt } from "../ui/notices";
import { KeptPicture } from "../ui/picture";
import type { Found } from "../workspace/files";
import { base64, prepare } from "../workspace/shrink";
import { Camera } from "./camera";
import { Correct } from "./try-correct";

/** Nearest examples that are shown. */
const NEIGHBOURS = 6;
/** Pictures that are tried at once, at most. */
const MOST = 24;

export interface Tried {
  file: File;
  thumbnail: Blob | null;
  address: string | null;
  answer: Classification;
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
  const options = { topK: 5, neighbours: NEIGHBOURS, embedding: true };
  const answer = await classifyOrReject(reference, input, options);
  return { file, thumbnail, address: thumbnail && URL.createObjectURL(thumbnail), answer };
}

function Answer(props: { tried: Tried; onCorrected: () => Promise<void> }) {
  const { tried } = props;
  const { answer } = tried;
  const loaded = useLoaded(() => getVersion(answer.version), [answer.version]);
  const version = loaded.value;
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
      {version ? (
        <div>
          <Verdict answer={answer} version={version} />
          {answer.neighbours.length > 0 && <Nearest answer={answer} version={version} />}
          {mayWrite.value && <Correct tried={tried} version={version} onCorrected={props.onCorrected} />}
        </div>
      ) : (
        <Show of={loaded}>{() => null}</Show>
      )}
    </article>
  );
}

/** What it is taken for: its class, all its classes, or none. */
function Verdict(props: { answer: Classification; version: Version }) {
  const { answer, version } = props;
  const several = version.multiLabel;
  const isUnknown = several ? answer.labels.length === 0 : answer.accepted === false;
  const named = several ? answer.labels : answer.top.slice(0, 1);
  const carried = new Set(answer.labels.map((one) => one.index));
  // Labels beyond the best few are shown, too.
  const rest = answer.labels.filter((one) => !answer.top.some((best) => best.index === one.index));
  return (
    <>
      <h2>{isUnknown ? "None of these" : named.map((one) => one.displayName).join(", ")}</h2>
      {isUnknown && !several && (
        <p class="hint">
          It is unlike the examples of every class. If it has to be one of them, these come nearest.
        </p>
      )}
      {answer.predictionSet.length > 1 && !isUnknown && (
        <p class="hint">
          It is one of {answer.predictionSet.map((one) => one.displayName).join(", ")}: that holds for{" "}
          {percent(COVERAGE)} of pictures.
        </p>
      )}
      <ol class="scores">
        {[...answer.top, ...rest].map((score) => (
          <li key={score.index}>
            <span>
              {score.displayName}
              {carried.has(score.index) && " ✓"}
            </span>
            <meter min={0} max={1} value={score.probability} aria-label={score.displayName} />
            <span class="number">{percent(score.probability)}</span>
          </li>
        ))}
      </ol>
    </>
  );
}

function Nearest(props: { answer: Classification; version: Version }) {
  const { answer, version } = props;
  const names = (one: Neighbour) =>
    version.multiLabel
      ? one.classIndices.map((index) => version.classes[index]?.displayName).join(", ") || "none"
      : one.displayName;
  return (
    <>
      <h3>Nearest examples</h3>
      <ul class="nearest">
        {answer.neighbours.map((one) => (
          <li key={one.exampleId}>
            <KeptPicture version={answer.version} exampleId={one.exampleId} alt="" />
            <span>{names(one)}</span>
          </li>
        ))}
      </ul>
    </>
  );
}
