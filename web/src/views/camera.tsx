/** The camera: a picture at a click. */

import { useEffect, useRef, useState } from "preact/hooks";

import { attempt } from "../ui/notices";

export function Camera(props: { onPicture: (file: File) => void }) {
  const [stream, setStream] = useState<MediaStream | null>(null);
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    if (video.current) video.current.srcObject = stream;
    return () => stream?.getTracks().forEach((track) => track.stop());
  }, [stream]);
  // Browsers offer no camera to pages that came over plain HTTP from elsewhere.
  if (!("mediaDevices" in navigator)) return null;

  const open = () =>
    attempt("The camera cannot be used", async () => {
      const wanted = { video: { facingMode: "environment" } };
      setStream(await navigator.mediaDevices.getUserMedia(wanted));
    });
  const take = async () => {
    const seen = video.current;
    if (!seen || seen.videoWidth === 0) return;
    const canvas = new OffscreenCanvas(seen.videoWidth, seen.videoHeight);
    canvas.getContext("2d")?.drawImage(seen, 0, 0);
    const picture = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
    const name = `camera ${new Date().toISOString()}.jpg`;
    props.onPicture(new File([picture], name, { type: "image/jpeg" }));
  };
  if (!stream) {
    return (
      <p>
        <button type="button" onClick={() => void open()}>
          Use the camera
        </button>
      </p>
    );
  }
  return (
    <div class="camera">
      <video ref={video} autoplay playsinline muted aria-label="What the camera sees" />
      <div class="actions">
        <button type="button" class="primary" onClick={() => void take()}>
          Take a picture
        </button>
        <button type="button" onClick={() => setStream(null)}>
          Close the camera
        </button>
      </div>
    </div>
  );
}
