// SPDX-License-Identifier: Apache-2.0
// What the page does beyond a form: drop, folder, camera, slider, figures of now. All of it is asked of the
// server, which renders every part.
"use strict";

const byId = (id) => document.getElementById(id);
const form = byId("ask"), answer = byId("answer"), says = byId("says"), photo = byId("photo");
const drop = byId("drop"), video = byId("video"), camera = byId("camera"), speed = byId("camera-speed");
const MOST = 500; // pictures of a folder
const EVERY = 1000; // ms between two looks at the figures
const TRIES = 5; // of a request that finds the queue full
let layer = null; // where the slider is, once someone has moved it
let turn = 0; // of the latest question: answers to earlier ones are dropped

document.documentElement.classList.add("js");

const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// A request; where the queue is full, again after as long as the server says.
async function ask(address, options) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(address, options);
    if (response.status !== 429 || attempt === TRIES) return response;
    await sleep(Number(response.headers.get("Retry-After")) || 1);
  }
}

function fields(file, more = {}) {
  const data = new FormData();
  for (const name of ["model", "other"]) if (byId(name)) data.set(name, byId(name).value);
  if (file) data.set("photo", file);
  for (const [name, value] of Object.entries(more)) data.set(name, value);
  return data;
}

// The server's part of the page for one photo; false if there was none, or a later question overtook it.
async function classify(data, quiet = false) {
  const mine = ++turn;
  if (!quiet) answer.setAttribute("aria-busy", "true");
  let html, good = false;
  try {
    const response = await ask("./", { method: "POST", body: data, headers: { "X-Part": "1", Accept: "text/html" } });
    html = await response.text();
    good = response.ok;
    if (!html.trimStart().startsWith("<")) html = failure(html);
  } catch {
    html = failure("The server does not answer");
  }
  if (mine !== turn) return false;
  answer.innerHTML = html;
  answer.setAttribute("aria-busy", "false");
  prepare();
  if (!quiet || !good) says.textContent = spoken();
  if (!quiet && answer.getBoundingClientRect().top > window.innerHeight / 2) answer.scrollIntoView({ block: "start" });
  return good;
}

function failure(sentence) {
  const part = document.createElement("section");
  part.className = "card failure";
  part.setAttribute("role", "alert");
  part.append(Object.assign(document.createElement("h2"), { textContent: "No answer" }));
  part.append(Object.assign(document.createElement("p"), { textContent: `${sentence}.` }));
  return part.outerHTML;
}

const spoken = () =>
  [...answer.querySelectorAll("article h2, .failure")].map((part) => part.textContent.replace(/\s+/g, " ").trim()).join("; ");

// -- slider -------------------------------------------------------------------------------------

function prepare() {
  for (const slider of answer.querySelectorAll(".slider input")) {
    if (layer !== null) slider.value = layer;
    show(slider);
  }
}

function show(slider) {
  const at = Number(slider.value), layers = slider.closest(".layers");
  slider.parentElement.querySelector("output").value = at;
  const captions = [];
  for (const steps of layers.querySelectorAll(".steps")) {
    // in the photo itself nothing has looked yet: attention begins with the first layer
    const figures = [...steps.querySelectorAll("figure")];
    const current = figures.find((f) => f.dataset.first <= at && at <= f.dataset.last) || figures[0];
    for (const figure of figures) figure.classList.toggle("current", figure === current);
    captions.push(current.querySelector("figcaption").textContent);
  }
  slider.setAttribute("aria-valuetext", captions.join("; "));
  for (const row of slider.closest("article").querySelectorAll(".cycles tr"))
    row.classList.toggle("current", Number(row.dataset.layer) === at);
}

answer.addEventListener("input", (event) => {
  if (event.target.type !== "range") return;
  layer = event.target.value;
  for (const slider of answer.querySelectorAll(".slider input")) {
    if (slider.max === event.target.max) slider.value = layer;
    show(slider);
  }
});

// -- photos and folders -------------------------------------------------------------------------

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const example = event.submitter && event.submitter.name === "example" ? event.submitter.value : "";
  stopCamera();
  if (example) classify(fields(null, { example }));
  else take([...photo.files]);
});
photo.addEventListener("change", () => take([...photo.files]));
for (const name of ["model", "other"])
  byId(name)?.addEventListener("change", () => again && again());

let again = null; // asks the last question anew, as for another network

function take(files) {
  const pictures = files.filter((file) => file.type.startsWith("image/") || files.length === 1);
  stopCamera();
  if (pictures.length === 1) one(pictures[0]);
  else if (pictures.length) many(pictures.slice(0, MOST), files.length);
  else if (files.length) answer.innerHTML = failure(`None of these ${files.length} files is a picture`);
}

function one(file) {
  again = () => classify(fields(file));
  again();
}

byId("folder").addEventListener("click", () => {
  const input = Object.assign(document.createElement("input"), { type: "file", webkitdirectory: true });
  input.addEventListener("change", () => take([...input.files]));
  input.click();
});

for (const name of ["dragenter", "dragover"])
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
  const files = [...event.dataTransfer.files];
  if (!entries.some((entry) => entry && entry.isDirectory)) return take(files);
  const found = [];
  for (const entry of entries) if (entry) await gather(entry, found);
  take(found);
});

// The files below an entry, at most as many as are shown.
async function gather(entry, found) {
  if (found.length >= MOST) return;
  if (entry.isFile) found.push(await new Promise((done, failed) => entry.file(done, failed)));
  if (!entry.isDirectory) return;
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const each of some) await gather(each, found);
  }
}

let folder = 0; // of the latest folder: an earlier one stops

async function many(files, all) {
  const mine = ++folder, list = byId("gallery-list"), state = byId("gallery-state");
  for (const image of list.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  list.replaceChildren();
  byId("gallery").classList.remove("hidden");
  const left = all > files.length ? ` (${all} files, of which ${files.length} are taken)` : "";
  files.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  let done = 0, failed = 0;
  for (const file of files) {
    const text = await label(file);
    if (mine !== folder) return;
    const item = document.createElement("li"), button = document.createElement("button"), image = new Image();
    button.type = "button";
    image.src = URL.createObjectURL(file);
    image.alt = "";
    image.addEventListener("error", () => image.remove());
    button.append(image, `${file.name}: ${text.label}`);
    button.addEventListener("click", () => one(file));
    item.append(button);
    list.append(item);
    if (!text.good) failed++;
    done++;
    state.textContent = `${done} of ${files.length}${left}${failed ? `, ${failed} without an answer` : ""}`;
    if (done === 1) one(file);
  }
}

async function label(file) {
  try {
    const address = `models/${encodeURIComponent(byId("model").value)}/classify`;
    const response = await ask(address, { method: "POST", body: file });
    const found = await response.json();
    if (!response.ok) return { good: false, label: found.error };
    return { good: true, label: `${found.label}, ${(100 * found.classes[0].probability).toFixed(1)} %` };
  } catch {
    return { good: false, label: "the server does not answer" };
  }
}

// -- camera -------------------------------------------------------------------------------------

let stream = null;

camera.addEventListener("click", () => (stream ? stopCamera() : startCamera()));

async function startCamera() {
  if (!navigator.mediaDevices) {
    const where = "Browsers give the camera only to pages from this computer or by HTTPS; a photo can still be chosen";
    answer.innerHTML = failure(where);
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch (error) {
    answer.innerHTML = failure(`The camera cannot be used: ${error.message || error.name}`);
    return;
  }
  camera.setAttribute("aria-pressed", "true");
  camera.textContent = "Stop the camera";
  video.srcObject = stream;
  video.classList.remove("hidden");
  video.style.aspectRatio = video.dataset.ratio || "auto";
  await video.play();
  frames(stream);
}

// One frame after the other: the next one is sent when the answer to this one is there. Of a frame the middle is
// sent, in the networks' shape, with 320 pixels of the shorter side.
async function frames(mine) {
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
  const times = [];
  while (stream === mine) {
    const ratio = Number(video.dataset.ratio) || video.videoWidth / video.videoHeight, begin = performance.now();
    const width = Math.min(video.videoWidth, video.videoHeight * ratio), height = width / ratio;
    const x = (video.videoWidth - width) / 2, y = (video.videoHeight - height) / 2;
    canvas.width = Math.round(320 * Math.max(1, ratio));
    canvas.height = Math.round(320 / Math.min(1, ratio));
    context.drawImage(video, x, y, width, height, 0, 0, canvas.width, canvas.height);
    const frame = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
    if (stream !== mine) return;
    const good = await classify(fields(frame, { frame: layer === null ? "last" : layer }), true);
    if (!good) {
      if (stream === mine) await sleep(1);
      continue;
    }
    times.push(performance.now());
    while (times[0] < performance.now() - 3000) times.shift();
    const rate = times.length > 1 ? (1000 * (times.length - 1)) / (times[times.length - 1] - times[0]) : 0;
    const took = performance.now() - begin;
    speed.textContent = `${rate.toFixed(1)} frames/s, ${took.toFixed(0)} ms from frame to answer, by this browser's clock`;
  }
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  turn++;
  video.srcObject = null;
  video.classList.add("hidden");
  camera.setAttribute("aria-pressed", "false");
  camera.textContent = "Use the camera";
  speed.textContent = "";
}

// -- now ----------------------------------------------------------------------------------------

async function look() {
  if (!document.hidden) {
    try {
      const response = await fetch("now");
      if (response.ok) byId("now").innerHTML = await response.text();
    } catch {
      const state = document.querySelector("#now .state");
      state.className = "state bad";
      state.textContent = "the server does not answer";
    }
  }
  setTimeout(look, EVERY);
}

prepare();
setTimeout(look, EVERY);
