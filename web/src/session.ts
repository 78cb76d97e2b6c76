/** Who is signed in, with what, and what they may do. */

import { computed, signal } from "@preact/signals";

import type { Role, ServerInfo } from "./api/types";

const KEY = "tipserve.token";

/** The token of this tab: gone when the tab is closed. */
export const token = signal(sessionStorage.getItem(KEY) ?? "");

/** Why a token must be given (again); none while all is well. */
export const wanted = signal<string | null>(null);

/** Of the server; none until it has answered. */
export const server = signal<ServerInfo | null>(null);

/** Whether the server does not answer and calls are being repeated. */
export const unreachable = signal(false);

const RANK: Record<Role, number> = { classify: 0, write: 1, admin: 2 };

const role = computed<Role>(() => server.value?.caller?.role ?? "admin");

/** Whether the caller may make, label, train and move aliases. */
export const mayWrite = computed(() => RANK[role.value] >= RANK.write);

/** Whether the caller may delete. */
export const mayDelete = computed(() => RANK[role.value] >= RANK.admin);

let waiting: (() => void)[] = [];

/** Waits until somebody has signed in: a call that was refused for its token
 * goes on from there, so that nothing is lost when a token expires. */
export function signedIn(reason: string): Promise<void> {
  wanted.value = reason;
  return new Promise((resolve) => waiting.push(resolve));
}

/** Takes a token that the server has accepted. */
export function signIn(accepted: string, info: ServerInfo): void {
  token.value = accepted;
  sessionStorage.setItem(KEY, accepted);
  server.value = info;
  wanted.value = null;
  const resume = waiting;
  waiting = [];
  for (const one of resume) one();
}

/** Forgets the token. */
export function signOut(): void {
  sessionStorage.removeItem(KEY);
  token.value = "";
  location.reload();
}
