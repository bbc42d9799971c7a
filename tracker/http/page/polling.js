// Answers that are asked for again and again while the page is seen.

import { useEffect, useState } from "/assets/preact.js";
import { onWrite } from "/assets/api.js";

const waiting = new Set();
onWrite(() => waiting.forEach((look) => look()));

// Returns the latest answer, or null, and what is wrong at the moment, or "".
// An answer that is the same as the one before changes nothing on the page.
export function usePolled(ask, inputs, everyMs) {
  const [state, setState] = useState({ found: null, text: "", trouble: "" });
  useEffect(() => {
    let ended = false, asking = false, again = false;
    const look = async () => {
      if (asking) { again = true; return; }
      asking = true;
      try {
        const found = await ask();
        const text = JSON.stringify(found);
        if (!ended) setState((old) => (old.text === text && !old.trouble ? old : { found, text, trouble: "" }));
      } catch (problem) {
        const trouble = [problem.message, problem.hint].filter(Boolean).join(". ");
        if (!ended) setState((old) => (old.trouble === trouble ? old : { ...old, trouble }));
      }
      asking = false;
      if (again && !ended) { again = false; look(); }
    };
    const timer = setInterval(() => { if (!document.hidden) look(); }, everyMs);
    const seen = () => { if (!document.hidden) look(); };
    document.addEventListener("visibilitychange", seen);
    waiting.add(look);
    look();
    return () => {
      ended = true;
      clearInterval(timer);
      document.removeEventListener("visibilitychange", seen);
      waiting.delete(look);
    };
  }, inputs);
  return [state.found, state.trouble];
}

// A text that follows what is typed after a moment, so that not each letter is a request.
export function useSettled(text, afterMs = 250) {
  const [settled, setSettled] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(text), afterMs);
    return () => clearTimeout(timer);
  }, [text]);
  return settled;
}

// A query of the values that are given.
export function query(where, values) {
  const found = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== false));
  return found.size ? `${where}?${found}` : where;
}
