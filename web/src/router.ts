/** Which view is shown: the address after "#", so that links and the browser's
 * back button work and the server needs to know one address alone. */

import { computed, signal } from "@preact/signals";

const hash = signal(location.hash);
addEventListener("hashchange", () => {
  hash.value = location.hash;
  scrollTo(0, 0);
});

/** The address's parts, decoded: ["caches", "pets", "quality"]. */
export const route = computed(() =>
  hash.value
    .replace(/^#\/?/, "")
    .split("/")
    .filter(Boolean)
    .map(decodeURIComponent),
);

/** The address of a view. */
export function to(...parts: string[]): string {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

/** Shows a view. */
export function go(...parts: string[]): void {
  location.hash = to(...parts);
}
