/** The frame of the page: who is signed in, where one is, and what is shown. */

import { useEffect } from "preact/hooks";

import { serverInfo } from "./api/calls";
import { route, to } from "./router";
import { mayWrite, server, signOut, token, unreachable, wanted } from "./session";
import { Questions } from "./ui/dialog";
import { Notices, complain } from "./ui/notices";
import { CacheView } from "./views/cache";
import { CachesView } from "./views/caches";
import { LabelView } from "./views/label";
import { SignIn } from "./views/signin";
import { TryView } from "./views/try";

function View() {
  const [place = "caches", cache] = route.value;
  if (place === "label" && mayWrite.value) return <LabelView cache={cache ?? null} />;
  if (place === "try") return <TryView reference={cache ?? null} />;
  if (place === "caches" && cache !== undefined) return <CacheView cache={cache} />;
  return <CachesView />;
}

function NavLink(props: { place: string; children: string }) {
  const here = (route.value[0] ?? "caches") === props.place;
  return (
    <a href={to(props.place)} aria-current={here ? "page" : undefined}>
      {props.children}
    </a>
  );
}

function Header() {
  const caller = server.value?.caller;
  return (
    <header>
      <a class="brand" href={to("caches")}>
        tipserve
      </a>
      <nav aria-label="Views">
        <NavLink place="caches">Classifiers</NavLink>
        {mayWrite.value && <NavLink place="label">Make and label</NavLink>}
        <NavLink place="try">Try</NavLink>
      </nav>
      {token.value && (
        <div class="who">
          <span>
            {caller?.name} <small>({caller?.role})</small>
          </span>
          <button type="button" class="plain" onClick={signOut}>
            Sign out
          </button>
        </div>
      )}
    </header>
  );
}

export function App() {
  useEffect(() => {
    serverInfo().then((info) => (server.value = info), complain);
  }, []);
  return (
    <>
      <a class="skip" href="#main" onClick={skipToMain}>
        Skip to content
      </a>
      <Header />
      {unreachable.value && (
        <p class="banner" role="alert">
          The server does not answer. Trying again; nothing on this page is lost.
        </p>
      )}
      <main id="main" tabIndex={-1}>
        {server.value && <View />}
        {!server.value && wanted.value === null && (
          <p class="waiting" role="status">
            Loading…
          </p>
        )}
      </main>
      {wanted.value !== null && <SignIn reason={wanted.value} />}
      <Questions />
      <Notices />
    </>
  );
}

/** The address after "#" is the view's: it must not change. */
function skipToMain(event: Event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
