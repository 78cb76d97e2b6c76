/** How good a version is, by its own examples, and what would help most. */

import { useState } from "preact/hooks";

import { analyze, cacheId, getVersion } from "../api/calls";
import type { Analysis, Cache, ClassAnalysis, Version } from "../api/types";
import { type Chosen, Confusion, MOST_CLASSES } from "../charts/confusion";
import { Curve } from "../charts/curve";
import { Reliability } from "../charts/reliability";
import { count, percent, plural } from "../format";
import { go } from "../router";
import { Show, useLoaded } from "../ui/load";
import { CellDialog } from "./quality-cell";
import { DriftSection } from "./quality-drift";
import { Suspects } from "./quality-suspects";

export function QualityView(props: { cache: Cache; version: string | null }) {
  const id = cacheId(props.cache.name);
  const reference = props.version === null ? id : `${id}@${props.version}`;
  const loaded = useLoaded(async () => {
    const version = await getVersion(reference);
    return { version, analysis: await analyze(version.name) };
  }, [reference, props.cache.etag]);
  return (
    <Show of={loaded}>
      {({ version, analysis }) => (
        <>
          <Judged version={version} analysis={analysis} />
          <DriftSection version={version} />
        </>
      )}
    </Show>
  );
}

function Judged(props: { version: Version; analysis: Analysis }) {
  const { version, analysis } = props;
  const [cell, setCell] = useState<Chosen | null>(null);
  const changed = (made: Version) =>
    go("caches", cacheId(made.name), "quality", made.version);
  const scored = Number(analysis.scoredCount);
  return (
    <>
      <p class="advice">{analysis.advice}</p>
      <p class="facts">
        Version {version.version}: {plural(Number(analysis.exampleCount), "example")}
        {scored > 0 &&
          `, of which ${count(scored)} were each left out and classified by the others: ${percent(analysis.accuracy)} rightly (± ${percent(analysis.accuracyError)}).`}
      </p>
      {analysis.skipped.map((text) => (
        <p key={text} class="hint">
          {text}
        </p>
      ))}
      <div class="columns">
        {analysis.curve.length > 1 && (
          <section aria-labelledby="curve">
            <h2 id="curve">Is it enough?</h2>
            <Curve points={analysis.curve} forecast={analysis.forecast ?? null} />
          </section>
        )}
        {analysis.reliability.length > 0 && (
          <section aria-labelledby="reliability">
            <h2 id="reliability">Can its probabilities be trusted?</h2>
            <Reliability bins={analysis.reliability} />
          </section>
        )}
      </div>
      <section aria-labelledby="classes">
        <h2 id="classes">Each class</h2>
        <ClassTable analysis={analysis} />
      </section>
      {analysis.confusion.length > 0 && scored > 0 && (
        <section aria-labelledby="confusion">
          <h2 id="confusion">What is taken for what</h2>
          {analysis.classes.length <= MOST_CLASSES ? (
            <Confusion
              classes={analysis.classes}
              counts={analysis.confusion.map(Number)}
              onChoose={setCell}
            />
          ) : (
            <p class="hint">
              With {analysis.classes.length} classes a table could not be read; the doubtful pictures
              are below.
            </p>
          )}
        </section>
      )}
      <Suspects version={version} analysis={analysis} onChanged={changed} />
      {cell !== null && (
        <CellDialog
          version={version}
          analysis={analysis}
          cell={cell}
          onChanged={changed}
          onClose={() => setCell(null)}
        />
      )}
    </>
  );
}

/** What more examples of a class would add to its accuracy. */
function Gain(props: { value: number; isMost: boolean }) {
  if (props.value <= 0) return <>–</>;
  const text = `+${percent(props.value)}`;
  return props.isMost ? <strong title="More of these would help most">{text}</strong> : <>{text}</>;
}

/** The probability from which on answers are right 95 times in 100. */
function sureFrom(one: ClassAnalysis): string {
  const threshold = one.precisionThreshold?.threshold;
  if (threshold === undefined) return "–";
  return threshold > 1 ? "never" : percent(threshold);
}

function ClassTable(props: { analysis: Analysis }) {
  const { classes } = props.analysis;
  const most = Math.max(...classes.map((one) => one.expectedGain), 0);
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Classes">
      <table>
        <thead>
          <tr>
            <th scope="col">Class</th>
            <th scope="col" class="number">
              Examples
            </th>
            <th scope="col" class="number">
              Recognised
            </th>
            <th scope="col" class="number">
              Right when named
            </th>
            <th scope="col" class="number">
              Right 95% from
            </th>
            <th scope="col" class="number">
              Gain by more examples
            </th>
          </tr>
        </thead>
        <tbody>
          {classes.map((one) => (
            <tr key={one.index}>
              <th scope="row">{one.displayName}</th>
              <td class="number">{one.exampleCount}</td>
              <td class="number">{one.scoredCount > 0 ? percent(one.accuracy) : "–"}</td>
              <td class="number">{one.scoredCount > 0 ? percent(one.precision) : "–"}</td>
              <td class="number">{sureFrom(one)}</td>
              <td class="number">
                <Gain value={one.expectedGain} isMost={one.expectedGain === most} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
