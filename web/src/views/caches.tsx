/** All classifiers, each with a picture of every class. */

import { useState } from "preact/hooks";

import { cacheId, listCaches, listExamples } from "../api/calls";
import type { Cache, Version } from "../api/types";
import { count, plural, time } from "../format";
import { to } from "../router";
import { mayWrite } from "../session";
import { Show, useLoaded } from "../ui/load";
import { KeptPicture } from "../ui/picture";

/** Classes that a card shows. */
const SHOWN = 8;

export function CachesView() {
  const [filter, setFilter] = useState("");
  const caches = useLoaded(listCaches, []);
  return (
    <>
      <div class="title">
        <h1>Classifiers</h1>
        {mayWrite.value && (
          <a class="button primary" href={to("label")}>
            Make a classifier
          </a>
        )}
      </div>
      <Show of={caches}>
        {(all) => (
          <>
            {all.length > 6 && (
              <label class="search">
                Find
                <input
                  type="search"
                  value={filter}
                  onInput={(event) => setFilter(event.currentTarget.value)}
                />
              </label>
            )}
            {all.length === 0 && <Empty />}
            <ul class="cards">
              {all
                .filter((cache) => cache.name.includes(filter.trim()))
                .map((cache) => (
                  <Card key={cache.name} cache={cache} />
                ))}
            </ul>
          </>
        )}
      </Show>
    </>
  );
}

function Empty() {
  return (
    <div class="empty">
      <p>There are no classifiers yet.</p>
      {mayWrite.value && (
        <p>
          A few pictures of each class are enough for a first one:{" "}
          <a href={to("label")}>make one</a>.
        </p>
      )}
    </div>
  );
}

function Card(props: { cache: Cache }) {
  const { cache } = props;
  const id = cacheId(cache.name);
  const latest = cache.latest;
  const aliases = Object.entries(cache.aliases);
  return (
    <li class="card">
      <h2>
        <a href={to("caches", id)}>{id}</a>
      </h2>
      {latest && <Faces version={latest} />}
      <p class="facts">
        {latest && `${plural(latest.classCount, "class", "classes")}, `}
        {latest && `${count(latest.keyCount)} examples, `}
        {plural(cache.versionCount, "version")}
      </p>
      <p class="facts">
        {aliases.map(([alias, version]) => (
          <span key={alias} class="tag">
            {alias} → {version}
          </span>
        ))}{" "}
        {time(latest?.createTime)}
      </p>
    </li>
  );
}

/** A picture of each class, where the version keeps any. */
function Faces(props: { version: Version }) {
  const { version } = props;
  const shown = version.classes.slice(0, SHOWN);
  const pictured = Number(version.pictureCount) > 0;
  const first = useLoaded(async () => {
    if (!pictured) return new Map<number, string>();
    const found = new Map<number, string>();
    for (const example of await listExamples(version.name, "", 1000)) {
      if (!example.hasPicture || example.unknown) continue;
      const carried = version.multiLabel ? example.classIndices : [example.classIndex];
      for (const index of carried) {
        if (!found.has(index)) found.set(index, example.exampleId);
      }
    }
    return found;
  }, [version.name]);
  return (
    <ul class="faces" aria-label="Classes">
      {shown.map((one) => {
        const example = first.value?.get(one.index);
        return (
          <li key={one.index}>
            {example !== undefined && (
              <KeptPicture version={version.name} exampleId={example} alt="" />
            )}
            <span>{one.displayName}</span>
          </li>
        );
      })}
      {version.classCount > shown.length && <li>and {version.classCount - shown.length} more</li>}
    </ul>
  );
}
