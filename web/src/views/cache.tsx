/** One classifier: its versions and what can be done with them. */

import { useEffect } from "preact/hooks";

import { getCache } from "../api/calls";
import type { Cache } from "../api/types";
import { route, to } from "../router";
import { mayWrite } from "../session";
import { type Loaded, Show, useLoaded } from "../ui/load";
import { CompareView } from "./compare";
import { QualityView } from "./quality";
import { TuneView } from "./tune";
import { VersionsView } from "./versions";

const TABS = [
  ["versions", "Versions"],
  ["quality", "How good is it?"],
  ["compare", "Compare"],
  ["tune", "Fine-tune"],
] as const;

export function CacheView(props: { cache: string }) {
  const loaded = useLoaded(() => getCache(props.cache), [props.cache]);
  const [, , tab = "versions", version] = route.value;
  // What was done in one tab, or by others meanwhile, is seen in the next.
  useEffect(loaded.reload, [tab]);
  return (
    <>
      <div class="title">
        <h1>{props.cache}</h1>
        <div class="actions">
          <a class="button" href={to("try", props.cache)}>
            Try
          </a>
          {mayWrite.value && (
            <a class="button primary" href={to("label", props.cache)}>
              Add pictures
            </a>
          )}
        </div>
      </div>
      <nav class="tabs" aria-label={`Views of ${props.cache}`}>
        {TABS.map(([id, label]) => (
          <a
            key={id}
            href={to("caches", props.cache, id)}
            aria-current={tab === id ? "page" : undefined}
          >
            {label}
          </a>
        ))}
      </nav>
      <Show of={loaded}>
        {(cache) => <Tab tab={tab} cache={cache} loaded={loaded} version={version} />}
      </Show>
    </>
  );
}

function Tab(props: {
  tab: string;
  cache: Cache;
  loaded: Loaded<Cache>;
  version: string | undefined;
}) {
  const { tab, cache, loaded, version } = props;
  if (tab === "quality") return <QualityView cache={cache} version={version ?? null} />;
  if (tab === "compare") return <CompareView cache={cache} onChanged={loaded.reload} />;
  if (tab === "tune") return <TuneView cache={cache} onChanged={loaded.reload} />;
  return <VersionsView cache={cache} onChanged={loaded.reload} />;
}
