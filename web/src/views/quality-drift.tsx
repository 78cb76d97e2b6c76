/** Whether what a version is asked is like its examples. */

import { drift } from "../api/calls";
import type { Drift, Version } from "../api/types";
import { count, percent, time } from "../format";
import { Show, useLoaded } from "../ui/load";

/** Classes that are named. */
const SHOWN = 8;

export function DriftSection(props: { version: Version }) {
  const { name } = props.version;
  const loaded = useLoaded(() => drift(name), [name]);
  return (
    <section aria-labelledby="drift">
      <h2 id="drift">Is it asked what it knows?</h2>
      <Show of={loaded}>{(found) => <Traffic drift={found} />}</Show>
    </section>
  );
}

function Traffic(props: { drift: Drift }) {
  const { drift } = props;
  const recognised = Number(drift.recognisedCount);
  const asked = Number(drift.itemCount);
  return (
    <>
      <p>{drift.summary}</p>
      {asked > 0 && (
        <p class="facts">
          {count(asked)} pictures since {time(drift.since)}
          {recognised > 0 && `; ${percent(drift.rejectedShare)} of ${count(recognised)} were none of its classes`}
          .
        </p>
      )}
      {asked > 0 && drift.classes.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label="Classes asked for">
          <table>
            <thead>
              <tr>
                <th scope="col">Class</th>
                <th scope="col" class="number">
                  Of the examples
                </th>
                <th scope="col" class="number">
                  Of what it is asked
                </th>
              </tr>
            </thead>
            <tbody>
              {drift.classes.slice(0, SHOWN).map((one) => (
                <tr key={one.index}>
                  <th scope="row">{one.displayName}</th>
                  <td class="number">{percent(one.expectedShare)}</td>
                  <td class="number">{percent(one.share)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}
