/** Versions of a classifier and the aliases that point at them. */

import { useState } from "preact/hooks";

import { cacheId, deleteAlias, deleteCache, deleteVersion, listVersions, setAlias } from "../api/calls";
import type { Cache, Version } from "../api/types";
import { bytes, count, method, percent, plural, time } from "../format";
import { go, to } from "../router";
import { mayDelete, mayWrite } from "../session";
import { confirm } from "../ui/dialog";
import { Show, useLoaded } from "../ui/load";
import { attempt, tell } from "../ui/notices";

export function VersionsView(props: { cache: Cache; onChanged: () => void }) {
  const { cache, onChanged } = props;
  const versions = useLoaded(() => listVersions(cacheId(cache.name)), [cache.name, cache.etag]);
  return (
    <Show of={versions}>
      {(all) => (
        <>
          <Aliases cache={cache} versions={all} onChanged={onChanged} />
          <h2>Versions</h2>
          <ol class="versions">
            {all.map((version) => (
              <Row key={version.name} cache={cache} version={version} onChanged={onChanged} />
            ))}
          </ol>
          {mayDelete.value && <DeleteCache cache={cache} />}
        </>
      )}
    </Show>
  );
}

function Aliases(props: { cache: Cache; versions: Version[]; onChanged: () => void }) {
  const { cache, versions, onChanged } = props;
  const aliases = Object.entries(cache.aliases).sort();
  return (
    <section aria-labelledby="aliases">
      <h2 id="aliases">Aliases</h2>
      {aliases.length === 0 && (
        <p class="hint">
          Programs that ask for an alias, such as {cacheId(cache.name)}@stable, get the version that
          it points at. None has been made yet.
        </p>
      )}
      <ul class="aliases">
        {aliases.map(([alias, number]) => (
          <li key={alias}>
            <strong>{alias}</strong> → version {number}
            {mayWrite.value && (
              <AliasActions
                cache={cache}
                alias={alias}
                number={number}
                versions={versions}
                onChanged={onChanged}
              />
            )}
          </li>
        ))}
      </ul>
      {mayWrite.value && <NewAlias cache={cache} onChanged={onChanged} />}
    </section>
  );
}

/** Asks, and points an alias at a version. The cache is to be loaded again
 * afterwards, above all where somebody else changed it meanwhile. */
export async function moveAlias(
  cache: Cache,
  alias: string,
  to: string,
  action: string,
): Promise<void> {
  const from = cache.aliases[alias];
  const text =
    from === undefined
      ? `“${alias}” will point at version ${to}.`
      : `“${alias}” points at version ${from} now. Every program that asks for it will be answered by version ${to} from then on.`;
  if (!(await confirm(`${action}: ${alias}`, text, action))) return;
  await attempt("The alias was not moved", async () => {
    await setAlias(cache, alias, to);
    tell(`${alias} points at version ${to}.`);
  });
}

function AliasActions(props: {
  cache: Cache;
  alias: string;
  number: string;
  versions: Version[];
  onChanged: () => void;
}) {
  const { cache, alias, number, versions, onChanged } = props;
  const older = versions.find((version) => Number(version.version) < Number(number));
  const remove = async () => {
    const text = `Programs that ask for “${alias}” will be refused. Version ${number} stays.`;
    if (!(await confirm(`Remove ${alias}`, text, "Remove", true))) return;
    if (await attempt("The alias was not removed", () => deleteAlias(cache, alias).then(() => {}))) {
      onChanged();
    }
  };
  return (
    <span class="actions">
      {older && (
        <button
          type="button"
          onClick={() =>
            void moveAlias(cache, alias, older.version, "Roll back").then(onChanged)
          }
        >
          Roll back to {older.version}
        </button>
      )}
      <button type="button" class="plain" onClick={() => void remove()}>
        Remove
      </button>
    </span>
  );
}

function NewAlias(props: { cache: Cache; onChanged: () => void }) {
  const { cache, onChanged } = props;
  const [alias, setAliasName] = useState("stable");
  const latest = cache.latest?.version;
  if (latest === undefined) return null;
  const isThere = cache.aliases[alias.trim()] === latest;
  const submit = async (event: Event) => {
    event.preventDefault();
    await moveAlias(cache, alias.trim(), latest, "Set alias");
    onChanged();
  };
  return (
    <form class="inline" onSubmit={submit}>
      <label>
        Alias
        <input
          value={alias}
          required
          pattern="[a-z][a-z0-9_\-]{0,62}"
          title="Lower-case letters, digits, - and _"
          onInput={(event) => setAliasName(event.currentTarget.value)}
        />
      </label>
      <button type="submit" disabled={isThere}>
        {isThere ? `It points at version ${latest}` : `Point it at version ${latest}`}
      </button>
    </form>
  );
}

/** The score by which a version's numbers were chosen. */
export function score(version: Version): string {
  if (version.fineTune) {
    const { accuracyBefore, accuracyAfter } = version.fineTune;
    return accuracyAfter > 0
      ? `${percent(accuracyAfter)} (${percent(accuracyBefore)} before training)`
      : "";
  }
  const selection = version.head?.selection;
  const best = selection?.candidates[0];
  if (!selection || !best || Number(selection.exampleCount) === 0) return "";
  const how =
    selection.source === "SELECTION_SOURCE_VALIDATION" ? "on validation pictures" : "leave-one-out";
  return `${percent(best.accuracy)} ${how}`;
}

function holds(version: Version): string {
  const none = Number(version.unknownCount);
  const unlabelled = Number(version.head?.unlabelled?.count ?? 0);
  return [
    `${count(version.keyCount)} examples`,
    ...(none > 0 ? [`${count(none)} of none of its classes`] : []),
    ...(unlabelled > 0 ? [`${count(unlabelled)} without a class`] : []),
    bytes(version.sizeBytes),
  ].join(", ");
}

function Row(props: { cache: Cache; version: Version; onChanged: () => void }) {
  const { cache, version, onChanged } = props;
  const number = version.version;
  const names = Object.entries(cache.aliases).filter(([, at]) => at === number);
  const others = Object.keys(cache.aliases).filter((alias) => cache.aliases[alias] !== number);
  const facts: [string, string][] = [
    ["Made", `${time(version.createTime)}${version.createdBy ? ` by ${version.createdBy}` : ""}`],
    ["From", version.parent ? `version ${version.parent.split("/").pop()}` : "examples alone"],
    ["Method", method(version.head?.method)],
    ["Score", score(version)],
    ["Holds", holds(version)],
    ["Answers", version.multiLabel ? "any number of classes for a picture" : ""],
  ];
  const remove = async () => {
    const text = `Version ${number} is deleted for good.`;
    if (!(await confirm(`Delete version ${number}`, text, "Delete", true))) return;
    const done = attempt("It was not deleted", () => deleteVersion(version.name).then(() => {}));
    if (await done) onChanged();
  };
  return (
    <li class="version">
      <h3>
        Version {number}{" "}
        {names.map(([alias]) => (
          <span key={alias} class="tag">
            {alias}
          </span>
        ))}
      </h3>
      {version.description && <p>{version.description}</p>}
      <dl>
        {facts
          .filter(([, value]) => value !== "")
          .map(([label, value]) => (
            <div key={label}>
              <dt>{label}</dt>
              <dd>{value}</dd>
            </div>
          ))}
      </dl>
      <div class="actions">
        <a class="button" href={to("caches", cacheId(cache.name), "quality", number)}>
          How good is it?
        </a>
        <a class="button" href={to("try", `${cacheId(cache.name)}@${number}`)}>
          Try
        </a>
        {mayWrite.value &&
          others.map((alias) => (
            <button
              key={alias}
              type="button"
              onClick={() =>
                void moveAlias(cache, alias, number, "Move").then(onChanged)
              }
            >
              Move {alias} here
            </button>
          ))}
        {mayDelete.value && names.length === 0 && cache.versionCount > 1 && (
          <button type="button" class="plain" onClick={() => void remove()}>
            Delete
          </button>
        )}
      </div>
    </li>
  );
}

function DeleteCache(props: { cache: Cache }) {
  const { cache } = props;
  const id = cacheId(cache.name);
  const remove = async () => {
    const text = `${id} with its ${plural(cache.versionCount, "version")}, aliases and kept pictures is deleted for good.`;
    if (!(await confirm(`Delete ${id}`, text, "Delete everything", true))) return;
    if (await attempt("It was not deleted", () => deleteCache(cache).then(() => {}))) go("caches");
  };
  return (
    <p class="apart">
      <button type="button" class="danger" onClick={() => void remove()}>
        Delete this classifier
      </button>
    </p>
  );
}
