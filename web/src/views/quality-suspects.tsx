/** Examples that are probably mislabelled, the most doubtful first, and those
 * that are there twice. */

import { useState } from "preact/hooks";

import type { Analysis, SuspectExample, Version } from "../api/types";
import { percent, plural } from "../format";
import { mayWrite } from "../session";
import { attempt, tell } from "../ui/notices";
import { KeptPicture } from "../ui/picture";
import { leaveOut, relabel } from "../workspace/correct";

/** Examples of each list that are shown before more are asked for. */
const SHOWN = 12;

interface Props {
  version: Version;
  analysis: Analysis;
  onChanged: (made: Version) => void;
}

export function Suspects(props: Props) {
  const { analysis } = props;
  const [shown, setShown] = useState(SHOWN);
  return (
    <>
      {analysis.suspects.length > 0 && (
        <section aria-labelledby="suspects">
          <h2 id="suspects">Probably mislabelled ({analysis.suspectCount})</h2>
          <SuspectList {...props} examples={analysis.suspects.slice(0, shown)} />
          {analysis.suspects.length > shown && (
            <button type="button" onClick={() => setShown(shown + 4 * SHOWN)}>
              Show more
            </button>
          )}
        </section>
      )}
      {analysis.duplicates.length > 0 && <Duplicates {...props} />}
    </>
  );
}

/** Doubtful examples with what can be done about each. */
export function SuspectList(props: {
  version: Version;
  examples: SuspectExample[];
  onChanged: (made: Version) => void;
}) {
  return (
    <ul class="suspects">
      {props.examples.map((one) => (
        <li key={one.exampleId}>
          <KeptPicture version={props.version.name} exampleId={one.exampleId} alt={one.exampleId} />
          <div>
            <p>
              Labelled <strong>{one.displayName}</strong> ({percent(one.probability)})
              {one.suggested && (
                <>
                  , looks like <strong>{one.suggested.displayName}</strong> (
                  {percent(one.suggested.probability)})
                </>
              )}
            </p>
            {mayWrite.value && <Repair {...props} example={one} />}
          </div>
        </li>
      ))}
    </ul>
  );
}

function Repair(props: {
  version: Version;
  example: SuspectExample;
  onChanged: (made: Version) => void;
}) {
  const { version, example, onChanged } = props;
  const [busy, setBusy] = useState(false);
  const suggested = example.suggested?.displayName;
  const run = (doing: string, step: () => Promise<Version>) => {
    setBusy(true);
    void attempt(doing, async () => {
      const made = await step();
      tell(`Version ${made.version} has learned it.`);
      onChanged(made);
    }).then(() => setBusy(false));
  };
  return (
    <div class="actions">
      {suggested !== undefined && (
        <button
          type="button"
          disabled={busy}
          onClick={() =>
            run("It was not changed", () => relabel(version, example.exampleId, suggested))
          }
        >
          It is {suggested}
        </button>
      )}
      <button
        type="button"
        class="plain"
        disabled={busy}
        onClick={() => run("It was not left out", () => leaveOut(version, example.exampleId))}
      >
        Leave it out
      </button>
    </div>
  );
}

function Duplicates(props: Props) {
  const { analysis, version } = props;
  return (
    <details>
      <summary>
        {plural(Number(analysis.duplicateCount), "pair")} of examples are the same or nearly
      </summary>
      <ul class="pairs">
        {analysis.duplicates.slice(0, 4 * SHOWN).map((pair) => (
          <li key={`${pair.exampleId} ${pair.otherExampleId}`}>
            <KeptPicture version={version.name} exampleId={pair.exampleId} alt={pair.exampleId} />
            <KeptPicture
              version={version.name}
              exampleId={pair.otherExampleId}
              alt={pair.otherExampleId}
            />
            <span>
              {pair.displayName}
              {pair.displayName !== pair.otherDisplayName && ` and ${pair.otherDisplayName}`}
            </span>
          </li>
        ))}
      </ul>
    </details>
  );
}
