/** A line of a plot; `x` in minutes. */
export interface Line {
  readonly name: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

/** One picture. */
export interface Plot {
  readonly title: string;
  readonly unit: string;
  readonly lines: readonly Line[];
  /** Moments that are marked with a vertical line, in minutes, and whether something was killed in them. */
  readonly marks: readonly { readonly x: number; readonly name: string; readonly isKill: boolean }[];
}

const WIDTH = 960;
const HEIGHT = 380;
const LEFT = 64;
const RIGHT = 210;
const TOP = 34;
const BOTTOM = 36;
const TICKS = 5;
/** Of Okabe and Ito, which the colour-blind can tell apart; then the same again, dashed. */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#999999'];

/** Draws a plot as SVG. */
export function drawPlot({ title, unit, lines, marks }: Plot): string {
  const points = lines.flatMap((line) => line.points);
  const lastX = Math.max(1e-9, ...points.map(({ x }) => x));
  const topY = niceCeiling(Math.max(1, ...points.map(({ y }) => y)));
  const atX = (x: number): number => LEFT + (x / lastX) * (WIDTH - LEFT - RIGHT);
  const atY = (y: number): number => HEIGHT - BOTTOM - (y / topY) * (HEIGHT - TOP - BOTTOM);
  const names = [...new Set(lines.map(({ name }) => name))];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="11">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    `<text x="${LEFT}" y="20" font-size="14">${escapeText(title)}${unit === '' ? '' : `, ${escapeText(unit)}`}</text>`,
    ...marks.map(
      ({ x, name, isKill }) =>
        `<line x1="${fixed(atX(x))}" x2="${fixed(atX(x))}" y1="${TOP}" y2="${HEIGHT - BOTTOM}" stroke="${isKill ? '#f4b6b6' : '#e6e6e6'}"><title>${escapeText(name)}</title></line>`,
    ),
    ...Array.from({ length: TICKS + 1 }, (_, tick) => {
      const y = (topY / TICKS) * tick;
      return `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${fixed(atY(y))}" y2="${fixed(atY(y))}" stroke="#ddd"/><text x="${LEFT - 6}" y="${fixed(atY(y) + 4)}" text-anchor="end">${label(y)}</text>`;
    }),
    ...Array.from({ length: TICKS + 1 }, (_, tick) => {
      const x = (lastX / TICKS) * tick;
      return `<text x="${fixed(atX(x))}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${label(x)} min</text>`;
    }),
    ...lines.map(({ name, points: own }) => {
      const path = own.map(({ x, y }) => `${fixed(atX(x))},${fixed(atY(y))}`).join(' ');
      return `<polyline fill="none" stroke-width="1.5" ${strokeOf(names.indexOf(name))} points="${path}"/>`;
    }),
    ...names.map((name, index) => {
      const y = TOP + 8 + index * 16;
      const x = WIDTH - RIGHT + 12;
      return `<line x1="${x}" x2="${x + 22}" y1="${y}" y2="${y}" stroke-width="2" ${strokeOf(index)}/><text x="${x + 28}" y="${y + 4}">${escapeText(name)}</text>`;
    }),
    '</svg>',
    '',
  ].join('\n');
}

function strokeOf(index: number): string {
  const dash = index >= COLOURS.length ? ' stroke-dasharray="4 3"' : '';
  return `stroke="${COLOURS[index % COLOURS.length]}"${dash}`;
}

/** 1, 2 or 5 times a power of ten that is not less. */
function niceCeiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 5, 10].find((each) => each * power >= value) ?? 10;
  return factor * power;
}

function label(value: number): string {
  return Number(value.toPrecision(3)).toString();
}

function fixed(value: number): string {
  return value.toFixed(1);
}

function escapeText(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
