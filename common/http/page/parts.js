// Parts of all pages: the view of the address, notes, dialogs, and forms that run one command.

import { html, useEffect, useRef, useState } from "/assets/preact.js";

// The view that the address names, and its argument.
export function useHash(first) {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const look = () => setHash(location.hash);
    window.addEventListener("hashchange", look);
    return () => window.removeEventListener("hashchange", look);
  }, []);
  const [view, ...rest] = hash.slice(1).split("/");
  return [view || first, rest.map(decoded).join("/")];
}

// A hash that somebody typed may be no encoding at all.
function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

export function useTold() {
  const [notes, setNotes] = useState([]);
  const tell = (text, kind = "", hint = "") => {
    const id = Math.random();
    setNotes((old) => [...old.slice(-4), { id, text, kind, hint }]);
    setTimeout(() => setNotes((old) => old.filter((note) => note.id !== id)), kind === "bad" ? 12000 : 6000);
  };
  return [notes, tell];
}

export const Notes = ({ notes }) => html`
  <div class="notes" role="status" aria-live="polite">
    ${notes.map((note) => html`
      <div class=${`note ${note.kind}`} key=${note.id}>${note.text}
        ${note.hint && html`<div class="soft small">${note.hint}</div>`}</div>`)}
  </div>`;

export function Dialog({ title, onClose, children }) {
  const box = useRef(null);
  useEffect(() => {
    box.current.showModal();
    const first = box.current.querySelector("input");
    if (first) first.focus();
  }, []);
  return html`
    <dialog ref=${box} onClose=${onClose} aria-label=${title}>
      <div class="row spread"><h2>${title}</h2>
        <button onClick=${() => box.current.close()} aria-label="Close">✕</button></div>
      ${children}
    </dialog>`;
}

// A form of one command: it is disabled while the command runs.
export function Form({ onSubmit, label, children, kind = "main" }) {
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const form = event.target;
    setBusy(true);
    const done = await onSubmit(Object.fromEntries(new FormData(form)), form);
    setBusy(false);
    if (done) form.reset();
  };
  return html`<form class="fields" onSubmit=${submit}>${children}
    <div><button class=${kind} disabled=${busy}>${busy ? "…" : label}</button></div></form>`;
}

export const Field = ({ label, ...rest }) => html`<label><span>${label}</span><input ...${rest} /></label>`;

// A button of one command: it is disabled while the command runs.
export function Act({ run, children, ...rest }) {
  const [busy, setBusy] = useState(false);
  const click = async () => { setBusy(true); await run(); setBusy(false); };
  return html`<button disabled=${busy} onClick=${click} ...${rest}>${children}</button>`;
}
