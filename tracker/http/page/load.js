// Load of the tracker: graphs of the last hour, and what was refused.

import { html, useEffect, useRef, useState } from "/assets/preact.js";
import uPlot from "/assets/uplot.js";
import { get } from "/assets/api.js";
import { clock, duration, rate, size } from "/assets/format.js";
import { usePolled } from "/assets/polling.js";
import { Table } from "/assets/widgets.js";

const EVERY_MS = 2000;
const POINTS = 720;

const ms = (seconds) => (seconds === null || seconds === undefined ? "–" : seconds < 0.01 ? `${(seconds * 1000).toFixed(1)} ms` : `${Math.round(seconds * 1000)} ms`);
const perSecond = (value) => (value === null || value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} /s`);

// The points of the load; only new ones travel. After a restart of the tracker they begin anew.
export function useHistory() {
  const [points, setPoints] = useState([]);
  const known = useRef({ run: "", number: 0 });
  usePolled(async () => {
    let found = await get(`/history?after=${known.current.number}`);
    const anew = found.run !== known.current.run;
    if (anew && known.current.number) found = await get("/history");
    const last = found.points.length ? found.points[found.points.length - 1].number : known.current.number;
    known.current = { run: found.run, number: anew && !found.points.length ? 0 : last };
    if (anew || found.points.length) setPoints((old) => [...(anew ? [] : old), ...found.points].slice(-POINTS));
    return null;
  }, [], EVERY_MS);
  return points;
}

const clockOf = (seconds, withSeconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(withSeconds ? { second: "2-digit" } : {}) });
const BINARY = [...Array(13).keys()].flatMap((power) => [1, 2, 4, 8, 16, 32, 64, 128, 256, 512].map((step) => step * 1024 ** power)).slice(0, 60);

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function useScheme() {
  const [dark, setDark] = useState(0);
  useEffect(() => {
    const found = window.matchMedia("(prefers-color-scheme: dark)");
    const look = () => setDark((old) => old + 1);
    found.addEventListener("change", look);
    return () => found.removeEventListener("change", look);
  }, []);
  return dark;
}

// series: {title, colour, of(point), text(value)} each.
export function Graph({ title, points, series, height = 150 }) {
  const box = useRef(null), plot = useRef(null);
  const scheme = useScheme();
  const data = () => [points.map((point) => point.time_ms / 1000), ...series.map((one) => points.map((point) => one.of(point)))];
  useEffect(() => {
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
    const made = new uPlot({
      width: box.current.clientWidth || 300, height,
      padding: [8, 36, 0, 0], // half of the last time on the axis
      legend: { show: false }, cursor: { show: false },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.15 : 1] } },
      axes: [{ ...axis, space: 90, size: 32, values: (_, ticks) => ticks.map((tick) => clockOf(tick, ticks.length > 1 && ticks[1] - ticks[0] < 60)) },
        { ...axis, size: 84, ...(series[0].bytes ? { incrs: BINARY } : {}), values: (_, ticks) => ticks.map((tick) => series[0].text(tick)) }],
      series: [{}, ...series.map((one) => ({ stroke: colour(one.colour), width: 2, spanGaps: true, points: { show: false } }))],
    }, data(), box.current);
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: box.current.clientWidth || 300, height }));
    watch.observe(box.current);
    return () => { watch.disconnect(); made.destroy(); };
  }, [scheme]);
  useEffect(() => { if (plot.current) plot.current.setData(data()); }, [points]);
  const last = points.length ? points[points.length - 1] : null;
  const now = series.map((one) => `${one.title} ${last ? one.text(one.of(last)) : "–"}`);
  return html`<section class="panel graph"><h2>${title}</h2>
    <div ref=${box} class="plot" role="img" aria-label=${`${title}: ${now.join(", ")}`}></div>
    <div class="legend">${series.map((one, at) => html`<span><i style=${{ background: `var(${one.colour})` }}></i>${now[at]}</span>`)}</div></section>`;
}

export const TRAFFIC = [
  { title: "received", bytes: true, colour: "--down", of: (point) => point.received_bytes_per_s, text: (value) => (value ? rate(value) : "0") },
  { title: "sent", colour: "--up", of: (point) => point.sent_bytes_per_s, text: (value) => (value ? rate(value) : "0") },
];
export const COMMANDS = [
  { title: "commands", colour: "--down", of: (point) => point.commands_per_s, text: perSecond },
  { title: "refused", colour: "--bad", of: (point) => point.refused_per_s, text: perSecond },
];
const TIMES = [
  { title: "99 % of commands below", colour: "--down", of: (point) => point.p99_s, text: ms },
  { title: "a commit", colour: "--warn", of: (point) => point.commit_s, text: ms },
  { title: "delay of the loop", colour: "--soft", of: (point) => point.loop_lag_s, text: ms },
];
const QUEUE = [{ title: "waiting commands", colour: "--down", of: (point) => point.queue, text: (value) => `${Math.round(value * 10) / 10}` }];
const DEVICES = [{ title: "devices online", colour: "--up", of: (point) => point.devices_online, text: (value) => `${Math.round(value * 10) / 10}` }];
const DATABASE = [{ title: "database", bytes: true, colour: "--down", of: (point) => point.database_bytes, text: (value) => size(value) }];

export function Load({ status }) {
  const points = useHistory();
  const [load, trouble] = usePolled(() => get("/load"), [], EVERY_MS);
  if (load === null) return html`<h1>Load</h1><p class="panel soft">${trouble || "Looking…"}</p>`;
  const last = points.length ? points[points.length - 1] : {};
  const facts = [
    ["Commands", perSecond(last.commands_per_s)], ["99 % answered within", ms(last.p99_s)], ["A commit takes", ms(last.commit_s)],
    ["Waiting commands", load.queue.toLocaleString()], ["Database", `${size(load.database_bytes)}${load.writable ? "" : ", cannot be written"}`],
    ["Last backup", load.backup ? clock(load.backup) : "none"], ["Running for", duration(load.uptime_s)], ["Tickets signed", load.tickets.toLocaleString()],
  ];
  const refusals = Object.entries(load.refusals).sort((one, other) => other[1] - one[1]);
  const logins = Object.entries(load.logins);
  return html`<h1>Load</h1>${trouble && html`<p class="panel bad">${trouble}</p>`}
    ${status.trackers > 1 && html`<p class="soft">One of ${status.trackers} trackers: devices and traffic are those of all, the rest is of this one.</p>`}
    <div class="tiles facts">${facts.map(([name, value]) => html`<div class="tile"><span class="soft small">${name}</span><b>${value}</b></div>`)}</div>
    <div class="graphs"><${Graph} title="Commands a second" points=${points} series=${COMMANDS} /><${Graph} title="Times" points=${points} series=${TIMES} />
      <${Graph} title="Traffic, as the devices tell it" points=${points} series=${TRAFFIC} /><${Graph} title="Queue" points=${points} series=${QUEUE} />
      <${Graph} title="Devices" points=${points} series=${DEVICES} /><${Graph} title="Database" points=${points} series=${DATABASE} /></div>
    <section class="panel"><h2>Refused since the start</h2><${Table} caption="Refusals by reason" columns=${[["Reason"], ["Count", "number"]]} empty="Nothing was refused."
      rows=${refusals.map(([reason, number]) => ({ key: reason, cells: [reason.replace(/^refused /, ""), number.toLocaleString()] }))} />
      ${logins.length > 0 && html`<p class="soft">Logins: ${logins.map(([result, number]) => `${number.toLocaleString()} ${result}`).join(", ")}</p>`}</section>`;
}
