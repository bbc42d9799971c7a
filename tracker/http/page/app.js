// The page of a tracker: its state, asked for again and again while the page is seen, and its views.

import { html, render, useEffect, useRef } from "/assets/preact.js";
import { beginSession, get, setUp } from "/assets/api.js";
import { Group, Groups } from "/assets/groups.js";
import { Load } from "/assets/load.js";
import { Log } from "/assets/log.js";
import { Overview } from "/assets/overview.js";
import { Notes, useHash, useTold } from "/assets/parts.js";
import { usePolled } from "/assets/polling.js";
import { Swarms } from "/assets/swarms.js";
import { Devices, Users } from "/assets/users.js";

const POLL_MS = 1500; // with the view that is shown, at most two updates a second
const VIEWS = [
  ["overview", "Overview"], ["users", "Users"], ["devices", "Devices"], ["groups", "Groups"],
  ["shares", "Shares"], ["load", "Load"], ["log", "Log"],
];

function App() {
  const [view, argument] = useHash("overview");
  const [notes, tell] = useTold();
  const main = useRef(null);
  const [status, trouble] = usePolled(() => get("/status"), [], POLL_MS);

  // Runs one command; tells what it did or its error; returns its document, or null.
  const attempt = async (command, done = "") => {
    try {
      const found = await command();
      if (done) tell(done, "good");
      return found === undefined ? true : found;
    } catch (problem) {
      tell(problem.message, "bad", problem.hint || "");
      return null;
    }
  };
  useEffect(() => {
    if (!main.current) return;
    main.current.focus({ preventScroll: true });
    const link = document.querySelector("nav [aria-current]");
    if (link) link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [view, argument]);

  if (!status) return html`<p class="boot" role=${trouble ? "alert" : "status"}>${trouble || "Connecting…"}</p>`;
  const here = view === "group" ? "groups" : view;
  const counts = { users: status.users_online, devices: status.devices_online, groups: status.groups, shares: status.shares };
  const shared = { status, attempt, tell };
  let body = html`<${Overview} ...${shared} />`;
  if (view === "users") body = html`<${Users} ...${shared} />`;
  else if (view === "devices") body = html`<${Devices} ...${shared} />`;
  else if (view === "groups") body = html`<${Groups} ...${shared} />`;
  else if (view === "group") body = html`<${Group} key=${argument} group=${argument} ...${shared} />`;
  else if (view === "shares") body = html`<${Swarms} ...${shared} />`;
  else if (view === "load") body = html`<${Load} ...${shared} />`;
  else if (view === "log") body = html`<${Log} ...${shared} />`;
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>Skip to the content</a>
    <div class="frame">
      <nav aria-label="Views"><div class="brand">Mini-Torrent <span class="soft">tracker</span></div>
        <ul>${VIEWS.map(([name, text]) => html`<li key=${name}><a href=${`#${name}`} aria-current=${name === here ? "page" : undefined}>
          <span>${text}</span>${counts[name] ? html`<span class="number">${counts[name].toLocaleString()}</span>` : ""}</a></li>`)}</ul>
        <div class="who">version ${status.version}<br />${status.registration === "open" ? "registration is open" : `registration: ${status.registration}`}</div></nav>
      <main id="main" ref=${main} tabindex="-1">${trouble && html`<div class="panel bad" role="alert">${trouble}</div>`}${body}</main>
    </div>
    <${Notes} notes=${notes} />`;
}

setUp({ first: "overview", program: "the tracker", start: "start it: mini-torrent-tracker start, then mini-torrent-tracker web" });
const root = document.getElementById("app");
const opened = await beginSession();
root.textContent = "";
if (opened) render(html`<${App} />`, root);
else render(html`<p class="boot" role="alert">This page was opened before, or too long ago. Open it again: <code>mini-torrent-tracker web</code></p>`, root);
