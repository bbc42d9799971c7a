// Shares by health, and who fetches them.

import { html, useState } from "/assets/preact.js";
import { get } from "/assets/api.js";
import { clock, count, percent, size } from "/assets/format.js";
import { query, usePolled, useSettled } from "/assets/polling.js";
import { Choice, Health, Search } from "/assets/widgets.js";

const SHOWN = 100;
const EVERY_MS = 3000;

const fetching = (row) => row.fetching.map((one) => `${one.user} ${percent(one.pieces, row.pieces)} %`).join(", ")
  + (row.leechers > row.fetching.length ? ` and ${row.leechers - row.fetching.length} more` : "");

export const SwarmRows = ({ rows, empty, inGroup = true }) => (rows.length === 0 ? html`<p class="empty">${empty}</p>` : html`
  <ul class="swarms">${rows.map((row) => html`<li key=${`${row.group}/${row.name}@${row.version}`}>
    <div class="row spread"><div class="grow"><span class="name">${row.name}${row.version > 1 ? `@${row.version}` : ""}</span>
        ${inGroup && html`<span class="soft"> in <a href=${`#group/${encodeURIComponent(row.group)}`}>${row.group}</a></span>`}</div><${Health} ...${row} /></div>
    <div class="row small soft"><span>${size(row.size_bytes)}</span><span>${count(row.seeders, "seeder")}</span><span>${count(row.leechers, "leecher")}</span>
      <span>${count(row.holders, "device holds", "devices hold")} it${row.holders > row.seeders ? `, ${row.holders - row.seeders} away` : ""}</span><span>since ${clock(row.since)}</span></div>
    ${row.leechers > 0 && html`<div class="small">Fetching: ${fetching(row)}</div>`}</li>`)}</ul>`);

// A bar of the shares by health; the numbers stand beside it as texts.
export const HealthBar = ({ found }) => {
  const parts = [["healthy", found.healthy, "many seeders"], ["single_seeder", found.single_seeder, "one seeder"], ["unseeded", found.unseeded, "no seeder"]];
  return html`<div class="healthbar" aria-hidden="true">${parts.map(([name, number]) => number > 0 && html`<i class=${name} style=${{ flexGrow: number }}></i>`)}</div>
    <div class="legend">${parts.map(([name, number, text]) => html`<span><i class=${name}></i>${text}: <b>${number.toLocaleString()}</b></span>`)}
      ${found.wanted > 0 && html`<span class="bad">wanted without a seeder: <b>${found.wanted.toLocaleString()}</b></span>`}</div>`;
};

export function Swarms() {
  const [text, setText] = useState(""), [health, setHealth] = useState("");
  const wanted = useSettled(text);
  const [found, trouble] = usePolled(() => get(query("/swarms", { text: wanted, health, limit: SHOWN })), [wanted, health], EVERY_MS);
  if (found === null) return html`<h1>Shares</h1><p class="panel soft">${trouble || "Looking…"}</p>`;
  const options = [["", "All", found.shares], ["unseeded", "No seeder", found.unseeded], ["single_seeder", "One", found.single_seeder], ["healthy", "Many", found.healthy]];
  return html`<h1>Shares</h1><section class="panel"><${HealthBar} found=${found} /></section>
    <section class="panel"><div class="row"><${Choice} label="Health" options=${options} value=${health} onChange=${setHealth} /><${Search} label="Find by name or group" value=${text} onChange=${setText} /></div>
      ${trouble && html`<p class="bad">${trouble}</p>`}
      <${SwarmRows} rows=${found.rows} empty=${found.shares ? "No share matches." : "Nothing is shared yet."} />
      ${found.matching > found.rows.length && html`<p class="soft">${found.rows.length} of ${found.matching.toLocaleString()} are shown, those that most devices fetch first.${found.complete ? "" : " Some that no device fetches are left out."}</p>`}</section>`;
}
