import { describe, expect, it } from "vitest";

import { Item } from "../src/workspace/item";
import { difference } from "../src/workspace/learn";

/** A picture that is labelled with nothing, a class, or any number of classes. */
function one(id: string, label: Given, saved: Given = null, ready = true) {
  const item = new Item(id, id, new File([], id), null);
  return { labels: listed(label), saved: listed(saved), ready, item };
}

type Given = string | string[] | null;

function listed(given: Given): string[] | null {
  return typeof given === "string" ? [given] : given;
}

function told(known: string[], named: string[], bench: ReturnType<typeof one>[]) {
  const { newClasses, removed, added } = difference(known, named, bench);
  return { newClasses, removed, added: added.map(({ item, classIndices }) => [item.id, ...classIndices]) };
}

describe("what the next version differs in", () => {
  it("has the classes in their order, and those alone that a picture has", () => {
    expect(told([], ["a", "empty", "b"], [one("1", "b"), one("2", "a"), one("3", null)])).toEqual({
      newClasses: ["a", "b"],
      removed: [],
      added: [
        ["1", 1],
        ["2", 0],
      ],
    });
  });

  it("counts new classes after those of the version", () => {
    expect(told(["x", "y"], ["y", "z", "x"], [one("1", "z"), one("2", "x")])).toEqual({
      newClasses: ["z"],
      removed: [],
      added: [
        ["1", 2],
        ["2", 0],
      ],
    });
  });

  it("says of pictures of none of the classes just that", () => {
    expect(told(["x"], ["x"], [one("1", []), one("2", "x"), one("3", [], [])])).toEqual({
      newClasses: [],
      removed: [],
      added: [
        ["1"],
        ["2", 0],
      ],
    });
    expect(told(["x"], ["x"], [one("1", "x", [])]).removed).toEqual(["1"]);
  });

  it("sends nothing again that the version holds", () => {
    expect(told(["x"], ["x"], [one("1", "x", "x")])).toEqual({
      newClasses: [],
      removed: [],
      added: [],
    });
  });

  it("moves and removes pictures whose class was changed", () => {
    expect(told(["x", "y"], ["x", "y"], [one("1", "y", "x"), one("2", null, "x")])).toEqual({
      newClasses: [],
      removed: ["1", "2"],
      added: [["1", 1]],
    });
  });

  it("waits for pictures that are not encoded yet", () => {
    expect(told([], ["x"], [one("1", "x", null, false)])).toEqual({
      newClasses: [],
      removed: [],
      added: [],
    });
  });

  it("sends a picture of several classes with all of them, and again when one is added", () => {
    expect(told(["x", "y"], ["x", "y", "z"], [one("1", ["z", "x"]), one("2", "y")])).toEqual({
      newClasses: ["z"],
      removed: [],
      added: [
        ["1", 0, 2],
        ["2", 1],
      ],
    });
    const held = [one("1", ["y", "x"], ["x", "y"]), one("2", ["x", "y"], ["x"])];
    expect(told(["x", "y"], ["x", "y"], held)).toEqual({
      newClasses: [],
      removed: ["2"],
      added: [["2", 0, 1]],
    });
  });
});
