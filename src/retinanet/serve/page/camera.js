// An image from the camera.

export async function takeImage(dialog) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("the browser gives no camera to this page: it needs https, or an address on this machine");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
  } catch (error) {
    const said = { NotAllowedError: "its use was not allowed", NotFoundError: "there is none" };
    throw new Error(said[error.name] ?? error.message);
  }
  const video = dialog.querySelector("video");
  video.srcObject = stream;
  const shoot = dialog.querySelector("#shoot");
  shoot.disabled = true; // until there is an image to take: a click before that would be lost
  try {
    const taken = await new Promise((done, failed) => {
      shoot.onclick = () => done(true);
      dialog.querySelector("#camera-close").onclick = () => done(false);
      dialog.onclose = () => done(false);
      dialog.showModal();
      video.play().then(() => (shoot.disabled = false), failed);
    });
    if (!taken) return null;
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
    return new File([blob], `camera ${new Date().toTimeString().slice(0, 8).replaceAll(":", ".")}.jpg`, { type: "image/jpeg" });
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
    dialog.close();
  }
}
