import { describe, expect, it } from "vitest";

import { scales } from "../src/charts/curve";
import { bytes, method, plural } from "../src/format";

describe("the learning curve", () => {
  const points = [1, 2, 4, 8].map((shots) => ({
    shots,
    accuracy: 0.6 + 0.03 * shots,
    low: 0.55,
    high: 1,
  }));

  it("is drawn over the doublings of shots, from a round floor up", () => {
    const { floor, x, y } = scales(points);
    expect(floor).toBe(0.5);
    const steps = points.map((point) => x(point.shots));
    const gaps = steps.slice(1).map((at, before) => at - (steps[before] ?? 0));
    for (const gap of gaps) expect(gap).toBeCloseTo(gaps[0] ?? 0, 6);
    expect(y(1)).toBeLessThan(y(0.6));
  });

  it("stands if there is only one point", () => {
    const { x, y } = scales(points.slice(0, 1));
    expect(Number.isFinite(x(1)) && Number.isFinite(y(0.6))).toBe(true);
  });
});

describe("words", () => {
  it("name methods, and one that is newer than this page by its own name", () => {
    expect(method("METHOD_GDA")).toBe("GDA");
    expect(method("METHOD_RANDOM_FOREST")).toBe("Random forest");
    expect([method(undefined), method("METHOD_UNSPECIFIED")]).toEqual(["", ""]);
  });

  it("have their numbers", () => {
    expect(plural(1, "class", "classes")).toBe("1 class");
    expect(plural(1200, "picture")).toBe("1,200 pictures");
    expect([bytes(0), bytes("999"), bytes(1234), bytes(250_000_000)]).toEqual([
      "0 B",
      "999 B",
      "1.2 kB",
      "250 MB",
    ]);
  });
});
