// Overview: what runs, what needs the operator, and the actions on the tracker itself.

import { html, useEffect, useState } from "/assets/preact.js";
import { get, post } from "/assets/api.js";
import { clock, count, duration, size } from "/assets/format.js";
import { COMMANDS, Graph, TRAFFIC, useHistory } from "/assets/load.js";
import { Field, Form } from "/assets/parts.js";
import { query, usePolled } from "/assets/polling.js";
import { HealthBar, SwarmRows } from "/assets/swarms.js";
import { Ask, Table } from "/assets/widgets.js";

const EVERY_MS = 3000;
const BACKUP_DAYS = 7;
const MODES = [["open", "All may make an account"], ["invite", "Only with an invitation"], ["closed", "No new accounts"]];

function warnings(load) {
  const found = [];
  if (!load) return found;
  if (!load.writable) found.push(["bad", "The database cannot be written: changes are refused. Usually the disk is full."]);
  if (!load.backup) found.push(["warn", "There is no backup yet. Without one, a lost disk loses all accounts and groups."]);
  else if (Date.now() - new Date(load.backup) > BACKUP_DAYS * 86400e3) found.push(["warn", `The last backup is of ${clock(load.backup)}.`]);
  if (load.loop_lag_s > 0.5) found.push(["warn", `The tracker is busy: timers are ${load.loop_lag_s.toFixed(1)} s late.`]);
  return found;
}

function Checks() {
  const [rows, setRows] = useState(null), [trouble, setTrouble] = useState("");
  useEffect(() => { get("/checks").then(setRows, (problem) => setTrouble(problem.message)); }, []);
  return html`<section class="panel"><h2>Checks</h2>${trouble && html`<p class="bad">${trouble}</p>`}
    ${rows === null ? html`<p class="empty">${trouble ? "" : "Checking…"}</p>` : html`<${Table} caption="Checks" columns=${[["Check"], ["Found"]]}
      rows=${rows.map((row, at) => ({ key: at, cells: [row.check, html`<span class=${row.health === "ok" ? "" : row.health === "bad" ? "bad" : "warn"}>${row.found}</span>
        ${row.hint && html`<div class="soft small">${row.hint}</div>`}`] }))} />`}</section>`;
}

function Tracker({ status, load, attempt, tell }) {
  const register = (mode) => attempt(() => post("/registration", { mode }), `registration is ${mode}`);
  const backUp = ({ file, replace }) => attempt(async () => {
    const found = await post("/backup", { file, replace: replace === "on" });
    return found;
  }, `the backup is written: ${file}. It holds all secrets: keep it safe.`);
  const rows = [["Link", html`<span class="mono">${status.link}</span>`], ["Home", html`<span class="mono">${status.home}</span>`],
    ["Process", `${status.pid}, running for ${duration(status.uptime_s)}`], ["Database", `${size(status.database_bytes)}${status.trackers > 1 ? `, shared by ${status.trackers} trackers` : ""}`],
    ["Last backup", load && load.backup ? clock(load.backup) : "none"], ["Entries in all logs", status.log_head.toLocaleString()]];
  return html`<div class="halves"><section class="panel"><h2>Tracker</h2><${Table} caption="The tracker" columns=${[["What"], ["Value"]]} rows=${rows.map(([name, value]) => ({ key: name, cells: [name, value] }))} />
      <p><${Ask} label="Stop the tracker" title="Stop the tracker" done="Stop" run=${() => post("/stop")} tell=${tell} said="the tracker stops"
        text="Transfers between peers go on; commands, logins and new downloads wait until it runs again. This page ends with it." /></p></section>
    <div><section class="panel"><h2>Registration</h2><label><span>Who may make an account</span>
        <select value=${status.registration} onChange=${(event) => register(event.target.value)}>${MODES.map(([mode, text]) => html`<option key=${mode} value=${mode} selected=${mode === status.registration}>${text}</option>`)}</select></label></section>
      <section class="panel"><h2>Backup</h2><${Form} onSubmit=${backUp} label="Back up"><${Field} label="File on the tracker's machine (absolute path)" name="file" required pattern="/.+" placeholder="/mnt/backup/tracker.db" />
        <label class="tick"><input type="checkbox" name="replace" /> replace it if it is there</label><//></section></div></div>`;
}

export function Overview({ status, attempt, tell }) {
  const points = useHistory();
  const [load] = usePolled(() => get("/load"), [], EVERY_MS);
  const [swarms] = usePolled(() => get(query("/swarms", { health: "unseeded", limit: 5 })), [], EVERY_MS);
  const tiles = [["Users online", status.users_online, `of ${count(status.users, "account")}`, "users"], ["Devices online", status.devices_online, `of ${status.devices.toLocaleString()} logged in`, "devices"],
    ["Groups", status.groups, "", "groups"], ["Shares", status.shares, "", "shares"]];
  const wanted = swarms ? swarms.rows.filter((row) => row.leechers > 0) : [];
  return html`<h1>Overview</h1>
    ${warnings(load).map(([kind, text]) => html`<div class=${`panel ${kind}`} role="status" key=${text}>${text}</div>`)}
    <div class="tiles">${tiles.map(([name, number, more, view]) => html`<a class="tile" key=${view} href=${`#${view}`}><span class="soft small">${name}</span><b>${number.toLocaleString()}</b><span class="soft small">${more}</span></a>`)}</div>
    <section class="panel"><h2>Shares by health</h2>${swarms ? html`<${HealthBar} found=${swarms} />` : html`<p class="soft">Looking…</p>`}
      ${wanted.length > 0 && html`<h3>Wanted, and no device online holds them</h3><${SwarmRows} rows=${wanted} />`}</section>
    <div class="graphs"><${Graph} title="Traffic, as the devices tell it" points=${points} series=${TRAFFIC} /><${Graph} title="Commands a second" points=${points} series=${COMMANDS} /></div>
    <${Tracker} status=${status} load=${load} attempt=${attempt} tell=${tell} /><${Checks} />`;
}
