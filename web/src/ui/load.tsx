/** Values that come from the server. */

import type { ComponentChildren } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { explain } from "../api/http";

export interface Loaded<T> {
  value: T | null;
  error: string | null;
  /** Asks again; the old value stays until the new one is there. */
  reload: () => void;
}

/** Loads a value when the view opens and whenever one of `on` changes. */
export function useLoaded<T>(load: () => Promise<T>, on: unknown[]): Loaded<T> {
  const [state, setState] = useState<{ value: T | null; error: string | null }>({
    value: null,
    error: null,
  });
  const turn = useRef(0);
  const start = useCallback(() => {
    const mine = ++turn.current;
    load().then(
      (value) => mine === turn.current && setState({ value, error: null }),
      (error: unknown) =>
        mine === turn.current && setState((old) => ({ ...old, error: explain(error) })),
    );
  }, on);
  useEffect(() => {
    setState({ value: null, error: null });
    start();
    return () => {
      turn.current += 1;
    };
  }, [start]);
  return { ...state, reload: start };
}

/** Shows a value once it is there, and what is wrong where it does not come. */
export function Show<T>(props: { of: Loaded<T>; children: (value: T) => ComponentChildren }) {
  const { value, error, reload } = props.of;
  return (
    <>
      {error !== null && (
        <p class="trouble" role="alert">
          {error}{" "}
          <button type="button" onClick={reload}>
            Try again
          </button>
        </p>
      )}
      {value !== null && props.children(value)}
      {value === null && error === null && (
        <p class="waiting" role="status">
          Loading…
        </p>
      )}
    </>
  );
}
