// Users and their devices, with the operator's actions.

import { html, useState } from "/assets/preact.js";
import { del, get, path, post } from "/assets/api.js";
import { clock, count, rate } from "/assets/format.js";
import { Act, Dialog } from "/assets/parts.js";
import { query, usePolled, useSettled } from "/assets/polling.js";
import { Ask, Search, Table, Tick } from "/assets/widgets.js";

const SHOWN = 200;
const EVERY_MS = 2000;

// A password that was made: shown once, and copied by a button.
function Password({ user, password, tell, onClose }) {
  const copy = async () => {
    try { await navigator.clipboard.writeText(password); tell("Copied", "good"); } catch { tell("The browser does not copy here; select the text", "bad"); }
  };
  return html`<${Dialog} title=${`New password of ${user}`} onClose=${onClose}>
    <p>Give it to ${user} over a channel that you trust. It is not shown again. All devices of ${user} are logged out.</p>
    <p class="secret mono" tabindex="0">${password}</p><div><button class="main" onClick=${copy}>Copy</button></div><//>`;
}

function Actions({ row, attempt, tell, onPassword }) {
  const to = path("users", row.user);
  const disable = (disabled) => post(`${to}/disabled`, { disabled });
  const reset = async ({ password = "" }) => {
    const found = await post(`${to}/password`, password ? { password } : {});
    if (found.password) onPassword(found.user, found.password);
  };
  return html`<div class="row actions">
    ${row.disabled ? html`<${Act} run=${() => attempt(() => disable(false), `${row.user} is enabled`)}>Enable<//>` : html`<${Ask} label="Disable" title=${`Disable ${row.user}`} run=${() => disable(true)} tell=${tell} said=${`${row.user} is disabled`}
      text=${`All devices of ${row.user} are shut out at once, until you enable the account again. Memberships and shares stay on record.`} />`}
    <${Ask} label="New password" title=${`New password for ${row.user}`} run=${reset} tell=${tell} said=${`${row.user} has a new password`} danger=${false} done="Set"
      text="Leave it empty for a random one. All devices are logged out."
      fields=${[{ name: "username", hidden: true, value: row.user, autocomplete: "username" }, { name: "password", label: "New password (6 characters at least)", type: "password", autocomplete: "new-password" }]} />
    <${Ask} label="Delete" title=${`Delete ${row.user}`} run=${() => del(to)} tell=${tell} said=${`${row.user} is deleted`}
      text=${`The account is deleted${row.groups ? `, and leaves ${count(row.groups, "group")}` : ""}.${row.owns ? ` Groups that ${row.user} owns pass to the member who joined first; one without other members is deleted.` : ""} This cannot be undone.`} /></div>`;
}

export function Users({ status, attempt, tell }) {
  const [text, setText] = useState(""), [online, setOnline] = useState(false), [made, setMade] = useState(null);
  const wanted = useSettled(text);
  const [rows, trouble] = usePolled(() => get(query("/users", { text: wanted, online, limit: SHOWN + 1 })), [wanted, online], EVERY_MS);
  const columns = [["User"], ["State"], ["Devices", "number"], ["Groups", "number"], ["Shares", "number"], ["Last seen"], ["Actions"]];
  return html`<h1>Users</h1><section class="panel">
    <div class="row"><${Search} label=${`Find among ${count(status.users, "user")}`} value=${text} onChange=${setText} /><${Tick} label="online only" value=${online} onChange=${setOnline} /></div>
    ${trouble && html`<p class="bad">${trouble}</p>`}
    ${rows === null ? html`<p class="empty">Looking…</p>` : html`<${Table} caption="Users" columns=${columns} empty=${status.users ? "No user matches." : "There is no account yet. Peers make one by mini-torrent create-user."}
      rows=${rows.slice(0, SHOWN).map((row) => ({ key: row.user, cells: [
        html`<span class="name">${row.user}</span>`,
        row.disabled ? html`<span class="chip failed">disabled</span>` : row.online ? html`<span class="chip complete">online</span>` : html`<span class="soft">offline</span>`,
        `${row.online} / ${row.devices}`, row.owns ? `${row.groups} (owns ${row.owns})` : row.groups, row.shares,
        row.online ? "now" : row.seen ? clock(row.seen) : "–",
        html`<${Actions} row=${row} attempt=${attempt} tell=${tell} onPassword=${(user, password) => setMade({ user, password })} />`] }))} />`}
    ${rows && rows.length > SHOWN && html`<p class="soft">The first ${SHOWN} are shown; type a part of a name to see others.</p>`}
  </section>${made && html`<${Password} ...${made} tell=${tell} onClose=${() => setMade(null)} />`}`;
}

export function Devices({ status }) {
  const [text, setText] = useState(""), [online, setOnline] = useState(true);
  const wanted = useSettled(text);
  const [rows, trouble] = usePolled(() => get(query("/devices", { text: wanted, online, limit: SHOWN + 1 })), [wanted, online], EVERY_MS);
  const columns = [["User"], ["Device"], ["Address"], ["Receives", "number"], ["Sends", "number"], ["Fetches", "number"], ["Holds", "number"], ["Seen"]];
  return html`<h1>Devices</h1><section class="panel">
    <div class="row"><${Search} label=${`Find among ${count(status.devices, "device")} by user, id or address`} value=${text} onChange=${setText} /><${Tick} label="online only" value=${online} onChange=${setOnline} /></div>
    ${trouble && html`<p class="bad">${trouble}</p>`}
    ${rows === null ? html`<p class="empty">Looking…</p>` : html`<${Table} caption="Devices" columns=${columns} empty=${online ? "No device that matches is online." : "No device matches."}
      rows=${rows.slice(0, SHOWN).map((row) => ({ key: row.key, cells: [
        html`<span class="name">${row.user}</span>${row.disabled ? html` <span class="chip failed">disabled</span>` : ""}`,
        html`<span class="mono" title=${row.key}>${row.key.slice(0, 8)}</span>`,
        html`<span class="mono">${row.address || "–"}</span>`, rate(row.received_bytes_per_s), rate(row.sent_bytes_per_s), row.fetching, row.holding,
        row.online ? html`<span class="chip complete">online</span>` : clock(row.seen)] }))} />`}
    ${rows && rows.length > SHOWN && html`<p class="soft">The busiest ${SHOWN} are shown; type a part of a name to see others.</p>`}
    <p class="soft small">Rates are those that the devices tell, every ten seconds${status.trackers > 1 ? "; those of devices at other trackers are not known here" : ""}.</p></section>`;
}
