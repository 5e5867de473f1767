// SPDX-License-Identifier: Apache-2.0
// The tab "Teach": frames of the camera or files go to the server, class by class; it learns from them, and the
// page shows what it has learned, and its answers. What pictures look like only this page knows, as thumbnails.

import { answer, ask, byId, Camera, classify, fields, fill, onDrop, overtake, read, say, sleep, unanswered } from "./page.js";

const teach = byId("teach"), list = byId("classes"), state = byId("teach-state"), wrong = byId("teach-wrong");
const learning = byId("learn"), live = byId("live"), backbone = byId("backbone"), download = byId("download");
const MOST = { classes: Number(teach.dataset.classes), photos: Number(teach.dataset.photos) };
const FEWEST = Number(teach.dataset.fewest); // photos of a class
const RATE = 5; // frames per second while a button is held
const LANES = 4; // photos that are sent at once
const AHEAD = 20; // frames that wait to be sent before the camera waits
const SIDE = 96; // pixels of a thumbnail
const STRIP = 12; // thumbnails of a class
const LISTED = 5; // files that were refused
const LOOK = 2; // seconds between two looks at a lesson that still learns
const LOOKS = 300;

let begin = null; // promise of the server's answer to the first question
let lesson = null; // the lesson's identifier, once it is there
let cards = [];
let photos = new Map(); // by their numbers
let waiting = []; // photos to be sent
let sending = 0;
let found = null; // what it has learned
let changed = false; // since it learned
let touches = 0; // photos and names that came, went or changed
let saved = true; // there is nothing that leaving would lose
let recordings = 0; // buttons that were held
let refused = []; // sentences about files, since some were last chosen
let settling = Promise.resolve(); // names that the server is being told

const encoded = encodeURIComponent;
const element = (name, properties = {}, ...children) => {
  const found = Object.assign(document.createElement(name), properties);
  found.append(...children);
  return found;
};
const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

// -- the server -----------------------------------------------------------------------------------

// What the server says; fails with its sentence, and the status.
async function tell(method, address, body) {
  let response;
  try {
    response = await ask(address, { method, body });
  } catch {
    throw new Error(await unanswered(body));
  }
  const said = response.status === 204 ? null : await read(response);
  if (response.ok) return said;
  throw Object.assign(new Error(said.error[0].toUpperCase() + said.error.slice(1)), { status: response.status });
}

// The identifier of the lesson, which begins with the first question about it.
async function begun() {
  begin ??= tell("POST", `models/${encoded(backbone.value)}/lessons`);
  const mine = begin;
  try {
    const said = await mine;
    if (begin === mine) lesson = said.lesson;
    return said.lesson;
  } catch (error) {
    if (begin === mine) begin = null;
    throw error;
  }
}

const tellLesson = async (method, path = "") => tell(method, `lessons/${await begun()}${path}`);

let away = false; // as the page says, of the server

// A lesson that is gone takes its photos with it; the names of the classes stay.
async function check() {
  try {
    if (lesson) await tell("GET", `lessons/${lesson}`);
  } catch (error) {
    away = !error.status;
    if (error.status === 404) reset(cards.map((card) => card.label));
    complain(error);
  }
}

async function failed(error) {
  complain(error);
  if (error.status === 404) await check();
}

function complain(error) {
  wrong.classList.toggle("hidden", !error);
  wrong.firstElementChild.textContent = error ? `${error.message}.` : "";
}

// -- classes --------------------------------------------------------------------------------------

class Card {
  constructor(name, loaded = 0) {
    const part = byId("class").content.cloneNode(true);
    this.element = part.firstElementChild;
    for (const each of ["name", "count", "thumbs", "record", "files", "remove"])
      this[each] = this.element.querySelector(`.${each}`);
    this.label = this.name.value = name;
    this.loaded = loaded; // photos that came with a package, of which there are no pictures
    this.known = name; // what the server calls their class
    this.perhaps = new Set(); // and what it may call it, as its answer was lost
    this.photos = new Set();
    this.coming = 0; // files that were chosen, and whose thumbnails are not there yet
    this.flights = new Map(); // photos on their way, by their promises
    this.name.addEventListener("change", () => this.rename());
    this.files.addEventListener("change", () => {
      this.take([...this.files.files]);
      this.files.value = "";
    });
    this.remove.addEventListener("click", () => this.drop());
    onDrop(this.element, (files, unread) => this.take(files, unread));
    holds(this.record, this);
    list.append(part);
    cards.push(this);
    this.draw();
  }

  get total() {
    return this.loaded + this.photos.size;
  }

  draw() {
    this.count.textContent = counted(this.total, "photo");
    this.record.setAttribute("aria-label", `Hold to record ${this.label}`);
    this.files.setAttribute("aria-label", `Add photos of ${this.label}`);
    this.remove.setAttribute("aria-label", `Remove ${this.label}`);
    this.thumbs.setAttribute("aria-label", `Photos of ${this.label}`);
    const shown = [...this.photos].slice(-STRIP).reverse();
    this.thumbs.replaceChildren(...shown.map((photo) => this.#removable(photo)));
    summary();
  }

  #removable(photo) {
    const button = element("button", { type: "button", className: "thumb", title: "Delete" }, photo.image);
    button.setAttribute("aria-label", `Delete photo ${photo.number} of ${this.label}`);
    // a finger that holds the button to record may be over it when it is lifted, as the page has moved
    let pressed = false;
    button.addEventListener("pointerdown", () => (pressed = true));
    button.addEventListener("click", (event) => {
      if (pressed || !event.detail) this.#remove(photo, button);
    });
    return button;
  }

  async #remove(photo, button) {
    const place = [...this.thumbs.children].indexOf(button);
    if (!(await gone(photo.number))) return;
    forgotten(photo);
    this.draw();
    (this.thumbs.children[place] || this.thumbs.lastElementChild || this.record).focus();
    touched();
  }

  // Photos that were chosen or dropped. Browsers do not know the types of all pictures; the server does.
  async take(files, unread = []) {
    complain(null);
    refused = unread.map((name) => `${name}: cannot be read`);
    const pictures = files.filter(({ type }) => !type || type.startsWith("image/") || files.length === 1);
    const others = files.length - pictures.length, more = pictures.length - MOST.photos;
    if (others) refused.push(`Left out, as no ${others === 1 ? "picture" : "pictures"}: ${counted(others, "file")}`);
    if (more > 0) refused.push(`Left out, as a lesson has at most ${MOST.photos} photos: ${counted(more, "file")}`);
    if (refused.length) complain(new Error(listed(refused)));
    const taken = pictures.slice(0, MOST.photos);
    this.coming += taken.length;
    summary();
    for (const file of taken) {
      const picture = await thumbnail(file);
      if (!cards.includes(this)) return; // nobody waits for the others
      this.coming--;
      put(this, file, picture);
    }
  }

  async rename() {
    const name = this.name.value.normalize("NFC").trim().replace(/\s+/g, " "), before = this.label;
    const taken = cards.some((card) => card !== this && card.has(name));
    this.name.value = before;
    if (taken) complain(new Error(`There is a class ${name} already`));
    if (!name || taken || name === before) return;
    complain(null);
    this.label = this.name.value = name; // photos that are sent from now on have it
    this.draw();
    try {
      await this.settle();
      touched();
    } catch (error) {
      if (!(error.status < 500)) this.perhaps.add(name);
      this.label = this.name.value = before;
      this.draw();
      await failed(error);
    }
  }

  // Whether it is called so: here, at the server, or by a photo on its way.
  has(name) {
    const sent = [...this.flights.values()].some((photo) => photo.label === name);
    return this.label === name || this.names.has(name) || sent;
  }

  // What the server calls the class: several names where it did not hear of one.
  get names() {
    const sent = [...this.photos].map((photo) => photo.label);
    return new Set([...sent, ...(this.loaded ? [this.known] : []), ...this.perhaps]);
  }

  // Then it has the name that the page shows. One after the other: a name may be another's until then.
  settle() {
    const mine = settling.then(() => this.#settle());
    settling = mine.catch(() => {});
    return mine;
  }

  async #settle() {
    await Promise.allSettled([...this.flights.keys()]);
    const { label } = this;
    for (const old of this.names) {
      if (old === label) continue;
      await tellLesson("PATCH", `/photos?class=${encoded(old)}&name=${encoded(label)}`).catch(absent);
      for (const photo of this.photos) if (photo.label === old) photo.label = label;
      if (this.known === old) this.known = label;
      this.perhaps.delete(old);
    }
    this.perhaps.delete(label);
  }

  async drop() {
    complain(null);
    this.element.remove();
    cards = cards.filter((card) => card !== this);
    const unsent = waiting.filter((photo) => photo.card === this);
    waiting = waiting.filter((photo) => photo.card !== this);
    unsent.forEach(dropped);
    touched();
    byId("add").focus();
    await settling; // it may be being renamed
    const { names } = this;
    for (const photo of [...this.photos]) forgotten(photo);
    try {
      for (const name of names) await tellLesson("DELETE", `/photos?class=${encoded(name)}`).catch(absent);
    } catch (error) {
      await failed(error);
    }
  }
}

// A class that the server does not have: an earlier request did it, whose answer was lost. Or there is no lesson.
async function absent(error) {
  if (error.status !== 404) throw error;
  await tellLesson("GET");
}

// Photos whose answers were lost count, where their class is still on the page; others go.
async function reconcile(address) {
  const mine = lesson, { classes } = await tell("GET", address);
  if (lesson !== mine) return; // its photos have been forgotten meanwhile
  for (const { label, photos } of classes) {
    const card = cards.find((one) => one.label === label);
    if (!card) await tell("DELETE", `${address}/photos?class=${encoded(label)}`);
    else if (photos > card.total) {
      card.loaded += photos - card.total;
      card.known = label;
      card.draw();
    }
  }
}

function added() {
  if (cards.length >= MOST.classes) return complain(new Error(`A lesson has at most ${MOST.classes} classes`));
  let number = cards.length + 1;
  while (cards.some((card) => card.label === `class ${number}`)) number++;
  return new Card(`class ${number}`);
}

// -- photos ---------------------------------------------------------------------------------------

async function thumbnail(file) {
  try {
    const picture = await createImageBitmap(file), scale = SIDE / Math.min(picture.width, picture.height);
    const canvas = element("canvas", { width: SIDE, height: SIDE });
    const width = picture.width * scale, height = picture.height * scale;
    canvas.getContext("2d").drawImage(picture, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    picture.close();
    return await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.8));
  } catch {
    return null; // the server will say what is wrong with it
  }
}

function put(card, file, picture, recording = "") {
  const image = new Image(SIDE, SIDE);
  image.alt = "";
  if (picture) image.src = URL.createObjectURL(picture);
  waiting.push({ card, file, image, recording });
  pump();
}

function pump() {
  while (sending < LANES && waiting.length) {
    sending++;
    const photo = waiting.shift(), { card } = photo, flight = send(photo);
    card.flights.set(flight, photo);
    flight.finally(() => {
      sending--;
      card.flights.delete(flight);
      if (cards.includes(card)) card.draw();
      pump();
    });
  }
  summary();
}

async function send(photo) {
  try {
    const own = await begun(), address = `lessons/${own}/photos`;
    photo.label = photo.card.label;
    const about = `class=${encoded(photo.label)}&recording=${photo.recording}`;
    const said = await tell("POST", `${address}?${about}`, photo.file);
    photo.number = said.photo;
    if (cards.includes(photo.card)) {
      photo.card.photos.add(photo);
      photos.set(photo.number, photo);
      touched();
    } else {
      dropped(photo);
      if (lesson === own) await tell("DELETE", `${address}/${photo.number}`); // its class was removed
    }
  } catch (error) {
    dropped(photo);
    if (!cards.includes(photo.card)) return; // nobody waits for it any more
    const { name } = photo.file;
    if (name) refused.push(error.message.startsWith(name) ? error.message : `${name}: ${error.message}`);
    await failed(refused.length ? Object.assign(new Error(listed(refused)), { status: error.status }) : error);
  }
  photo.file = null;
}

function listed(sentences) {
  const more = sentences.length - LISTED;
  return [...sentences.slice(0, LISTED), ...(more > 0 ? [`And ${more} more`] : [])].join(". ");
}

// Its picture goes.
function dropped(photo) {
  URL.revokeObjectURL(photo.image.src);
}

function forgotten(photo) {
  dropped(photo);
  photo.card.photos.delete(photo);
  photos.delete(photo.number);
}

// Whether the server has forgotten a photo.
async function gone(number) {
  try {
    await tellLesson("DELETE", `/photos/${number}`);
    return true;
  } catch (error) {
    await failed(error);
    return false;
  }
}

// One that was judged; `card` is that of its class.
async function removed(number, figure, card) {
  if (!(await gone(number))) return;
  const photo = photos.get(number);
  if (photo) {
    forgotten(photo);
    photo.card.draw();
  } else if (cards.includes(card)) {
    card.loaded--;
    card.draw();
  }
  const next = figure.nextElementSibling || figure.previousElementSibling;
  figure.remove();
  (next?.querySelector("button") || learning).focus();
  touched();
}

function touched() {
  touches++;
  changed = true;
  saved = !cards.some((card) => card.total);
  summary();
}

function summary() {
  const coming = cards.reduce((sum, card) => sum + card.coming, 0), left = coming + waiting.length + sending;
  const ready = cards.filter((card) => card.total >= FEWEST).length;
  const total = cards.reduce((sum, card) => sum + card.total, 0);
  const few = cards.filter((card) => card.total && card.total < FEWEST);
  const parts = [`${counted(total, "photo")}${left ? `, and ${left} on their way` : ""}.`];
  if (ready < 2) parts.push(`To learn it takes ${FEWEST} photos or more of two classes or more.`);
  else if (few.length) parts.push(`Fewer than ${FEWEST} photos of ${few.map((card) => card.label).join(", ")}.`);
  else if (found && changed) parts.push("Something has changed since it learned.");
  else if (found) parts.push(`It recognises ${found.right} of ${found.photos}.`);
  const text = parts.join(" ");
  if (state.getAttribute("aria-busy") !== "true" && state.textContent !== text) {
    state.textContent = text;
    if (!left && total && (changed || !found)) say(text); // and not at every photo that comes or goes
  }
  learning.disabled = left > 0 || ready < 2 || few.length > 0 || state.getAttribute("aria-busy") === "true";
  backbone.disabled = lesson !== null;
  byId("forget").classList.toggle("hidden", lesson === null);
}

// -- holding a button -----------------------------------------------------------------------------

let held = null; // what holding a button now is known by: the card, and no other time that it was held

// By mouse, finger, space or enter; a click without any of these, as of a screen reader, takes one photo.
function holds(button, card) {
  const isKey = (event) => event.key === " " || event.key === "Enter";
  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    button.setPointerCapture(event.pointerId);
    hold(card);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"])
    button.addEventListener(name, () => release(card));
  button.addEventListener("keydown", (event) => {
    if (!isKey(event)) return;
    event.preventDefault();
    if (!event.repeat) hold(card);
  });
  button.addEventListener("keyup", (event) => {
    if (!isKey(event)) return;
    event.preventDefault();
    release(card);
  });
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  button.addEventListener("click", (event) => {
    if (event.detail) return; // of a pointer
    hold(card);
    release(card);
  });
}

function release(card) {
  if (held?.card === card) held = null;
}

async function hold(card) {
  if (held) return;
  const mine = (held = { card });
  complain(null);
  let count = 0;
  const recording = ++recordings;
  refused = [];
  card.record.setAttribute("aria-pressed", "true");
  try {
    const ran = camera.on;
    if (!ran) await camera.start();
    if (camera.on && (ran || held === mine))
      do {
        const frame = await camera.frame();
        put(card, frame, frame, recording);
        count++;
        await sleep(1 / RATE);
        while (held === mine && waiting.length > AHEAD) await sleep(0.05);
      } while (held === mine && camera.on && cards.includes(card));
  } catch (error) {
    complain(error);
  }
  if (held === mine) held = null;
  if (held?.card !== card) card.record.setAttribute("aria-pressed", "false");
  say(`${counted(count, "photo")} of ${card.label}`);
}

// -- learning -------------------------------------------------------------------------------------

async function learn() {
  const mine = lesson, address = `lessons/${mine}`;
  complain(null);
  busy("It learns ...");
  changed = false;
  try {
    for (const card of cards) await card.settle();
    await reconcile(address);
    const said = await tell("POST", `${address}/learn`).catch((error) => late(error, address));
    if (lesson === mine) learned(said.learned); // and has not been forgotten meanwhile
  } catch (error) {
    if (lesson === mine) {
      changed = true;
      await failed(error);
    }
  }
  busy("");
  if (document.activeElement === document.body) learning.focus(); // which it loses while it is disabled
}

function busy(text) {
  state.setAttribute("aria-busy", String(text !== ""));
  if (text) say((state.textContent = text));
  summary();
}

// It may go on where the request's time is over.
async function late(error, address) {
  if (error.status !== 504) throw error;
  const before = JSON.stringify(found);
  for (let look = 0; look < LOOKS; look++) {
    const said = await tell("GET", address);
    if (said.learned && JSON.stringify(said.learned) !== before) return said;
    if (!said.learning) break; // it failed
    await sleep(LOOK);
  }
  throw error;
}

function learned(what) {
  if (!found && !camera.on) fill("teach", byId("ready").innerHTML);
  found = what;
  saved = false;
  byId("learned").classList.remove("hidden");
  byId("findings").classList.remove("hidden");
  byId("found").replaceChildren(...findings());
  say(byId("found").firstElementChild.textContent);
  linked();
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function findings() {
  const lead = `${found.right} of ${found.photos} photos recognised`, share = percent(found.right / found.photos);
  const between = (found.interval ?? []).map(percent).join(" to ");
  const counts = found.classes.map((one) => one.photos), each = found.recordings === found.photos;
  const mean = each && Math.min(...counts) === Math.max(...counts) ? "" : `; mean of the classes ${percent(found.share)}`;
  const how = found.interval
    ? `, ${share}${mean} (${between}), each by a head that had not seen it${each ? "" : ", nor others of its recording"}.`
    : `, ${share}, each by a head that had seen others of its recording.`;
  const parts = [element("p", { className: "lead" }, element("strong", {}, lead), how)];
  if (found.alone.length) {
    const text = "One recording each, which cannot tell how well new photos are recognised:";
    parts.push(element("p", {}, `${text} ${found.alone.join(", ")}. Record them again, elsewhere.`));
  }
  parts.push(table(found.classes));
  if (found.confused) {
    const [first, second] = found.confused.labels;
    parts.push(element("h3", {}, `Most often confused: ${first} and ${second} (${counted(found.confused.count, "photo")})`));
    const below = found.doubtful.map(({ photo }) => photo);
    const others = found.confused.photos.filter(({ photo }) => !below.includes(photo));
    if (others.length) parts.push(gallery(others, false));
  }
  if (found.doubtful.length) {
    parts.push(element("h3", {}, "In the wrong class?"));
    parts.push(gallery(found.doubtful, true));
  }
  if (found.weakest) parts.push(element("p", {}, `What would help: more photos of ${found.weakest}.`));
  parts.push(element("p", { className: "note" }, `Learned in ${found.seconds.toFixed(1)} s, by ${found.solver} regression.`));
  return parts;
}

function table(classes) {
  const body = element("table", { className: "bars" });
  body.createCaption().append("Photos recognised, by class");
  for (const { label, photos, right } of classes) {
    const row = body.insertRow(), bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ class: "bar", "aria-hidden": "true", width: "100%", height: "14" }))
      bar.setAttribute(name, value);
    for (const [name, value] of Object.entries({ width: percent(right / photos).replace(" ", ""), height: "14", rx: "3" }))
      rect.setAttribute(name, value);
    bar.append(rect);
    row.append(element("th", { scope: "row" }, label), element("td", {}, bar));
    row.append(element("td", { className: "value" }, `${right} of ${photos}`));
  }
  return body;
}

// Photos that were judged; those that came with a package have no picture.
function gallery(judged, removable) {
  const items = judged.map(({ photo, label, guess, probability }) => {
    const known = photos.get(photo);
    const image = known ? known.image.cloneNode() : element("span", { className: "unseen" }, `photo ${photo}`);
    if (known) image.alt = `photo of ${label}`;
    const item = element("li", {}, image, element("span", {}, `${label}, looks like ${guess} (${percent(probability)})`));
    if (removable) {
      const card = cards.find((one) => one.has(label)); // it may be renamed
      const button = element("button", { type: "button" }, "Remove");
      button.setAttribute("aria-label", `Remove photo ${photo} of ${label}`);
      button.addEventListener("click", () => removed(photo, item, card));
      item.append(button);
    }
    return item;
  });
  return element("ul", { className: "judged" }, ...items);
}

// The address of the package, by its name and whether the photos go with it.
function linked() {
  const options = `name=${encoded(byId("called").value.trim() || "mine")}&keep=${byId("keep").checked}`;
  download.href = `lessons/${lesson}/package?${options}`;
}

// -- answers --------------------------------------------------------------------------------------

const question = () => found && { model: lesson, other: "" };
// photos come first: the core would change networks with every frame
const asked = () => (held || waiting.length ? null : question());
const camera = new Camera(byId("teach-video"), byId("teach-camera"), byId("teach-speed"), asked, answered);

function answered(good) {
  if (!found) return; // it has been forgotten meanwhile
  if (!good) return check();
  if (away) complain(null);
  away = false;
  const before = live.dataset.label;
  const [label, share] = [".label", ".share"].map((part) => answer.querySelector(part)?.textContent ?? "");
  live.textContent = `${label} ${share}`;
  live.dataset.label = label;
  live.classList.remove("hidden");
  if (label !== before) say(live.textContent);
}

async function tried(file) {
  camera.stop();
  if (!(await classify(fields(file, question())))) await check();
}

// -- beginning, leaving ---------------------------------------------------------------------------

function reset(names) {
  for (const photo of [...photos.values(), ...waiting]) dropped(photo);
  begin = lesson = found = null;
  if (!teach.classList.contains("hidden")) overtake();
  cards = [];
  photos = new Map();
  waiting = [];
  changed = false;
  saved = true;
  list.replaceChildren();
  live.classList.add("hidden");
  live.dataset.label = "";
  byId("learned").classList.add("hidden");
  byId("findings").classList.add("hidden");
  fill("teach", byId("untaught").innerHTML);
  for (const name of names) new Card(name);
  summary();
}

const losing = () => saved || confirm("The photos of this lesson are then forgotten. Go on?");

async function forget() {
  const mine = lesson;
  if (!losing()) return;
  reset(["class 1", "class 2"]);
  try {
    await tell("DELETE", `lessons/${mine}`);
  } catch (error) {
    if (error.status !== 404) complain(error);
  }
}

async function loaded(file) {
  if (!file || !losing()) return;
  complain(null);
  const before = lesson;
  try {
    const said = await tell("POST", `models/${encoded(backbone.value)}/lessons`, file);
    if (before) tell("DELETE", `lessons/${before}`).catch(() => {}); // it would be gone soon, too
    reset([]);
    begin = Promise.resolve(said);
    lesson = said.lesson;
    for (const { label, photos } of said.classes) new Card(label, photos);
    byId("called").value = file.name.replace(/\.safetensors$/, "");
    const sofar = touches;
    await learn();
    saved = touches === sofar; // nothing has come meanwhile that the file lacks
  } catch (error) {
    complain(error);
  }
}

byId("teach-camera").addEventListener("click", async () => {
  complain(null);
  if (camera.on) return camera.stop();
  await camera.start().catch(complain);
});
byId("add").addEventListener("click", () => added()?.name.select());
byId("forget").addEventListener("click", forget);
learning.addEventListener("click", learn);
for (const [name, use] of [["try", tried], ["load", loaded]])
  byId(name).addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) await use(file);
    event.target.value = "";
  });
for (const name of ["called", "keep"]) byId(name).addEventListener("change", linked);
download.addEventListener("click", async (event) => {
  event.preventDefault();
  complain(null);
  const sofar = touches, keeps = byId("keep").checked && !changed;
  try {
    const response = await ask(download.href).catch(() => Promise.reject(new Error("The server does not answer")));
    if (!response.ok) throw Object.assign(new Error((await read(response)).error), { status: response.status });
    const [, file] = /filename="(.*)"/.exec(response.headers.get("Content-Disposition"));
    const link = element("a", { href: URL.createObjectURL(await response.blob()), download: file });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // browsers take it a moment later
    saved = keeps && touches === sofar;
  } catch (error) {
    await failed(error);
  }
});
window.addEventListener("beforeunload", (event) => {
  if (!saved) event.preventDefault();
});
window.addEventListener("pagehide", () => {
  if (lesson) fetch(`lessons/${lesson}`, { method: "DELETE", keepalive: true });
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) check(); // the page is back as it was, and its lesson is not
});
reset(["class 1", "class 2"]);
