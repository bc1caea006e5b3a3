/**
 * Turns of the event loop: each poll for I/O, and what it brings, is one. Work that is put off to the end of the turn is done
 * once, however much came in.
 */

let turn = 0;
let atEnd: (() => void)[] = [];

/** Number of this turn. The first to ask in a turn has it end. */
export function currentTurn(): number {
  if (atEnd.length === 0) atTurnEnd(() => undefined);
  return turn;
}

/** Runs at the end of this turn. */
export function atTurnEnd(work: () => void): void {
  if (atEnd.length === 0) setImmediate(endTurn);
  atEnd.push(work);
}

function endTurn(): void {
  const works = atEnd;
  atEnd = [];
  turn++;
  for (const work of works) work();
}
