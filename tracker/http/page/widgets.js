// Widgets of the page: tables that fold on a phone, choices, health, and questions before a change.

import { html, useRef, useState } from "/assets/preact.js";
import { Dialog, Field, Form } from "/assets/parts.js";

// columns: [title, kind] each; kind "number" aligns to the right. rows: {key, cells, actions}.
export const Table = ({ caption, columns, rows, empty = "Nothing matches." }) => (rows.length === 0 ? html`<p class="empty">${empty}</p>` : html`
  <table class="folding"><caption class="hidden">${caption}</caption>
    <thead><tr>${columns.map(([title, kind]) => html`<th scope="col" class=${kind || ""}>${title}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${row.key}>${row.cells.map((cell, at) => (at === 0
      ? html`<th scope="row" class=${columns[0][1] || ""}>${cell}</th>`
      : html`<td class=${columns[at][1] || ""} data-label=${columns[at][0]}>${cell}</td>`))}</tr>`)}</tbody></table>`);

export const Search = ({ label, value, onChange }) => html`<label class="grow"><span>${label}</span>
  <input type="search" value=${value} onInput=${(event) => onChange(event.target.value)} /></label>`;

export const Tick = ({ label, value, onChange }) => html`<label class="tick"><input type="checkbox" checked=${value}
  onChange=${(event) => onChange(event.target.checked)} /> ${label}</label>`;

// options: [value, text, count] each.
export const Choice = ({ label, options, value, onChange }) => html`<div class="choice" role="group" aria-label=${label}>
  ${options.map(([name, text, count]) => html`<button key=${name} aria-pressed=${name === value} onClick=${() => onChange(name)}>
    ${text}${count === undefined ? "" : html` <span class="soft">${count.toLocaleString()}</span>`}</button>`)}</div>`;

const HEALTH = { healthy: "many seeders", single_seeder: "one seeder", unseeded: "no seeder" };
export const Health = ({ health, leechers = 0 }) => html`<span class=${`chip ${health}`}>${health === "unseeded" && leechers ? "no seeder, wanted" : HEALTH[health]}</span>`;

// A button that asks before it runs; `fields` are asked for in the same dialog. What is wrong stands in it:
// the rest of the page is out of reach meanwhile. `said` tells what was done.
export function Ask({ label, title, text, run, said, tell, fields = [], danger = true, done = "" }) {
  const [open, setOpen] = useState(false), [problem, setProblem] = useState(null);
  const button = useRef(null);
  const begin = () => { setProblem(null); setOpen(true); };
  const submit = async (typed) => {
    try {
      await run(typed);
    } catch (found) {
      setProblem(found);
      return false;
    }
    setOpen(false);
    if (button.current) button.current.focus();
    if (said) tell(said, "good");
    return true;
  };
  return html`<button ref=${button} class=${danger ? "danger" : ""} onClick=${begin} aria-haspopup="dialog">${label}</button>
    ${open && html`<${Dialog} title=${title} onClose=${() => setOpen(false)}>
      <p>${text}</p>
      ${problem && html`<p class="bad" role="alert">${problem.message}${problem.hint && html`<span class="soft small"> ${problem.hint}</span>`}</p>`}
      <${Form} onSubmit=${submit} label=${done || label} kind=${danger ? "main danger" : "main"}>
        ${fields.map((field) => (field.hidden ? html`<input key=${field.name} ...${field} />` : html`<${Field} key=${field.name} ...${field} />`))}
      <//><//>`}`;
}
