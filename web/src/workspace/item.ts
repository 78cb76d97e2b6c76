/** A picture on the bench: being encoded, waiting for its class, or in a
 * version. */

import { signal } from "@preact/signals";

import { base64 } from "./shrink";

/** What a picture of none of the classes is labelled: no class can have this name. */
export const NONE = "\u0000none";

/** A label for people. */
export function nameOf(label: string): string {
  return label === NONE ? "none of these" : label;
}

export type ItemStatus = "waiting" | "ready" | "rejected";

export class Item {
  /** The example's id, unlike that of any other. */
  readonly id: string;
  readonly file: File;
  /** Where it was found: "rose/1.jpg". */
  readonly path: string;
  readonly label = signal<string | null>(null);
  readonly status = signal<ItemStatus>("waiting");
  /** Why it was rejected. */
  readonly reason = signal("");
  /** What is shown of it. */
  readonly address = signal<string | null>(null);
  /** The class under which the newest version holds it; none where it does
   * not. */
  saved: string | null = null;
  /** The embedding in base64: sent again with every label. */
  vector = "";
  private thumbnail: Blob | null = null;

  constructor(id: string, path: string, file: File, label: string | null) {
    this.id = id;
    this.path = path;
    this.file = file;
    this.label.value = label;
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

  /** As an example of the class with this index, or of none of them, in JSON. */
  async example(classIndex: number | null): Promise<string> {
    const about = JSON.stringify({
      exampleId: this.id,
      ...(classIndex === null ? { unknown: true } : { classIndex }),
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
