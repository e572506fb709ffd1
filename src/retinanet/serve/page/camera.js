// Takes an image with the camera.

export async function takeImage(dialog) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("the browser blocks the camera on this page. Open the page over https, or from an address on this machine");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
  } catch (error) {
    const messages = { NotAllowedError: "the browser denied access to the camera", NotFoundError: "no camera was found" };
    throw new Error(messages[error.name] ?? error.message);
  }
  const video = dialog.querySelector("video");
  video.srcObject = stream;
  const shoot = dialog.querySelector("#shoot");
  shoot.disabled = true; // until the video plays; before that there is no frame to take
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
