/** A picture on the bench: being encoded, waiting for its class, or in a
 * version. */

import { signal } from "@preact/signals";

import { base64 } from "./shrink";

/** What a picture of none of the classes is labelled: no class can have this name. */
export const NONE = "\u0000none";

/** A class, or NONE, for people. */
export function nameOf(label: string): string {
  return label === NONE ? "none of these" : label;
}

/** The classes that a picture carries: one, or any number where the classifier's pictures carry
 * several; empty if it is of none of them. */
export type Labels = readonly string[];

/** Whether two pictures are labelled the same; null is no label yet. */
export function isSame(one: Labels | null, other: Labels | null): boolean {
  if (one === null || other === null) return one === other;
  return one.length === other.length && one.every((label) => other.includes(label));
}

/** Whether a picture of these labels counts under a class, or under NONE. */
export function isUnder(labels: Labels | null, label: string): boolean {
  if (labels === null) return false;
  return label === NONE ? labels.length === 0 : labels.includes(label);
}

export type ItemStatus = "waiting" | "ready" | "rejected";

export class Item {
  /** The example's id, unlike that of any other. */
  readonly id: string;
  readonly file: File;
  /** Where it was found: "rose/1.jpg". */
  readonly path: string;
  /** Null while nobody has said what it is. */
  readonly labels = signal<Labels | null>(null);
  readonly status = signal<ItemStatus>("waiting");
  /** Why it was rejected. */
  readonly reason = signal("");
  /** What is shown of it. */
  readonly address = signal<string | null>(null);
  /** The labels under which the newest version holds it; null where it does
   * not. */
  saved: Labels | null = null;
  /** The embedding in base64: sent again with every label. */
  vector = "";
  private thumbnail: Blob | null = null;

  constructor(id: string, path: string, file: File, label: string | null) {
    this.id = id;
    this.path = path;
    this.file = file;
    if (label !== null) this.labels.value = [label];
  }

  /** Takes its thumbnail; without one, where the browser cannot read the file,
   * the server makes one of the file itself. */
  show(thumbnail: Blob | null): void {
    this.drop();
    this.thumbnail = thumbnail;
    if (thumbnail) this.address.value = URL.createObjectURL(thumbnail);
  }

  reject(reason: string): void {
    this.reason.value = reason;
    this.status.value = "rejected";
  }

  take(vector: string): void {
    this.vector = vector;
    this.status.value = "ready";
  }

  /** As an example of the classes with these indices, or of none of them, in JSON. */
  async example(classIndices: number[], several: boolean): Promise<string> {
    const [classIndex] = classIndices;
    const one = classIndex === undefined ? { unknown: true } : { classIndex };
    const about = JSON.stringify({
      exampleId: this.id,
      ...(several ? { classIndices } : one),
      uri: this.path.slice(0, 512),
      thumbnail: await base64(this.thumbnail ?? this.file),
    });
    return `${about.slice(0, -1)},"input":${this.input()}}`;
  }

  /** As a picture of a pool to choose from, in JSON. */
  candidate(): string {
    return `{"id":${JSON.stringify(this.id)},"input":${this.input()}}`;
  }

  /** As an example without a label, in JSON. */
  unlabelled(): string {
    return `{"unlabelled":true,"input":${this.input()}}`;
  }

  private input(): string {
    return `{"embedding":{"values":"${this.vector}"}}`;
  }

  /** Frees what is shown of it. */
  drop(): void {
    if (this.address.value) URL.revokeObjectURL(this.address.value);
  }
}
