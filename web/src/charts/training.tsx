/** Training, epoch by epoch: accuracy on the examples, and on what chooses the
 * epoch. */

import type { FineTuneProgress } from "../api/types";
import { percent } from "../format";

const WIDTH = 560;
const HEIGHT = 200;
const TOP = 18;
const LEFT = 70;
const BOTTOM = 30;

export function Training(props: { points: FineTuneProgress[] }) {
  const points = [...props.points].sort((a, b) => a.epoch - b.epoch);
  const last = points[points.length - 1];
  if (!last) return null;
  const x = (epoch: number) =>
    LEFT + ((epoch - 1) / Math.max(1, last.epochs - 1)) * (WIDTH - LEFT - 12);
  const y = (accuracy: number) => TOP + (1 - accuracy) * (HEIGHT - TOP - BOTTOM);
  const line = (of: (point: FineTuneProgress) => number | undefined) =>
    points
      .flatMap((point) => {
        const value = of(point);
        return value === undefined ? [] : [`${x(point.epoch).toFixed(1)},${y(value).toFixed(1)}`];
      })
      .join(" ");
  const told =
    last.validationAccuracy === undefined
      ? percent(last.trainAccuracy)
      : `${percent(last.trainAccuracy)}, ${percent(last.validationAccuracy)} on what was held back`;
  return (
    <figure class="chart">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`Training accuracy: ${told}`}>
        {[0, 0.5, 1].map((tick) => (
          <g key={tick}>
            <line class="rule" x1={LEFT} x2={WIDTH - 12} y1={y(tick)} y2={y(tick)} />
            <text class="tick" x={LEFT - 6} y={y(tick) + 4} text-anchor="end">
              {tick * 100}%
            </text>
          </g>
        ))}
        <text class="tick" x={(LEFT + WIDTH) / 2} y={HEIGHT - 6} text-anchor="middle">
          epochs
        </text>
        <polyline class="line" points={line((point) => point.trainAccuracy)} />
        <polyline class="line second" points={line((point) => point.validationAccuracy)} />
      </svg>
      <figcaption>
        Accuracy {told}; loss {last.loss.toFixed(3)}.
      </figcaption>
    </figure>
  );
}
