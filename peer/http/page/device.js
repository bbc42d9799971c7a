// This device: state, checks, account and the user's other devices; and the form to log in.

import { html, useEffect, useState } from "/assets/preact.js";
import { del, get, path, post } from "/assets/api.js";
import { clock, rate, size } from "/assets/format.js";
import { Act, Field, Form } from "/assets/parts.js";

export function LogIn({ attempt }) {
  const logIn = ({ user, password }) => attempt(() => post("/login", { user, password }));
  const create = async ({ user, password, again }) => {
    if (password !== again) throw new Error("the two passwords differ");
    return (await post("/users", { user, password })) && post("/login", { user, password });
  };
  return html`<h1>Welcome</h1>
    <section class="panel"><h2>Log in</h2><${Form} onSubmit=${logIn} label="Log in">
      <${Field} label="User" name="user" required autocomplete="username" />
      <${Field} label="Password" name="password" type="password" required autocomplete="current-password" /><//></section>
    <section class="panel"><h2>Create an account</h2><${Form} onSubmit=${(found) => attempt(() => create(found))} label="Create">
      <${Field} label="User" name="user" required autocomplete="username" />
      <${Field} label="Password" name="password" type="password" required autocomplete="new-password" />
      <${Field} label="Password once more" name="again" type="password" required autocomplete="new-password" /><//></section>`;
}

export function Device({ status, attempt }) {
  const [devices, setDevices] = useState([]);
  const [checks, setChecks] = useState([]);
  const look = () => attempt(() => get("/devices")).then((found) => found && setDevices(found));
  useEffect(() => { look(); attempt(() => get("/checks")).then((found) => found && setChecks(found)); }, []);
  const change = ({ old, new: fresh, again }) => attempt(async () => {
    if (fresh !== again) throw new Error("the two passwords differ");
    return post("/password", { old, new: fresh });
  }, "The password is changed; your other devices are logged out");
  const rows = [["User", status.user], ["Tracker", `${status.tracker} (${status.connected ? "connected" : "not connected"})`],
    ["Listens at", status.announced || status.listen || "not listening yet"], ["Device", status.device],
    ["Release", status.version], ["Home", status.home]];
  return html`<h1>This device</h1>
    ${(status.trouble || status.advice) && html`<div class="panel warn">${status.trouble || status.advice}</div>`}
    <section class="panel"><div class="scroll"><table><tbody>${rows.map(([name, value]) => html`<tr><th scope="row">${name}</th><td class="mono">${value || "–"}</td></tr>`)}</tbody></table></div>
      <p class="row"><${Act} class="danger" run=${() => confirm("Log out? Your shares are no longer served from here.") && attempt(() => post("/logout"))}>Log out<//></p></section>
    <${Limits} attempt=${attempt} />
    <section class="panel"><h2>Checks</h2><div class="scroll"><table><tbody>${checks.map((row) => html`<tr><th scope="row">${row.check}</th>
      <td class=${row.ok ? "" : "bad"}>${row.found}${row.hint && html`<div class="soft small">${row.hint}</div>`}</td></tr>`)}</tbody></table></div></section>
    <section class="panel"><h2>Your devices</h2><div class="scroll"><table><thead><tr><th>Id</th><th>Seen</th><th>Address</th><th></th></tr></thead>
      <tbody>${devices.map((row) => html`<tr key=${row.id}><td class="mono">${row.id}${row.this ? " (this one)" : ""}</td>
        <td>${row.online ? "online" : clock(row.seen)}</td><td class="mono">${row.address || "–"}</td>
        <td>${!row.this && html`<${Act} class="danger" run=${() => attempt(() => del(path("devices", row.id))).then(look)}>Log out<//>`}</td></tr>`)}</tbody></table></div></section>
    <section class="panel"><h2>Change the password</h2><${Form} onSubmit=${change} label="Change">
      <input hidden name="username" autocomplete="username" value=${status.user} />
      <${Field} label="Old password" name="old" type="password" required autocomplete="current-password" />
      <${Field} label="New password" name="new" type="password" required autocomplete="new-password" />
      <${Field} label="New password once more" name="again" type="password" required autocomplete="new-password" /><//></section>`;
}

export function Shares({ attempt }) {
  const [rows, setRows] = useState(null);
  useEffect(() => {
    const look = () => document.hidden || attempt(() => get("/shares")).then((found) => found && setRows(found));
    look();
    const timer = setInterval(look, 2000);
    return () => clearInterval(timer);
  }, []);
  if (rows === null) return html`<h1>Shares</h1><p class="soft">Looking…</p>`;
  const stop = (row) => () => confirm(`Stop sharing ${row.name} from this device?`)
    && attempt(() => post(path("groups", row.group, "files", row.name, "stop-share")));
  return html`<h1>Shares</h1><section class="panel">
    ${rows.length === 0 && html`<p class="empty">This device shares nothing.</p>`}
    ${rows.slice(0, 500).map((row) => html`<article class="transfer" key=${`${row.group}/${row.name}@${row.version}`}>
      <div class="row spread"><div class="grow"><span class="name">${row.name}${row.version > 1 ? `@${row.version}` : ""}</span> <span class="soft">in ${row.group}</span></div>
        <span class="chip">${row.state}</span></div>
      <div class="mono soft">${row.path}</div>
      <div class="row small soft"><span>${row.size_bytes === null ? "" : size(row.size_bytes)}</span><span>${size(row.served_bytes)} sent</span>
        ${row.expires && html`<span>until ${clock(row.expires)}</span>`}${row.reason && html`<span class="warn">${row.reason}</span>`}</div>
      ${row.fetching.map((one) => html`<div class="small">${one.user} ${one.id ? html`<span class="mono">${one.id}</span>` : ""} fetches with ${rate(one.rate_bytes_per_s)}</div>`)}
      <div><${Act} class="danger" run=${stop(row)}>Stop sharing<//></div></article>`)}</section>`;
}

const LIMITS = [["up", "Upload"], ["down", "Download"], ["up_per_user", "Upload of each user"], ["down_per_user", "Download of each user"]];
const NUMBER = /^([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)$/i;
const SCALE = { "": 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 };

function Limits({ attempt }) {
  const [row, setRow] = useState(null);
  useEffect(() => { attempt(() => post("/limits", {})).then((found) => found && setRow(found)); }, []);
  const submit = (typed) => attempt(async () => {
    const body = {};
    for (const [name, label] of LIMITS) {
      const text = typed[name].trim();
      if (!text) continue;
      const found = NUMBER.exec(text);
      if (!found && text !== "off") throw new Error(`${label}: write 5M, 800K, or off`);
      body[name] = found ? Math.round(Number(found[1]) * SCALE[found[2].toUpperCase()]) : 0;
    }
    if (typed.schedule.trim()) body.schedule = typed.schedule.trim();
    const made = await post("/limits", body);
    setRow(made);
    return made;
  }, "The limits are changed");
  if (row === null) return null;
  return html`<section class="panel"><h2>Limits</h2>
    <p class="soft small">Bytes a second, such as 5M or 800K; off for none. Empty fields stay as they are.</p>
    <p class="soft">${LIMITS.map(([name, label]) => `${label}: ${row[`${name}_bytes_per_s`] ? rate(row[`${name}_bytes_per_s`]) : "none"}`).join(" · ")}
      ${row.schedule && html`<br />Timetable: <span class="mono">${row.schedule}</span>${row.until ? `, next change ${clock(row.until)}` : ""}`}</p>
    <${Form} onSubmit=${submit} label="Change">
      ${LIMITS.map(([name, label]) => html`<${Field} key=${name} label=${label} placeholder=${row[`${name}_bytes_per_s`] ? rate(row[`${name}_bytes_per_s`]) : "off"} name=${name} />`)}
      <${Field} label="Timetable, such as 08:00,5M 18:00,off; off for none" name="schedule" />
    <//></section>`;
}

export function Events({ events, live }) {
  const [filter, setFilter] = useState("");
  const text = filter.toLowerCase();
  const rows = events.filter((row) => !text || JSON.stringify(row).toLowerCase().includes(text)).slice(0, 300);
  return html`<h1>Events</h1>
    <section class="panel"><div class="row spread"><label class="grow"><span>Filter</span><input value=${filter} onInput=${(event) => setFilter(event.target.value)} /></label>
      <span class=${live ? "good" : "warn"}>${live ? "live" : "connecting…"}</span></div>
    ${rows.length === 0 ? html`<p class="empty">Nothing has happened since the page of this peer was opened first.</p>` : html`<div class="scroll"><table>
      <thead><tr><th>Time</th><th>Group</th><th>Event</th><th>Details</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.key}><td>${clock(row.time)}</td><td>${row.group}</td><td>${row.event}</td>
        <td class="small">${details(row)}</td></tr>`)}</tbody></table></div>`}</section>`;
}

const LEFT_OUT = ["time", "group", "event", "seq", "key", "content", "digest", "algorithm"];
const details = (row) => Object.entries(row).filter(([name]) => !LEFT_OUT.includes(name))
  .map(([name, value]) => `${name} ${value}`).join(", ");
