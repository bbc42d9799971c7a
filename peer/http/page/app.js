// The page of a peer: its state, fetched once a second while the page is seen, and its views.

import { html, render, useEffect, useRef, useState } from "/assets/preact.js";
import { beginSession, get, listen, onWrite, Problem, setUp } from "/assets/api.js";
import { Device, Events, LogIn, Shares } from "/assets/device.js";
import { Group, Groups } from "/assets/group.js";
import { Notes, useHash, useTold } from "/assets/parts.js";
import { Transfers } from "/assets/transfers.js";

const POLL_MS = 1000;
const POINTS = 120;
const EVENTS_SHOWN = 2000;
const GATHER_MS = 500; // events come in bursts: the page changes twice a second at most

function App() {
  const [view, argument] = useHash("transfers");
  const [state, setState] = useState({ status: null, downloads: [], uploads: [], groups: [], points: [], ended: "" });
  const [events, setEvents] = useState([]);
  const [live, setLive] = useState(false);
  const [changes, setChanges] = useState(0);
  const [notes, tell] = useTold();
  const main = useRef(null);

  // Runs one command; tells its error; returns its document, or null.
  const attempt = async (command, done = "") => {
    try {
      const found = await command();
      if (done) tell(done, "good");
      look();
      return found === undefined ? true : found;
    } catch (problem) {
      tell(problem.message, "bad", problem.hint || "");
      if (problem.code === "no-session") setState((old) => ({ ...old, ended: problem.message }));
      return null;
    }
  };

  const looking = useRef(false);
  const look = async () => {
    if (looking.current) return; // a slow peer is not asked twice
    looking.current = true;
    try {
      const status = await get("/status");
      const downloads = status.user ? await get("/downloads") : [];
      const uploads = (status.fetching || []).length ? (await get("/shares")).filter((row) => row.fetching.length) : [];
      const down = downloads.reduce((sum, row) => sum + (row.state === "downloading" ? row.rate_bytes_per_s : 0), 0);
      setState((old) => ({
        ...old, status, downloads, uploads, ended: "",
        points: [...old.points.slice(1 - POINTS), [down, status.up_bytes_per_s || 0]],
      }));
    } catch (problem) {
      setState((old) => ({ ...old, ended: problem instanceof Problem ? `${problem.message}. ${problem.hint}` : String(problem) }));
    } finally {
      looking.current = false;
    }
  };

  const user = state.status && state.status.user;
  useEffect(() => {
    look();
    const timer = setInterval(() => { if (!document.hidden) look(); }, POLL_MS);
    let last = 0, gathered = [];
    const show = () => {
      const news = gathered;
      gathered = [];
      setEvents((old) => [...news.reverse(), ...old].slice(0, EVENTS_SHOWN));
      setChanges((old) => old + 1);
    };
    onWrite(() => setChanges((old) => old + 1));
    listen((event) => {
      last += 1;
      if (last === 1 && event.event === "gap") return; // of those before this page
      if (!gathered.length) setTimeout(show, GATHER_MS);
      gathered.push({ ...event, key: last });
    }, setLive, "before");
    return () => clearInterval(timer);
  }, []);
  useEffect(() => {
    if (!user) return undefined;
    // Events come in bursts: one look serves them all.
    const timer = setTimeout(() => get("/groups").then((groups) => setState((old) => ({ ...old, groups })), () => {}), changes ? 300 : 0);
    return () => clearTimeout(timer);
  }, [user, changes, view]);
  useEffect(() => {
    if (main.current) main.current.focus({ preventScroll: true });
    const here = document.querySelector("nav [aria-current]");
    if (here) here.scrollIntoView({ block: "nearest", inline: "nearest" }); // a phone shows some of them
  }, [view, argument, state.status === null]);

  if (state.ended && !state.status) return html`<p class="boot" role="alert">${state.ended}</p>`;
  if (!state.status) return html`<p class="boot">Connecting…</p>`;
  const { status, downloads, uploads, groups, points } = state;
  const mine = groups.filter((row) => row.role === "owner" || row.role === "member");
  const link = (to, text, extra = "") => {
    const here = to === (argument ? `#${view}/${encodeURIComponent(argument)}` : `#${view}`);
    return html`<li key=${to}><a href=${to} aria-current=${here ? "page" : undefined}><span>${text}</span>${extra && html`<span>${extra}</span>`}</a></li>`;
  };
  const shared = { status, groups, attempt, tell };
  const notices = [state.ended, status.trouble, ...(status.away || [])].filter(Boolean);
  let body = html`<${LogIn} attempt=${attempt} />`;
  if (user && view === "groups") body = html`<${Groups} ...${shared} />`;
  else if (user && view === "group") body = html`<${Group} key=${argument} group=${argument} changes=${changes} ...${shared} />`;
  else if (user && view === "device") body = html`<${Device} ...${shared} />`;
  else if (user && view === "shares") body = html`<${Shares} ...${shared} />`;
  else if (user && view === "events") body = html`<${Events} events=${events} live=${live} />`;
  else if (user) body = html`<${Transfers} downloads=${downloads} uploads=${uploads} points=${points} ...${shared} />`;
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>Skip to the content</a>
    <div class="frame">
      <nav aria-label="Views"><div class="brand">Mini-Torrent</div>
        <ul>${link("#transfers", "Transfers", downloads.filter((row) => row.state === "downloading").length || "")}
          ${link("#shares", "Shares", status.shares || "")}${link("#groups", "Groups", status.requests || "")}
          ${mine.map((row) => link(`#group/${encodeURIComponent(row.group)}`, row.group, (status.requests_by_group || {})[row.group] || ""))}
          ${link("#events", "Events")}${link("#device", "Device")}</ul>
        <div class="who">${user || "not logged in"}${" "}${status.connected ? "" : "(tracker not connected)"}</div></nav>
      <main id="main" ref=${main} tabindex="-1">
        ${notices.map((text) => html`<div class="panel warn" role="status" key=${text}>${text}</div>`)}${body}</main>
    </div>
    <${Notes} notes=${notes} />`;
}

setUp({ first: "transfers", program: "the peer", start: "start it: mini-torrent up, then mini-torrent web" });
const root = document.getElementById("app");
const opened = await beginSession();
root.textContent = "";
if (opened) render(html`<${App} />`, root);
else render(html`<p class="boot" role="alert">This page was opened before, or too long ago. Open it again: <code>mini-torrent web</code></p>`, root);
