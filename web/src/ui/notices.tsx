/** What happened, said once and read out by screen readers. */

import { signal } from "@preact/signals";

import { explain } from "../api/http";

interface Notice {
  id: number;
  text: string;
  kind: "good" | "bad";
}

const notices = signal<Notice[]>([]);
let last = 0;

function show(text: string, kind: Notice["kind"], seconds: number): void {
  const id = ++last;
  notices.value = [...notices.value.slice(-3), { id, text, kind }];
  setTimeout(() => dismiss(id), seconds * 1000);
}

function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

/** Says that something has been done. */
export function tell(text: string): void {
  show(text, "good", 6);
}

/** Says that something went wrong, and why. */
export function complain(error: unknown, doing = ""): void {
  show(doing ? `${doing}: ${explain(error)}` : explain(error), "bad", 15);
}

/** Runs a step; what goes wrong in it is said. Gives whether it went well. */
export async function attempt(doing: string, step: () => Promise<void>): Promise<boolean> {
  try {
    await step();
    return true;
  } catch (error) {
    complain(error, doing);
    return false;
  }
}

/** Where notices are shown. */
export function Notices() {
  return (
    <div class="notices" role="status" aria-live="polite">
      {notices.value.map((notice) => (
        <div key={notice.id} class={`notice ${notice.kind}`}>
          <span>{notice.text}</span>
          <button type="button" class="plain" aria-label="Dismiss" onClick={() => dismiss(notice.id)}>
            ×
          </button>
        </div>
      ))}
    </div>
  );
}
