/** Pictures that a version keeps of its examples, fetched when they are seen. */

import { useEffect, useRef, useState } from "preact/hooks";

import { examplePicture } from "../api/calls";

/** Addresses of pictures, those used last at the end. */
const kept = new Map<string, Promise<string | null>>();
const MOST = 600;

/** The picture's address within the page; none where the version has none. */
function addressOf(version: string, exampleId: string): Promise<string | null> {
  const key = `${version}\n${exampleId}`;
  const found =
    kept.get(key) ??
    examplePicture(version, exampleId).then(
      (picture) => URL.createObjectURL(picture),
      () => null,
    );
  kept.delete(key);
  kept.set(key, found);
  const [oldest] = kept.keys();
  if (kept.size > MOST && oldest !== undefined) {
    void kept.get(oldest)?.then((address) => address && URL.revokeObjectURL(address));
    kept.delete(oldest);
  }
  return found;
}

/** The kept picture of an example. */
export function KeptPicture(props: { version: string; exampleId: string; alt: string }) {
  const { version, exampleId, alt } = props;
  const place = useRef<HTMLSpanElement>(null);
  const [address, setAddress] = useState<string | null | undefined>(undefined);
  useEffect(() => {
    let wanted = true;
    setAddress(undefined);
    const seen = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        seen.disconnect();
        void addressOf(version, exampleId).then((found) => wanted && setAddress(found));
      },
      { rootMargin: "200px" },
    );
    if (place.current) seen.observe(place.current);
    return () => {
      wanted = false;
      seen.disconnect();
    };
  }, [version, exampleId]);
  return (
    <span ref={place} class="picture">
      {address ? (
        <img src={address} alt={alt} title={exampleId} />
      ) : (
        <span class="no-picture" title={exampleId}>
          {address === null ? exampleId : ""}
        </span>
      )}
    </span>
  );
}
