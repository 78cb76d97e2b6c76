import { beforeEach, describe, expect, it } from "vitest";

import * as bench from "../src/workspace/bench";
import { choose, chosenFor, drafted, finish } from "../src/workspace/draft";
import { Item, NONE } from "../src/workspace/item";

function laid(...ids: string[]): Item[] {
  return ids.map((id) => new Item(id, id, new File([], id), null));
}

describe("pictures that carry several classes", () => {
  beforeEach(() => {
    bench.start("test");
    bench.several.value = true;
    bench.classes.value = ["a", "b", "c"];
  });

  it("are given each by a toggle, which is taken back by the next", () => {
    const [one, two] = (bench.items.value = laid("1", "2")) as [Item, Item];
    bench.toggle(new Set([one]), "a");
    bench.toggle(new Set([one, two]), "b");
    expect([one.labels.value, two.labels.value]).toEqual([["a", "b"], ["b"]]);
    expect(bench.counts.value.get("b")).toBe(2);
    bench.toggle(new Set([one, two]), "b");
    expect([one.labels.value, two.labels.value]).toEqual([["a"], null]);
    bench.toggle(new Set([one]), NONE);
    expect([one.labels.value, bench.of(NONE)]).toEqual([[], [one]]);
    bench.undo();
    bench.undo();
    expect([one.labels.value, two.labels.value]).toEqual([["a", "b"], ["b"]]);
  });

  it("are given all of them at once where one picture is asked about", () => {
    const [one, two] = (bench.items.value = laid("1", "2")) as [Item, Item];
    finish(one);
    expect(one.labels.value).toBeNull();
    choose(one, "c");
    choose(one, "b");
    choose(one, "a");
    choose(one, "b");
    expect([drafted(), chosenFor(one), chosenFor(two)]).toEqual([one, ["a", "c"], []]);
    expect(one.labels.value).toBeNull();
    finish(one);
    expect([drafted(), one.labels.value, two.labels.value]).toEqual([null, ["a", "c"], null]);
  });

  it("gain a class when they are dragged to it", () => {
    const [one] = (bench.items.value = laid("1")) as [Item];
    bench.carry([one], "a");
    bench.carry([one], "b");
    bench.carry([one], "a");
    expect(one.labels.value).toEqual(["a", "b"]);
    bench.carry([one], NONE);
    expect(one.labels.value).toEqual([]);
  });
});
