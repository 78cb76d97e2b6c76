/** A question that must be answered before anything is changed. */

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

interface Question {
  title: string;
  text: ComponentChildren;
  action: string;
  danger: boolean;
  answer: (yes: boolean) => void;
}

const question = signal<Question | null>(null);
// Another view is another context: what was asked in the last one is off.
addEventListener("hashchange", () => question.peek()?.answer(false));

/** Asks, and gives whether the action was chosen. */
export function confirm(
  title: string,
  text: ComponentChildren,
  action: string,
  danger = false,
): Promise<boolean> {
  return new Promise((resolve) => {
    question.value = {
      title,
      text,
      action,
      danger,
      answer: (yes) => {
        question.value = null;
        resolve(yes);
      },
    };
  });
}

/** A modal dialog; `onClose` is called when it is dismissed. */
export function Dialog(props: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const dismiss = (event: Event) => {
    event.preventDefault();
    props.onClose();
  };
  return (
    <dialog
      ref={dialog}
      class={props.wide ? "wide" : ""}
      aria-labelledby="dialog-title"
      onCancel={dismiss}
    >
      <h2 id="dialog-title">{props.title}</h2>
      {props.children}
    </dialog>
  );
}

/** Where questions are shown. */
export function Questions() {
  const asked = question.value;
  if (!asked) return null;
  return (
    <Dialog title={asked.title} onClose={() => asked.answer(false)}>
      <div class="dialog-text">{asked.text}</div>
      <div class="actions end">
        <button type="button" onClick={() => asked.answer(false)}>
          Cancel
        </button>
        <button
          type="button"
          class={asked.danger ? "danger" : "primary"}
          onClick={() => asked.answer(true)}
        >
          {asked.action}
        </button>
      </div>
    </Dialog>
  );
}
