/** How often answers are right, by the probability that they claim. */

import type { ReliabilityBin } from "../api/types";
import { count, percent } from "../format";

const SIDE = 260;
const MARGIN = 52;
const INNER = SIDE - MARGIN - 14;
const HEIGHT = 12 + INNER + 34;

export function Reliability(props: { bins: ReliabilityBin[] }) {
  const most = Math.max(...props.bins.map((bin) => Number(bin.count)), 1);
  const x = (value: number) => MARGIN + value * INNER;
  const y = (value: number) => 12 + (1 - value) * INNER;
  return (
    <figure class="chart square">
      <svg viewBox={`0 0 ${SIDE} ${HEIGHT}`} role="img" aria-label="Reliability: accuracy by claimed probability">
        <line class="diagonal" x1={x(0)} y1={y(0)} x2={x(1)} y2={y(1)} />
        {[0, 0.5, 1].map((tick) => (
          <g key={tick}>
            <line class="rule" x1={x(0)} x2={x(1)} y1={y(tick)} y2={y(tick)} />
            <text class="tick" x={MARGIN - 6} y={y(tick) + 4} text-anchor="end">
              {tick * 100}%
            </text>
            <text class="tick" x={x(tick)} y={HEIGHT - 12} text-anchor={tick === 1 ? "end" : "middle"}>
              {tick * 100}%
            </text>
          </g>
        ))}
        {props.bins.map((bin) => (
          <circle
            key={bin.low}
            class="dot"
            cx={x(bin.probability)}
            cy={y(bin.accuracy)}
            r={3 + 7 * Math.sqrt(Number(bin.count) / most)}
          >
            <title>
              {count(bin.count)} answers claimed {percent(bin.probability)}; {percent(bin.accuracy)} were
              right
            </title>
          </circle>
        ))}
      </svg>
      <figcaption>
        Where answers that claim 80% are right four times in five, the dots lie on the line: below it
        the classifier is too sure of itself. Larger dots stand for more answers.
      </figcaption>
    </figure>
  );
}
