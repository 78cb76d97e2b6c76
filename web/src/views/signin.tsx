/** Signing in with a token, at first and whenever it has expired. */

import { useState } from "preact/hooks";

import { serverInfo } from "../api/calls";
import { explain } from "../api/http";
import { signIn, token } from "../session";
import { Dialog } from "../ui/dialog";

export function SignIn(props: { reason: string }) {
  const [given, setGiven] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [asking, setAsking] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setAsking(true);
    try {
      signIn(given.trim(), await serverInfo(given.trim()));
    } catch (problem) {
      setError(explain(problem));
    } finally {
      setAsking(false);
    }
  };
  return (
    <Dialog title="Sign in" onClose={() => {}}>
      <form onSubmit={submit}>
        <p>
          {token.value
            ? `${props.reason} Sign in again: what is on this page stays, and goes on.`
            : "This server asks for a token. Whoever runs it makes one with “tipserve token new”."}
        </p>
        <label>
          Token
          <input
            type="password"
            autocomplete="current-password"
            required
            value={given}
            onInput={(event) => setGiven(event.currentTarget.value)}
          />
        </label>
        {error !== null && (
          <p class="trouble" role="alert">
            {error}
          </p>
        )}
        <p class="hint">It is kept in this tab alone, until the tab is closed.</p>
        <div class="actions end">
          <button type="submit" class="primary" disabled={asking || !given.trim()}>
            Sign in
          </button>
        </div>
      </form>
    </Dialog>
  );
}
