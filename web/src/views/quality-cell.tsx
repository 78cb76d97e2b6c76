/** The pictures behind a cell of the confusion matrix. */

import { listExamples } from "../api/calls";
import type { Analysis, Version } from "../api/types";
import type { Chosen } from "../charts/confusion";
import { plural } from "../format";
import { Dialog } from "../ui/dialog";
import { Show, useLoaded } from "../ui/load";
import { KeptPicture } from "../ui/picture";
import { SuspectList } from "./quality-suspects";

/** Pictures that a cell shows, at most. */
const MOST = 200;

export function CellDialog(props: {
  version: Version;
  analysis: Analysis;
  cell: Chosen;
  onChanged: (made: Version) => void;
  onClose: () => void;
}) {
  const { version, analysis, cell, onChanged, onClose } = props;
  const { actual, taken } = cell;
  const name = (index: number) => analysis.classes[index]?.displayName ?? "";
  const count = Number(analysis.confusion[actual * analysis.classes.length + taken] ?? 0);
  const wrong = (analysis.misclassified ?? analysis.suspects).filter(
    (one) => one.classIndex === actual,
  );
  const title =
    actual === taken
      ? `${name(actual)}, recognised (${count})`
      : `${name(actual)}, taken for ${name(taken)} (${count})`;
  const here = wrong.filter((one) => one.suggested?.index === taken);
  return (
    <Dialog title={title} onClose={onClose} wide>
      {actual === taken ? (
        <Right version={version} index={actual} except={new Set(wrong.map((w) => w.exampleId))} />
      ) : (
        <>
          <SuspectList
            version={version}
            examples={here}
            onChanged={(made) => {
              onClose();
              onChanged(made);
            }}
          />
          {here.length < count && (
            <p class="hint">{plural(count - here.length, "more picture")} not listed.</p>
          )}
        </>
      )}
      <div class="actions end">
        <button type="button" onClick={onClose}>
          Close
        </button>
      </div>
    </Dialog>
  );
}

function Right(props: { version: Version; index: number; except: Set<string> }) {
  const { version, index, except } = props;
  const filter = `class_index = ${index} AND validation = false`;
  const examples = useLoaded(() => listExamples(version.name, filter, MOST), [version.name, index]);
  return (
    <Show of={examples}>
      {(all) => (
        <ul class="grid">
          {all
            .filter((one) => !except.has(one.exampleId))
            .slice(0, MOST)
            .map((one) => (
              <li key={one.exampleId}>
                <KeptPicture
                  version={version.name}
                  exampleId={one.exampleId}
                  alt={one.exampleId}
                />
              </li>
            ))}
        </ul>
      )}
    </Show>
  );
}
