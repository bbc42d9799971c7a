// Transfers: rates both ways, and each download with its reason, strip and sources.

import { html, useEffect, useState } from "/assets/preact.js";
import { get, path, post } from "/assets/api.js";
import { count, duration, percent, rate, size } from "/assets/format.js";
import { Graph, Strip } from "/assets/canvases.js";
import { Act } from "/assets/parts.js";

const PAGE = 100; // rows that are shown before a button asks for more

function Details({ row }) {
  const [sources, setSources] = useState(null);
  const [cells, setCells] = useState([]);
  useEffect(() => {
    let live = true;
    const look = async () => {
      if (document.hidden) return;
      try {
        const where = path("groups", row.group, "downloads", row.name);
        const [found, map] = await Promise.all([get(`${where}/sources`), get(`${where}/pieces`)]);
        if (live) { setSources(found); setCells(map.cells); }
      } catch { if (live) setSources([]); }
    };
    look();
    const timer = setInterval(look, 1000);
    return () => { live = false; clearInterval(timer); };
  }, [row.group, row.name]);
  return html`
    <div>
      ${cells.length > 0 && html`<${Strip} cells=${cells} />`}
      <h3>Sources</h3>
      ${sources === null ? html`<p class="soft">Looking…</p>` : sources.length === 0
        ? html`<p class="soft">No source is connected.</p>`
        : html`<div class="scroll"><table>
          <thead><tr><th>User</th><th class="number">Rate</th><th class="number">Pieces</th>
            <th class="number">In flight</th><th>State</th></tr></thead>
          <tbody>${sources.map((source) => html`<tr>
            <td>${source.user} <span class="soft small mono">${source.id}</span>
              <div class="soft small mono nowrap">${source.endpoint}</div></td>
            <td class="number">${rate(source.rate_bytes_per_s)}</td><td class="number">${source.pieces}</td>
            <td class="number">${source.in_flight}</td><td>${source.verdict}</td></tr>`)}</tbody></table></div>`}
    </div>`;
}

function Transfer({ row, attempt, open, onOpen }) {
  const where = path("groups", row.group, "downloads", row.name);
  const act = (command) => () => attempt(() => post(`${where}/${command}`));
  const running = row.state === "downloading";
  const version = row.version > 1 ? `@${row.version}` : "";
  return html`
    <article class="transfer" aria-label=${row.name}>
      <div class="row spread">
        <div class="grow"><span class="name">${row.name}${version}</span> <span class="soft">in ${row.group}</span></div>
        <span class=${`chip ${row.state}`}>${row.state}</span>
      </div>
      <progress class=${row.state} max="100" value=${percent(row.verified_bytes, row.size_bytes)}
        aria-label=${`${percent(row.verified_bytes, row.size_bytes)} percent`}></progress>
      <div class="row small soft">
        <span>${size(row.verified_bytes)} of ${size(row.size_bytes)}</span>
        ${running && html`<span>${rate(row.rate_bytes_per_s)}</span><span>${duration(row.eta_s)} left</span>
          <span>${count(row.sources.length, "source")}</span>`}
        ${row.reason && html`<span class=${row.state === "failed" ? "bad" : "warn"}>${row.reason}</span>`}
      </div>
      <div class="mono soft">${row.path}</div>
      <div class="row">
        ${running && html`<${Act} run=${act("pause")}>Pause<//>`}
        ${(row.state === "paused" || row.state === "failed") && html`<${Act} run=${act("resume")}>Resume<//>`}
        ${row.state !== "complete" && html`<${Act} run=${act("cancel")} class="danger">Cancel<//>`}
        ${row.state !== "complete" && html`<button aria-expanded=${open} onClick=${onOpen}>${open ? "Less" : "Why slow?"}</button>`}
      </div>
      ${open && html`<${Details} row=${row} />`}
    </article>`;
}

const Uploads = ({ rows }) => html`<section class="panel"><h2>Uploads</h2><div class="scroll"><table>
  <thead><tr><th>Share</th><th>To</th><th class="number">Rate</th></tr></thead>
  <tbody>${rows.flatMap((row) => row.fetching.map((one) => html`<tr key=${`${row.group}/${row.name}@${row.version}/${one.device}`}>
    <td><span class="name">${row.name}${row.version > 1 ? `@${row.version}` : ""}</span> <span class="soft">in ${row.group}</span></td>
    <td>${one.user} <span class="mono soft">${one.id}</span></td><td class="number">${rate(one.rate_bytes_per_s)}</td></tr>`)).slice(0, PAGE)}
  </tbody></table></div></section>`;

export function Transfers({ downloads, uploads, points, status, attempt }) {
  const [open, setOpen] = useState(null);
  const [shown, setShown] = useState(PAGE);
  const running = downloads.filter((row) => row.state === "downloading");
  const down = running.reduce((sum, row) => sum + row.rate_bytes_per_s, 0);
  const order = { downloading: 0, paused: 1, failed: 2, complete: 3 };
  const sorted = [...downloads].sort((a, b) => order[a.state] - order[b.state] || a.name.localeCompare(b.name));
  const complete = downloads.some((row) => row.state === "complete");
  return html`
    <h1>Transfers</h1>
    <section class="panel">
      <div class="row spread"><span>↓ ${rate(down)}${" "}<span class="soft">↑ ${rate(status.up_bytes_per_s || 0)}</span></span>
        <span class="soft">${count(running.length, "download")} running, ${count(status.shares, "share")} served</span></div>
      <${Graph} points=${points} />
      <div class="legend"><span><i class="down"></i>down</span><span><i class="up"></i>up</span></div>
    </section>
    ${uploads.length > 0 && html`<${Uploads} rows=${uploads} />`}
    <section class="panel">
      ${complete && html`<div class="row spread"><h2>Downloads</h2>
        <${Act} run=${() => attempt(() => post("/downloads/clear"))}>Clear complete<//></div>`}
      ${sorted.length === 0 && html`<p class="empty">Nothing was downloaded yet. Open a group to see its files.</p>`}
      ${sorted.slice(0, shown).map((row) => {
        const key = `${row.group}/${row.name}/${row.path}`;
        return html`<${Transfer} key=${key} row=${row} attempt=${attempt} open=${open === key}
          onOpen=${() => setOpen(open === key ? null : key)} />`;
      })}
      ${sorted.length > shown && html`<button onClick=${() => setShown(shown + PAGE)}>
        Show more (${(sorted.length - shown).toLocaleString()})</button>`}
    </section>`;
}
