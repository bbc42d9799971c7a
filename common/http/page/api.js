// Session and requests. The token stays in this tab (sessionStorage) and travels in a header only.

const TOKEN = "mini-torrent.token";
const PREFIX = "/api/v1";

// The view that comes first, the program that answers, and how it is started.
let page = { first: "", program: "", start: "" };
export const setUp = (found) => { page = found; };

export class Problem extends Error {
  constructor(details, status) {
    super(details.detail || "the request failed");
    this.code = details.code || "failed";
    this.hint = details.hint || "";
    this.status = status;
  }
}

export const path = (...parts) => "/" + parts.map(encodeURIComponent).join("/");

// The one-time secret of the address is exchanged for a token, and leaves the address at once.
export async function beginSession() {
  const secret = location.hash.startsWith("#s=") ? location.hash.slice(3) : "";
  if (!secret) return sessionStorage.getItem(TOKEN) !== null || await needsNone();
  history.replaceState(null, "", `/#${page.first}`);
  const answer = await fetch(PREFIX + "/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ secret }),
  });
  if (!answer.ok) return sessionStorage.getItem(TOKEN) !== null;
  sessionStorage.setItem(TOKEN, (await answer.json()).token);
  return true;
}

// Behind a proxy, which decides on its users by itself, there are no sessions.
async function needsNone() {
  if (["127.0.0.1", "localhost"].includes(location.hostname)) return false;
  return (await fetch(PREFIX + "/status")).ok;
}

// Why it is kept: without a session there is nothing to ask for again and again.
let ended = null;
export const endSession = () => sessionStorage.removeItem(TOKEN);

async function send(method, where, body, extra = {}) {
  if (ended) throw ended;
  const headers = { ...extra }, token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (method !== "GET") headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(PREFIX + where, {
      method,
      headers,
      body: method === "GET" ? undefined : JSON.stringify(body || {}),
    });
  } catch {
    throw new Problem({ code: "unreachable", detail: `${page.program} does not answer`, hint: page.start }, 0);
  }
  if (!answer.ok) {
    const details = await answer.json().catch(() => ({}));
    const problem = new Problem(details, answer.status);
    if (details.code === "no-session") { endSession(); ended = problem; }
    throw problem;
  }
  return answer;
}

// Called after each request that changed something here: events do not tell all of it.
let written = () => {};
export const onWrite = (call) => { written = call; };

export const get = async (where) => (await send("GET", where)).json();
export const post = (where, body) => change("POST", where, body);
export const del = (where) => change("DELETE", where);

async function change(method, where, body) {
  const found = await (await send(method, where, body)).json();
  written();
  return found;
}

// Messages of a text/event-stream: {event, id, data}.
async function* messages(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const found = {};
      for (const line of part.split("\n")) {
        const at = line.indexOf(":");
        if (at > 0) found[line.slice(0, at)] = line.slice(at + 1).trimStart();
      }
      if (found.data) yield { event: found.event, id: found.id || "", data: JSON.parse(found.data) };
    }
  }
}

// A long command; `onProgress` gets each progress document.
export async function run(where, body, onProgress) {
  const answer = await send("POST", where, body, { Accept: "text/event-stream" });
  if (!(answer.headers.get("content-type") || "").startsWith("text/event-stream")) return answer.json();
  for await (const { event, data } of messages(answer)) {
    if (event === "progress") onProgress(data);
    else if (event === "problem") throw new Problem(data, data.status);
    else { written(); return data; }
  }
  throw new Problem({ code: "unreachable", detail: `${page.program} ended` }, 0);
}

// Events without end; the stream goes on behind the last event after an interruption. `from`: the
// event to begin behind; one that no run of the program knows brings all that are kept.
export async function listen(onEvent, onState, from = "") {
  let last = from;
  for (;;) {
    try {
      const answer = await send("GET", "/events", null, last ? { "Last-Event-ID": last } : {});
      onState(true);
      for await (const { event, id, data } of messages(answer)) {
        last = id || last;
        onEvent({ ...data, event });
      }
    } catch (problem) {
      if (problem.code === "no-session") return onState(false);
    }
    onState(false);
    await new Promise((done) => setTimeout(done, 2000));
  }
}
