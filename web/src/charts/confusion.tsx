/** The confusion matrix as a heat map: a table, whose cells open the pictures. */

import type { ClassAnalysis } from "../api/types";

/** Most classes for which a table can be read. */
export const MOST_CLASSES = 40;

export interface Chosen {
  actual: number;
  taken: number;
}

export function Confusion(props: {
  classes: ClassAnalysis[];
  counts: number[];
  onChoose: (cell: Chosen) => void;
}) {
  const { classes, counts, onChoose } = props;
  const size = classes.length;
  const total = classes.map((_, row) =>
    counts.slice(row * size, (row + 1) * size).reduce((sum, n) => sum + n, 0),
  );
  return (
    <>
      <p class="hint">
        Rows: what the pictures are. Columns: what they were taken for. A number opens its pictures.
      </p>
      <div class="scroll" tabIndex={0} role="region" aria-label="Confusion matrix">
        <table class="heat">
          <thead>
            <tr>
              <td />
              {classes.map((one) => (
                <th key={one.index} scope="col">
                  <span>{one.displayName}</span>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {classes.map((actual, row) => (
              <tr key={actual.index}>
                <th scope="row">{actual.displayName}</th>
                {classes.map((taken, column) => {
                  const count = counts[row * size + column] ?? 0;
                  const share = count / Math.max(1, total[row] ?? 0);
                  const right = row === column;
                  return (
                    <td key={taken.index}>
                      {count > 0 && (
                        <button
                          type="button"
                          class={right ? "right" : "wrong"}
                          style={{ "--share": `${Math.round(share * 60)}%` }}
                          aria-label={`${count} of ${actual.displayName} taken for ${taken.displayName}`}
                          onClick={() => onChoose({ actual: row, taken: column })}
                        >
                          {count}
                        </button>
                      )}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
