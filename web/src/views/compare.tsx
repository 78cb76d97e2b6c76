/** Two versions on the same pictures, side by side. */

import { useEffect, useRef, useState } from "preact/hooks";

import { cacheId, getVersion, listVersions } from "../api/calls";
import type { Cache, Evaluation, Version } from "../api/types";
import { percent, plural } from "../format";
import { go, route } from "../router";
import { mayWrite } from "../session";
import { DropZone } from "../ui/drop";
import { Show, useLoaded } from "../ui/load";
import { attempt } from "../ui/notices";
import { type Compared, type Pair, type Refused, compare, verdict } from "../workspace/compare";
import type { Found } from "../workspace/files";
import { moveAlias } from "./versions";

/** Pictures compared at once, at most. */
const MOST = 300;

export function CompareView(props: { cache: Cache; onChanged: () => void }) {
  const { cache } = props;
  const id = cacheId(cache.name);
  const versions = useLoaded(() => listVersions(id), [id, cache.etag]);
  const [first, second] = (route.value[3] ?? "").split("-");
  return (
    <Show of={versions}>
      {(all) => {
        const newest = all[0]?.version ?? "1";
        const aliased = Object.values(cache.aliases).find((version) => version !== newest);
        const left = first || aliased || all[1]?.version || newest;
        const right = second || newest;
        const choose = (a: string, b: string) => go("caches", id, "compare", `${a}-${b}`);
        return (
          <>
            <div class="pair">
              <Choice label="Version" all={all} value={left} onChange={(v) => choose(v, right)} />
              <Choice label="with version" all={all} value={right} onChange={(v) => choose(left, v)} />
            </div>
            <Loaded key={`${left}-${right}`} id={id} versions={[left, right]} />
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

/** Both versions with all their classes, which a list of versions may leave out. */
function Loaded(props: { id: string; versions: [string, string] }) {
  const [a, b] = props.versions.map((version) => `${props.id}@${version}`) as [string, string];
  const pair = useLoaded(() => Promise.all([getVersion(a), getVersion(b)]), [a, b]);
  return <Show of={pair}>{(both) => <SideBySide pair={both} />}</Show>;
}

function SideBySide(props: { pair: Pair }) {
  const { pair } = props;
  const [compared, setCompared] = useState<Compared[]>([]);
  const [refused, setRefused] = useState<Refused[]>([]);
  const [evaluations, setEvaluations] = useState<Evaluation[]>([]);
  const [left, setLeft] = useState(0);
  const shown = useRef<Compared[]>([]);
  useEffect(
    () => () => {
      for (const one of shown.current) if (one.address) URL.revokeObjectURL(one.address);
    },
    [],
  );
  const take = (found: Found[]) => {
    const files = found.slice(0, MOST);
    setLeft(files.length);
    setEvaluations([]);
    const next = () => setLeft((before) => before - 1);
    const listener = {
      compared: (one: Compared) => {
        shown.current.push(one);
        setCompared((before) => [...before, one]);
        next();
      },
      refused: (one: Refused) => {
        setRefused((before) => [...before, one]);
        next();
      },
    };
    void attempt("They cannot be compared", async () => {
      setEvaluations(await compare(pair, files, listener));
    }).then(() => setLeft(0));
  };
  const differ = compared.filter((one) => best(pair, one, 0) !== best(pair, one, 1));
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
      {refused.length > 0 && (
        <details class="rejected">
          <summary>{plural(refused.length, "file")} cannot be used</summary>
          <ul>
            {refused.map((one) => (
              <li key={one.path}>
                <strong>{one.path}</strong>: {one.reason}
              </li>
            ))}
          </ul>
        </details>
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
            {one.address ? (
              <img src={one.address} alt={one.path} />
            ) : (
              <span class="no-picture">{one.path}</span>
            )}
            {pair.map((version, side) => (
              <p key={side}>
                {version.version}: <strong>{best(pair, one, side as 0 | 1)}</strong>{" "}
                {!version.multiLabel && percent(one.answers[side]?.top[0]?.probability ?? 0)}
                {one.label !== null && (best(pair, one, side as 0 | 1) === one.label ? " ✓" : " ✗")}
              </p>
            ))}
          </li>
        ))}
      </ul>
    </>
  );
}

function best(pair: Pair, one: Compared, side: 0 | 1): string {
  return verdict(pair[side], one.answers[side]);
}

function Scores(props: { evaluations: Evaluation[]; pair: Pair }) {
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
                Version {version.version}
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
