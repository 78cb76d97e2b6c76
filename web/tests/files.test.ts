import { strToU8, zipSync } from "fflate";
import { describe, expect, it } from "vitest";

import { fromFiles, labels, unzip } from "../src/workspace/files";

describe("what folders say of pictures", () => {
  it("names a class by the folder that a picture lies in", () => {
    expect(labels(["flowers/rose/1.jpg", "flowers/rose/2.jpg", "flowers/tulip/1.jpg"])).toEqual([
      "rose",
      "rose",
      "tulip",
    ]);
    expect(labels(["rose/1.jpg", "tulip/1.jpg"])).toEqual(["rose", "tulip"]);
  });

  it("says nothing where all lie in one folder", () => {
    expect(labels(["holiday/1.jpg", "holiday/2.jpg"])).toEqual([null, null]);
    expect(labels(["1.jpg", "2.jpg"])).toEqual([null, null]);
    expect(labels([])).toEqual([]);
  });

  it("takes the parts of a data set for no classes", () => {
    expect(labels(["d/train/1.jpg", "d/val/2.jpg", "d/Test/3.jpg"])).toEqual([null, null, null]);
    expect(labels(["d/train/a/1.jpg", "d/test/b/3.jpg"])).toEqual(["a", "b"]);
    expect(labels(["d/test/1.jpg", "d/real/2.jpg"])).toEqual(["test", "real"]);
  });

  it("leaves those alone that nobody has sorted", () => {
    expect(labels(["a/Unsorted/1.jpg", "a/rose/1.jpg", "2.jpg"])).toEqual([null, "rose", null]);
  });
});

function zipped(files: Record<string, string>, level: 0 | 6): Blob {
  const bytes = Object.entries(files).map(([name, text]) => [name, strToU8(text)] as const);
  return new Blob([zipSync(Object.fromEntries(bytes), { level }) as Uint8Array<ArrayBuffer>]);
}

describe("zips", () => {
  const files = { "rose/1.jpg": "r".repeat(70_000), "tulip/1.jpg": "t", "tulip/": "" };

  it.each([0, 6] as const)("gives the files of one packed at level %s", async (level) => {
    const found = await unzip(zipped(files, level));
    const sizes = new Map(found.map(({ path, file }) => [path, file.size]));
    expect(sizes).toEqual(
      new Map([
        ["rose/1.jpg", 70_000],
        ["tulip/1.jpg", 1],
      ]),
    );
  });

  it("opens one among files, and leaves out what systems add", async () => {
    const zip = new File(
      [zipped({ ...files, "__MACOSX/rose/1.jpg": "x", "rose/.DS_Store": "x" }, 6)],
      "flowers.zip",
    );
    const found = await fromFiles([zip]);
    expect(found.map(({ path, label }) => [path, label])).toEqual([
      ["rose/1.jpg", "rose"],
      ["tulip/1.jpg", "tulip"],
    ]);
  });

  it("says what is wrong with one that is cut off, or is none", async () => {
    const whole = zipped(files, 0);
    await expect(unzip(whole.slice(0, 50_000))).rejects.toThrow();
    await expect(unzip(new Blob(["no zip at all"]))).rejects.toThrow("no zip");
  });
});
