/** Files from drops, choosers and zips, each with the class that its folder
 * names. */

import { Unzip, UnzipInflate, UnzipPassThrough } from "fflate";

/** A file with its path below what was dropped: "rose/1.jpg". */
export interface Found {
  path: string;
  file: File;
  /** What its folder says it is; none where folders do not tell classes. */
  label: string | null;
}

interface Placed {
  path: string;
  file: File;
}

/** Names that mean that nobody has sorted these yet. */
const UNSORTED = new Set(["unlabelled", "unlabeled", "unsorted", "pool", "unknown"]);
/** Names of parts that pictures are divided into: no classes, if there are no others. */
const SPLITS = new Set(["train", "training", "val", "valid", "validation", "test", "testing"]);
/** Files beside pictures that nobody means to drop. */
const SILENT = /(^|\/)(\.|__MACOSX\/|@eaDir\/|thumbs\.db$|desktop\.ini$)/i;
const ZIP = /\.zip$/i;

/** The class of each path: the folder that it lies in, if they lie in more than
 * one. */
export function labels(paths: string[]): (string | null)[] {
  const folder = (path: string) => path.slice(0, Math.max(path.lastIndexOf("/"), 0));
  const folders = new Set(paths.map(folder));
  const names = paths.map((path) => folder(path).split("/").pop() ?? "");
  const tells = folders.size > 1 && !names.every((name) => SPLITS.has(name.toLowerCase()));
  return names.map((name) => {
    const told = tells && name !== "" && !UNSORTED.has(name.toLowerCase());
    return told ? name : null;
  });
}

function labelled(placed: Placed[]): Found[] {
  const kept = placed
    .filter(({ path }) => !SILENT.test(path))
    .sort((a, b) => a.path.localeCompare(b.path, "en", { numeric: true }));
  const named = labels(kept.map(({ path }) => path));
  return kept.map((one, at) => ({ ...one, label: named[at] ?? null }));
}

/** Files chosen one by one or as a folder; zips are opened. */
export async function fromFiles(files: File[]): Promise<Found[]> {
  const placed = files.map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  return labelled(await opened(placed));
}

/** Files and folders that were dropped; zips are opened. */
export async function fromDrop(transfer: DataTransfer): Promise<Found[]> {
  // Both must be asked for before the first wait: the drop's data is gone then.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry());
  const plain = [...transfer.files];
  if (entries.some((entry) => entry === null)) return fromFiles(plain);
  const placed: Placed[] = [];
  for (const entry of entries) {
    if (entry) await walk(entry, "", placed);
  }
  return labelled(await opened(placed));
}

async function walk(entry: FileSystemEntry, below: string, placed: Placed[]): Promise<void> {
  const path = below ? `${below}/${entry.name}` : entry.name;
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) =>
      (entry as FileSystemFileEntry).file(resolve, reject),
    );
    placed.push({ path, file });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // A reader gives a hundred at a time.
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (part.length === 0) return;
    for (const inner of part) await walk(inner, path, placed);
  }
}

async function opened(placed: Placed[]): Promise<Placed[]> {
  const all: Placed[] = [];
  for (const one of placed) {
    if (ZIP.test(one.path)) all.push(...(await unzip(one.file)));
    else all.push(one);
  }
  return all;
}

/** The files of a zip, read piece by piece. */
export async function unzip(zip: Blob): Promise<Placed[]> {
  const placed: Placed[] = [];
  let failure: Error | null = null;
  let begun = 0;
  const reader = new Unzip((entry) => {
    if (entry.name.endsWith("/")) return;
    const parts: Uint8Array<ArrayBuffer>[] = [];
    begun += 1;
    entry.ondata = (error, part, last) => {
      if (error) failure = error;
      parts.push(part as Uint8Array<ArrayBuffer>);
      if (last) placed.push({ path: entry.name, file: new File(parts, entry.name) });
    };
    entry.start();
  });
  reader.register(UnzipPassThrough);
  reader.register(UnzipInflate);
  const pieces = zip.stream().getReader();
  for (;;) {
    const { value, done } = await pieces.read();
    reader.push(value ?? new Uint8Array(), done);
    if (failure) throw failure;
    if (!done) continue;
    if (begun === 0) throw new Error("it is no zip, or an empty one");
    if (placed.length < begun) throw new Error("the zip is cut off");
    return placed;
  }
}
