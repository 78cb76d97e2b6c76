/** A learning curve with its band: accuracy by examples a class. */

import type { CurvePoint } from "../api/types";
import { percent } from "../format";

const WIDTH = 560;
const HEIGHT = 280;
const LEFT = 66;
const RIGHT = 14;
const TOP = 12;
const BOTTOM = 56;

/** From shots and accuracy to places in the chart. */
export function scales(points: CurvePoint[]) {
  const shots = points.map((point) => point.shots);
  const [least, most] = [Math.min(...shots), Math.max(...shots)];
  const span = Math.log2(most / least) || 1;
  const floor = Math.max(0, Math.floor(Math.min(...points.map((p) => p.low)) * 10) / 10);
  const height = 1 - floor || 1;
  return {
    floor,
    x: (value: number) => LEFT + (Math.log2(value / least) / span) * (WIDTH - LEFT - RIGHT),
    y: (value: number) => TOP + ((1 - value) / height) * (HEIGHT - TOP - BOTTOM),
  };
}

function path(points: [number, number][]): string {
  return points.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

export function Curve(props: { points: CurvePoint[]; forecast: CurvePoint | null }) {
  const { points, forecast } = props;
  const all = forecast ? [...points, forecast] : points;
  const last = points[points.length - 1];
  if (!last) return null;
  const { x, y, floor } = scales(all);
  const upper = points.map((p): [number, number] => [x(p.shots), y(Math.min(1, p.high))]);
  const lower = points.map((p): [number, number] => [x(p.shots), y(Math.max(floor, p.low))]);
  const band = `${path([...upper, ...lower.reverse()])}Z`;
  const line = path(points.map((p) => [x(p.shots), y(p.accuracy)]));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => floor + part * (1 - floor));
  const summary = `Accuracy grows from ${percent(points[0]?.accuracy ?? 0)} at ${points[0]?.shots} to ${percent(last.accuracy)} at ${last.shots} examples a class.`;
  return (
    <figure class="chart">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={summary}>
        {ticks.map((tick) => (
          <g key={tick}>
            <line class="rule" x1={LEFT} x2={WIDTH - RIGHT} y1={y(tick)} y2={y(tick)} />
            <text class="tick" x={LEFT - 6} y={y(tick) + 4} text-anchor="end">
              {Math.round(tick * 100)}%
            </text>
          </g>
        ))}
        {all.map((point) => (
          <text key={point.shots} class="tick" x={x(point.shots)} y={HEIGHT - 36} text-anchor="middle">
            {point.shots}
          </text>
        ))}
        <text class="tick" x={(LEFT + WIDTH) / 2} y={HEIGHT - 10} text-anchor="middle">
          examples of each class
        </text>
        <path class="band" d={band} />
        <path class="line" d={line} />
        {points.map((point) => (
          <circle key={point.shots} class="dot" cx={x(point.shots)} cy={y(point.accuracy)} r={3.5} />
        ))}
        {forecast && (
          <>
            <path
              class="line forecast"
              d={path([
                [x(last.shots), y(last.accuracy)],
                [x(forecast.shots), y(forecast.accuracy)],
              ])}
            />
            <line
              class="whisker"
              x1={x(forecast.shots)}
              x2={x(forecast.shots)}
              y1={y(Math.min(1, forecast.high))}
              y2={y(Math.max(floor, forecast.low))}
            />
          </>
        )}
      </svg>
      <figcaption>
        {summary} The band holds nine draws in ten
        {forecast && `; with ${forecast.shots}, about ${percent(forecast.accuracy)} is to be expected`}.
      </figcaption>
    </figure>
  );
}
