// Canvases of the page: pieces of a download, rates, and QR codes.

import { html, useEffect, useRef } from "/assets/preact.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function useCanvas(draw, inputs) {
  const canvas = useRef(null);
  useEffect(() => {
    const node = canvas.current;
    const paint = () => {
      const scale = window.devicePixelRatio || 1;
      const width = node.clientWidth, height = node.clientHeight;
      node.width = Math.round(width * scale);
      node.height = Math.round(height * scale);
      const pen = node.getContext("2d");
      pen.scale(scale, scale);
      draw(pen, width, height);
    };
    paint();
    window.addEventListener("resize", paint);
    return () => window.removeEventListener("resize", paint);
  }, inputs);
  return canvas;
}

// cells: [held 0..1, in flight 0..1, sources] each; availability stands under the pieces.
export function Strip({ cells }) {
  const canvas = useCanvas((pen, width, height) => {
    const most = Math.max(1, ...cells.map((cell) => cell[2]));
    const step = width / cells.length, top = height - 8;
    cells.forEach(([held, flight, sources], at) => {
      const x = Math.floor(at * step), w = Math.max(1, Math.floor((at + 1) * step) - x);
      pen.fillStyle = colour("--missing");
      pen.fillRect(x, 0, w, top);
      if (flight) { pen.fillStyle = colour("--flight"); pen.fillRect(x, top * (1 - held - flight), w, top * flight); }
      pen.fillStyle = colour("--held");
      pen.fillRect(x, top * (1 - held), w, top * held);
      pen.fillStyle = sources ? colour("--good") : colour("--bad");
      pen.globalAlpha = sources ? 0.35 + (0.65 * sources) / most : 1;
      pen.fillRect(x, top + 3, w, 5);
      pen.globalAlpha = 1;
    });
  }, [cells]);
  const held = cells.reduce((sum, cell) => sum + cell[0], 0) / Math.max(1, cells.length);
  return html`<div><canvas class="strip" ref=${canvas} role="img"
      aria-label=${`${Math.floor(held * 100)} percent of the pieces are held`}></canvas>
    <div class="legend"><span><i class="held"></i>held</span><span><i class="flight"></i>in flight</span>
      <span><i class="missing"></i>missing</span><span>below: sources of each piece</span></div></div>`;
}

// points: [down, up] in bytes a second, the newest last.
export function Graph({ points }) {
  const canvas = useCanvas((pen, width, height) => {
    const most = Math.max(1, ...points.flat());
    pen.strokeStyle = colour("--line");
    pen.strokeRect(0.5, 0.5, width - 1, height - 1);
    ["--down", "--up"].forEach((name, which) => {
      pen.strokeStyle = colour(name);
      pen.lineWidth = 2;
      pen.beginPath();
      points.forEach((point, at) => {
        const x = width - (points.length - 1 - at) * (width / 119);
        const y = height - 4 - ((height - 10) * point[which]) / most;
        if (at) pen.lineTo(x, y); else pen.moveTo(x, y);
      });
      pen.stroke();
    });
  }, [points]);
  return html`<canvas class="graph" ref=${canvas} role="img" aria-label="Rates of the last two minutes"></canvas>`;
}

// rows: strings of 0 and 1.
export function QrCode({ rows }) {
  const box = useRef(null);
  useEffect(() => {
    const node = box.current, side = rows.length, scale = Math.max(3, Math.floor(260 / (side + 8)));
    node.width = node.height = (side + 8) * scale;
    const pen = node.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, node.width, node.height);
    pen.fillStyle = "#000";
    rows.forEach((row, y) => [...row].forEach((bit, x) => {
      if (bit === "1") pen.fillRect((x + 4) * scale, (y + 4) * scale, scale, scale);
    }));
  }, [rows]);
  return html`<canvas ref=${box} class="qr" role="img" aria-label="QR code of the invitation"></canvas>`;
}
