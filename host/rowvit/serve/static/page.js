// SPDX-License-Identifier: Apache-2.0
// What the page does beyond a form: tabs, drop, folder, camera, slider, figures of now. All of it is asked of the
// server, which renders every part.

export const byId = (id) => document.getElementById(id);
export const answer = byId("answer");
const form = byId("ask"), says = byId("says"), photo = byId("photo"), drop = byId("drop");
const MOST = 500; // pictures of a folder
const EVERY = 1000; // ms between two looks at the figures
const TRIES = 5; // of a request that finds the queue full
let layer = null; // where the slider is, once someone has moved it
let turn = 0; // of the latest question: answers to earlier ones are dropped

document.documentElement.classList.add("js");

export const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// A request; where the queue is full, again after as long as the server says.
export async function ask(address, options) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(address, options);
    if (response.status !== 429 || attempt === TRIES) return response;
    await sleep(Number(response.headers.get("Retry-After")) || 1);
  }
}

// Why there is no answer to a request: a file may be gone since it was chosen.
export async function unanswered(file) {
  const there = !(file instanceof Blob) || (await file.slice(0, 1).arrayBuffer().catch(() => null));
  return there ? "The server does not answer" : `${file.name || "The file"} cannot be read any more`;
}

const unread = ({ status, statusText }) => `The server's answer cannot be read (${`${status} ${statusText}`.trim()})`;

// What an answer says in JSON; of an error of a proxy, which says it otherwise, the status.
export async function read(response) {
  const said = await response.json().catch(() => null);
  if (said) return said;
  if (!response.ok) return { error: unread(response) };
  throw new Error(unread(response));
}

export function fields(file, more = {}) {
  const data = new FormData();
  for (const name of ["model", "other"]) if (byId(name)) data.set(name, byId(name).value);
  if (file) data.set("photo", file);
  for (const [name, value] of Object.entries(more)) data.set(name, value);
  return data;
}

// The server's part of the page for one photo; false if there was none, or a later question overtook it.
export async function classify(data, quiet = false) {
  const mine = ++turn;
  if (!quiet) answer.setAttribute("aria-busy", "true");
  let html, good = false;
  try {
    const response = await ask("./", { method: "POST", body: data, headers: { "X-Part": "1", Accept: "text/html" } });
    html = await response.text();
    good = response.ok;
    if (!html.trimStart().startsWith("<")) html = failure(html);
    else if (!good && !html.includes('class="card failure"')) html = failure(unread(response)); // a proxy's page
  } catch {
    html = failure(await unanswered(data.get("photo")));
  }
  if (mine !== turn) return false;
  renew(html);
  answer.setAttribute("aria-busy", "false");
  prepare();
  if (!quiet || !good) say(spoken());
  if (!quiet && answer.getBoundingClientRect().top > window.innerHeight / 2) answer.scrollIntoView({ block: "start" });
  return good;
}

// Another answer in the place of the one on show, around the slider that somebody has: it keeps focus and finger.
function renew(html) {
  const slider = answer.contains(document.activeElement) ? document.activeElement.closest(".slider") : null;
  const part = Object.assign(document.createElement("div"), { innerHTML: html });
  const twin = slider && part.querySelector(`#${slider.querySelector("input").id}`)?.closest(".slider");
  if (!twin) return answer.replaceChildren(...part.childNodes);
  for (let old = slider, now = twin; old !== answer; old = old.parentNode, now = now.parentNode) {
    const siblings = [...now.parentNode.childNodes], at = siblings.indexOf(now);
    for (const each of [...old.parentNode.childNodes]) if (each !== old) each.remove();
    old.before(...siblings.slice(0, at));
    old.after(...siblings.slice(at + 1));
  }
  slider.querySelector("input").max = twin.querySelector("input").max; // another network's
}

function failure(sentence) {
  const part = document.createElement("section");
  part.className = "card failure";
  part.setAttribute("role", "alert");
  part.append(Object.assign(document.createElement("h2"), { textContent: "No answer" }));
  part.append(Object.assign(document.createElement("p"), { textContent: `${sentence}.` }));
  return part.outerHTML;
}

// For those who hear the page.
export function say(text) {
  says.textContent = text;
}

const spoken = () =>
  [...answer.querySelectorAll("article h2, .failure")].map((part) => part.textContent.replace(/\s+/g, " ").trim()).join("; ");

// -- tabs ---------------------------------------------------------------------------------------

// What a tab has for an answer, on the page where it is the one on show.
export function fill(name, html) {
  if (name === tab) answer.innerHTML = html;
  else tabs[name] = html;
}

// Answers that are still on their way are of no use any more.
export function overtake() {
  turn++;
  answer.setAttribute("aria-busy", "false");
}

const tabs = { ask: answer.innerHTML, teach: byId("untaught")?.innerHTML }; // what each has for an answer
let tab = "ask";

function choose() {
  const name = location.hash.slice(1) || "ask";
  if (name === tab || !tabs[name] || !byId(name)) return; // the skip link's address, too
  Camera.stopAll();
  overtake(); // they are of the other tab
  leaveFolder();
  tabs[tab] = answer.innerHTML;
  tab = name;
  answer.innerHTML = tabs[tab];
  prepare();
  for (const each of Object.keys(tabs)) byId(each).classList.toggle("hidden", each !== tab);
  for (const part of document.querySelectorAll("[data-tab]")) part.classList.toggle("hidden", part.dataset.tab !== tab);
  for (const link of document.querySelectorAll("nav a"))
    if (link.hash === `#${tab}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
}

// -- slider -------------------------------------------------------------------------------------

function prepare() {
  for (const slider of answer.querySelectorAll(".slider input")) {
    if (layer !== null) slider.value = layer;
    show(slider);
  }
}

function show(slider) {
  const at = Number(slider.value), layers = slider.closest(".layers");
  slider.parentElement.querySelector("output").value = at < 0 ? "none" : at;
  const captions = [];
  for (const steps of layers.querySelectorAll(".steps")) {
    // in the photo itself nothing has looked yet: attention begins with layer 0
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
  camera.stop();
  const example = event.submitter && event.submitter.name === "example" ? event.submitter.value : "";
  if (example) asked(() => fields(null, { example }));
  else take([...photo.files]);
});
photo.addEventListener("click", () => (photo.value = "")); // the same may be chosen again
photo.addEventListener("change", () => take([...photo.files]));
for (const name of ["model", "other"])
  byId(name)?.addEventListener("change", () => again && again());

// Of the network that is chosen; of one without any, the first ones that there are.
function examples() {
  const all = [...document.querySelectorAll(".examples")], name = byId("model").value;
  const own = all.find((each) => each.dataset.model === name) || all[0];
  for (const each of all) each.classList.toggle("hidden", each !== own);
}
byId("model").addEventListener("change", examples);
examples();

let again = null; // asks the last question anew, as for another network

function take(files, unread = []) {
  const seen = files.filter((file) => !file.name.startsWith(".") || files.length === 1);
  // browsers do not know the types of all pictures; the server does
  const pictures = seen.filter(({ type }) => !type || type.startsWith("image/") || files.length === 1);
  camera.stop();
  if (pictures.length === 1) one(pictures[0]);
  else if (pictures.length) many(pictures.slice(0, MOST), files.length + unread.length);
  else if (unread.length) answer.innerHTML = failure(`${unread[0]} cannot be read`);
  else if (files.length) answer.innerHTML = failure(`None of these ${files.length} files is a picture`);
}

const one = (file) => asked(() => fields(file));

function asked(question) {
  again = () => classify(question());
  again();
}

byId("folder").addEventListener("click", () => {
  const input = Object.assign(document.createElement("input"), { type: "file", webkitdirectory: true });
  input.addEventListener("change", () => take([...input.files]));
  input.click();
});

for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
onDrop(drop, take);

// Files and folders that are dropped on a part of the page go to `taken`, with the names of those that cannot be read.
export function onDrop(part, taken) {
  for (const name of ["dragenter", "dragover"])
    part.addEventListener(name, (event) => {
      event.preventDefault();
      part.classList.add("over");
    });
  for (const name of ["dragleave", "drop"]) part.addEventListener(name, () => part.classList.remove("over"));
  part.addEventListener("drop", async (event) => {
    event.preventDefault();
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
    const files = [...event.dataTransfer.files];
    if (!entries.some((entry) => entry && entry.isDirectory)) return taken(files);
    const found = [], unread = [];
    for (const entry of entries) if (entry) await gather(entry, found, unread);
    taken(found, unread);
  });
}

// The files below an entry, but for hidden ones, and the names of what cannot be read.
async function gather(entry, found, unread) {
  if (entry.name.startsWith(".")) return;
  try {
    if (entry.isFile) found.push(await new Promise((done, failed) => entry.file(done, failed)));
    if (!entry.isDirectory) return;
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return;
      for (const each of some) await gather(each, found, unread);
    }
  } catch {
    unread.push(entry.name);
  }
}

let folder = null; // the one that is being asked about: an earlier one stops

function leaveFolder() {
  if (folder) byId("gallery-state").textContent += ", stopped";
  folder = null;
}

async function many(files, all) {
  const mine = (folder = {}), before = turn, list = byId("gallery-list"), state = byId("gallery-state");
  for (const image of list.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  list.replaceChildren();
  byId("gallery").classList.remove("hidden");
  const left = all > files.length ? ` (${all} files, of which ${files.length} are taken)` : "";
  const model = byId("model").value, by = byId("model").length > 1 ? `, by ${model}` : "";
  files.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  let done = 0, failed = 0;
  state.textContent = `0 of ${files.length}${left}${by}`;
  for (const file of files) {
    const text = await label(file, model);
    if (mine !== folder) return;
    const item = document.createElement("li"), button = document.createElement("button"), image = new Image();
    button.type = "button";
    image.src = URL.createObjectURL(file);
    image.alt = "";
    image.loading = "lazy"; // full photos, of a phone with little memory
    image.decoding = "async";
    image.addEventListener("error", () => image.remove());
    button.append(image, `${file.name}: ${text.label}`);
    button.addEventListener("click", () => {
      camera.stop();
      one(file);
    });
    item.append(button);
    list.append(item);
    if (!text.good) failed++;
    done++;
    state.textContent = `${done} of ${files.length}${left}${by}${failed ? `, ${failed} without an answer` : ""}`;
    if (done === 1 && turn === before) one(file); // unless something else was asked meanwhile
  }
  folder = null;
}

async function label(file, model) {
  try {
    const address = `models/${encodeURIComponent(model)}/classify`;
    const response = await ask(address, { method: "POST", body: file });
    const found = await read(response);
    if (!response.ok) return { good: false, label: found.error };
    const [best] = found.classes;
    const share = best ? `, ${(100 * best.probability).toFixed(1)} %` : "";
    return { good: true, label: `${found.verdict ?? (found.label || "no classes")}${share}` };
  } catch {
    return { good: false, label: await unanswered(file) };
  }
}

// -- camera -------------------------------------------------------------------------------------

function ended(stream) {
  for (const track of stream.getTracks()) track.stop();
}

// A camera that a button starts and stops. While it runs, `more` gives further fields of the question that is asked
// about a frame, or null where none is, and `answered` hears of every answer whether there is one.
export class Camera {
  static all = [];
  #canvas = document.createElement("canvas");
  #stream = null;
  #turn = 0; // of the latest start or stop: a start that is on its way then is overtaken

  constructor(video, button, speed, more, answered = () => {}) {
    Object.assign(this, { video, button, speed, more, answered });
    Camera.all.push(this);
  }

  static stopAll() {
    for (const each of Camera.all) each.stop();
  }

  get on() {
    return this.#stream !== null;
  }

  // Fails with a sentence. It may be off behind it, where somebody has stopped it meanwhile.
  async start() {
    if (!navigator.mediaDevices)
      throw new Error("Browsers give the camera only to pages from this computer or by HTTPS; a photo can still be chosen");
    const mine = ++this.#turn;
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    } catch (error) {
      if (mine !== this.#turn) return;
      throw new Error(`The camera cannot be used: ${error.message || error.name}`);
    }
    if (mine !== this.#turn) return ended(stream);
    this.stop();
    this.#stream = stream;
    for (const track of stream.getTracks())
      track.addEventListener("ended", () => {
        if (this.#stream !== stream) return;
        this.stop();
        say((this.speed.textContent = "The camera has ended: it was unplugged, or something else took it."));
      });
    this.#shown(true);
    this.video.srcObject = stream;
    this.video.style.aspectRatio = this.video.dataset.ratio || "auto";
    try {
      await this.video.play();
    } catch (error) {
      if (this.#stream !== stream) return;
      this.stop();
      throw error;
    }
    this.#ask(stream);
  }

  stop() {
    this.#turn++;
    if (!this.on) return;
    ended(this.#stream);
    this.#stream = null;
    turn++;
    this.video.srcObject = null;
    this.#shown(false);
    this.speed.textContent = "";
  }

  #shown(on) {
    this.video.classList.toggle("hidden", !on);
    this.button.setAttribute("aria-pressed", String(on));
    this.button.textContent = on ? "Stop the camera" : "Use the camera";
  }

  // The middle of a frame, in the networks' shape, with 320 pixels of the shorter side, as JPEG.
  frame() {
    const { video } = this, canvas = this.#canvas;
    const ratio = Number(video.dataset.ratio) || video.videoWidth / video.videoHeight;
    const width = Math.min(video.videoWidth, video.videoHeight * ratio), height = width / ratio;
    const x = (video.videoWidth - width) / 2, y = (video.videoHeight - height) / 2;
    canvas.width = Math.round(320 * Math.max(1, ratio));
    canvas.height = Math.round(320 / Math.min(1, ratio));
    canvas.getContext("2d").drawImage(video, x, y, width, height, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
  }

  // One frame after the other: the next one is sent when the answer to this one is there.
  async #ask(mine) {
    const times = [];
    while (this.#stream === mine) {
      const begin = performance.now(), more = this.more();
      if (more === null) {
        await sleep(0.05);
        continue;
      }
      const frame = await this.frame();
      if (this.#stream !== mine) return;
      const good = await classify(fields(frame, { frame: layer === null ? "last" : layer, ...more }), true);
      if (this.#stream !== mine) return;
      this.answered(good);
      if (!good) {
        await sleep(1);
        continue;
      }
      times.push(performance.now());
      while (times[0] < performance.now() - 3000) times.shift();
      const rate = times.length > 1 ? (1000 * (times.length - 1)) / (times[times.length - 1] - times[0]) : 0;
      const took = performance.now() - begin;
      this.speed.textContent = `${rate.toFixed(1)} frames/s, ${took.toFixed(0)} ms from frame to answer, by this browser's clock`;
    }
  }
}

const camera = new Camera(byId("video"), byId("camera"), byId("camera-speed"), () => ({}));

byId("camera").addEventListener("click", async () => {
  if (camera.on) return camera.stop();
  again = null; // frames are asked about the network that is chosen
  try {
    await camera.start();
  } catch (error) {
    byId("camera-speed").textContent = `${error.message}.`; // at the button: on a phone the answer is out of sight
    say(error.message);
  }
});

// -- now ----------------------------------------------------------------------------------------

async function look() {
  if (!document.hidden) {
    let wrong = "";
    try {
      const response = await fetch("now");
      if (response.ok) byId("now").innerHTML = await response.text();
      else wrong = response.status === 401 ? "the server wants its token again" : "the server refuses";
    } catch {
      wrong = "the server does not answer";
    }
    const state = document.querySelector("#now .state");
    if (wrong) Object.assign(state, { className: "state bad", textContent: wrong });
  }
  setTimeout(look, EVERY);
}

prepare();
window.addEventListener("hashchange", choose);
choose();
setTimeout(look, EVERY);
