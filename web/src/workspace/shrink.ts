/** Pictures made small in the browser: to be looked at, and to be sent. */

/** Longest side of a thumbnail, pixels: what the server keeps. */
const THUMBNAIL = 256;
/** Files over this many bytes are sent smaller, where the browser can read
 * them: a camera's picture has a hundred times the pixels that are looked at. */
const LARGE_FILE = 1_500_000;
/** Shorter side of what is sent of a large file, pixels. */
const SENT_SIDE = 768;

/** A picture as it is sent and as it is shown. */
export interface Prepared {
  /** What is encoded: the file itself, or a smaller copy of a large one. */
  sent: Blob;
  /** What is kept; none where the browser cannot read the file. */
  thumbnail: Blob | null;
}

/** Prepares a picture. Never fails: what the browser cannot read is sent as it
 * is, and the server says what is wrong with it. */
export async function prepare(file: Blob): Promise<Prepared> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return { sent: file, thumbnail: null };
  }
  try {
    const longest = Math.max(bitmap.width, bitmap.height);
    const shortest = Math.min(bitmap.width, bitmap.height);
    const thumbnail = await drawn(bitmap, Math.min(1, THUMBNAIL / longest), 0.85);
    const large = file.size > LARGE_FILE && shortest > SENT_SIDE;
    const sent = large ? await drawn(bitmap, SENT_SIDE / shortest, 0.95) : file;
    return { sent, thumbnail };
  } finally {
    bitmap.close();
  }
}

function drawn(bitmap: ImageBitmap, scale: number, quality: number): Promise<Blob> {
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser cannot draw pictures");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas.convertToBlob({ type: "image/jpeg", quality });
}

/** A file's bytes as the API's JSON has them. */
export async function base64(file: Blob): Promise<string> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  // In steps: a call takes a limited number of arguments.
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(text);
}
