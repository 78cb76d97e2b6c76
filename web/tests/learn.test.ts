import { describe, expect, it } from "vitest";

import { Item, NONE } from "../src/workspace/item";
import { difference } from "../src/workspace/learn";

function one(id: string, label: string | null, saved: string | null = null, ready = true) {
  return { label, saved, ready, item: new Item(id, id, new File([], id), label) };
}

function told(known: string[], named: string[], bench: ReturnType<typeof one>[]) {
  const { newClasses, removed, added } = difference(known, named, bench);
  return { newClasses, removed, added: added.map(({ item, classIndex }) => [item.id, classIndex]) };
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
    expect(told(["x"], ["x"], [one("1", NONE), one("2", "x"), one("3", NONE, NONE)])).toEqual({
      newClasses: [],
      removed: [],
      added: [
        ["1", null],
        ["2", 0],
      ],
    });
    expect(told(["x"], ["x"], [one("1", "x", NONE)]).removed).toEqual(["1"]);
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
});
