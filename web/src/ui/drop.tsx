/** Where pictures are dropped, chosen or pasted. */

import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";

import { type Found, fromDrop, fromFiles } from "../workspace/files";
import { attempt } from "./notices";

/** A place for files, folders and zips. */
export function DropZone(props: {
  onFound: (found: Found[]) => void;
  folders: boolean;
  children: ComponentChildren;
}) {
  const files = useRef<HTMLInputElement>(null);
  const folder = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  const [reading, setReading] = useState(false);

  const read = (from: () => Promise<Found[]>) => {
    setReading(true);
    void attempt("The files cannot be read", async () => props.onFound(await from())).then(() =>
      setReading(false),
    );
  };
  const chosen = (event: Event) => {
    const input = event.currentTarget as HTMLInputElement;
    const list = [...(input.files ?? [])];
    read(() => fromFiles(list).finally(() => (input.value = "")));
  };
  const drop = (event: DragEvent) => {
    setOver(false);
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const transfer = event.dataTransfer;
    read(() => fromDrop(transfer));
  };
  const drag = (event: DragEvent) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    setOver(true);
  };

  return (
    <div
      class={`drop ${over ? "over" : ""}`}
      onDragOver={drag}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      <p>{reading ? "Reading…" : props.children}</p>
      <div class="actions">
        <button type="button" onClick={() => files.current?.click()}>
          Choose files
        </button>
        {props.folders && (
          <button type="button" onClick={() => folder.current?.click()}>
            Choose a folder
          </button>
        )}
      </div>
      <input
        ref={files}
        class="files"
        type="file"
        multiple
        hidden
        accept="image/*,.tif,.tiff,.bmp,.ppm,.pgm,.zip"
        aria-label="Picture files"
        onChange={chosen}
      />
      <input
        ref={folder}
        class="folder"
        type="file"
        hidden
        aria-label="A folder of pictures"
        {...{ webkitdirectory: true }}
        onChange={chosen}
      />
    </div>
  );
}
