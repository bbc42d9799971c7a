// One group: its files, sharing, members, requests and invitations.

import { html, useEffect, useRef, useState } from "/assets/preact.js";
import { del, get, path, post, run } from "/assets/api.js";
import { clock, count, percent, rate, size } from "/assets/format.js";
import { QrCode } from "/assets/canvases.js";
import { Act, Dialog, Field, Form } from "/assets/parts.js";
import { DownloadDialog } from "/assets/download.js";

const ROW = 56; // height of a row of the list, in pixels, as in style.css

// A list that draws only the rows in view, so that 10,000 files stay smooth.
function FileList({ files, onDownload }) {
  const box = useRef(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  useEffect(() => {
    const node = box.current;
    const look = () => { setTop(node.scrollTop); setHeight(node.clientHeight); };
    look();
    node.addEventListener("scroll", look, { passive: true });
    window.addEventListener("resize", look);
    return () => { node.removeEventListener("scroll", look); window.removeEventListener("resize", look); };
  }, []);
  const first = Math.max(0, Math.floor(top / ROW) - 5);
  const last = Math.min(files.length, Math.ceil((top + height) / ROW) + 5);
  return html`
    <div class="files" ref=${box} tabindex="0" role="list" aria-label="Files of the group">
      <div class="space" style=${{ height: `${files.length * ROW}px` }}>
        ${files.slice(first, last).map((file, at) => html`
          <div class="file" role="listitem" key=${`${file.name}@${file.version}`} style=${{ top: `${(first + at) * ROW}px` }}>
            <div class="grow"><div class="name" title=${file.name}>${file.name}${file.version > 1 || file.current === false ? ` @${file.version}` : ""}</div>
              <div class="soft small">${size(file.size_bytes)}${file.files > 1 ? `, ${file.files} files` : ""}, <span class=${file.seeders ? "" : "bad"}>${count(file.seeders, "seeder")}</span>, by
                ${" "}${file.shared_by.slice(0, 3).join(", ")}${file.shared_by.length > 3 ? " …" : ""}</div></div>
            <button onClick=${() => onDownload(file.current === false ? { ...file, name: `${file.name}@${file.version}` } : file)} aria-label=${`Download ${file.name}`}>Download</button>
          </div>`)}
      </div>
    </div>`;
}

function Files({ group, changes, attempt, tell }) {
  const [files, setFiles] = useState(null);
  const [filter, setFilter] = useState("");
  const [wanted, setWanted] = useState(null);
  const [versions, setVersions] = useState(false);
  const where = path("groups", group, "files") + (versions ? "?versions=true" : "");
  useEffect(() => { attempt(() => get(where)).then((found) => found && setFiles(found)); }, [where, changes]);
  if (files === null) return html`<p class="soft">Looking…</p>`;
  const text = filter.toLowerCase();
  const matching = files.filter((file) => file.name.toLowerCase().includes(text));
  return html`<section class="panel">
    <div class="row spread"><h2>Files</h2>
      <label class="grow"><span>Filter</span><input value=${filter} onInput=${(event) => setFilter(event.target.value)} /></label>
      <label><input type="checkbox" checked=${versions} onChange=${() => setVersions(!versions)} /> earlier versions</label></div>
    ${matching.length === 0
      ? html`<p class="empty">${files.length ? "No name matches the filter." : "Nothing is shared in this group yet."}</p>`
      : html`<p class="soft small">${count(matching.length, "share")}</p>
        <${FileList} files=${matching} onDownload=${setWanted} />`}
    ${wanted && html`<${DownloadDialog} group=${group} file=${wanted} attempt=${attempt} tell=${tell} onClose=${() => setWanted(null)} />`}
  </section>`;
}

function Share({ group, attempt, tell }) {
  const [progress, setProgress] = useState(null);
  const submit = async ({ path: where, name, yes, replace }) => {
    const body = {
      path: where, ...(name ? { name } : {}), ...(yes ? { yes: true } : {}), ...(replace ? { replace: true } : {}),
    };
    const send = (more) => run(path("groups", group, "files"), { ...body, ...more }, setProgress);
    const done = await attempt(() => send({}).catch((problem) => {
      if (problem.code !== "needs-consent" || !confirm(`${problem.message}. Share it all the same?`)) throw problem;
      return send({ yes: true });
    }));
    setProgress(null);
    if (done) tell(`Shared ${done.name}`, "good", (done.notes || []).join("; "));
    return done;
  };
  return html`<section class="panel"><h2>Share</h2>
    <${Form} onSubmit=${submit} label="Share">
      <${Field} label="File or folder on this machine (absolute path)" name="path" required placeholder="/data/model.bin" />
      <${Field} label="Name in the group (the last part of the path if empty)" name="name" />
      <label><input type="checkbox" name="yes" /> also hidden and private files</label>
      <label><input type="checkbox" name="replace" /> as a new version, if the name is taken</label>
    <//>
    ${progress && html`<div role="status"><progress max=${progress.total || 1} value=${progress.done}></progress>
      <div class="soft small">${progress.stage}: ${percent(progress.done, progress.total)} %, ${rate(progress.rate)}</div></div>`}
  </section>`;
}

function Following({ group, attempt }) {
  const [rows, setRows] = useState([]);
  const look = () => attempt(() => get("/follows")).then((found) => found && setRows(found.filter((row) => row.group === group)));
  useEffect(() => { look(); }, [group]);
  const submit = async ({ path: where, match }) => {
    const globs = (match || "").split(",").map((glob) => glob.trim()).filter(Boolean);
    const done = await attempt(
      () => post(path("groups", group, "follow"), { path: where, ...(globs.length ? { globs } : {}) }), `Following ${group}`);
    look();
    return done;
  };
  const stop = (row) => () => attempt(() => post(path("groups", group, "unfollow"), { path: row.path })).then(look);
  return html`<section class="panel"><h2>Follow</h2>
    <p class="soft small">This device fetches every share of the group into a folder, now and whenever one appears or changes.</p>
    ${rows.map((row) => html`<div class="row spread" key=${row.path}><div class="grow"><span class="mono">${row.path}</span>
      <div class="soft small">${row.held} of ${count(row.matching, "share")} held${row.fetching ? `, ${row.fetching} fetching` : ""}${row.match.length ? `, only ${row.match.join(", ")}` : ""}
        ${row.reason && html` <span class="warn">${row.reason}</span>`}</div></div>
      <${Act} class="danger" run=${stop(row)}>Unfollow<//></div>`)}
    <${Form} onSubmit=${submit} label="Follow">
      <${Field} label="Folder on this machine (absolute path)" name="path" required placeholder="/data" />
      <${Field} label="Only these names (patterns with commas between them; all if empty)" name="match" />
    <//></section>`;
}

function Invitations({ group, attempt }) {
  const [rows, setRows] = useState([]);
  const [made, setMade] = useState(null);
  const look = () => attempt(() => get(path("groups", group, "invites"))).then((found) => found && setRows(found));
  useEffect(() => { look(); }, [group]);
  const submit = async ({ uses, days }) => {
    const body = { uses: Number(uses), life_s: Number(days) * 86400 };
    const done = await attempt(() => post(path("groups", group, "invites"), body));
    if (done) {
      const code = await attempt(() => post("/qr-code", { text: done.link }));
      setMade({ ...done, modules: code && code.modules });
      look();
    }
    return done;
  };
  return html`<section class="panel"><h2>Invitations</h2>
    <${Form} onSubmit=${submit} label="Invite">
      <${Field} label="Uses" name="uses" type="number" min="1" value="1" required />
      <${Field} label="Days" name="days" type="number" min="1" max="365" value="7" required />
    <//>
    ${rows.length > 0 && html`<div class="scroll"><table>
      <thead><tr><th>Id</th><th>Expires</th><th></th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.id}><td class="mono">${row.id}</td><td>${clock(row.expires)}</td>
        <td><${Act} class="danger" run=${() => attempt(() => del(path("groups", group, "invites", row.id))).then(look)}>Revoke<//></td></tr>`)}
      </tbody></table></div>`}
    ${made && html`<${Dialog} title="Invitation" onClose=${() => setMade(null)}>
      <p>Run this on the other machine. Everyone who has this line can join. It is shown only now.</p>
      <p class="mono">mini-torrent join '${made.link}'</p>
      <button onClick=${() => navigator.clipboard.writeText(`mini-torrent join '${made.link}'`)}>Copy</button>
      ${made.modules && html`<${QrCode} rows=${made.modules} />`}
    <//>`}
  </section>`;
}

function People({ group, owner, user, changes, attempt }) {
  const [members, setMembers] = useState([]);
  const [requests, setRequests] = useState([]);
  useEffect(() => {
    attempt(() => get(path("groups", group, "members"))).then((found) => found && setMembers(found));
    if (owner) attempt(() => get(path("groups", group, "requests"))).then((found) => found && setRequests(found));
  }, [group, owner, changes]);
  const answer = (who, what) => () => attempt(() => post(path("groups", group, "requests", who, what)));
  return html`
    ${requests.length > 0 && html`<section class="panel"><h2>Requests</h2>
      ${requests.map((row) => html`<div class="row spread" key=${row.user}><span class="name">${row.user}</span>
        <span class="row"><${Act} class="main" run=${answer(row.user, "accept")}>Accept<//>
        <${Act} class="danger" run=${answer(row.user, "reject")}>Reject<//></span></div>`)}</section>`}
    <section class="panel"><h2>Members</h2><div class="scroll"><table>
      <thead><tr><th>User</th><th>Role</th><th>Online</th><th>Since</th><th></th></tr></thead>
      <tbody>${members.map((row) => html`<tr key=${row.user}><td>${row.user}</td><td>${row.role}</td>
        <td>${row.online ? count(row.online, "device") : "–"}</td><td>${clock(row.since)}</td>
        <td>${owner && row.user !== user && html`<${Act} class="danger"
          run=${() => attempt(() => del(path("groups", group, "members", row.user)))}>Remove<//>`}</td></tr>`)}</tbody></table></div></section>`;
}

export function Group({ group, groups, status, changes, attempt, tell }) {
  const row = groups.find((one) => one.group === group);
  if (!row) return html`<h1>${group}</h1><p class="soft">There is no such group.</p>`;
  const owner = row.role === "owner", member = owner || row.role === "member";
  const leave = async () => {
    if (!confirm(`Leave ${group}? Your shares in it end.`)) return;
    if (await attempt(() => post(path("groups", group, "leave"), { yes: true }))) location.hash = "#groups";
  };
  return html`
    <div class="row spread"><h1>${group}</h1>${member && html`<${Act} class="danger" run=${leave}>Leave<//>`}</div>
    ${!member && html`<section class="panel"><p>${row.role === "pending" ? "You asked to join; the owner has not answered yet." : `${row.owner} owns this group.`}</p>
      ${row.role === "none" && html`<${Act} class="main" run=${() => attempt(() => post(path("groups", group, "join")))}>Ask to join<//>`}</section>`}
    ${member && html`
      <${Files} group=${group} changes=${changes} attempt=${attempt} tell=${tell} />
      <${Share} group=${group} attempt=${attempt} tell=${tell} />
      <${Following} group=${group} attempt=${attempt} />
      <${People} group=${group} owner=${owner} user=${status.user} changes=${changes} attempt=${attempt} />
      ${owner && html`<${Invitations} group=${group} attempt=${attempt} />`}`}`;
}

export function Groups({ groups, attempt }) {
  const create = ({ group }) => attempt(() => post("/groups", { group }), `Created ${group}`);
  const join = ({ link }) => attempt(() => post("/join", { link: link.trim().replace(/^mini-torrent join /, "").replace(/^'|'$/g, "") }), "Joined");
  return html`<h1>Groups</h1>
    <section class="panel">${groups.length === 0 && html`<p class="empty">There is no group yet.</p>`}
      ${groups.length > 0 && html`<div class="scroll"><table><thead><tr><th>Group</th><th>Owner</th><th class="number">Members</th><th>You</th></tr></thead>
        <tbody>${groups.map((row) => html`<tr key=${row.group}><td><a href=${`#group/${encodeURIComponent(row.group)}`}>${row.group}</a></td>
          <td>${row.owner}</td><td class="number">${row.members}</td><td>${row.role === "none" ? "–" : row.role}</td></tr>`)}</tbody></table></div>`}</section>
    <section class="panel"><h2>Create a group</h2><${Form} onSubmit=${create} label="Create"><${Field} label="Name" name="group" required maxlength="64" /><//></section>
    <section class="panel"><h2>Join by an invitation</h2><${Form} onSubmit=${join} label="Join"><${Field} label="Link or line of the invitation" name="link" required /><//></section>`;
}
