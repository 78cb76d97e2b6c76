/** Two versions on the same pictures, side by side. */

import { useEffect, useState } from "preact/hooks";

import { cacheId, classify, evaluate, getVersion, listVersions } from "../api/calls";
import type { Cache, Classification, Evaluation, Version } from "../api/types";
import { percent, plural } from "../format";
import { go, route } from "../router";
import { mayWrite } from "../session";
import { DropZone } from "../ui/drop";
import { Show, useLoaded } from "../ui/load";
import { attempt } from "../ui/notices";
import type { Found } from "../workspace/files";
import { base64, prepare } from "../workspace/shrink";
import { moveAlias } from "./versions";

/** Pictures compared at once, at most. */
const MOST = 300;

interface Compared {
  path: string;
  address: string | null;
  label: string | null;
  answers: [Classification, Classification];
}

export function CompareView(props: { cache: Cache; onChanged: () => void }) {
  const { cache } = props;
  const id = cacheId(cache.name);
  const versions = useLoaded(() => listVersions(id), [id, cache.etag]);
  const [first, second] = (route.value[3] ?? "").split("-");
  return (
    <Show of={versions}>
      {(all) => {
        const newest = all[0]?.version ?? "1";
        const left = first || Object.values(cache.aliases)[0] || all[1]?.version || newest;
        const right = second || newest;
        const choose = (a: string, b: string) => go("caches", id, "compare", `${a}-${b}`);
        return (
          <>
            <div class="pair">
              <Choice label="Version" all={all} value={left} onChange={(v) => choose(v, right)} />
              <Choice label="with version" all={all} value={right} onChange={(v) => choose(left, v)} />
            </div>
            <SideBySide key={`${left}-${right}`} id={id} pair={[left, right]} />
            {mayWrite.value &&
              Object.entries(cache.aliases)
                .filter(([, at]) => at !== right)
                .map(([alias]) => (
                  <p key={alias}>
                    <button
                      type="button"
                      class="primary"
                      onClick={() =>
                        void moveAlias(cache, alias, right, "Move").then(props.onChanged)
                      }
                    >
                      Move {alias} to version {right}
                    </button>
                  </p>
                ))}
          </>
        );
      }}
    </Show>
  );
}

function Choice(props: {
  label: string;
  all: Version[];
  value: string;
  onChange: (version: string) => void;
}) {
  return (
    <label>
      {props.label}
      <select value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        {props.all.map((one) => (
          <option key={one.version} value={one.version}>
            {one.version}
          </option>
        ))}
      </select>
    </label>
  );
}

function SideBySide(props: { id: string; pair: [string, string] }) {
  const { id, pair } = props;
  const names = pair.map((version) => `${id}@${version}`) as [string, string];
  const [compared, setCompared] = useState<Compared[]>([]);
  const [evaluations, setEvaluations] = useState<Evaluation[]>([]);
  const [left, setLeft] = useState(0);
  useEffect(
    () => () => {
      for (const one of compared) if (one.address) URL.revokeObjectURL(one.address);
    },
    [],
  );
  const take = (found: Found[]) => {
    const files = found.slice(0, MOST);
    setLeft(files.length);
    void attempt("They cannot be compared", async () => {
      const version = await getVersion(names[0]);
      setEvaluations(await judged(names, version, files));
      for (const one of files) {
        const both = await answersOf(names, one);
        setCompared((before) => [...before, both]);
        setLeft((before) => before - 1);
      }
    }).then(() => setLeft(0));
  };
  const differ = compared.filter((one) => best(one, 0) !== best(one, 1));
  return (
    <>
      <DropZone onFound={take} folders>
        Drop pictures that neither version has learned from; in folders named like the classes, to see
        which of the two is right.
      </DropZone>
      {left > 0 && (
        <p class="busy" role="status">
          {plural(left, "picture")} to go…
        </p>
      )}
      {evaluations.length === 2 && <Scores evaluations={evaluations} pair={pair} />}
      {compared.length > 0 && (
        <p class="facts">
          The versions differ on {differ.length} of {plural(compared.length, "picture")}.
        </p>
      )}
      <ul class="compared">
        {[...differ, ...compared.filter((one) => !differ.includes(one))].map((one) => (
          <li key={one.path} class={differ.includes(one) ? "differs" : ""}>
            {one.address ? <img src={one.address} alt={one.path} /> : <span class="no-picture">{one.path}</span>}
            {pair.map((version, side) => (
              <p key={version}>
                {version}: <strong>{best(one, side)}</strong>{" "}
                {percent(one.answers[side]?.top[0]?.probability ?? 0)}
                {one.label !== null && (best(one, side) === one.label ? " ✓" : " ✗")}
              </p>
            ))}
          </li>
        ))}
      </ul>
    </>
  );
}

function best(one: Compared, side: number): string {
  return one.answers[side]?.top[0]?.displayName ?? "";
}

/** How well both do on those pictures whose folder names a class. */
async function judged(
  names: [string, string],
  version: Version,
  files: Found[],
): Promise<Evaluation[]> {
  const index = new Map(version.classes.map((one) => [one.displayName, one.index]));
  const items = [];
  for (const { path, file, label } of files) {
    const classIndex = index.get(label ?? "");
    if (classIndex === undefined) continue;
    const { sent } = await prepare(file);
    items.push({ id: path, classIndex, input: { encodedImage: await base64(sent) } });
  }
  return items.length > 0 ? evaluate(names, items) : [];
}

async function answersOf(names: [string, string], found: Found): Promise<Compared> {
  const { sent, thumbnail } = await prepare(found.file);
  const input = { encodedImage: await base64(sent) };
  const [a, b] = names;
  const answers: [Classification, Classification] = await Promise.all([
    classify(a, input, { topK: 1 }),
    classify(b, input, { topK: 1 }),
  ]);
  const address = thumbnail && URL.createObjectURL(thumbnail);
  return { path: found.path, address, label: found.label, answers };
}

function Scores(props: { evaluations: Evaluation[]; pair: [string, string] }) {
  const [a, b] = props.evaluations;
  if (!a || !b) return null;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Scores">
      <table>
        <thead>
          <tr>
            <th scope="col">On {plural(Number(a.count), "labelled picture")}</th>
            {props.pair.map((version, side) => (
              <th key={side} scope="col" class="number">
                Version {version}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">Right</th>
            <td class="number">{percent(a.top1)}</td>
            <td class="number">{percent(b.top1)}</td>
          </tr>
          {a.classes
            .filter((one) => Number(one.count) > 0)
            .map((one) => (
              <tr key={one.index}>
                <th scope="row">{one.displayName}</th>
                <td class="number">{percent(one.accuracy)}</td>
                <td class="number">{percent(b.classes[one.index]?.accuracy ?? 0)}</td>
              </tr>
            ))}
        </tbody>
      </table>
    </div>
  );
}
