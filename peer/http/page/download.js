// A download from the list of a group: destination, free space, chosen files, and who has it.

import { html, useEffect, useState } from "/assets/preact.js";
import { get, path, post } from "/assets/api.js";
import { clock, count, percent, size } from "/assets/format.js";
import { Dialog, Field, Form } from "/assets/parts.js";

const STATES = { holds: "complete", fetching: "downloading", follows: "", away: "paused" };

function Holders({ group, file }) {
  const [rows, setRows] = useState(null);
  useEffect(() => {
    get(path("groups", group, "files", file.name, "holders")).then(setRows, () => setRows([]));
  }, [group, file.name]);
  if (rows === null) return html`<p class="soft">Looking…</p>`;
  if (rows.length === 0) return html`<p class="soft">No device holds it.</p>`;
  return html`<div class="scroll"><table>
    <thead><tr><th>User</th><th>Device</th><th>State</th><th>Since</th></tr></thead>
    <tbody>${rows.slice(0, 500).map((row) => html`<tr key=${row.device}><td>${row.user}</td><td class="mono">${row.id}</td>
      <td><span class=${`chip ${STATES[row.state] || ""}`}>${row.state}${row.state === "fetching" ? ` ${percent(row.verified_bytes, row.size_bytes)} %` : ""}</span></td>
      <td class="small">${clock(row.since)}</td></tr>`)}</tbody></table></div>`;
}

const PATTERNS_MAX = 64;
const ENTRIES_SHOWN = 1000;
const LAST_FOLDER = "mini-torrent.folder"; // of this tab: the next download mostly goes there too

const literal = (text) => text.replace(/[*?[]/g, "[$&]");

// Patterns that match the chosen files and no others; a folder whose files are all chosen is one.
function patternsOf(entries, chosen) {
  const folders = new Map();
  for (const { path: at } of entries) {
    const folder = at.includes("/") ? at.slice(0, at.lastIndexOf("/")) : "";
    folders.set(folder, [...(folders.get(folder) || []), at]);
  }
  const patterns = [];
  for (const [folder, inside] of folders) {
    const wanted = inside.filter((at) => chosen.has(at));
    const deeper = [...folders.keys()].some((other) => other.startsWith(`${folder}/`));
    if (folder && !deeper && wanted.length === inside.length) patterns.push(`/${literal(folder)}/`);
    else patterns.push(...wanted.map((at) => `/${literal(at)}`));
  }
  return patterns;
}

// The space that is free where a path lies, asked for when typing has paused.
function Space({ dest, needed }) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    setFound(null);
    if (!dest.startsWith("/")) return undefined;
    const timer = setTimeout(() => get(`/space?path=${encodeURIComponent(dest)}`).then(setFound, () => {}), 300);
    return () => clearTimeout(timer);
  }, [dest]);
  if (found === null || found.free_bytes === null) return html`<p class="soft small" role="status">${" "}</p>`;
  const short = found.free_bytes < needed;
  return html`<p class=${`small ${short ? "bad" : "soft"}`} role="status">${size(found.free_bytes)} free in <span class="mono">${found.folder}</span>${short ? `, ${size(needed)} needed` : ""}</p>`;
}

function Entries({ entries, chosen, onChange, more }) {
  const turn = (at) => { const next = new Set(chosen); if (!next.delete(at)) next.add(at); onChange(next); };
  return html`<fieldset class="choice"><legend class="small soft">${chosen.size} of ${count(entries.length, "file")}${" "}
      <button type="button" onClick=${() => onChange(new Set(chosen.size ? [] : entries.map((one) => one.path)))}>${chosen.size ? "None" : "All"}</button></legend>
    ${entries.map((one) => html`<label key=${one.path}><input type="checkbox" checked=${chosen.has(one.path)} onChange=${() => turn(one.path)} />
      <span class="grow">${one.path}</span><span class="nowrap">${size(one.size_bytes)}</span></label>`)}
    ${more && html`<p class="soft small">More files are not listed here: use patterns.</p>`}</fieldset>`;
}

export function DownloadDialog({ group, file, attempt, tell, onClose }) {
  const [dest, setDest] = useState(sessionStorage.getItem(LAST_FOLDER) || "");
  const [listed, setListed] = useState(null);
  const [chosen, setChosen] = useState(new Set());
  const where = path("groups", group, "files", file.name);
  const list = () => attempt(() => get(`${where}?entries=${ENTRIES_SHOWN}`)).then((found) => {
    if (!found) return;
    const entries = found.entries.filter((one) => one.kind !== "folder");
    setListed({ entries, more: found.more });
    setChosen(new Set(entries.map((one) => one.path)));
  });
  const all = listed === null || chosen.size === listed.entries.length;
  const needed = all ? file.size_bytes
    : listed.entries.reduce((sum, one) => sum + (chosen.has(one.path) ? one.size_bytes : 0), 0);
  const submit = async ({ files, overwrite }) => {
    let globs = (files || "").split(",").map((glob) => glob.trim()).filter(Boolean);
    if (!all) globs = patternsOf(listed.entries, chosen);
    if (!all && !globs.length) return tell("Choose at least one file", "bad");
    if (globs.length > PATTERNS_MAX) {
      return tell(`Choose at most ${PATTERNS_MAX} files, or whole folders, or use patterns`, "bad");
    }
    const body = {
      dest, wait: false,
      ...(globs.length ? { files: globs } : {}), ...(overwrite ? { overwrite: true } : {}),
    };
    const done = await attempt(() => post(`${where}/download`, body), `Downloading ${file.name}`);
    if (done) { sessionStorage.setItem(LAST_FOLDER, dest); onClose(); }
    return done;
  };
  return html`<${Dialog} title=${`Download ${file.name}`} onClose=${onClose}>
    <p class="soft">${size(file.size_bytes)}, ${count(file.files, "file")}, ${count(file.seeders, "seeder")}</p>
    <p class="mono soft">${file.algorithm}:${file.digest}</p>
    <${Form} onSubmit=${submit} label="Download">
      <div><${Field} label="Folder on this machine, or a new path" name="dest" required placeholder="/data"
        value=${dest} onInput=${(event) => setDest(event.target.value)} />
      <${Space} dest=${dest} needed=${needed} /></div>
      ${file.files > 1 && (listed
        ? html`<${Entries} ...${listed} chosen=${chosen} onChange=${setChosen} />`
        : html`<div><button type="button" onClick=${list}>Choose files</button></div>`)}
      ${file.files > 1 && all && html`<${Field} label="Only these files (patterns with commas between them; all if empty)" name="files" />`}
      <label><input type="checkbox" name="overwrite" /> replace anything else that stands there</label>
    <//>
    <h3>Who has it</h3>
    <${Holders} group=${group} file=${file} />
  <//>`;
}
