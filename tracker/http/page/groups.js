// Groups, and one group with its members and shares.

import { html, useState } from "/assets/preact.js";
import { del, get, path } from "/assets/api.js";
import { clock, count, size } from "/assets/format.js";
import { query, usePolled, useSettled } from "/assets/polling.js";
import { SwarmRows } from "/assets/swarms.js";
import { Ask, Search, Table } from "/assets/widgets.js";

const SHOWN = 200;
const EVERY_MS = 3000;

export function Groups({ status }) {
  const [text, setText] = useState("");
  const wanted = useSettled(text);
  const [rows, trouble] = usePolled(() => get(query("/groups", { text: wanted, limit: SHOWN + 1 })), [wanted], EVERY_MS);
  const columns = [["Group"], ["Owner"], ["Members", "number"], ["Requests", "number"], ["Invitations", "number"], ["Shares", "number"], ["Size", "number"], ["Since"]];
  return html`<h1>Groups</h1><section class="panel">
    <div class="row"><${Search} label=${`Find among ${count(status.groups, "group")}`} value=${text} onChange=${setText} /></div>
    ${trouble && html`<p class="bad">${trouble}</p>`}
    ${rows === null ? html`<p class="empty">Looking…</p>` : html`<${Table} caption="Groups" columns=${columns} empty=${status.groups ? "No group matches." : "There is no group yet."}
      rows=${rows.slice(0, SHOWN).map((row) => ({ key: row.group, cells: [
        html`<a class="name" href=${`#group/${encodeURIComponent(row.group)}`}>${row.group}</a>`, row.owner,
        row.members, row.requests, row.invitations, row.shares, size(row.size_bytes), clock(row.created)] }))} />`}
    ${rows && rows.length > SHOWN && html`<p class="soft">The first ${SHOWN} are shown; type a part of a name to see others.</p>`}</section>`;
}

const ROLES = { owner: "owner", member: "member", pending: "asks to join" };

export function Group({ group, tell }) {
  const [members, trouble] = usePolled(() => get(path("groups", group, "members")), [group], EVERY_MS);
  const [swarms] = usePolled(() => get(query("/swarms", { group, limit: SHOWN })), [group], EVERY_MS);
  const remove = () => del(path("groups", group)).then(() => { location.hash = "#groups"; });
  if (trouble) return html`<h1>${group}</h1><p class="panel bad">${trouble}</p>`;
  const columns = [["User"], ["Role"], ["Since"], ["Devices online", "number"], ["Follows", "number"]];
  return html`<div class="row spread"><h1>${group}</h1><${Ask} label="Delete the group" title=${`Delete the group ${group}`} run=${remove} tell=${tell} said=${`the group ${group} is deleted`}
      text="Its members are shut out at once, and its list of shares and its log are deleted. They keep the files that they have. This cannot be undone." /></div>
    <section class="panel"><h2>Shares</h2>${swarms === null ? html`<p class="empty">Looking…</p>` : html`<${SwarmRows} rows=${swarms.rows} inGroup=${false} empty="Nothing is shared here." />`}</section>
    <section class="panel"><h2>Members</h2>${members === null ? html`<p class="empty">Looking…</p>` : html`<${Table} caption=${`Members of ${group}`} columns=${columns}
      rows=${members.slice(0, 500).map((row) => ({ key: `${row.role}/${row.user}`, cells: [html`<span class="name">${row.user}</span>`,
        row.role === "pending" ? html`<span class="chip paused">${ROLES.pending}</span>` : ROLES[row.role], clock(row.since), `${row.online} / ${row.devices}`, row.follows || "–"] }))} />`}
    ${members && members.length > 500 && html`<p class="soft">The first 500 of ${members.length.toLocaleString()} are shown.</p>`}</section>`;
}
