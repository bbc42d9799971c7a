// The latest lines of the tracker's log.

import { html, useRef, useState } from "/assets/preact.js";
import { get } from "/assets/api.js";
import { clock } from "/assets/format.js";
import { usePolled } from "/assets/polling.js";
import { Choice, Search } from "/assets/widgets.js";

const KEPT = 1000;
const SHOWN = 300;
const EVERY_MS = 2000;
const BAD = ["WARNING", "ERROR", "CRITICAL"];

export function Log() {
  const [text, setText] = useState(""), [level, setLevel] = useState(""), [lines, setLines] = useState(null);
  const last = useRef(0);
  const [, trouble] = usePolled(async () => {
    const found = await get(`/log?after=${last.current}`);
    if (found.length) last.current = found[found.length - 1].number;
    setLines((old) => (found.length || old === null ? [...found.reverse(), ...(old || [])].slice(0, KEPT) : old));
    return null;
  }, [], EVERY_MS);
  const wanted = text.toLowerCase();
  const rows = (lines || []).filter((row) => (!level || BAD.includes(row.level)) && (!wanted || `${row.text} ${row.source}`.toLowerCase().includes(wanted)));
  return html`<h1>Log</h1><section class="panel">
    <div class="row"><${Choice} label="Lines" options=${[["", "All"], ["bad", "Warnings and errors"]]} value=${level} onChange=${setLevel} /><${Search} label="Find in the log" value=${text} onChange=${setText} /></div>
    ${trouble && html`<p class="bad">${trouble}</p>`}
    ${lines !== null && rows.length === 0 && html`<p class="empty">${lines.length ? "No line matches." : "Nothing was logged."}</p>`}
    <ol class="log" reversed>${rows.slice(0, SHOWN).map((row) => html`<li key=${row.number} class=${row.level.toLowerCase()}>
      <span class="soft small">${clock(row.time)} ${BAD.includes(row.level) ? row.level.toLowerCase() : ""}</span> <span class="mono">${row.text}</span>
      <span class="soft small"> ${row.source}</span></li>`)}</ol>
    ${rows.length > SHOWN && html`<p class="soft">The latest ${SHOWN} are shown.</p>`}
    <p class="soft small">The whole log is in tracker.log in the tracker's home, or where its service manager keeps it.</p></section>`;
}
